"""Rows of a table by their numbers: embeddings, and bags of them that are added up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, Case, compiled, operators, parametrize, random, shaped
from budget.bench.record import Built

KINDS = {
    "embedding": ("!ids/int64: b l, *~v d -> x: b l d", "gather", F.embedding),
    "bag": (
        "!ids/int64: b l, *~v d -> x: b d",
        "embedding_bag",
        lambda i, t: F.embedding_bag(i, t, mode="sum"),
    ),
}
# samples, rows of each, rows of the table, width
CPU = {
    FIT: ((16, 1, 100, 16), (256, 1, 5000, 16), (64, 4, 20000, 64), (512, 8, 2000, 32), (32, 64, 30000, 256)),
    HELD: ((128, 1, 1000, 32), (100, 3, 50000, 48), (8, 100, 10000, 512)),
}
GPU = {
    FIT: ((2048, 1, 1000000, 128), (8192, 1, 100000, 64), (512, 32, 2000000, 128), (8, 2048, 50257, 4096)),
    HELD: ((4096, 1, 500000, 96), (16, 1024, 128256, 2048)),
}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [_case(kind, *one) for one in shaped(CPU, GPU) for kind in KINDS]


def _case(kind: str, split: str, shape: tuple[int, ...], dtype: str) -> Case:
    line, ours, _ = KINDS[kind]
    b, rows, v, d = shape
    workload = operators((kind, line, ours), b=b, l=rows, v=v, d=d)
    return Case(
        "gather",
        f"{kind}-{'x'.join(map(str, shape))}",
        split,
        workload,
        {"kind": kind, "shape": list(shape)},
        dtype,
    )


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    b, rows, v, d = case.sizes["shape"]
    function = KINDS[case.sizes["kind"]][2]
    table = random(v, d, device=device, dtype=case.dtype)
    functions = {"torch": lambda ids: function(ids, table)}
    if device.type != "cpu":
        fast = compiled(function)
        functions["compile"] = lambda ids: fast(ids, table)
    inputs = lambda: (torch.randint(v, (b, rows), device=device),)  # noqa: E731 - passed on below
    return Built(functions, lambda ids: function(ids, table.double()), inputs=inputs)


@parametrize(cases(), cpu=("torch",), cuda=("torch", "compile"))
def test_gather(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
