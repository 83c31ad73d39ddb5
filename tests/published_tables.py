"""The tables of tests/data, some of their rows, and rows as a table of their own."""

import csv
from pathlib import Path

from budget.bench.published import memory

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
