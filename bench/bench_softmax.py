"""Softmax over the last dimension: torch's, compiled, and this project's."""

from __future__ import annotations

import torch
from budget.bench.cases import FIT, HELD, Case, operators, parametrize, random
from budget.bench.record import Built

LINE = "!x: s t -> z: s t"
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
    table = (("float32", CPU), ("bfloat16", GPU))
    return [
        _case(split, *shape, dtype) for dtype, t in table for split, shapes in t.items() for shape in shapes
    ]


def _case(split: str, s: int, t: int, dtype: str) -> Case:
    sizes = {"shape": [s, t], "least_bytes": 2 * s * t * (4 if dtype == "float32" else 2)}
    return Case("softmax", f"{s}x{t}", split, operators(("softmax", LINE, "softmax"), s=s, t=t), sizes, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    x = random(*case.sizes["shape"], device=device, dtype=case.dtype)
    functions = {"torch": lambda: torch.softmax(x, -1)}
    if device.type == "cuda":
        from budget.kernels.softmax import softmax

        compiled = torch.compile(lambda x: torch.softmax(x, -1))
        functions |= {"triton": lambda: softmax(x), "compile": lambda: compiled(x)}
    return Built(functions, lambda: torch.softmax(x.double(), -1))


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile"))
def test_softmax(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
