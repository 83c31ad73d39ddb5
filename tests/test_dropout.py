"""Dropout of each family's own fields, against what torch's MemTracker finds in training mode."""

import pytest
import torch
import transformers
from oracles.memory import peak
from torch import nn
from transformers import AutoConfig

from budget import estimate

SMALL = {"vocab_size": 99, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
         "intermediate_size": 160, "max_position_embeddings": 128}  # fmt: skip
STACKS = {"vocab_size": 99, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 160,
          "decoder_ffn_dim": 160, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
          "max_position_embeddings": 128, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}  # fmt: skip
CASES = [
    ("bert", "BertForMaskedLM", SMALL),
    ("bert", "BertForTokenClassification", SMALL),
    ("roberta", "RobertaForMaskedLM", {**SMALL, "attention_probs_dropout_prob": 0.0}),
    ("electra", "ElectraForMaskedLM", {**SMALL, "embedding_size": 32}),
    ("distilbert", "DistilBertForMaskedLM", {"vocab_size": 99, "dim": 64, "n_layers": 3, "n_heads": 4,
                                             "hidden_dim": 160, "max_position_embeddings": 128}),
    ("gpt2", "GPT2LMHeadModel", {"vocab_size": 99, "n_embd": 64, "n_layer": 3, "n_head": 4,
                                 "n_positions": 128}),
    ("gpt_neox", "GPTNeoXForCausalLM", {**SMALL, "vocab_size": 999, "hidden_dropout": 0.1,
                                        "attention_dropout": 0.1}),
    ("llama", "LlamaForCausalLM", {**SMALL, "attention_dropout": 0.1}),
    ("t5", "T5ForConditionalGeneration", {"vocab_size": 99, "d_model": 64, "d_kv": 16, "d_ff": 160,
                                          "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}),
]  # fmt: skip


@pytest.fixture
def native(monkeypatch):
    """Dropout as a GPU's kernel does it: its mask is of booleans."""
    monkeypatch.setattr(
        nn.functional, "dropout", lambda x, p=0.5, training=True, inplace=False:
        torch.native_dropout(x, p, True)[0] if training and p else x,
    )  # fmt: skip


def measured(kind, name, fields, batch, seq):
    def build():
        config = AutoConfig.for_model(kind, **fields)
        module = getattr(transformers, name)._from_config(config, attn_implementation="eager").train()
        module.eval = lambda: module
        ids = torch.zeros(batch, seq, dtype=torch.long)
        return module, {"input_ids": ids, "labels": ids}

    return peak(build)["Total"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "fields"), CASES)
def test_peak_in_training_mode(native, kind, name, fields):
    table = {"model_type": kind, "architectures": [name], **fields}
    ours = estimate(
        table, batch=4, seq=96, attention="eager", execution="eager", precision="pure"
    ).memory.peak
    assert ours == pytest.approx(measured(kind, name, fields, 4, 96), rel=0.03)


def test_dropout_0_turns_it_off():
    table = {"model_type": "bert", **SMALL}
    off = {**table, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    without = estimate(table, seq=96, attention="eager", precision="pure", config={"dropout": 0}).memory
    assert without == estimate(off, seq=96, attention="eager", precision="pure").memory
    assert without.peak < estimate(table, seq=96, attention="eager", precision="pure").memory.peak


def test_nothing_is_dropped_where_nothing_is_trained():
    table = {"model_type": "bert", **SMALL}
    assert estimate(table, seq=96, mode="forward").memory == estimate(
        table, seq=96, mode="forward", config={"dropout": 0}
    ).memory  # fmt: skip


def test_only_eager_attention_keeps_a_mask_of_its_weights():
    table = {"model_type": "llama", **SMALL}
    for attention, keeps in (("eager", True), ("fused", False), ("flash", False)):
        plain, dropped = (
            estimate({**table, "attention_dropout": rate}, batch=4, seq=96, attention=attention).memory.peak
            for rate in (0.0, 0.1)
        )
        assert (dropped > plain) == keeps
