"""Softmax over the last dimension, forward and both passes: torch's, compiled, and this project's."""

from __future__ import annotations

import torch
from budget.bench.cases import FIT, HELD, MODES, Case, compiled, operators, parametrize, random, shaped
from budget.bench.record import Built

LINES = {"forward": "!x: s t -> z: s t", "train": "*x: s t -> z: s t"}
CPU = {
    FIT: ((64, 64), (256, 256), (64, 2048), (1024, 512), (100, 50257), (4096, 64), (8, 16)),
    HELD: ((128, 128), (300, 1000), (2000, 100), (32, 32000)),
}
GPU = {
    FIT: ((4096, 1024), (4096, 4096), (4096, 16384), (2048, 65536), (512, 262144)),
    HELD: ((8192, 2048), (4096, 8192), (4096, 32768), (1024, 131072)),
}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [
        _case(split, *x, dtype, mode)
        for split, x, dtype in shaped(CPU, GPU)
        for mode in (MODES if dtype == "bfloat16" else MODES[:1])
    ]


def _case(split: str, s: int, t: int, dtype: str, mode: str) -> Case:
    moves = 2 if mode == "forward" else 4  # x, z; the two gradients. z may still be in the L2 when it is read
    least = moves * s * t * (4 if dtype == "float32" else 2)
    sizes = {"shape": [s, t], "mode": mode, "least_bytes": least}
    workload = operators(("softmax", LINES[mode], "softmax"), mode=mode, s=s, t=t)
    return Case("softmax", f"{s}x{t}" + "-train" * (mode == "train"), split, workload, sizes, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    train, shape = case.sizes["mode"] == "train", case.sizes["shape"]
    make = lambda: random(*shape, device=device, dtype=case.dtype)  # noqa: E731 - a shorter name

    def run(function):
        def both(x, grad):
            return torch.autograd.grad(function(x), x, grad)[0]

        return both if train else function

    functions = {"torch": run(lambda x: torch.softmax(x, -1))}
    if device.type != "cpu":
        from budget.kernels.softmax import softmax

        functions |= {"triton": run(softmax), "compile": run(compiled(lambda x: torch.softmax(x, -1)))}

    def exact(x, *grad):
        wide = [t.detach().double() for t in (x, *grad)]
        wide[0].requires_grad_(train)
        return functions["torch"](*wide)

    def inputs():
        return (make().requires_grad_(), make()) if train else (make(),)

    return Built(functions, exact, inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile"))
def test_softmax(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
