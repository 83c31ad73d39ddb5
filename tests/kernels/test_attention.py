import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from budget.kernels.attention import attention, attention_packed
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
from hypothesis import example, given
from hypothesis import strategies as st

from budget.kernels import attention_decode

# Enough keys to be split: 8 blocks of the settings' BLOCK_N.
KEYS = 256 if DEVICE == "cpu" else 512
PLAIN = {"causal": False, "window": None, "softcap": None, "scale": None}


def eager(q, k, v, bias=None, sinks=None, *, causal, window, softcap, scale):
    """The same in torch's own operators, with the scores in memory; zeros where nothing is seen."""
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    z = q @ k.mT * (scale or q.shape[-1] ** -0.5)
    if softcap:
        z = softcap * torch.tanh(z / softcap)
    if bias is not None:
        z = z + bias.to(z.dtype)
    distance = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2] - torch.arange(k.shape[2])
    seen = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        seen &= distance >= 0
    if window:
        seen &= distance.abs() < window
    z = z.masked_fill(~seen.to(z.device), -math.inf)
    if sinks is not None:  # one more column, as gpt-oss has it: a key whose value is zero
        z = torch.cat((z, sinks.to(z.dtype)[:, None, None].expand(*z.shape[:3], 1)), -1)
        v = F.pad(v, (0, 0, 0, 1))
    empty = (z == -math.inf).all(-1, keepdim=True)
    return z.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0) @ v


