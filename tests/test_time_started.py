"""Times of an engine's kernels that a host starts one by one: each norm is one."""

import pytest

import budget

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
