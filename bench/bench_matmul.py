"""Matrix products: torch's own (cuBLAS, MKL), compiled, with cuBLAS's GELU epilogue, and this project's."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, Case, compiled, operators, parametrize, random
from budget.bench.record import Built

PLAIN, GELU, BATCHED, GATED, FP8, TRAIN = "plain", "gelu", "batched", "gated", "fp8", "train"
# The last ones have few rows and many weights, as in a network's forward pass, or more than a cache holds.
CPU_FIT = (
    (1, 1024, 1024), (8, 512, 512), (16, 64, 64), (64, 64, 64), (32, 1024, 256), (64, 1024, 512),
    (64, 3072, 768), (128, 256, 1024), (256, 256, 256), (512, 512, 512), (128, 2304, 768), (512, 128, 2048),
    (1024, 64, 1024), (256, 1000, 2048), (8, 2048, 512), (768, 768, 64), (100, 20, 10), (4, 4096, 1024),
    (32, 3072, 768), (32, 768, 768), (64, 768, 2304), (1, 8192, 8192), (16, 8192, 6144),
)  # fmt: skip
CPU_HELD = (
    (4, 768, 768), (48, 96, 160), (64, 768, 3072), (200, 300, 400), (384, 384, 384), (1, 2000, 500),
    (32, 2048, 512), (640, 320, 96), (16, 1000, 1000), (2304, 768, 64), (4, 7000, 6000), (32, 2048, 1024),
)  # fmt: skip
CPU_BATCHED = {
    FIT: ((12, 64, 64, 64), (8, 128, 128, 64), (96, 32, 32, 64)),
    HELD: ((16, 96, 96, 64), (24, 64, 32, 64)),
}
GPU_FIT = [(m, n, k) for m in (128, 512, 2048, 8192) for n, k in ((1024, 1024), (4096, 4096), (14336, 4096))]
GPU_FIT += [
    (16, 4096, 4096),
    (1, 4096, 14336),
    (8192, 4096, 1024),
    (8192, 1024, 8192),
    (1024, 1024, 8192),
    (1000, 1000, 1000),
]
GPU_HELD = [
    (256, 2048, 2048),
    (1024, 6144, 4096),
    (4096, 4096, 14336),
    (8192, 8192, 8192),
    (3000, 2500, 1500),
]
GPU_HELD += [(8, 8192, 8192), (4096, 5120, 1280)]


# The kinds besides plain: what follows the product, and how it runs.
GPU_GATED = {FIT: ((4096, 4096, 4096), (8192, 14336, 4096)), HELD: ((4096, 14336, 4096),)}
GPU_FP8 = {FIT: ((4096, 4096, 4096), (8192, 8192, 8192)), HELD: ((8192, 14336, 4096),)}
GPU_TRAIN = {FIT: ((8192, 4096, 4096), (8192, 1024, 1024)), HELD: ((4096, 14336, 4096), (8192, 768, 3072))}


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
    for kind, table, dtype in (
        (GATED, GPU_GATED, "bfloat16"),
        (TRAIN, GPU_TRAIN, "bfloat16"),
        (FP8, GPU_FP8, "float8"),
    ):
        found += [_case(kind, split, shape, dtype) for split, shapes in table.items() for shape in shapes]
    return found


def _case(kind: str, split: str, shape: tuple[int, ...], dtype: str) -> Case:
    *batch, m, n, k = shape
    sizes = {"s": m, "f": n, "d": k, "b": batch[0] if batch else 1}
    second = "!y: b d f" if kind == BATCHED else "*d f" if kind in (GATED, FP8) else "*d f, +*f"
    first = "*x" if kind == TRAIN else "!x"
    lines = [("product", f"{first}: b s d, {second} -> z: b s f", "contract")]
    if kind == GELU:
        lines.append(("gelu", "z: -> u:", "gelu"))
    if kind == GATED:
        lines += [
            ("gate", "!x: b s d, *d f -> g: b s f", "contract"),
            ("silu", "g: -> h:", "silu"),
            ("times", "z:, h: -> u:", "mul"),
        ]
    workload = operators(*lines, mode="train" if kind == TRAIN else "forward", **sizes)
    name = f"{kind}-{'x'.join(map(str, shape))}"
    return Case("matmul", name, split, workload, {"kind": kind, "shape": list(shape)}, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    kind, shape = case.sizes["kind"], case.sizes["shape"]
    make = partial(random, device=device, dtype=case.dtype)
    return {BATCHED: _batched, GATED: _gated, FP8: _fp8}.get(kind, _linear)(make, shape, kind, device)


def _batched(make, shape, kind, device) -> Built:
    batch, m, n, k = shape
    return Built(
        {"torch": torch.bmm},
        lambda a, b: torch.bmm(a.double(), b.double()),
        inputs=lambda: (make(batch, m, k), make(batch, k, n)),
    )


def _linear(make, shape, kind, device) -> Built:
    """x, the weight as torch keeps it [n, k], the bias; with the backward pass also the output's gradient."""
    m, n, k = shape
    train, gelu = kind == TRAIN, kind == GELU

    def inputs():
        x, weight, bias = (t.requires_grad_(train) for t in (make(m, k), make(n, k), make(n)))
        return (x, weight, bias, make(m, n)) if train else (x, weight, bias)

    def run(function):
        def both(x, weight, bias, grad):
            out = function(x, weight, bias)
            return torch.autograd.grad(out, (x, weight, bias), grad)

        return both if train else function

    def plain(x, weight, bias):
        out = F.linear(x, weight, bias)
        return F.gelu(out) if gelu else out

    functions = {"torch": run(plain)}
    if device.type != "cpu":
        from budget.kernels.matmul import matmul

        name = "gelu" if gelu else None
        functions["triton"] = run(lambda x, weight, bias: matmul(x, weight.mT, bias, activation=name))
        functions["compile"] = run(compiled(plain))
        if gelu:
            functions["cublas_gelu"] = lambda x, weight, bias: torch._addmm_activation(  # noqa: SLF001 - the only way to it
                bias, x, weight.mT, use_gelu=True
            )

    def exact(*x):
        return functions["torch"](*(t.detach().double().requires_grad_(train) for t in x))

    return Built(functions, exact, inputs=inputs)


