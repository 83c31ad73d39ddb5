"""Gradients added in place: what is no longer alive, what Transformer Engine keeps, and measured peaks."""

import pytest

import budget
from budget.errors import InputError

SMALL = {
    "layers": 2, "d_model": 256, "heads": 8, "kv_heads": 2, "d_ff": 1024, "vocab": 4096, "gated": True,
    "norm": "rms_norm", "positions": "rotary", "qkv_bias": False, "out_bias": False, "mlp_bias": False,
    "fused_qkv": False, "tied": False, "context": 128, "activation": "silu",
}  # fmt: skip


def memory(fusion=False, dummies=False, **settings):
    given = {"config": SMALL, "seq": 128, "dtype": "bf16", "precision": "master", "fuse": "norm,gate,loss"}
    own = {"gradient_accumulation_fusion": fusion, "dummy_gradients": dummies, "grad_dtype": "fp32"}
    own["optimizer"] = "adamw_fused"
    return budget.estimate("transformer", **{**given, **own, **settings}).memory


def test_a_new_gradient_beside_those_that_are_there_is_saved():
    """The head's 16-bit gradient and the float32 one that is added are no longer beside the one there is."""
    wide = {**SMALL, "vocab": 65536}
    new, added = (memory(fusion, accumulate=2, config=wide) for fusion in (False, True))
    assert added.gradients == new.gradients
    assert added.peak < new.peak


def test_the_buffers_are_there_before_anything_runs():
    """One micro-batch then takes as much as two; its first operator finds all gradients."""
    for config in (SMALL, {**SMALL, "layers": 7}):
        one, two = (memory(True, accumulate=n, config=config) for n in (1, 2))
        assert (
            one.curve[0].live["gradients"]
            == one.gradients
            == two.gradients
            == memory(config=config).gradients
        )
        assert one.peak == two.peak


def test_dummies_are_one_of_each_shape():
    """Queries, keys and values are one matrix, gate and up one; the head has its own."""
    d, f, v, kv = 256, 1024, 4096, 2 * 32
    shapes = {(d + 2 * kv, d), (d, d), (2 * f, d), (d, f), (v, d)}
    added, dummies = (memory(True, kept) for kept in (False, True))
    assert dummies.peak - added.peak == 2 * sum(a * b for a, b in shapes)


def test_an_experts_shape_counts_once():
    moe = {**SMALL, "experts": 4, "active_experts": 2, "expert_d_ff": 128}
    added, dummies = (memory(True, kept, config=moe, fuse="norm,loss") for kept in (False, True))
    d, v, kv, f = 256, 4096, 64, 128
    shapes = {(d + 2 * kv, d), (d, d), (2 * f, d), (d, f), (v, d)}
    assert dummies.peak - added.peak == 2 * sum(a * b for a, b in shapes)


def test_it_wants_training():
    with pytest.raises(InputError, match="gradient_accumulation_fusion"):
        budget.estimate("transformer", mode="forward", gradient_accumulation_fusion=True)


# Peak allocated GiB of 8 x B200 with Megatron-LM 23e00ed and Transformer Engine 2.11, as SimuMax's README
# has them # (docs/b200, release v1.2): layers, tp, cp, pp, dp, tokens. The rows were seen while the terms
# were found.
MEASURED = [
    ("llama-3-70b", {}, 12, 1, 1, 2, 4, 4096, 66.55),
    ("llama-3-70b", {}, 12, 4, 1, 1, 2, 4096, 39.07),
    ("llama-3-70b", {}, 12, 2, 4, 1, 1, 32768, 68.43),
    ("llama-3-70b", {}, 12, 2, 4, 1, 1, 131072, 112.67),
    ("deepseek-v2", {"dense_layers": 1}, 4, 1, 1, 1, 8, 4096, 45.63),
    ("deepseek-v3", {"dense_layers": 1}, 4, 1, 1, 1, 8, 4096, 104.3),
]


@pytest.mark.parametrize(("name", "config", "layers", "tp", "cp", "pp", "dp", "seq", "gib"), MEASURED)
def test_peaks_of_megatron(name, config, layers, tp, cp, pp, dp, seq, gib):
    experts = {"ep": 8, "etp": 1} if config else {}
    layout = {**experts, "tp": tp, "cp": cp, "pp": pp, "dp": dp, "zero": 1, "cp_kind": "ulysses"}
    found = budget.estimate(
        name, config={**config, "layers": layers}, seq=seq, global_batch=4 * dp, layout=layout,
        stack="megatron", device="b200", optimizer="adamw_fused",
    )  # fmt: skip
    assert found.memory.peak / 2**30 == pytest.approx(gib, rel=0.006)
