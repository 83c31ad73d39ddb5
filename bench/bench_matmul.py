"""Matrix products: torch's own (cuBLAS, MKL), compiled, with cuBLAS's GELU epilogue, and this project's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, Case, operators, parametrize, random
from budget.bench.record import Built

PLAIN, GELU, BATCHED = "plain", "gelu", "batched"
CPU_FIT = (
    (1, 1024, 1024), (8, 512, 512), (16, 64, 64), (64, 64, 64), (32, 1024, 256), (64, 1024, 512),
    (64, 3072, 768), (128, 256, 1024), (256, 256, 256), (512, 512, 512), (128, 2304, 768), (512, 128, 2048),
    (1024, 64, 1024), (256, 1000, 2048), (8, 2048, 512), (768, 768, 64), (100, 20, 10), (4, 4096, 1024),
)  # fmt: skip
CPU_HELD = (
    (4, 768, 768), (48, 96, 160), (64, 768, 3072), (200, 300, 400), (384, 384, 384), (1, 2000, 500),
    (32, 2048, 512), (640, 320, 96), (16, 1000, 1000), (2304, 768, 64),
)  # fmt: skip
CPU_BATCHED = {
    FIT: ((12, 64, 64, 64), (8, 128, 128, 64), (96, 32, 32, 64)),
    HELD: ((16, 96, 96, 64), (24, 64, 32, 64)),
}
GPU_FIT = [(m, n, k) for m in (128, 512, 2048, 8192) for n, k in ((1024, 1024), (4096, 4096), (14336, 4096))]
GPU_FIT += [(16, 4096, 4096), (1, 4096, 14336), (8192, 4096, 1024), (8192, 1024, 8192), (1000, 1000, 1000)]
GPU_HELD = [
    (256, 2048, 2048),
    (1024, 6144, 4096),
    (4096, 4096, 14336),
    (8192, 8192, 8192),
    (3000, 2500, 1500),
]
GPU_HELD += [(8, 8192, 8192), (4096, 5120, 1280)]


def cases() -> list[Case]:
    """All cases, of every device."""
    found = [
        _case(PLAIN, s, shape, "float32")
        for s, shapes in ((FIT, CPU_FIT), (HELD, CPU_HELD))
        for shape in shapes
    ]
    found += [
        _case(BATCHED, split, shape, "float32") for split, shapes in CPU_BATCHED.items() for shape in shapes
    ]
    for kind in (PLAIN, GELU):
        found += [_case(kind, FIT, shape, "bfloat16") for shape in GPU_FIT]
        found += [_case(kind, HELD, shape, "bfloat16") for shape in GPU_HELD]
    return found


def _case(kind: str, split: str, shape: tuple[int, ...], dtype: str) -> Case:
    *batch, m, n, k = shape
    sizes = {"s": m, "f": n, "d": k, "b": batch[0] if batch else 1}
    second = "!y: b d f" if kind == BATCHED else "*d f, +*f"
    lines = [("product", f"!x: b s d, {second} -> z: b s f", "contract")]
    if kind == GELU:
        lines.append(("gelu", "z: -> u:", "gelu"))
    name = f"{kind}-{'x'.join(map(str, shape))}"
    return Case(
        "matmul", name, split, operators(*lines, **sizes), {"kind": kind, "shape": list(shape)}, dtype
    )


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    *batch, m, n, k = case.sizes["shape"]
    make = lambda *shape: random(*shape, device=device, dtype=case.dtype)  # noqa: E731 - a shorter name
    if case.sizes["kind"] == BATCHED:
        a, b = make(*batch, m, k), make(*batch, k, n)
        return Built({"torch": lambda: torch.bmm(a, b)}, lambda: torch.bmm(a.double(), b.double()))
    a, weight, bias = make(m, k), make(n, k), make(n)
    gelu = case.sizes["kind"] == GELU
    act = F.gelu if gelu else lambda x: x
    functions = {"torch": lambda: act(F.linear(a, weight, bias))}
    if device.type == "cuda":
        from budget.kernels.matmul import matmul

        b, compiled = weight.mT, torch.compile(functions["torch"])
        functions["triton"] = lambda: matmul(a, b, bias, activation="gelu" if gelu else None)
        functions["compile"] = compiled
        if gelu:
            functions["cublas_gelu"] = lambda: torch._addmm_activation(bias, a, b, use_gelu=True)  # noqa: SLF001 - the only way to it
    return Built(functions, lambda: act(F.linear(a.double(), weight.double(), bias.double())))


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile", "cublas_gelu"))
def test_matmul(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
