"""How many sites published training on several devices, by stack and generation of devices, which tells how
sure an answer for several is: `python -m budget.bench.published.together [--write] TABLE.csv ...`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable

from budget import stack as stacks
from budget import table
from budget.files import replace

from .measured import site
from .rows import NotCoveredError, device, whole
from .table import read

FILE = os.path.join(table.DATA, "together.json")


def publications(paths: Iterable[str]) -> dict[str, dict[str, int]]:
    """By stack and generation, the sites (repositories, domains, papers) with a row of training on several
    devices: what one of them says in ten threads or versions is known from one.
    """
    sources: dict[str, dict[str, set[str]]] = {}
    for path in paths:
        kind, rows = read(path)
        for row in rows:
            try:
                if whole(row, "n_gpus", 1) == 1:
                    continue
                part = next(kind.asked(row)).parts[0]
            except NotCoveredError:
                continue
            stack = stacks.load(part.settings["stack"])
            by = sources.setdefault(stack.same or stack.name, {})
            by.setdefault(device(row["gpu"]).generation, set()).add(site(row["source"]))
    return {
        stack: {generation: len(those) for generation, those in sorted(by.items())}
        for stack, by in sorted(sources.items())
    }


def main(argv: list[str]) -> int:
    """Show the numbers, or write them into the data."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.published.together", description=__doc__)
    parser.add_argument("tables", metavar="TABLE.csv", nargs="+")
    parser.add_argument("--write", action="store_true", help=f"into {os.path.basename(FILE)}")
    options = parser.parse_args(argv)
    counts = publications(options.tables)
    if options.write:
        known = {**table.load("together.json"), "publications": counts}
        replace(FILE, json.dumps(known, indent=2) + "\n")
    else:
        print(json.dumps(counts, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
