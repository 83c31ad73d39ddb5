"""The tables of tests/data, some of their rows, and rows as a table of their own."""

import csv
import tempfile
from functools import cache
from pathlib import Path

from budget.bench.published import memory
from budget.bench.published.measured import cases

DATA = Path(__file__).parent / "data"


def written(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def some(name, every):
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))[::every]


@cache
def few_cases():
    """Rows of two stacks on four generations of devices: tokens and prompts."""
    rows = [r for r in some("inference.csv", 1) if r["engine"].startswith(("gpt-fast", "llama.cpp (layer"))]
    with tempfile.TemporaryDirectory() as folder:
        few = written(Path(folder) / "few.csv", rows[::4])
        return [c for c in cases([str(few)]) if c.stack in ("gpt-fast", "llama.cpp-2024")]


def inference_row(**told):
    """A row of inference.csv on one A100, one sequence at a time; what is not told is empty."""
    with (DATA / "inference.csv").open() as file:
        columns = next(csv.reader(file))
    return dict.fromkeys(columns, "") | {"gpu": "A100", "n_gpus": "1", "batch": "1"} | told


def memory_asked(**told):
    """What a row of memory.csv asks; what is not told is empty."""
    empty = dict.fromkeys((*memory.COLUMNS, *memory.NUMBERS, "gpu", "precision", "optimizer", "notes"), "")
    (found,) = memory.asked({**empty, **told})
    return found
