"""T5 and BART against transformers."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from oracles.memory import peak
from torch.utils.flop_counter import FlopCounterMode
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from budget.arch.encoder_decoder import Config, build
from budget.config import Workload
from budget.errors import InputError
from budget.estimate import estimate
from budget.fold.count import flops, params
from budget.plan.backward import backward

BART = {
    "positions": "learned",
    "position_offset": 2,
    "norm": "layer_norm",
    "residual": "post",
    "embed_norm": True,
    "activation": "gelu",
    "bias": True,
    "scale_scores": True,
    "head_scale": False,
    "head_bias": True,
}
CASES = [
    (
        {"d_model": 48, "d_kv": 7, "d_ff": 40, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 5},
        {"d_model": 48, "head_dim": 7, "d_ff": 40, "encoder_layers": 3, "decoder_layers": 2, "heads": 5},
    ),
    (
        {
            "d_model": 48,
            "d_kv": 8,
            "d_ff": 40,
            "num_layers": 1,
            "num_heads": 6,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "relative_attention_num_buckets": 20,
        },
        {
            "d_model": 48,
            "d_ff": 40,
            "encoder_layers": 1,
            "heads": 6,
            "gated": True,
            "activation": "gelu_new",
            "head_scale": False,
            "buckets": 20,
        },
    ),
    (
        {
            "d_model": 48,
            "encoder_ffn_dim": 40,
            "decoder_ffn_dim": 30,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 4,
            "max_position_embeddings": 64,
        },
        {
            **BART,
            "d_model": 48,
            "d_ff": 40,
            "decoder_d_ff": 30,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "heads": 6,
            "decoder_heads": 4,
            "context": 64,
        },
    ),
    (
        {
            "d_model": 30,
            "encoder_ffn_dim": 7,
            "decoder_ffn_dim": 7,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 3,
            "decoder_attention_heads": 3,
            "max_position_embeddings": 16,
            "scale_embedding": True,
        },
        {
            **BART,
            "d_model": 30,
            "d_ff": 7,
            "encoder_layers": 1,
            "heads": 3,
            "context": 16,
            "embed_scale": True,
        },
    ),
]


def real_model(hf):
    settings, cls = (
        (T5Config, T5ForConditionalGeneration) if "d_kv" in hf else (BartConfig, BartForConditionalGeneration)
    )
    with torch.device("meta"):
        return cls(
            settings(vocab_size=99, decoder_start_token_id=0, attn_implementation="eager", **hf)
        ).eval()


@pytest.mark.parametrize(("hf", "config"), CASES)
@pytest.mark.parametrize(("batch", "seq", "source"), [(2, 7, 0), (1, 1, 0), (2, 3, 11), (1, 9, 4)])
def test_equals_transformers(hf, config, batch, seq, source):
    real = real_model(hf)
    ids = torch.empty(batch, seq, dtype=torch.long, device="meta")
    read = torch.empty(batch, source or seq, dtype=torch.long, device="meta")
    expected = count_flops(real, read, labels=ids, use_cache=False)
    ours = backward(build(Config(vocab=99, source_seq=source, **config), Workload(batch=batch, seq=seq)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


@pytest.mark.parametrize(("hf", "config"), CASES[::2])
@pytest.mark.parametrize("length", [0, 12])
def test_decode_equals_transformers(hf, config, length):
    real = real_model(hf)
    source, past, token = (torch.empty(2, n, dtype=torch.long, device="meta") for n in (length or 7, 6, 1))
    with torch.no_grad():
        first = real(source, decoder_input_ids=past, use_cache=True)
        encoded = (first.encoder_last_hidden_state,)
        with FlopCounterMode(display=False) as counter:
            real(encoder_outputs=encoded, decoder_input_ids=token, past_key_values=first.past_key_values)
    ours = build(Config(vocab=99, source_seq=length, **config), Workload("decode", batch=2, seq=7))
    assert flops(ours).forward == counter.get_total_flops()
    assert params(ours).total == count_params(real)


@pytest.mark.parametrize(("source", "target"), [(256, 64), (64, 256)])
def test_the_peak_is_that_of_transformers_on_two_lengths(source, target):
    """In the loss. In the encoder's backward pass fake tensors have a third one where gradients meet."""
    fields = {"d_model": 256, "d_kv": 32, "num_heads": 8, "num_layers": 4, "d_ff": 1024, "vocab_size": 4000}
    fields["dropout_rate"] = 0.0

    def build():
        config = T5Config(**fields, use_cache=False)
        read, written = (torch.zeros(4, n, dtype=torch.long) for n in (source, target))
        model = T5ForConditionalGeneration._from_config(config, attn_implementation="eager")
        return model, {"input_ids": read, "decoder_input_ids": written, "labels": written}

    how = {"attention": "eager", "execution": "eager", "precision": "pure", "dtype": "bf16"}
    config = {"source_seq": source}
    ours = estimate({"model_type": "t5", **fields}, config=config, batch=4, seq=target, **how).memory
    assert ours.peak == pytest.approx(peak(build)["Total"], rel=0.005)


def test_bad_input_names_the_field():
    with pytest.raises(InputError, match="heads"):
        Config(heads=7)
    with pytest.raises(InputError, match="seq"):
        build(Config(**BART), Workload(seq=513))
    with pytest.raises(InputError, match="source_seq"):
        build(Config(source_seq=513, **BART), Workload(seq=100))
    with pytest.raises(InputError, match="source_seq"):
        Config(part="encoder", head="none", source_seq=9)
