"""Attention whose decoding kernel reads keys and values for each query head: `attention="per_head"`."""

import pytest

import budget
from budget.ir.verify import verify

SIZES = {"layers": 3, "d_model": 64, "heads": 8, "vocab": 96, "context": 64}


def moved(attention, kv_heads, mode="decode"):
    """Bytes that the kernels of attention move, and the cache."""
    config = {**SIZES, "kv_heads": kv_heads}
    e = budget.estimate("transformer", mode=mode, batch=4, seq=50, config=config, attention=attention)
    verify(e.program)
    found = [k.work for k in e.times.kernels]
    return sum(w.bytes * w.times for w in found if w.kind == "attention"), e.memory.kv_cache


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_a_cache_is_read_once_for_each_query_head(kv_heads):
    flash, cache = moved("flash", kv_heads)
    apart, same = moved("per_head", kv_heads)
    assert same == cache == 2 * 2 * 3 * 4 * 50 * kv_heads * 8
    assert apart - flash == (8 // kv_heads - 1) * cache


@pytest.mark.parametrize("mode", ["train", "prefill"])
def test_elsewhere_it_is_flash_attention(mode):
    assert moved("per_head", 2, mode) == moved("flash", 2, mode)
