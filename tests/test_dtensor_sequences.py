"""Context and expert parallelism against torch's own, on the fake process group: what is sent, and how much.

Ring attention is torch.distributed.tensor.experimental's, with the processor's kernel; Ulysses and experts
are written out with torch's differentiable all-to-all, and autograd makes their backward pass.
"""

from collections import Counter

import pytest

import budget
from budget.fold.communication import communications

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

W, B, S, D, H, E, K = 8, 2, 32, 64, 8, 8, 2
SIZES = {"layers": 1, "d_model": D, "heads": H, "d_ff": 2 * D, "vocab": 96, "context": S, "dropout": 0.0}


@pytest.fixture(scope="module")
def group():
    """Eight ranks, of which this process plays the first."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=W)
    yield init_device_mesh("cpu", (W,)).get_group()
    dist.destroy_process_group()


class Sent(TorchDispatchMode):
    """Elements of this rank's buffers, by collective."""

    def __init__(self):
        super().__init__()
        self.elements, self.times = Counter(), Counter()

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        name = call.name().rpartition("::")[2]
        if name.startswith(("all_gather", "all_to_all", "reduce_scatter", "all_reduce")):
            self.elements[name] += args[0].numel()
            self.times[name] += 1
        return call(*args, **(kwargs or {}))


def ours(layout, phase, kind, **config):
    """(times, elements of the whole tensors) of one device's program."""
    e = budget.estimate(
        "transformer", config={**SIZES, **config}, seq=S, batch=B, layout=layout, device="h100",
        precision="pure", dtype="fp32", optimizer="sgd",
    )  # fmt: skip
    (rank,) = e.spread.ranks
    sent = [c for c in communications(rank.program.nodes, "float32") if c.axis in ("cp", "ep")]
    found = [c for c in sent if (c.phase, c.kind) == (phase, kind)]
    return sum(c.times for c in found), sum(c.times * c.bytes for c in found) // 4


@pytest.mark.parametrize("kv_heads", [H, 2])
def test_ring_attention(group, kv_heads):
    """Keys and values are gathered in both passes, their gradients go around as often as there are ranks."""
    from torch.distributed.tensor.experimental._context_parallel import _attention as ring

    aten = torch.ops.aten

    def forward(q, k, v, is_causal, **_):
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, is_causal)

    def backward(grad_out, query, key, value, out, logsumexp, is_causal, **_):
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad_out, query, key, value, out, logsumexp, 0.0, is_causal
        )

    q, k, v = (torch.randn(B, H, S // W, D // H) for _ in range(3))
    with Sent() as there:
        out, lse, *_ = ring._templated_ring_attention(group, 2, forward, q, k, v, is_causal=True)
    with Sent() as back:
        ring._templated_ring_attention_backward(
            group, 2, backward, torch.randn_like(out), "grad_out", q, k, v, out, lse, True
        )
    share = kv_heads / H  # torch's processor kernel has as many keys as queries
    gathered = W * there.elements["all_gather_into_tensor"] * share
    own = {"positions": "rotary", "fused_qkv": False, "kv_heads": kv_heads}
    assert ours("cp=8", "forward", "all_gather", **own) == (2, gathered)
    assert W * back.elements["all_gather_into_tensor"] * share == gathered
    assert ours("cp=8", "backward", "all_gather", **own) == (2, gathered)
    assert back.times["all_to_all_single"] == W
    assert ours("cp=8", "backward", "reduce_scatter", **own) == (
        2,
        back.elements["all_to_all_single"] * share,
    )


def swapped(x, scatter, gather, group):
    """A tensor that is divided along `gather`, divided along `scatter` instead."""
    from torch.distributed import _functional_collectives as collectives

    sent = torch.stack(x.chunk(W, scatter)).contiguous()
    got = collectives.all_to_all_single_autograd(sent, None, None, group)
    return torch.cat(list(got.reshape(sent.shape)), gather)


def test_ulysses(group):
    x = [torch.randn(B, S // W, H, D // H, requires_grad=True) for _ in range(3)]
    with Sent() as there:
        q, k, v = (swapped(t, 2, 1, group).transpose(1, 2) for t in x)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out = swapped(y.transpose(1, 2), 1, 2, group)
    with Sent() as back:
        out.sum().backward()
    for phase, sent in (("forward", there), ("backward", back)):
        times, elements = ours("cp=8,cp_kind=ulysses", phase, "all_to_all", fused_qkv=False)
        assert times == sent.times["all_to_all_single"] == 4
        assert elements == sent.elements["all_to_all_single"]


def test_experts(group):
    """Each token goes to K of E experts, one a rank, and comes back; so do the gradients."""
    tokens = torch.randn(B * S, D, requires_grad=True)
    w1, w2 = torch.randn(D, D, requires_grad=True), torch.randn(D, D, requires_grad=True)
    with Sent() as there:
        copies = tokens.repeat_interleave(K, 0)
        mine = swapped(copies, 0, 0, group)
        out = swapped((mine @ w1).relu() @ w2, 0, 0, group)
    with Sent() as back:
        out.unflatten(0, (-1, K)).sum(1).sum().backward()
    own = {"experts": E, "active_experts": K, "expert_d_ff": D}
    for phase, sent in (("forward", there), ("backward", back)):
        times, elements = ours("dp=8,ep=8", phase, "all_to_all", **own)
        assert times == sent.times["all_to_all_single"] == 2
        assert elements == sent.elements["all_to_all_single"]