def check(tensors, rules, where, seed, *, backward=True):
    """Output and gradients of attention against float64."""
    ours_in, own_in, oracle_in = leaves(tensors), leaves(tensors), leaves(tensors, torch.float64)
    with route(where):
        q, k, v, bias, *sinks = ours_in
        ours = attention(q, k, v, bias=bias, sinks=sinks[0] if sinks else None, **rules)
        own, oracle = eager(*own_in, **rules), eager(*oracle_in, **rules)
        assert ours.dtype == q.dtype
        assert_close("out", ours, own, oracle)
        if not backward:
            return
        grad = random(ours.shape, ours.dtype, generator=generator(seed + 1))
        triples = zip(
            *(gradients(o, i, grad) for o, i in ((ours, ours_in), (own, own_in), (oracle, oracle_in))),
            strict=True,
        )
        terms = dict.fromkeys(("q", "k", "v", "bias", "sinks"), 0.0)
        if oracle.numel() and k.numel():
            terms |= gradient_terms(*(t.detach() for t in oracle_in[:3]), grad.double(), rules)
            # Sums over rows keep what rounding the output to its format took from each row's sum(out * grad).
            row = (oracle.detach().abs() * grad.double().abs()).sum(-1).max().item()
            finer = torch.finfo(q.dtype).eps / torch.finfo(torch.float32).eps
            lost = row * finer
            # So do rows of q's and k's, where few keys are there: roundings of the output are of either sign.
            row = (oracle.detach() * grad.double()).square().sum(-1).max().sqrt().item()
            row *= finer * (rules["scale"] or q.shape[-1] ** -0.5)
            terms["q"] += row * k.abs().max().item()
            terms["k"] += row * q.abs().max().item() * math.sqrt(q.shape[1] // k.shape[1] * q.shape[2])
            for name, summed in zip(("bias", "sinks"), (bias, *sinks), strict=False):
                if summed is not None:
                    rows = q.shape[:3].numel() / (
                        summed.numel() if name == "sinks" else summed.shape[:3].numel()
                    )
                    terms[name] += lost * math.sqrt(rows)
        names = (name for name, t in zip(terms, ours_in, strict=False) if t is not None)
        for name, triple in zip(names, triples, strict=True):
            assert_close(f"gradient of {name}", *triple, terms=terms[name])


def gradient_terms(q, k, v, grad, rules):
    """The size of what the gradients add up, times the roundings that it is known to.

    Differences of probabilities cancel, down to 0 for a single key; and a probability comes back from one
    number a row, the logarithm of its sum, which has log_sum roundings' error (torch keeps them all).
    """
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    scale = rules["scale"] or q.shape[-1] ** -0.5
    z = q @ k.mT * scale
    log_sum = 1 + z.logsumexp(-1).abs().max().item() * math.log2(math.e)
    dp = log_sum * (grad.abs() @ v.abs().mT).max().item()
    q_size, k_size, grad_size = (t.abs().max().item() for t in (q, k, grad))
    p = z.softmax(-1).max().item() if rules == PLAIN | {"causal": rules["causal"]} else 1.0
    terms = {"q": dp * scale * k_size, "k": dp * scale * q_size, "v": log_sum * grad_size, "bias": dp}
    return {name: p * size for name, size in terms.items()}


def inputs(batch, heads, kv_heads, seq_q, seq_k, head_dim, dtype, layout, g):
    q = random((batch, heads, seq_q, head_dim), dtype, layout, generator=g)
    k, v = (random((batch, kv_heads, seq_k, head_dim), dtype, layout, generator=g) for _ in range(2))
    return q, k, v


@examples(14)
@given(
    batch=st.integers(1, 2), kv_heads=st.integers(1, 2), group=st.sampled_from([1, 1, 2, 3]),
    seq_q=st.integers(1, 75), seq_k=st.integers(1, 75),
    head_dim=st.sampled_from([16, 24, 33, 64, 80, 128]), dtype=dtypes, layout=layouts,
    causal=st.booleans(), window=st.sampled_from([None, None, 1, 20, 1000]),
    softcap=st.sampled_from([None, None, 3.0]), scale=st.sampled_from([None, 0.3]),
    bias_shape=st.sampled_from([None, None, (1, 1, 1, 1), *itertools.product((0, 1), repeat=4)]),
    has_sinks=st.booleans(), where=routes, seed=seeds,
)  # fmt: skip
@example(1, 2, 1, 64, 64, 64, torch.bfloat16, "contiguous", True, None, None, None, None, True, "triton", 0)
@example(2, 1, 4, 70, 70, 128, torch.float16, "sliced", True, 30, None, None, None, False, "triton", 1)
@example(
    1, 1, 2, 40, 70, 80, torch.bfloat16, "contiguous", False, 9, 2.0, None, (0, 0, 1, 1), True, "triton", 2
)
@example(1, 1, 1, 1, 1, 16, torch.float32, "contiguous", True, None, None, None, None, False, "triton", 3)
@example(
    2, 2, 1, 75, 70, 16, torch.float32, "contiguous", True, 9, None, None, (1, 0, 0, 1), True, "triton", 5
)
@example(
    1,
    1,
    3,
    39,
    1,
    128,
    torch.float16,
    "contiguous",
    True,
    None,
    None,
    0.3,
    (1, 0, 0, 1),
    True,
    "triton",
    1396384,
)
def test_attention(
    batch, kv_heads, group, seq_q, seq_k, head_dim, dtype, layout, causal, window, softcap, scale,
    bias_shape, has_sinks, where, seed,
):  # fmt: skip
    g = generator(seed)
    heads = kv_heads * group
    q, k, v = inputs(batch, heads, kv_heads, seq_q, seq_k, head_dim, dtype, layout, g)
    bias = None
    if bias_shape is not None:  # 1: of full size, 0: broadcast
        whole = (batch, heads, seq_q, seq_k)
        shape = tuple(size if kept else 1 for size, kept in zip(whole, bias_shape, strict=True))
        bias = random(shape, dtype, generator=g)
        if seed % 2:
            bias = bias.masked_fill((torch.rand(shape, generator=g) < 0.3).to(DEVICE), -math.inf)
    sinks = random((heads,), dtype, generator=g, scale=3.0) if has_sinks else None
    rules = {"causal": causal, "window": window, "softcap": softcap, "scale": scale}
    check((q, k, v, bias, sinks), rules, where, seed)


@pytest.mark.parametrize("head_dim", [16, 17, 96, 160, 192, 256])
def test_head_dimensions(head_dim):
    g = generator(head_dim)
    dtype = torch.float32 if head_dim == 17 else torch.bfloat16
    tensors = inputs(1, 2, 1, 40, 40, head_dim, dtype, "contiguous", g)
    check((*tensors, None), PLAIN | {"causal": True}, "triton", head_dim)


@examples(6)
@given(
    group=st.sampled_from([1, 4]), seq_q=st.sampled_from([1, 1, 3]), seq_k=st.integers(KEYS, KEYS + 164),
    head_dim=st.sampled_from([64, 80]), dtype=dtypes, causal=st.booleans(),
    window=st.sampled_from([None, 40]), softcap=st.sampled_from([None, 3.0]), has_bias=st.booleans(),
    seed=seeds,
)  # fmt: skip
def test_decoding_splits_the_cache(
    group, seq_q, seq_k, head_dim, dtype, causal, window, softcap, has_bias, seed
):
    g = generator(seed)
    q, k, v = inputs(2, 2 * group, 2, seq_q, seq_k, head_dim, dtype, "contiguous", g)
    bias = random((2, 1, seq_q, seq_k), dtype, generator=g) if has_bias else None
    sinks = random((2 * group,), dtype, generator=g) if has_bias else None
    assert attention_decode.decodes(q, k)
    rules = PLAIN | {"causal": causal, "window": window, "softcap": softcap}
    check((q, k, v, bias, sinks), rules, "triton", seed, backward=False)


def test_gradients_after_decoding():
    q, k, v = inputs(1, 2, 1, 1, KEYS + 44, 64, torch.float32, "contiguous", generator(0))
    check((q, k, v, None), PLAIN | {"causal": True}, "triton", 0)


@examples(4)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4),
    dtype=dtypes, causal=st.booleans(), window=st.sampled_from([None, 10]), where=routes, seed=seeds,
)  # fmt: skip
@example([(33, 33), (0, 0), (1, 40), (40, 5)], torch.bfloat16, True, None, "triton", 0)
def test_packed_sequences(lengths, dtype, causal, window, where, seed):
    g = generator(seed)
    heads, kv_heads, head_dim = 4, 2, 32
    rows, keys = (sum(pair[i] for pair in lengths) for i in range(2))
    q = random((rows, heads, head_dim), dtype, generator=g)
    k, v = (random((keys, kv_heads, head_dim), dtype, generator=g) for _ in range(2))
    bounds = [torch.tensor([0, *(pair[i] for pair in lengths)]).cumsum(0) for i in range(2)]
    cu_seqlens = [b.to(torch.int32).to(DEVICE) for b in bounds]
    longest = [max(pair[i] for pair in lengths) for i in range(2)]
    rules = PLAIN | {"causal": causal, "window": window}

    def sequences(q, k, v):
        """Each as a batch of one."""
        pairs = zip(*(b.unfold(0, 2, 1).tolist() for b in bounds), strict=True)
        for (q0, q1), (k0, k1) in pairs:
            yield [t.transpose(0, 1).unsqueeze(0) for t in (q[q0:q1], k[k0:k1], v[k0:k1])]

    def apart(*tensors):
        return torch.cat([eager(*one, **rules)[0].transpose(0, 1) for one in sequences(*tensors)])

    tensors = (q, k, v)
    ours_in, own_in, oracle_in = leaves(tensors), leaves(tensors), leaves(tensors, torch.float64)
    with route(where):
        ours = attention_packed(*ours_in, *cu_seqlens, *longest, **rules)
        own, oracle = apart(*own_in), apart(*oracle_in)
        assert_close("out", ours, own, oracle)
        grad = random(ours.shape, ours.dtype, generator=g)
        pairs = ((ours, ours_in), (own, own_in), (oracle, oracle_in))
        wide = (t.detach() for t in oracle_in)
        grads = (one[0] for one in sequences(grad.double(), *oracle_in[1:]))
        terms = [
            gradient_terms(*one, own_grad, rules)
            for one, own_grad in zip(sequences(*wide), grads, strict=True)
            if one[0].numel() and one[1].numel()
        ]
        for name, *triple in zip("qkv", *(gradients(o, i, grad) for o, i in pairs), strict=True):
            largest = max((t[name] for t in terms), default=0.0)
            assert_close(f"gradient of {name}", *triple, terms=largest)


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_infinite_key_and_hidden_nan(where):
    """An infinity is a NaN in the rows that see it; a key behind the causal mask is not seen."""
    q, k, v = inputs(1, 1, 1, 70, 70, 32, torch.float32, "contiguous", generator(0))
    k[0, 0, 60] = math.inf
    with route(where):
        out = attention(q, k, v, causal=True)
    assert out[0, 0, :60].isfinite().all()
    oracle = eager(q.double(), k.double(), v.double(), **PLAIN | {"causal": True})
    assert torch.equal(out.isnan(), oracle.isnan())


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (1, 2, 0, 3), (1, 2, 3, 0)])
def test_empty(shape, where):
    batch, heads, seq_q, seq_k = shape
    tensors = inputs(batch, heads, heads, seq_q, seq_k, 16, torch.float32, "contiguous", generator(0))
    check((*tensors, None), PLAIN, where, 0)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_as_exact_as_torchs_fused_attention(dtype, causal):
    tensors = inputs(1, 2, 2, 96, 96, 64, dtype, "contiguous", generator(0))
    own = F.scaled_dot_product_attention(*tensors, is_causal=causal)
    oracle = F.scaled_dot_product_attention(*(t.double() for t in tensors), is_causal=causal)
    assert_close("out", attention(*tensors, causal=causal), own, oracle)


def test_what_autograd_saves_may_be_packed():
    """Row sums come back from a hook (offloading, say) without the room that the kernels read into."""
    tensors = leaves(inputs(1, 2, 2, 37, 37, 32, torch.float32, "contiguous", generator(0)))
    grad = torch.ones(1, 2, 37, 32, device=DEVICE)
    expected = gradients(attention(*tensors, causal=True), tensors, grad)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.clone(memory_format=torch.contiguous_format), lambda t: t
    ):
        out = attention(*tensors, causal=True)
    for ours, theirs in zip(gradients(out, tensors, grad), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_layout_follows_the_query():
    """A [batch, seq, heads, head_dim] tensor seen through a transpose comes back as one."""
    q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2)
               for t in inputs(1, 2, 2, 20, 20, 32, torch.float32, "contiguous", generator(0)))  # fmt: skip
    assert attention(q, k, v).transpose(1, 2).is_contiguous()
