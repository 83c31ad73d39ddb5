import pytest
import torch
from budget.kernels.rope import rope, rope_
from cases import (
    DEVICE,
    assert_close,
    dtypes,
    examples,
    generator,
    gradients,
    layouts,
    leaves,
    random,
    route,
    routes,
    seeds,
)
from hypothesis import given
from hypothesis import strategies as st


def rotated(x, cos, sin, interleaved):
    """By complex numbers: x's pairs times cos + i sin, [batch or 1, 1, seq, pairs]."""
    pairs = cos.shape[-1]
    turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    if not interleaved:
        turned = turned.unflatten(-1, (2, pairs)).transpose(-1, -2).flatten(-2)
    product = torch.view_as_complex(turned.unflatten(-1, (-1, 2)).contiguous()) * torch.complex(cos, sin)
    turned = torch.view_as_real(product)
    turned = turned.flatten(-2) if interleaved else turned.transpose(-1, -2).flatten(-2)
    return torch.cat((turned, rest), -1)


def in_dtype(x, cos, sin, interleaved):
    """As libraries write it, every step rounded to x's dtype."""
    pairs = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    if interleaved:
        a, b = turned[..., ::2], turned[..., 1::2]
        return torch.cat((torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2), rest), -1)
    a, b = turned.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)


def table(rows, pairs, dtype):
    """cos and sin of each position's angles."""
    angles = torch.arange(rows)[:, None] * 100.0 ** (-torch.arange(pairs) / pairs)
    return angles.cos().to(DEVICE, dtype), angles.sin().to(DEVICE, dtype)


@examples(25)
@given(
    batch=st.integers(1, 3), heads=st.integers(1, 5), seq=st.integers(1, 40), head_dim=st.integers(2, 70),
    share=st.sampled_from([0.5, 1.0, 1.0]), interleaved=st.booleans(),
    positions=st.sampled_from(["none", "none", "seq", "batch"]), per_batch=st.booleans(),
    wide_table=st.booleans(), swapped=st.booleans(), dtype=dtypes, layout=layouts, where=routes, seed=seeds,
)  # fmt: skip
def test_rope(
    batch, heads, seq, head_dim, share, interleaved, positions, per_batch, wide_table, swapped, dtype, layout,
    where, seed,
):  # fmt: skip
    g = generator(seed)
    pairs = max(1, int(head_dim // 2 * share))
    x = random((batch, seq, heads, head_dim) if swapped else (batch, heads, seq, head_dim), dtype, layout,
               generator=g)  # fmt: skip
    x = x.transpose(1, 2) if swapped else x
    cos, sin = table(seq + 9, pairs, torch.float32 if wide_table else dtype)
    if per_batch:
        cos, sin = (torch.stack([t.roll(i, 0) for i in range(batch)]) for t in (cos, sin))
    shape = {"none": None, "seq": (seq,), "batch": (batch, seq)}[positions]
    ids = None if shape is None else torch.randint(0, seq + 9, shape, generator=g).to(DEVICE)
    rows = torch.arange(seq, device=DEVICE) if ids is None else ids
    rows = rows.expand(batch, seq)
    angles = [
        torch.stack([(t[i] if per_batch else t)[rows[i]] for i in range(batch)])[:, None] for t in (cos, sin)
    ]
    (ours_in,), (own_in,), (oracle_in,) = leaves([x]), leaves([x]), leaves([x], torch.float64)
    grad = random(x.shape, dtype, generator=g)
    with route(where):
        ours = rope(ours_in, cos, sin, ids, interleaved=interleaved)
        (ours_grad,) = gradients(ours, [ours_in], grad)
        with torch.no_grad():
            placed = x.clone(memory_format=torch.contiguous_format)
            assert rope_(placed, cos, sin, ids, interleaved=interleaved) is placed
    assert torch.equal(placed, ours)
    own = in_dtype(own_in, *angles, interleaved)
    oracle = rotated(oracle_in, *(t.double() for t in angles), interleaved)
    assert ours.dtype == dtype
    assert_close("out", ours, own, oracle)
    (own_grad,), (oracle_grad,) = gradients(own, [own_in], grad), gradients(oracle, [oracle_in], grad)
    assert_close("gradient", ours_grad, own_grad, oracle_grad)


@pytest.mark.parametrize("model", ["llama", "gptj"])
def test_as_transformers_rotates(model):
    """The two ways, each in the code of the model it is named after."""
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as llama

    q, k = (random((2, h, 7, 16), torch.float32, generator=generator(0)) for h in (4, 2))
    cos, sin = table(7, 8, torch.float32)
    if model == "llama":
        expected = llama(q, k, *(torch.cat((t, t), -1)[None] for t in (cos, sin)))
    else:
        expected = [gptj(t.transpose(1, 2), sin[None], cos[None]).transpose(1, 2) for t in (q, k)]
    for x, theirs in zip((q, k), expected, strict=True):
        torch.testing.assert_close(rope(x, cos, sin, interleaved=model == "gptj"), theirs)


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4)])
def test_empty(shape, where):
    with route(where):
        assert rope(torch.ones(shape, device=DEVICE), *table(3, 2, torch.float32)).shape == shape


def test_scores_only_know_distances():
    """Its purpose: the product of a query and a key depends only on their distance."""
    q, k = (random((1, 1, 1, 32), torch.float32, generator=generator(i)) for i in range(2))
    cos, sin = table(60, 16, torch.float32)
    at = lambda x, p: rope(x, cos, sin, torch.tensor([p], device=DEVICE))  # noqa: E731 - a shorter name
    scores = [(at(q, p + 5) * at(k, p)).sum() for p in (0, 20, 50)]
    torch.testing.assert_close(scores, [scores[0]] * 3)


@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU such a position gives NaN")
@pytest.mark.parametrize("bad", [-1, 3])
def test_position_out_of_range(bad):
    with pytest.raises(ValueError, match=r"^positions: a position is not from 0 to 2"):
        rope(torch.zeros(1, 1, 2, 4), *table(3, 2, torch.float32), torch.tensor([0, bad]))


def test_in_place_is_refused_where_a_gradient_is_wanted():
    x, angles = torch.zeros(1, 1, 2, 4, device=DEVICE), table(3, 2, torch.float32)
    with pytest.raises(ValueError, match=r"^x: rope_ has no gradient"):
        rope_(x.requires_grad_(), *angles)
    with pytest.raises(ValueError, match=r"^x: in place, no two elements"):
        rope_(torch.zeros(1, 1, 2, 4, device=DEVICE).expand(1, 3, 2, 4), *angles)
    with pytest.raises(ValueError, match=r"^x: in place, the last dimension"):
        rope_(torch.zeros(1, 1, 4, 2, device=DEVICE).mT, *angles)
