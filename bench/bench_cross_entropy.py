"""Cross-entropy of logits, forward and both passes: torch's, compiled, and this project's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, MODES, Case, compiled, operators, parametrize, random, shaped
from budget.bench.record import Built

# What torch runs: this project's kernel is one.
LINES = {
    mode: (("log_softmax", f"{mark}x: s v -> y: s v", "log_softmax"), ("loss", "y: -> z: 1", "nll"))
    for mode, mark in (("forward", "!"), ("train", "*"))
}
# targets, classes
CPU = {FIT: ((64, 1000), (32, 5000)), HELD: ((128, 2000),)}
GPU = {FIT: ((8192, 50257), (4096, 32000), (2048, 128256)), HELD: ((8192, 128256), (8192, 32000))}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [_case(split, *x, dtype, mode) for split, x, dtype in shaped(CPU, GPU) for mode in MODES]


def _case(split: str, s: int, v: int, dtype: str, mode: str) -> Case:
    moves = 1 if mode == "forward" else 2  # the logits are read, their gradient written
    least = moves * s * v * (4 if dtype == "float32" else 2)
    sizes = {"shape": [s, v], "mode": mode, "least_bytes": least}
    workload = operators(*LINES[mode], mode=mode, s=s, v=v)
    return Case("cross_entropy", f"{s}x{v}-{mode}", split, workload, sizes, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result: the loss, or the gradient of the logits."""
    train, (s, v) = case.sizes["mode"] == "train", case.sizes["shape"]

    def inputs():
        x = random(s, v, device=device, dtype=case.dtype).requires_grad_(train)
        return x, torch.randint(v, (s,), device=device)

    def run(function):
        def both(x, target):
            loss = function(x, target)
            return torch.autograd.grad(loss, x)[0] if train else loss

        return both

    functions = {"torch": run(F.cross_entropy)}
    if device.type != "cpu":
        from budget.kernels.softmax import cross_entropy

        functions |= {"triton": run(cross_entropy), "compile": run(compiled(F.cross_entropy))}

    def exact(x, target):
        return functions["torch"](x.detach().double().requires_grad_(train), target)

    return Built(functions, exact, inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile"))
def test_cross_entropy(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
