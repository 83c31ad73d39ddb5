"""Times of an engine's kernels that a host starts one by one: each norm is one."""

import pytest

import budget
from budget.fold.time import time

EAGER = {"mode": "decode", "device": "a100-80gb", "stack": "vllm", "execution": "fused"}


def test_norms_of_heads_are_kernels_of_their_own_without_a_graph():
    """vLLM with --enforce-eager on an A100, 20 requests at once: 11.55 s for 552 tokens of Llama-3.1-8B and
    25.27 s for 945 of Qwen3-8B, whose layers have two norms more. Source: published-inference.
    """
    measured = (25.272 / 945) / (11.547 / 552)
    qwen, llama = (
        budget.estimate(m, batch=20, seq=s, **EAGER) for m, s in (("qwen3-8b", 670), ("llama-3.1-8b", 474))
    )
    assert qwen.times.step / llama.times.step == pytest.approx(measured, rel=0.06)


def calls(model, **asked):
    kernels = budget.estimate(model, batch=1, seq=512, **{**EAGER, **asked}).times.kernels
    return sum(k.work.calls * k.work.times for k in kernels)


def test_a_host_starts_ten_operators_a_layer_and_two_more_for_norms_of_heads():
    """Norm, projection, rotary embeddings, attention, projection, norm, two of the MLP's inputs and its gate,
    projection; what is left stands around the layers. Source: vllm.
    """
    layers = calls("llama-3.1-8b"), calls("qwen3-8b")
    assert [round(n / count) for n, count in zip(layers, (32, 36), strict=True)] == [10, 12]
    assert calls("qwen3-8b", execution="graph") < layers[1]


@pytest.mark.parametrize(
    ("model", "asked", "more"),
    [
        # 36 mixers of states and 12 of attention; an alignment of rows for each of the experts' two products.
        ("qwen3-next-80b-a3b", {}, 36 * 15 + 12 * 1 + 48 * 2),
        # A call for keys and values; a cast for each of four products.
        ("qwen3-8b", {"quantize": "fp8"}, 36 * (1 + 4)),
        # Experts in few bits have their rows aligned, too. Where units have no FP4, no input is cast: what
        # reads scales in float8 widens weights.
        ("qwen3-30b-a3b", {"quantize": "awq"}, 48 * (1 + 2)),
        ("qwen3-30b-a3b", {"quantize": "nvfp4"}, 48 * (1 + 2)),
        # Two all-reduces a layer, and one for the table of words.
        ("qwen3-8b", {"layout": "tp=2"}, 36 * (1 + 2) + 1),
    ],
)
def test_sglang_s_host_makes_calls_around_the_kernels_of_a_prompt(model, asked, more):
    """Source: sglang-calls."""
    e = budget.estimate(model, mode="prefill", batch=1, seq=8, device="h200", stack="sglang", **asked)
    program = e.spread.ranks[0].program if e.spread else e.program
    steps = [
        time(program, e.device, profile, "bfloat16", "fused").step
        for profile in (e.profile, e.profile._replace(calls={}))
    ]
    assert (steps[0] - steps[1]) / e.profile.dispatch.forward == pytest.approx(more)
    assert time(program, e.device, e.profile, "bfloat16", "graph").step < steps[1]


@pytest.mark.parametrize(
    ("batch", "seq", "written", "kernel"), [(1, 128, 5.777, 5.315), (1, 256, 5.739, 5.295)]
)
def test_attention_written_out_is_one_call_of_the_host(batch, seq, written, kernel):
    """A host that is waited for takes little longer for it than for a kernel. Source: sdpa-for-bert."""
    asked = {"device": "a100-80gb", "stack": "transformers", "mode": "forward", "dtype": "fp16"}
    one, other = (
        budget.estimate("bert-base-cased", batch=batch, seq=seq, attention=how, **asked).times.step
        for how in ("eager", "flash")
    )
    assert one / other == pytest.approx(written / kernel, rel=0.1)
