"""RMSNorm, forward and with its backward pass: torch's, compiled, and this project's."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, MODES, Case, compiled, operators, parametrize, random, shaped
from budget.bench.record import Built

LINE = "*x: s d, *d -> y: s d"
EPS = 1e-6
# rows, elements of a row: hidden states, and the heads that a model normalizes
CPU = {
    FIT: ((64, 256), (256, 768), (1024, 512), (16, 4096)),
    HELD: ((128, 1024), (2000, 128)),
}
GPU = {
    FIT: ((8192, 4096), (16384, 2048), (8192, 8192), (262144, 128)),
    HELD: ((16384, 4096), (4096, 5120), (8192, 1024), (4096, 16384)),
}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [_case(split, *x, mode, dtype) for split, x, dtype in shaped(CPU, GPU) for mode in MODES]


def _case(split: str, s: int, d: int, mode: str, dtype: str) -> Case:
    tensors = 2 if mode == "forward" else 4  # x and y, and their gradients
    sizes = {"shape": [s, d], "mode": mode, "least_bytes": tensors * s * d * (4 if dtype == "float32" else 2)}
    workload = operators(("norm", LINE, "fused_rms_norm"), mode=mode, s=s, d=d)
    return Case("rms_norm", f"{s}x{d}-{mode}", split, workload, sizes, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result: y, or the gradient of x, for both."""
    train, (s, d) = case.sizes["mode"] == "train", case.sizes["shape"]

    def inputs():
        shapes = ((s, d), (d,), (s, d)) if train else ((s, d), (d,))
        x, weight, *grad = (random(*shape, device=device, dtype=case.dtype) for shape in shapes)
        return x.requires_grad_(train), weight.requires_grad_(train), *grad

    def run(function):
        def both(x, weight, grad):
            return torch.autograd.grad(function(x, weight), (x, weight), grad)[0]

        return both if train else function

    plain = lambda x, weight: F.rms_norm(x, (d,), weight, EPS)  # noqa: E731 - twice below
    functions = {"torch": run(plain)}
    if device.type != "cpu":
        from budget.kernels.rms_norm import rms_norm

        functions |= {"triton": run(partial(rms_norm, eps=EPS)), "compile": run(compiled(plain))}

    def exact(x, weight, *grad):
        wide = [t.detach().double().requires_grad_(train) for t in (x, weight)]
        return functions["torch"](*wide, *(t.double() for t in grad))

    return Built(functions, exact, inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile"))
def test_rms_norm(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