def _gated(make, shape, kind, device) -> Built:
    """SwiGLU: (x @ w) * silu(x @ gate)."""
    m, n, k = shape

    def plain(x, weight, gate):
        return F.linear(x, weight) * F.silu(F.linear(x, gate))

    functions = {"torch": plain}
    if device.type != "cpu":
        from budget.kernels.matmul import matmul

        functions["triton"] = lambda x, w, gate: matmul(x, w.mT, gate=gate.mT, activation="silu")
        functions["compile"] = compiled(plain)
    return Built(
        functions,
        lambda *x: plain(*(t.double() for t in x)),
        inputs=lambda: (make(m, k), make(n, k), make(n, k)),
    )


def _fp8(make, shape, kind, device) -> Built:
    """float8_e4m3fn operands with one scale each, to bfloat16."""
    m, n, k = shape
    scale = torch.full((1,), 0.5, device=device)

    def inputs():
        return make(m, k), make(n, k)

    def torchs(x, weight):
        return torch._scaled_mm(x, weight.mT, scale, scale, out_dtype=torch.bfloat16)  # noqa: SLF001 - as above

    functions = {"torch": torchs}
    if device.type != "cpu":
        from budget.kernels.matmul import matmul

        functions["triton"] = lambda x, weight: matmul(x, weight.mT, scale_a=scale, scale_b=scale)
    return Built(functions, lambda x, weight: 0.25 * F.linear(x.double(), weight.double()), inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile", "cublas_gelu"))
def test_matmul(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
