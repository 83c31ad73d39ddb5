"""The tables of tests/data, some of their rows, and rows as a table of their own."""

import csv
from pathlib import Path

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
