"""Rotary position embedding of queries: as transformers writes it in torch, compiled, and this project's."""

from __future__ import annotations

import torch
from budget.bench.cases import FIT, HELD, MODES, Case, compiled, operators, parametrize, random, shaped
from budget.bench.record import Built

LINE = "*x: b s h k, !cos: s k, !sin: s k -> y: b s h k"
# batch, heads, positions, head_dim
CPU = {FIT: ((1, 8, 128, 64), (2, 12, 256, 64), (1, 32, 64, 128)), HELD: ((1, 16, 200, 64), (4, 4, 128, 32))}
GPU = {
    FIT: ((4, 32, 4096, 128), (1, 32, 8192, 128), (8, 12, 1024, 64), (4, 8, 4096, 128)),
    HELD: ((2, 32, 4096, 128), (16, 16, 2048, 64), (1, 64, 16384, 128)),
}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [_case(split, x, mode, dtype) for split, x, dtype in shaped(CPU, GPU) for mode in MODES]


def _case(split: str, shape: tuple[int, ...], mode: str, dtype: str) -> Case:
    b, h, s, k = shape
    tensors = 2 if mode == "forward" else 4  # x and y, and their gradients
    least = tensors * b * h * s * k * (4 if dtype == "float32" else 2)
    workload = operators(("rope", LINE, "rope"), mode=mode, b=b, h=h, s=s, k=k)
    sizes = {"shape": list(shape), "mode": mode, "least_bytes": least}
    return Case("rope", f"{'x'.join(map(str, shape))}-{mode}", split, workload, sizes, dtype)


def _plain(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """As transformers has it: each angle twice, in x's dtype."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result: y, or the gradient of x, for both."""
    train, (b, h, s, k) = case.sizes["mode"] == "train", case.sizes["shape"]
    angles = torch.arange(s, device=device)[:, None] * 1e4 ** (-torch.arange(k // 2, device=device) * 2 / k)
    table = [t.to(getattr(torch, case.dtype)) for t in (angles.cos(), angles.sin())]  # as a model holds them
    both = [torch.cat((t, t), -1) for t in table]

    def inputs():
        x, *grad = (
            random(b, s, h, k, device=device, dtype=case.dtype).transpose(1, 2) for _ in range(1 + train)
        )
        return x.requires_grad_(train), *grad

    def run(function):
        def turned_back(x, grad):
            return torch.autograd.grad(function(x), x, grad)[0]

        return turned_back if train else function

    functions = {"torch": run(lambda x: _plain(x, *both))}
    if device.type != "cpu":
        from budget.kernels.rope import rope

        fused = compiled(_plain)
        functions |= {"triton": run(lambda x: rope(x, *table)), "compile": run(lambda x: fused(x, *both))}

    def exact(x, *grad):
        wide = run(lambda x: _plain(x, *(t.double() for t in both)))
        return wide(x.detach().double().requires_grad_(train), *(t.double() for t in grad))

    return Built(functions, exact, inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile"))
def test_rope(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
