"""Attention, forward and with its backward pass: SDPA by each of its backends, and this project's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, Case, operators, parametrize, random
from budget.bench.record import Built
from torch.nn.attention import SDPBackend, sdpa_kernel

# The operators of one head's attention; `*` marks what needs a gradient.
LINES = (
    ("scores", "*q: b s h k, *key: b t h k -> score: b h s t", "contract"),
    ("scale", "score: -> score:", "scale"),
    ("softmax", "score: -> prob:", "softmax"),
    ("mix", "prob: b h s t, *value: b t h k -> out: b s h k", "contract"),
)
# batch, heads, queries, keys, head_dim
CPU = {
    FIT: (
        (1, 12, 64, 64, 64),
        (1, 4, 256, 256, 32),
        (2, 8, 128, 128, 64),
        (1, 2, 512, 512, 128),
        (8, 4, 32, 32, 16),
        (1, 8, 1, 512, 64),
    ),
    HELD: ((1, 12, 128, 128, 64), (2, 4, 200, 200, 48), (1, 16, 64, 64, 32), (1, 3, 384, 384, 64)),
}
GPU = {
    FIT: (
        (4, 16, 1024, 1024, 128),
        (4, 16, 4096, 4096, 128),
        (1, 16, 16384, 16384, 128),
        (4, 32, 2048, 2048, 64),
        (4, 32, 8192, 8192, 64),
        (16, 16, 512, 512, 64),
    ),
    HELD: (
        (4, 16, 2048, 2048, 128),
        (2, 16, 8192, 8192, 128),
        (4, 32, 4096, 4096, 64),
        (8, 32, 1024, 1024, 64),
    ),
}
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}


def cases() -> list[Case]:
    """All cases, of every device."""
    found = []
    for dtype, table in (("float32", CPU), ("bfloat16", GPU)):
        for split, shapes in table.items():
            for shape in shapes:
                found += [
                    _case(split, shape, mode, causal, dtype) for mode, causal in _variants(shape, dtype)
                ]
    return found


def _variants(shape: tuple[int, ...], dtype: str) -> list[tuple[str, bool]]:
    modes = ["forward"] if shape[2] == 1 else ["forward", "train"]
    return [
        (mode, causal) for mode in modes for causal in ((False,) if dtype == "float32" else (False, True))
    ]


def _case(split: str, shape: tuple[int, ...], mode: str, causal: bool, dtype: str) -> Case:
    b, h, s, t, k = shape
    workload = operators(*LINES, mode=mode, group="attention", b=b, h=h, s=s, t=t, k=k)
    name = f"{'x'.join(map(str, shape))}-{mode}" + "-causal" * causal
    return Case(
        "attention", name, split, workload, {"shape": list(shape), "mode": mode, "causal": causal}, dtype
    )


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    b, h, s, t, k = case.sizes["shape"]
    train, causal = case.sizes["mode"] == "train", case.sizes["causal"]
    q, key, value = (random(b, h, n, k, device=device, dtype=case.dtype) for n in (s, t, t))
    grad = random(b, h, s, k, device=device, dtype=case.dtype)
    if train:
        q, key, value = (x.requires_grad_() for x in (q, key, value))

    def run(function):
        """Forward, or with backward: the gradient of q then stands for all."""
        out = function(q, key, value)
        return torch.autograd.grad(out, (q, key, value), grad)[0] if train else out

    sdpa = lambda *x: F.scaled_dot_product_attention(*x, is_causal=causal)  # noqa: E731 - passed on below
    functions = {"torch": lambda: run(sdpa)}
    if device.type == "cuda":
        from budget.kernels.attention import attention

        functions["triton"] = lambda: run(lambda *x: attention(*x, causal=causal))
        for name, backend in BACKENDS.items():
            if name != "math" or s * t * b * h < 2**31:  # what it writes down must fit
                functions[name] = _by(backend, run, sdpa)
        functions = {name: f for name, f in functions.items() if _supported(f)}

    def exact():
        wide = [x.detach().double().requires_grad_(train) for x in (q, key, value)]
        out = sdpa(*wide)
        return torch.autograd.grad(out, wide, grad.double())[0] if train else out

    return Built(functions, exact)


def _by(backend, run, sdpa):
    def function():
        with sdpa_kernel(backend):
            return run(sdpa)

    return function


def _supported(function) -> bool:
    """Whether a backend takes this case at all: they say no by a RuntimeError."""
    try:
        function()
    except RuntimeError:
        return False
    return True


@parametrize(cases(), cpu=("torch",), cuda=("torch", "triton", *BACKENDS))
def test_attention(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
