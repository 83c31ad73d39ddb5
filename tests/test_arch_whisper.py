"""Whisper against transformers."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from torch.utils.flop_counter import FlopCounterMode
from transformers import WhisperConfig, WhisperForConditionalGeneration

from budget.arch.whisper import Config, build
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward

TOKENS = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "vocab_size": 99,
}
CASES = [
    (
        {
            "d_model": 48,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 40,
            "decoder_ffn_dim": 30,
        },
        {
            "d_model": 48,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "heads": 6,
            "decoder_heads": 4,
            "d_ff": 40,
            "decoder_d_ff": 30,
        },
        2,
        7,
    ),
    (
        {
            "d_model": 30,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 3,
            "decoder_attention_heads": 3,
            "encoder_ffn_dim": 7,
            "decoder_ffn_dim": 7,
            "num_mel_bins": 13,
            "max_source_positions": 20,
            "max_target_positions": 9,
        },
        {"d_model": 30, "encoder_layers": 1, "heads": 3, "d_ff": 7, "mels": 13, "frames": 40, "context": 9},
        1,
        9,
    ),
]


def real_model(hf):
    with torch.device("meta"):
        config = WhisperConfig(**TOKENS, **hf, attn_implementation="eager")
        return WhisperForConditionalGeneration(config).eval()


def inputs(real, batch, seq):
    c = real.config
    mel = torch.empty(batch, c.num_mel_bins, 2 * c.max_source_positions, device="meta")
    return mel, torch.ones(batch, seq, dtype=torch.long, device="meta")


@pytest.mark.parametrize(("hf", "config", "batch", "seq"), CASES)
def test_equals_transformers(hf, config, batch, seq):
    real = real_model(hf)
    mel, ids = inputs(real, batch, seq)
    expected = count_flops(real, mel, labels=ids, decoder_attention_mask=ids, use_cache=False)
    ours = backward(build(Config(vocab=99, **config), Workload(batch=batch, seq=seq)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


@pytest.mark.parametrize(("hf", "config", "batch", "seq"), CASES)
def test_decode_equals_transformers(hf, config, batch, seq):
    real = real_model(hf)
    mel, ids = inputs(real, batch, seq)
    masks = {"decoder_attention_mask": ids[:, 1:]}
    with torch.no_grad():
        first = real(mel, decoder_input_ids=ids[:, 1:], use_cache=True, **masks)
        with FlopCounterMode(display=False) as counter:
            real(
                encoder_outputs=(first.encoder_last_hidden_state,),
                decoder_input_ids=ids[:, :1],
                past_key_values=first.past_key_values,
                decoder_attention_mask=ids,
            )
    ours = build(Config(vocab=99, **config), Workload("decode", batch=batch, seq=seq))
    assert flops(ours).forward == counter.get_total_flops()
    assert params(ours).total == count_params(real)


def test_bad_input_names_the_field():
    with pytest.raises(InputError, match="seq"):
        build(Config(), Workload(seq=449))
