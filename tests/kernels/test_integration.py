"""torch sees the kernels as operators of its own: opcheck, meta, compile, FLOP counts, autograd."""

import pytest
import torch
from budget.kernels.attention import attention, attention_packed
from budget.kernels.attention_cached import attention_cached
from budget.kernels.linear_cross_entropy import linear_cross_entropy
from budget.kernels.matmul import matmul
from budget.kernels.rms_norm import add_rms_norm, rms_norm
from budget.kernels.rope import rope
from budget.kernels.softmax import cross_entropy, softmax
from cases import DEVICE, generator, random, route
from torch.utils.flop_counter import FlopCounterMode

G = generator(0)


def tensor(*shape, dtype=torch.float32, grad=True):
    return random(shape, dtype, generator=G).requires_grad_(grad)


BOUNDS = torch.tensor([0, 3, 8], dtype=torch.int32, device=DEVICE)
CACHE, PAGES = tensor(2, 2, 40, 16, grad=False), tensor(3, 2, 16, 16, grad=False)
LENGTHS = torch.tensor([7, 12], dtype=torch.int32, device=DEVICE)
TABLE = torch.tensor([[2], [0]], dtype=torch.int32, device=DEVICE)
CLASSES = torch.tensor([1, 2, -100, 0], device=DEVICE)
NOTHING = (None,) * 3
RULES = (True, 0, 0.0, 0.25)
SAMPLES = {
    "matmul": [
        (tensor(1, 5, 8), tensor(1, 8, 6), tensor(6), None, *NOTHING, "gelu", torch.float32, False, True),
        (tensor(2, 5, 8), tensor(2, 8, 6), None, tensor(2, 8, 6), tensor(2, 5, 6), None, None, "silu",
         torch.float32, False, True),
        (tensor(1, 5, 8), tensor(1, 6, 8, grad=False).mT, None, None, *NOTHING, "none", torch.float32, False,
         False),
    ],
    "matmul_epilogue_backward": [
        (tensor(1, 5, 8, grad=False), tensor(1, 5, 8, grad=False), None, "gelu", True),
        (*(tensor(1, 5, 8, grad=False) for _ in range(3)), "silu", False),
    ],
    "softmax": [
        (tensor(3, 4, 7), None, 2.0, True, False),
        (tensor(3, 4, 7), tensor(4, 7), 0.5, False, True),
    ],
    "softmax_backward": [(tensor(4, 7, grad=False), tensor(4, 7, grad=False).softmax(-1), 2.0, False)],
    "cross_entropy": [(tensor(4, 7), CLASSES, 1.0, -100, 0.1)],
    "attention_cached": [
        (tensor(2, 4, 1, 16, grad=False), CACHE, CACHE, LENGTHS, None, None, None, True, 0, 0.0, 0.25),
        (tensor(2, 2, 3, 16, grad=False), PAGES, PAGES, LENGTHS, TABLE, None, tensor(2, grad=False), True, 5,
         2.0, 0.25),
    ],
    "linear_cross_entropy": [
        (tensor(4, 6), tensor(7, 6), CLASSES, tensor(7), 1.0, 2.0, -100,
         0.1),
        (tensor(4, 6), tensor(7, 6, grad=False), CLASSES, None, 0.5, 0.0,
         -100, 0.0),
    ],
    "linear_cross_entropy_backward": [
        (tensor(4, grad=False), tensor(4, 6, grad=False), tensor(7, 6, grad=False),
         CLASSES, None, *(torch.ones(4, device=DEVICE) for _ in range(2)),
         1.0, 0.0, -100, 0.0, True, True, False),
    ],
    "rms_norm": [
        (tensor(3, 4, 7), None, tensor(7), 1e-6, 1.0),
        (tensor(4, 7), tensor(4, 7), None, 1e-6, 0.0),
    ],
    "rms_norm_backward": [
        (tensor(4, 7, grad=False), None, tensor(4, 7, grad=False), tensor(7, grad=False),
         tensor(4, grad=False), 1.0, True),
    ],
    "rope": [
        (tensor(2, 3, 5, 8), tensor(5, 3, grad=False), tensor(5, 3, grad=False), None, False, False),
        (tensor(2, 5, 3, 8).transpose(1, 2), *(tensor(2, 7, 4, grad=False) for _ in range(2)),
         torch.arange(5, device=DEVICE), True, True),
    ],
    "rope_": [(tensor(2, 3, 5, 8, grad=False), *(tensor(5, 4, grad=False) for _ in range(2)), None, False)],
    "attention": [
        (tensor(1, 4, 5, 16), tensor(1, 2, 7, 16), tensor(1, 2, 7, 16), None, None, None, None, 0, 0, *RULES),
        (tensor(2, 2, 5, 16), tensor(2, 2, 7, 16), tensor(2, 2, 7, 16), tensor(1, 2, 5, 7), tensor(2), None,
         None, 0, 0, *RULES),
        (tensor(1, 2, 8, 16), tensor(1, 2, 8, 16), tensor(1, 2, 8, 16), None, None, BOUNDS, BOUNDS, 5, 5,
         *RULES),
    ],
}  # fmt: skip


