"""DeBERTa-v2 and v3 against transformers: parameters, FLOPs of both passes, and the peak of a step."""

import pytest
import torch
import transformers as hf
from differential import judge
from differential_counts import without_looks
from small_configs import base

from budget import estimate

V3 = {"vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
      "intermediate_size": 256, "max_position_embeddings": 512, "relative_attention": True,
      "pos_att_type": "p2c|c2p", "share_att_key": True, "position_buckets": 64, "norm_rel_ebd": "layer_norm",
      "position_biased_input": False, "hidden_dropout_prob": 0.0,
      "attention_probs_dropout_prob": 0.0}  # fmt: skip
VARIANTS = [
    {}, {"share_att_key": False}, {"norm_rel_ebd": "none"}, {"position_buckets": -1}, {"type_vocab_size": 2},
    {"position_biased_input": True}, {"relative_attention": False, "norm_rel_ebd": "none"},
    {"tie_word_embeddings": False}, {"max_relative_positions": 20, "position_buckets": -1},
]  # fmt: skip


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "name", ["DebertaV2Model", "DebertaV2ForMaskedLM", "DebertaV2ForSequenceClassification"]
)
@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_equals_transformers(name, fields):
    verdict, why = judge("deberta-v2", name, {**base("deberta-v2"), **fields}, train=True)
    assert verdict == "equal", why


@pytest.mark.every(2)
@pytest.mark.parametrize(("dtype", "seq"), [("float32", 64), ("bfloat16", 256)])
def test_peak_is_that_of_the_class_captured(dtype, seq, monkeypatch):
    monkeypatch.setattr(hf.PreTrainedModel, "init_weights", lambda self: None)
    with without_looks():
        real = hf.DebertaV2ForMaskedLM._from_config(hf.DebertaV2Config(**V3), dtype=getattr(torch, dtype))
        real.tie_weights()
        ids = torch.zeros(2, seq, dtype=torch.long)
        theirs = estimate(real.train(), inputs={"input_ids": ids, "labels": ids}, precision="pure").memory
    how = {"batch": 2, "seq": seq, "dtype": dtype, "attention": "eager", "execution": "eager"}
    table = {"model_type": "deberta-v2", "architectures": ["DebertaV2ForMaskedLM"], **V3}
    ours = estimate(table, precision="pure", **how).memory
    assert ours.parameters == theirs.parameters
    assert ours.peak == pytest.approx(theirs.peak, rel=0.02)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pos_att_type", ["c2p"]),
        ("embedding_size", 64),
        ("pooler_hidden_size", 64),
    ],
)
def test_what_has_no_file_is_captured(field, value):
    found = estimate({"model_type": "deberta-v2", **V3, field: value}, mode="forward", seq=16)
    assert found.model.config["captured"]
