import pytest
import torch
from budget.kernels.attention_cached import attention_cached
from cases import (
    DEVICE,
    assert_close,
    dtypes,
    examples,
    generator,
    random,
    route,
    routes,
    seeds,
)
from hypothesis import example, given
from hypothesis import strategies as st
from test_attention import eager

from budget.kernels import settings


def each(q, k, v, lengths, rules, bias=None, sinks=None):
    """torch's own attention of each batch entry with the keys that it has."""
    parts = []
    for i, n in enumerate(lengths):
        entry = slice(i, i + 1)
        own = None if bias is None else bias[entry, ..., :n]
        parts.append(eager(q[entry], k[entry, :, :n], v[entry, :, :n], own, sinks, **rules))
    return torch.cat(parts)


def paged(cache, page, g):
    """(pages in a random order, with one more that nothing names; the table)."""
    batch, heads, capacity, head_dim = cache.shape
    count = batch * (capacity // page)
    order = torch.randperm(count + 1, generator=g)
    pages = torch.full((count + 1, heads, page, head_dim), float("nan"), dtype=cache.dtype, device=DEVICE)
    pieces = cache.unflatten(2, (-1, page)).transpose(1, 2).flatten(0, 1)
    pages[order[:count].to(DEVICE)] = pieces
    return pages, order[:count].view(batch, -1).to(DEVICE, torch.int32)


@examples(12)
@given(
    lengths=st.lists(st.integers(0, 400), min_size=1, max_size=3), kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 4]), seq=st.sampled_from([1, 1, 3]), head_dim=st.sampled_from([16, 64, 80]),
    page=st.sampled_from([None, None, 16, 20]), dtype=dtypes, causal=st.booleans(),
    window=st.sampled_from([None, 40]), softcap=st.sampled_from([None, 3.0]), rich=st.booleans(),
    where=routes, seed=seeds,
)  # fmt: skip
@example([400, 0, 1], 2, 4, 1, 64, 16, torch.bfloat16, True, None, None, True, "triton", 0)
@example([17, 399], 1, 4, 3, 80, 20, torch.float16, True, 40, 3.0, False, "triton", 1)
@example([2, 300], 2, 1, 3, 64, None, torch.float32, True, None, None, True, "triton", 2)
def test_attention_cached(
    lengths, kv_heads, group, seq, head_dim, page, dtype, causal, window, softcap, rich, where, seed
):
    """rich: with sinks, and padding as an additive mask."""
    g = generator(seed)
    batch = len(lengths)
    q = random((batch, kv_heads * group, seq, head_dim), dtype, generator=g)
    k, v = (random((batch, kv_heads, 400, head_dim), dtype, generator=g) for _ in range(2))
    for i, n in enumerate(lengths):  # what lies behind must not be seen
        k[i, :, n:], v[i, :, n:] = float("nan"), float("nan")
    rules = {"causal": causal, "window": window, "softcap": softcap, "scale": None}
    bias = sinks = None
    if rich:
        bias = torch.zeros(batch, 1, 1, 400, dtype=dtype, device=DEVICE)
        bias[0, ..., :3] = -torch.inf
        sinks = random((kv_heads * group,), dtype, generator=g)
    own, oracle = (
        each(*(t.to(d) for t in (q, k, v)), lengths, rules, bias, sinks) for d in (dtype, torch.float64)
    )
    table = None
    if page is not None:
        state = g.get_state()
        k, table = paged(k, page, g)
        g.set_state(state)  # the same order
        v, _ = paged(v, page, g)
    there = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
    with route(where):
        ours = attention_cached(q, k, v, there, table, bias=bias, sinks=sinks, **rules)
    assert ours.dtype == dtype
    assert_close("out", ours, own, oracle)


def test_lengths_grow_without_another_launch_shape(monkeypatch):
    """What a CUDA graph needs: step after step the same kernel on the same grid, only the lengths differ."""
    from budget.kernels import attention_decode

    grids = []
    kernel = attention_decode._attention_decode_kernel

    class Noting:
        def __getitem__(self, grid):
            grids.append(grid)
            return kernel[grid]

    monkeypatch.setattr(attention_decode, "_attention_decode_kernel", Noting())
    monkeypatch.setattr(settings, "processors", lambda _: 8)
    q = random((2, 2, 1, 16), torch.float32, generator=generator(0))
    k, v = (random((2, 1, 320, 16), torch.float32, generator=generator(i)) for i in (1, 2))
    lengths = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    plain = {"causal": True, "window": None, "softcap": None, "scale": None}
    for step in (1, 31, 288):
        lengths += step
        expected = each(q, k, v, lengths.tolist(), plain)
        torch.testing.assert_close(attention_cached(q, k, v, lengths), expected, rtol=1e-4, atol=1e-5)
    assert len(set(grids)) == 1
    assert grids[0][1] > 1  # the cache is split


@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU nobody looks")
def test_lengths_and_pages_that_do_not_exist():
    q, k = torch.zeros(2, 1, 1, 16), torch.zeros(2, 1, 8, 16)
    table = torch.tensor([[0, 9], [1, 2]], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"^lengths: a length is not from 0 to 8"):
        attention_cached(q, k, k, torch.tensor([1, 9], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"^table: a page is not from 0 to 1"):
        attention_cached(q, k, k, torch.tensor([16, 8], dtype=torch.int32), table)
    with pytest.raises(ValueError, match=r"^table: a page is not from 0 to 1"):
        attention_cached(q, k, k, torch.tensor([8, 9], dtype=torch.int32), table)
    attention_cached(
        q, k, k, torch.tensor([8, 8], dtype=torch.int32), table
    )  # what is not used may be anything
