"""Cases to measure: each has a name, sizes, and the operators or the model from which budget predicts it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import torch

FIT, HELD = "fit", "held"  # splits: calibration learns from the first, and never sees the second
MODES = ("forward", "train")
Table = Mapping[str, Iterable[Any]]  # by split, the shapes


class Case(NamedTuple):
    """One thing to measure, in as many implementations as its suite has.

    workload: budget's input for the prediction, as in the record (budget/measured/record.py).
    quick: part of --quick; the others run in the full suite only, on a GPU.
    """

    suite: str
    name: str
    split: str
    workload: Mapping[str, Any]
    sizes: Mapping[str, Any]
    dtype: str = "float32"
    quick: bool = True

    def __str__(self) -> str:
        return f"{self.name}-{self.dtype}"


def operators(
    *lines: tuple[str, str, str], mode: str = "forward", group: str = "", **sizes: int
) -> dict[str, Any]:
    """A workload of operators: (name, line, kind) each; `group` names the fused kernel they make."""
    return {"ops": [list(line) for line in lines], "mode": mode, "group": group, "sizes": sizes}


def shaped(cpu: Table, gpu: Table) -> Iterator[tuple[str, Any, str]]:
    """(split, shape, dtype) of each: in float32 on a processor, in bfloat16 on a GPU."""
    for dtype, table in (("float32", cpu), ("bfloat16", gpu)):
        for split, shapes in table.items():
            yield from ((split, shape, dtype) for shape in shapes)


def parametrize(cases: list[Case], cpu: tuple[str, ...], cuda: tuple[str, ...]):
    """A test for each case and implementation; conftest.py keeps those of the device at hand."""
    names = dict.fromkeys((*cpu, *cuda))
    where = {n: tuple(d for d, known in (("cpu", cpu), ("cuda", cuda)) if n in known) for n in names}
    return pytest.mark.parametrize(
        ("case", "implementation", "where"),
        [pytest.param(c, n, where[n], id=f"{c}-{n}") for c in cases for n in names],
    )


def random(*shape: int, device: torch.device, dtype: str = "float32") -> torch.Tensor:
    """Random data: zeros would be up to 15 % faster on a GPU. Source: kernel-power."""
    return torch.randn(shape, device=device, dtype=torch.float32).to(torch_dtype(dtype))


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype of budget's name: its float8 for operands is e4m3."""
    return torch.float8_e4m3fn if name == "float8" else getattr(torch, name)


def compiled(function: Callable) -> Callable:
    """torch.compile for these shapes alone: an earlier case's compilation must not make them dynamic."""
    torch._dynamo.reset()  # noqa: SLF001 - the only name it has
    return torch.compile(function, dynamic=False)
