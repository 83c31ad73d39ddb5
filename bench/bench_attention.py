"""Attention, forward and with its backward pass: SDPA by each of its backends, and this project's."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, Case, compiled, operators, parametrize, random, shaped
from budget.bench.record import Built
from budget.kernels.attention import attention, attention_packed
from torch.nn.attention import SDPBackend, sdpa_kernel

# The operators of attention; `*` marks what needs a gradient. Grouped: r query heads share a key's head.
LINES = (
    ("scores", "*q: b s h k, *key: b t h k -> score: b h s t", "contract"),
    ("scale", "score: -> score:", "scale"),
    ("softmax", "score: -> prob:", "softmax"),
    ("mix", "prob: b h s t, *value: b t h k -> out: b s h k", "contract"),
)
GROUPED = (
    ("scores", "*q: b s h r k, *key: b t h k -> score: b h r s t", "contract"),
    ("scale", "score: -> score:", "scale"),
    ("softmax", "score: -> prob:", "softmax"),
    ("mix", "prob: b h r s t, *value: b t h k -> out: b s h r k", "contract"),
)
# batch, heads, queries, keys, head_dim; where heads are grouped, also the keys' heads
CPU = {
    FIT: (
        (1, 12, 64, 64, 64),
        (1, 4, 256, 256, 32),
        (2, 8, 128, 128, 64),
        (1, 2, 512, 512, 128),
        (8, 4, 32, 32, 16),
        (1, 8, 1, 512, 64),
    ),
    HELD: ((1, 12, 128, 128, 64), (2, 4, 200, 200, 48), (1, 16, 64, 64, 32), (1, 3, 384, 384, 64)),
}
GPU = {
    FIT: (
        (4, 16, 1024, 1024, 128),
        (4, 16, 4096, 4096, 128),
        (1, 16, 16384, 16384, 128),
        (4, 32, 2048, 2048, 64),
        (4, 32, 8192, 8192, 64),
        (16, 16, 512, 512, 64),
        (4, 32, 4096, 4096, 128, 8),
        (4, 32, 1, 32768, 128, 8),
        (32, 32, 1, 4096, 128, 8),
        (2, 16, 4096, 4096, 256),
    ),
    HELD: (
        (4, 16, 2048, 2048, 128),
        (2, 16, 8192, 8192, 128),
        (4, 32, 4096, 4096, 64),
        (8, 32, 1024, 1024, 64),
        (2, 32, 8192, 8192, 128, 8),
        (1, 32, 1, 65536, 128, 8),
    ),
}
# Lengths of the sequences of one batch entry, one after the other; each has as many queries as keys.
PACKED = {FIT: ((8, 16, 2048, 2048, 128),), HELD: ((16, 32, 1024, 1024, 64),)}
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
OURS = ("triton", "torch")
CHUNK = 2**27  # scores in float64 in memory at once: a gigabyte


def cases() -> list[Case]:
    """All cases, of every device."""
    found = [
        _case(split, x, mode, causal, dtype)
        for split, x, dtype in shaped(CPU, GPU)
        for mode, causal in _variants(x, dtype)
    ]
    return found + [
        _case(split, x, mode, causal, dtype, packed=True)
        for split, x, dtype in shaped({}, PACKED)
        for mode, causal in _variants(x, dtype)
    ]


def _variants(shape: tuple[int, ...], dtype: str) -> list[tuple[str, bool]]:
    modes = ["forward"] if shape[2] == 1 else ["forward", "train"]
    masks = (False,) if dtype == "float32" or shape[2] == 1 else (False, True)
    return [(mode, causal) for mode in modes for causal in masks]


def _case(
    split: str, shape: tuple[int, ...], mode: str, causal: bool, dtype: str, packed: bool = False
) -> Case:
    b, h, s, t, k, *kv = shape
    sizes = dict(b=b, h=kv[0], r=h // kv[0], s=s, t=t, k=k) if kv else dict(b=b, h=h, s=s, t=t, k=k)
    workload = operators(*(GROUPED if kv else LINES), mode=mode, group="attention", **sizes)
    name = "packed-" * packed + f"{'x'.join(map(str, shape))}-{mode}" + "-causal" * causal
    facts = {"shape": list(shape), "mode": mode, "causal": causal} | ({"packed": True} if packed else {})
    return Case("attention", name, split, workload, facts, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    b, h, s, t, k, *kv = case.sizes["shape"]
    train, causal, packed = case.sizes["mode"] == "train", case.sizes["causal"], "packed" in case.sizes
    heads = [h, *(kv or [h]) * 2]

    def inputs():
        """q, k and v as SDPA has them, or one after the other; and the gradient of the output."""
        shapes = [(b, n, rows, k) for n, rows in zip(heads, (s, t, t), strict=True)]
        made = [random(*shape, device=device, dtype=case.dtype) for shape in (*shapes, shapes[0])]
        if packed:
            made = [x.transpose(1, 2).flatten(0, 1).contiguous() for x in made]
        return (*(x.requires_grad_(train) for x in made[:3]), made[3])

    def run(function):
        """Forward: the output; with backward: the gradients."""

        def both(q, key, value, grad):
            out = function(q, key, value)
            return torch.autograd.grad(out, (q, key, value), grad) if train else out

        return both

    def sdpa(*x):
        return F.scaled_dot_product_attention(*x, is_causal=causal, enable_gqa=bool(kv))

    def unpacked(x):
        return x.unflatten(0, (b, -1)).transpose(1, 2)

    def exact(*x):
        wide = [t.detach() for t in x]
        found = _exact(run(sdpa), [unpacked(t) for t in wide] if packed else wide, train)
        return [t.transpose(1, 2).flatten(0, 1) for t in found] if packed else found

    functions = {} if packed else {"torch": run(sdpa)}
    if device.type != "cpu" and not packed:
        functions |= {name: run(_by(backend, sdpa)) for name, backend in BACKENDS.items()}
        if s * t * b * h >= 2**31:  # what it writes down must fit
            functions.pop("math")
        functions["triton"] = run(partial(attention, causal=causal))
    if device.type != "cpu" and packed:
        bounds = torch.arange(0, b * s + 1, s, dtype=torch.int32, device=device)
        functions["triton"] = run(lambda *x: attention_packed(*x, bounds, bounds, s, t, causal=causal))
        functions["varlen"] = run(lambda *x: _varlen(*x, bounds, s, causal))
    if device.type == "cuda":
        given = inputs()
        functions = {n: f for n, f in functions.items() if n in OURS or _supported(partial(f, *given))}
        if s == t and not packed:
            functions["flex"] = run(_flex(s, causal, bool(kv), device))
    return Built(functions, exact, "varlen" if packed else "torch", inputs=inputs)


def _exact(function, tensors, train: bool) -> list[torch.Tensor]:
    """The results in float64, by as many batch entries and heads of the keys as fit at once."""
    q, key, value, grad = tensors
    group, scores = q.shape[1] // key.shape[1], q.shape[2] * key.shape[2]
    step = max(1, CHUNK // (group * scores))
    found = [torch.empty(t.shape, dtype=torch.float64, device=q.device) for t in tensors[: 3 if train else 1]]
    for i in range(q.shape[0]):
        for j in range(0, key.shape[1], step):
            rows, keys = slice(j * group, (j + step) * group), slice(j, j + step)
            parts = [q[i : i + 1, rows], key[i : i + 1, keys], value[i : i + 1, keys]]
            wide = [t.double().requires_grad_(train) for t in parts]
            out = function(*wide, grad[i : i + 1, rows].double())
            for into, part, place in zip(found, out if train else (out,), (rows, keys, keys), strict=False):
                into[i : i + 1, place] = part.detach()
    return found


def _varlen(q, key, value, bounds, longest, causal):
    """torch's own attention for sequences one after the other. Raises RuntimeError where it has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise RuntimeError(str(error)) from None
    window = (-1, 0) if causal else (-1, -1)
    return varlen_attn(q, key, value, bounds, bounds, longest, longest, window_size=window)


def _flex(seq, causal, grouped, device):
    """flex_attention, which torch.compile makes: at its first call, as it takes seconds."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    made: list = []

    def function(*x):
        if not made:
            seen = (lambda _batch, _head, i, j: i >= j) if causal else None
            mask = create_block_mask(seen, None, None, seq, seq, device=str(device)) if seen else None
            made.append(compiled(partial(flex_attention, block_mask=mask, enable_gqa=grouped)))
        return made[0](*x)

    return function


def _by(backend, sdpa):
    def function(*x):
        with sdpa_kernel(backend):
            return sdpa(*x)

    return function


def _supported(function) -> bool:
    """Whether a backend takes this case; one that does not raises RuntimeError."""
    try:
        function()
    except RuntimeError:
        return False
    return True


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "varlen", "flex", *BACKENDS))
def test_attention(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