@pytest.mark.parametrize("where", ["triton", "reference"])
@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name, samples in SAMPLES.items() for arguments in samples]
)
def test_opcheck(name, arguments, where):
    with route(where):
        torch.library.opcheck(getattr(torch.ops.budget, name).default, arguments)


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_meta_tensors():
    q, k = meta(2, 8, 100, 64), meta(2, 2, 300, 64)
    assert attention(q, k, k, causal=True).shape == (2, 8, 100, 64)
    assert softmax(meta(3, 5), causal=True).dtype == torch.bfloat16
    assert matmul(meta(4, 6), meta(6, 8), meta(8), activation="gelu").shape == (4, 8)
    assert matmul(meta(4, 6), meta(6, 8), out_dtype=torch.float32).dtype == torch.float32
    assert [t.shape for t in add_rms_norm(meta(4, 6), meta(4, 6), meta(6))] == [(4, 6), (4, 6)]
    assert rope(meta(2, 3, 5, 8), meta(5, 4), meta(5, 4)).shape == (2, 3, 5, 8)
    lengths, table = (meta(*shape, dtype=torch.int32) for shape in ((2,), (2, 9)))
    q = meta(2, 8, 1, 64)
    assert attention_cached(q, k, k, lengths).shape == (2, 8, 1, 64)
    assert attention_cached(q, k, k, lengths, table).shape == (2, 8, 1, 64)
    loss = cross_entropy(meta(3, 5).requires_grad_(), meta(3, dtype=torch.int64))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    loss.backward()


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_flop_counts_are_torchs():
    a, b = meta(3, 4, 6).requires_grad_(), meta(6, 8).requires_grad_()
    assert flops(lambda: matmul(a, b, activation="gelu")) == flops(lambda: a @ b)
    assert flops(lambda: matmul(a, b, activation="gelu").sum().backward()) == flops(
        lambda: (a @ b).sum().backward()
    )
    assert flops(lambda: matmul(a, b, gate=b, activation="silu")) == 2 * flops(lambda: a @ b)

    q, k = meta(2, 8, 100, 64).requires_grad_(), meta(2, 8, 300, 64).requires_grad_()
    forward = 4 * 2 * 8 * 100 * 300 * 64  # in full, causal or not: torch's convention
    assert flops(lambda: attention(q, k, k, causal=True)) == forward
    # Five products backward, as torch counts its own fused attention.
    assert flops(lambda: attention(q, k, k).sum().backward()) == forward + forward * 5 // 2


def test_flops_of_a_cache():
    """FLOPs are of the keys in the cache, not of those for which it has room."""
    q = tensor(2, 4, 1, 16, grad=False)
    assert flops(lambda: attention_cached(q, CACHE, CACHE, LENGTHS)) == 4 * 4 * 16 * (7 + 12)


def test_flops_of_head_and_loss():
    """Those of the head, whose product runs once more in the backward pass."""
    hidden, weight = meta(10, 6).requires_grad_(), meta(8, 6).requires_grad_()
    target = meta(10, dtype=torch.int64)
    head = flops(lambda: hidden @ weight.mT)
    assert flops(lambda: linear_cross_entropy(hidden, weight, target)) == head
    assert flops(lambda: linear_cross_entropy(hidden, weight, target).backward()) == 4 * head
    frozen = weight.detach()
    assert flops(lambda: linear_cross_entropy(hidden, frozen, target).backward()) == 3 * head


def test_flops_of_packed_sequences():
    q = tensor(8, 2, 16, grad=False)
    pairs = 3 * 3 + 5 * 5
    assert flops(lambda: attention_packed(q, q, q, BOUNDS, BOUNDS, 5, 5)) == 4 * 2 * 16 * pairs


ANGLES = tensor(6, 8, grad=False)


class Block(torch.nn.Module):
    """A little of everything."""

    def forward(self, x, w, target):
        h = matmul(rms_norm(x), w, activation="gelu_tanh")
        q = h.unflatten(-1, (2, 16)).transpose(1, 2)
        k = rope(q, ANGLES.cos(), ANGLES.sin())
        h = attention(q, k, q, causal=True).transpose(1, 2).flatten(2)
        loss = linear_cross_entropy(h, w, target, reduction="sum")
        return loss + cross_entropy(h * softmax(h), target)


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_compile(where):
    x, w = tensor(2, 6, 32), tensor(32, 32)
    target = torch.zeros(2, 6, dtype=torch.int64, device=DEVICE)
    block = Block()
    with route(where):
        expected = torch.autograd.grad(block(x, w, target), (x, w))
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        found = torch.autograd.grad(compiled(x, w, target), (x, w))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_references_backward_is_autograd_of_the_forward():
    """The formulas of the reference against torch's own differentiation, in float64."""
    from budget.kernels.attention_reference import reference_backward, reference_forward
    from budget.kernels.attention_rules import Rules

    q, k, v = (tensor(1, h, 6, 16).double().detach().requires_grad_() for h in (4, 2, 2))
    bias = tensor(1, 4, 6, 6).double().detach().requires_grad_()
    rules = Rules(causal=True, window=4, softcap=2.0, scale=0.3)
    sinks = tensor(4).double().detach().requires_grad_()
    out, log_sum = reference_forward(q, k, v, bias, rules, sinks)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, (q, k, v, bias, sinks), grad)
    found = reference_backward(grad, q, k, v, out, log_sum, bias, rules, sinks)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
