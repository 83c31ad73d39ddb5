"""A cache in a dtype of its own: its bytes by the formula, nothing else moved."""

import pytest

import budget

SHAPE = {"batch": 4, "seq": 4096}


@pytest.mark.parametrize("mode", ["prefill", "decode"])
@pytest.mark.parametrize(("dtype", "size"), [("fp8", 1), ("fp32", 4), ("", 2)])
def test_the_cache_has_its_own_bytes(mode, dtype, size):
    e = budget.estimate("llama-3-8b", mode=mode, device="h100", kv_dtype=dtype, **SHAPE)
    plain = budget.estimate("llama-3-8b", mode=mode, device="h100", **SHAPE)
    assert e.memory.kv_cache == 2 * 32 * 8 * 128 * 4 * 4096 * size  # keys and values, layers, heads, size
    assert e.memory.parameters == plain.memory.parameters
    assert e.flops.forward == plain.flops.forward


def test_attention_reads_as_many_bytes_less():
    plain, narrow = (
        budget.estimate("llama-3-8b", mode="decode", device="h100", stack="vllm", kv_dtype=d, **SHAPE)
        for d in ("", "fp8")
    )
    moved = [sum(k.work.bytes * k.work.times for k in e.times.kernels) for e in (plain, narrow)]
    cache = plain.memory.kv_cache
    assert moved[0] - moved[1] == pytest.approx(cache / 2, rel=0.01)
    assert narrow.times.step < plain.times.step


def test_all_caches_of_a_network():
    for model in ("deepseek-v3", "gemma-2-9b"):
        plain, narrow = (
            budget.estimate(model, mode="decode", device="h200", kv_dtype=d, **SHAPE) for d in ("", "fp8")
        )
        assert 2 * narrow.memory.kv_cache == plain.memory.kv_cache


@pytest.mark.parametrize("attention", ["sdpa", "causal"])
def test_a_dynamic_cache_is_read_and_written_for_each_token(attention):
    """As torch.cat does it; with `causal` heads that share keys and values have copies besides."""
    static, dynamic = (
        budget.estimate(
            "llama-3-8b", mode="decode", stack="transformers", device="h100",
            attention=attention, cache_implementation=kind, **SHAPE,
        )
        for kind in ("static", "dynamic")
    )  # fmt: skip
    moved = [sum(k.work.bytes * k.work.times for k in e.times.kernels) for e in (static, dynamic)]
    cache = static.memory.kv_cache
    assert moved[1] - moved[0] == pytest.approx(2 * cache, rel=0.001)
    assert dynamic.memory.kv_cache == cache
    assert dynamic.memory.peak == static.memory.peak
    assert dynamic.flops == static.flops


def test_a_cache_of_tuples_is_there_twice():
    """transformers before 4.36: a token's new tuples are complete before the old ones go."""
    one, two = (
        budget.estimate("llama-3-8b", mode="decode", stack="transformers", cache_implementation=kind, **SHAPE)
        for kind in ("dynamic", "tuple")
    )
    assert two.memory.peak - one.memory.peak == one.memory.kv_cache
    assert two.times.step == one.times.step
    assert two.flops == one.flops


def test_what_it_refuses():
    with pytest.raises(
        budget.InputError, match=r"^cache_implementation: got dynamic in mode prefill; allowed"
    ):
        budget.estimate("gpt2", mode="prefill", cache_implementation="dynamic")
    with pytest.raises(budget.InputError, match=r"^kv_dtype: got 'int3'; allowed: fp32, bf16, fp16, fp8"):
        budget.estimate("gpt2", mode="decode", kv_dtype="int3")
    with pytest.raises(budget.InputError, match=r"^kv_dtype: gpt2 has no cache here; allowed: in modes"):
        budget.estimate("gpt2", kv_dtype="fp8")
