"""What a processor's step makes on new pages, held against torch's own calls."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import budget
from budget.fold.pages import STEPS, anew, loop, mapped
from budget.ir.line import op

SIDE = 64
TORCH = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}  # fmt: skip


class Made(TorchDispatchMode):
    """Counts tensors of a weight's size that calls make, and not in the place of another."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {t.untyped_storage().data_ptr() for t in args if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() == SIDE * SIDE:
            self.number += out.untyped_storage().data_ptr() not in before
        return out


@pytest.mark.parametrize("name", ["sgd", *STEPS])
def test_an_optimizer_makes_so_many_tensors_for_a_weight(name):
    weight = torch.nn.Parameter(torch.randn(SIDE, SIDE))
    weight.grad = torch.randn(SIDE, SIDE)
    optimizer = TORCH.get(name, torch.optim.SGD)([weight], lr=1e-3, foreach=False)
    optimizer.step()  # makes the states
    with Made() as made:
        optimizer.step()
    assert made.number == STEPS.get(name, 0)


def test_gradients_are_of_all_weights_and_large_ones_apart():
    network = torch.nn.Sequential(torch.nn.Linear(64, 8192 * 16), torch.nn.Linear(8192 * 16, 10))
    sizes = [p.numel() * 4 for p in network.parameters()]
    config = {"sizes": [64, 8192 * 16, 10]}
    program = budget.estimate("mlp", config=config, batch=2, precision="pure", dtype="float32").program
    found = loop(program, "float32")
    assert found == (len(sizes), sum(sizes), sum(n for n in sizes if n >= 32 * 2**20))
    assert found.new("sgd") == sum(sizes)
    assert found.new("adamw") == sum(sizes) + 2 * 64 * 8192 * 16 * 4


def test_what_is_written_in_place_is_not_new():
    sizes = {"s": 4096, "d": 4096}
    relu, within = (
        op("act", "x: s d -> y: s d", kind)._replace(sizes=sizes) for kind in ("relu", "pointwise_")
    )
    assert anew([relu], "float32", 1) == (64 * 2**20,)
    assert anew([within], "float32", 1) == ()


@pytest.mark.parametrize(("size", "new"), [(0, 0), (33554428, 0), (33554432, 33554432), (2**26, 2**26)])
def test_from_32_mib_on(size, new):
    """malloc's DEFAULT_MMAP_THRESHOLD_MAX of 64 bits, 4 x 1024 x 1024 x 8 bytes. Source: mallopt."""
    assert mapped(size) == new
