"""Convolutions: cuDNN's or oneDNN's, forward and with the backward pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, MODES, Case, operators, parametrize, random, shaped
from budget.bench.record import Built

# batch, channels in, out, side of the output, window, stride
CPU = {
    FIT: (
        (1, 3, 32, 112, 3, 2),
        (4, 64, 64, 28, 1, 1),
        (2, 64, 64, 28, 3, 1),
        (1, 128, 256, 14, 3, 1),
        (1, 256, 512, 7, 3, 1),
        (4, 512, 128, 7, 1, 1),
        (1, 48, 96, 40, 3, 2),
        (8, 16, 32, 16, 3, 1),
        (1, 32, 32, 56, 5, 1),
    ),
    HELD: (
        (1, 3, 64, 56, 7, 2),
        (2, 128, 128, 16, 3, 1),
        (1, 256, 1024, 14, 1, 1),
        (1, 96, 160, 20, 3, 1),
        (4, 40, 40, 24, 3, 1),
    ),
}
GPU = {
    FIT: (
        (128, 3, 64, 112, 7, 2),
        (128, 64, 64, 56, 3, 1),
        (128, 256, 64, 56, 1, 1),
        (128, 512, 512, 7, 3, 1),
        (32, 256, 256, 14, 3, 1),
    ),
    HELD: (
        (128, 128, 128, 28, 3, 1),
        (128, 1024, 256, 14, 1, 1),
        (64, 512, 2048, 7, 1, 1),
        (32, 96, 192, 40, 3, 2),
    ),
}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [_case(split, x, mode, dtype) for split, x, dtype in shaped(CPU, GPU) for mode in MODES]


def _case(split: str, shape: tuple[int, ...], mode: str, dtype: str) -> Case:
    b, c, f, side, window, stride = shape
    axes = "z y" if window == 1 and stride == 1 else "z+i y+j"
    line = f"*x: b c {axes}, *f c i j -> out: b f z y"
    sizes = {"b": b, "c": c, "f": f, "z": side, "y": side, "i": window, "j": window}
    if "+" in axes:
        sizes |= {"z+i": (side - 1) * stride + window, "y+j": (side - 1) * stride + window}
    name = f"{'x'.join(map(str, shape))}-{mode}"
    workload = operators(("conv", line, "contract"), mode=mode, **sizes)
    return Case("convolution", name, split, workload, {"shape": list(shape), "mode": mode}, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    b, c, f, side, window, stride = case.sizes["shape"]
    train, wide = case.sizes["mode"] == "train", (side - 1) * stride + window
    last = {"memory_format": torch.channels_last}

    def inputs():
        """x and the weight, in both memory formats, and the gradient of the output."""
        x, weight = (
            random(*n, device=device, dtype=case.dtype) for n in ((b, c, wide, wide), (f, c, window, window))
        )
        both = (x, weight, x.clone(**last), weight.clone(**last)) if device.type != "cpu" else (x, weight)
        return (
            random(b, f, side, side, device=device, dtype=case.dtype),
            *(t.requires_grad_(train) for t in both),
        )

    def run(grad, x, weight):
        out = F.conv2d(x, weight, stride=stride)
        return torch.autograd.grad(out, (x, weight), grad)[0] if train else out

    functions = {"torch": lambda grad, x, weight, *_: run(grad, x, weight)}
    if device.type != "cpu":
        functions["channels_last"] = lambda grad, x, weight, x_last, w_last: run(grad, x_last, w_last)

    def exact(grad, x, weight, *_):
        wide = [t.detach().double().requires_grad_(train) for t in (x, weight)]
        return run(grad.double(), *wide).detach()

    return Built(functions, exact, inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "channels_last"))
def test_convolution(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
