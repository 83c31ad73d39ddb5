"""Peaks under FSDP1 (FullyShardedDataParallel), by a tracker of storages, on the first of two ranks.

Frozen layers with adapters, each in a reentrant checkpoint around FSDP's unit, as transformers 4 has them.
"""

import functools

import pytest

import budget

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
from test_dtensor import OWN, D, Layer, Net, V  # noqa: E402
from torch import nn  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

LAYERS, B, S, R = 10, 8, 64, 4
SMALL = 2048  # bytes: smaller tensors are not counted


class Tracker(TorchDispatchMode):
    """The largest sum of all storages that are alive behind a call."""

    def __init__(self, there):
        super().__init__()
        self.known, self.peak = {}, 0
        for t in there:
            self.add(t)

    def add(self, t):
        storage = t.untyped_storage()
        if storage.nbytes() == 0 or storage.nbytes() >= SMALL:  # FSDP makes a gathered unit's before its room
            ref = StorageWeakRef(storage)
            if ref.cdata not in self.known or self.known[ref.cdata].expired():
                self.known[ref.cdata] = ref

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor):
                self.add(t)
        alive = (torch.UntypedStorage._new_with_weak_ptr(at) for at in tuple(self.known))
        self.peak = max(self.peak, sum(s.nbytes() for s in alive if s is not None))
        return out


class Adapted(nn.Module):
    """A frozen linear layer with an adapter beside it."""

    def __init__(self, base):
        super().__init__()
        self.base, self.a, self.b = base, nn.Linear(D, R, bias=False), nn.Linear(R, D, bias=False)

    def forward(self, x):
        return self.base(x) + self.b(self.a(x))


class Checkpointed(Net):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.requires_grad_(False)
        for layer in self.layers:
            layer.attn.q = Adapted(layer.attn.q)

    def forward(self, ids):
        x = self.embed(ids).requires_grad_()
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=True)
        logits = self.head(self.norm(x))
        return nn.functional.cross_entropy(logits.float().view(-1, V), ids.view(-1))


@pytest.fixture
def two():
    from torch.testing._internal.distributed.fake_pg import FakeStore

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()
    torch.set_default_dtype(before)


def sharded(net):
    """As accelerate and peft wrap it: each layer is a unit, and each module that trains."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import (
        _or_policy,
        lambda_auto_wrap_policy,
        transformer_auto_wrap_policy,
    )

    def trains(module):
        return isinstance(module, nn.Linear) and module.weight.requires_grad

    policies = [
        functools.partial(lambda_auto_wrap_policy, lambda_fn=trains),
        functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={Layer}),
    ]
    policy = functools.partial(_or_policy, policies=policies)
    return FullyShardedDataParallel(net, auto_wrap_policy=policy, device_id=torch.device("cpu"))


@pytest.mark.filterwarnings("ignore")
def test_frozen_layers_hold_their_inputs_and_gradients(two):
    net = sharded(Checkpointed())
    ids = torch.zeros(B, S, dtype=torch.long)
    with Tracker([p.data for p in net.parameters()]) as tracker:
        net(ids).backward()
    how = {
        "config": {**OWN, "layers": LAYERS, "context": S}, "batch": B, "seq": S, "dtype": "bf16",
        "precision": "pure", "recompute": "full", "lora_rank": R, "lora_targets": "attn.q",
        "input_gradients": True, "execution": "eager", "attention": "sdpa", "optimizer": "sgd",
        "layout": {"dp": 2, "zero": 3}, "device": "h100",
    }  # fmt: skip
    without, held = (
        budget.estimate("transformer", **how, hold_checkpoints=hold).memory.peak for hold in (False, True)
    )
    assert held == pytest.approx(tracker.peak, rel=0.03)
    assert without < 0.85 * tracker.peak
