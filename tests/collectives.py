"""Seconds of collectives over one level of a cluster, and tables of measured ones."""

import csv
from pathlib import Path

from budget.fold import collective


def seconds(c, kind, size, degree, stride=1, **how):
    return collective.seconds(c, kind, size, ((degree, stride),), **how)


def rows(name):
    text = (Path(__file__).parent / "data" / name).read_text("utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if line[0] != "#"))
