"""A language model's head and loss: torch's, compiled, and this project's, which never holds the logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, MODES, Case, compiled, operators, parametrize, random, shaped
from budget.bench.record import Built

# Eager: the product, its logits in float32, and their loss.
LINES = (
    ("head", "*x: s d, *v d -> z: s v", "contract"),
    ("float", "z: -> up/float32: s v", "cast"),
    ("log_softmax", "up: -> logp/float32: s v", "softmax"),
    ("loss", "logp: -> loss/float32: s", "nll"),
)
# tokens, width, classes
CPU = {FIT: ((64, 64, 1000), (128, 128, 5000), (32, 256, 2000)), HELD: ((100, 64, 3000), (64, 192, 8000))}
GPU = {
    FIT: ((8192, 4096, 128256), (8192, 768, 50257), (4096, 2048, 32000)),
    HELD: ((8192, 2048, 128256), (16384, 4096, 32000)),
}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [_case(split, x, mode, dtype) for split, x, dtype in shaped(CPU, GPU) for mode in MODES]


def _case(split: str, shape: tuple[int, ...], mode: str, dtype: str) -> Case:
    s, d, v = shape
    workload = operators(*LINES, mode=mode, s=s, d=d, v=v)
    sizes = {"shape": list(shape), "mode": mode}
    return Case("linear_cross_entropy", f"{'x'.join(map(str, shape))}-{mode}", split, workload, sizes, dtype)


def _plain(x: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """As transformers has it: the loss of logits in float32, or wider."""
    logits = F.linear(x, weight)
    return F.cross_entropy(logits.to(torch.promote_types(torch.float32, logits.dtype)), target)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result: the loss, or the gradient of x, for both."""
    train, (s, d, v) = case.sizes["mode"] == "train", case.sizes["shape"]

    def inputs():
        x, weight = (random(*shape, device=device, dtype=case.dtype) for shape in ((s, d), (v, d)))
        weight *= d**-0.5
        return x.requires_grad_(train), weight.requires_grad_(train), torch.randint(v, (s,), device=device)

    def run(function):
        def both(x, weight, target):
            return torch.autograd.grad(function(x, weight, target), (x, weight))[0]

        return both if train else function

    functions = {"torch": run(_plain)}
    if device.type != "cpu":
        from budget.kernels.linear_cross_entropy import linear_cross_entropy

        functions |= {"triton": run(linear_cross_entropy), "compile": run(compiled(_plain))}

    def exact(x, weight, target):
        """In float64, some tokens at a time: all at once are 8 GB of logits."""
        wide, parts = weight.detach().double(), []
        for at in range(0, s, 1024):
            part = x[at : at + 1024].detach().double().requires_grad_(train)
            loss = F.cross_entropy(F.linear(part, wide), target[at : at + 1024], reduction="sum") / s
            parts.append(torch.autograd.grad(loss, part)[0] if train else loss)
        return torch.cat(parts) if train else sum(parts)

    return Built(functions, exact, inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", "compile"))
def test_linear_cross_entropy(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
