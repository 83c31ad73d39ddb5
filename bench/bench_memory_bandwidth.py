"""Memory: copies, sums and activations over sizes from a cache's to the memory's, as eager torch runs them.

Each call makes its output anew, as a network's operators do: the allocation belongs to the time.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, Case, compiled, operators, parametrize, random
from budget.bench.record import Built


def batch_norm(x: torch.Tensor) -> torch.Tensor:
    """Over 32 channels, as in training."""
    return F.batch_norm(x.view(2, 32, -1), None, None, training=True).view(x.shape)


def max_pool(x: torch.Tensor) -> torch.Tensor:
    """A window of 3 x 3 over every other place of 16 x 16."""
    return F.max_pool2d(x.view(1, -1, 16, x.shape[-1] // 16), 3, 2, 1)


def gelu_new(x: torch.Tensor) -> torch.Tensor:
    """The approximate GELU as transformers writes it out."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


ROW = 256
# operator: its line, its kind in budget, torch's function, how often each element is moved
KINDS = {
    "copy": ("!x: s d -> z: s d", "copy", lambda x: x.clone(), 2),
    "add": ("!x: s d, !y: s d -> z: s d", "add", torch.add, 3),
    "mul": ("!x: s d, !y: s d -> z: s d", "mul", torch.mul, 3),
    "relu": ("!x: s d -> z: s d", "relu", torch.relu, 2),
    "gelu": ("!x: s d -> z: s d", "gelu", F.gelu, 2),
    "silu": ("!x: s d -> z: s d", "silu", F.silu, 2),
    "tanh": ("!x: s d -> z: s d", "tanh", torch.tanh, 2),
    "sum": ("!x: s d -> z: s", "reduce", lambda x: x.sum(-1), 1),
    "gelu_new": ("!x: s d -> z: s d", "gelu_new", gelu_new, 2),
    "batch_norm": ("!x: s d -> z: s d", "batch_norm", batch_norm, 2),
    "max_pool": ("!x: s d -> z: s q", "max_pool", max_pool, 1),
    "layer_norm": ("!x: s d -> z: s d", "layer_norm", lambda x: F.layer_norm(x, x.shape[-1:]), 2),
}
ROWS = {FIT: (4, 64, 512, 4096, 16384), HELD: (16, 200, 1500, 9000)}
# More than a cache holds: read only, so that no time is spent on new pages; and written, where it is.
BEYOND = {FIT: (131072, 262144, 524288), HELD: (60000, 400000)}
MAPPED = {FIT: (50000, 150000), HELD: (36000, 90000)}
GPU_ROWS = {FIT: (1024, 8192, 65536, 524288), HELD: (4096, 30000, 250000)}


def cases() -> list[Case]:
    """All cases, of every device."""
    found = []
    for dtype, table, d in (("float32", ROWS, ROW), ("bfloat16", GPU_ROWS, 4 * ROW)):
        for split, rows in table.items():
            found += [_case(kind, split, s, d, dtype) for kind in KINDS for s in rows]
    large = (("sum", BEYOND), ("copy", MAPPED), ("add", MAPPED))
    return found + [
        _case(kind, split, s, ROW, "float32")
        for kind, table in large
        for split, rows in table.items()
        for s in rows
    ]


def _case(kind: str, split: str, s: int, d: int, dtype: str) -> Case:
    line, ours, _, moves = KINDS[kind]
    least = moves * s * d * (4 if dtype == "float32" else 2)
    sizes = {"kind": kind, "shape": [s, d], "least_bytes": least}
    return Case(
        "memory_bandwidth",
        f"{kind}-{s}x{d}",
        split,
        operators((kind, line, ours), s=s, d=d, q=d // 4),
        sizes,
        dtype,
    )


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    line, _, function, _ = KINDS[case.sizes["kind"]]
    make = lambda: random(*case.sizes["shape"], device=device, dtype=case.dtype)  # noqa: E731 - a shorter name
    functions = {"torch": function} | ({"compile": compiled(function)} if device.type != "cpu" else {})
    exact = lambda *x: function(*(t.double() for t in x))  # noqa: E731 - passed on below
    return Built(functions, exact, inputs=lambda: tuple(make() for _ in range(line.count("!"))))


@parametrize(cases(), cpu=("torch",), cuda=("torch", "compile"))
def test_memory_bandwidth(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
