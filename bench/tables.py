"""docs/benchmarks.md from the records: every figure in it is measured, none is typed.

    python -m budget.bench.tables [--write]

Of each device the newest records: every implementation of a case with its rate and its ratio to the others;
first the devices that have run this project's kernels.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from budget.files import replace
from budget.measured import record as records
from budget.measured.record import Record
from budget.report._units import decimal, seconds

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(TOP, "docs", "benchmarks.md")
HEAD = """# Benchmarks

Written by `python -m budget.bench.tables --write` from the records in bench/results, never by hand.
[bench/README.md](../bench/README.md) says how they were taken, [accuracy.md](accuracy.md) how well they are
predicted. A ratio above 1 is how many times faster the implementation is than the one named.

## A GPU in two commands

On a machine with an NVIDIA GPU and nothing but Python, torch, Triton, transformers, NumPy, pytest, tabulate
and psutil (nvidia-ml-py is used where it is there), from a checkout:

    PYTHONPATH=$PWD python3 -m budget.bench.campaign run --seconds 500 --out DIR
    PYTHONPATH=$PWD python3 -m budget.bench.campaign import DIR

The first checks every kernel against float64, measures them beside torch's, measures torch alone for the
profile, whole training steps with their peak memory, tries settings, and ends in time whatever happens: each
result is on disk at once, a worker that hangs or crashes is replaced. `--stages D,G` does some of it,
`--on cpu` tries it out without a GPU. The second needs no GPU: it makes the folder into records, settings, a
profile and this page.

Where minutes on the GPU are few, `prepare --triton 3.6.0` compiles the kernels before, into bench/prepared,
for that Triton, which it fetches; it needs no GPU. It takes along the newer assembler that NVIDIA's wheel
nvidia-cuda-nvcc has. And
`run --follow-up --after DIR --out DIR2` does what was not reached, then runs the kernels' tests, compiled,
and looks inside with compute-sanitizer and ncu.

`python3 -m budget.bench.programs --out DIR` times what people run: transformers' Trainer and `generate`,
networks of timm's and torchvision's, with their memory; 29 programs, perhaps four minutes (no GPU has run it
yet). It writes tables that `python -m budget.bench.published DIR/training.csv` predicts; `--seconds 0` writes
them before.

What an H100 was expected to give, before anything had run on a GPU, stands in
bench/campaign/predictions.toml; a run's summary, beside its records, has the outcomes.
"""
OURS = "triton"  # this project's kernels


def page() -> str:
    """The whole file."""
    folder = records.results_folder()
    devices = sorted(d for d in os.listdir(folder) if os.path.isdir(os.path.join(folder, d)))
    found = {device: records.read([os.path.join(folder, device)], device) for device in devices}
    parts = [HEAD]
    for device in sorted(filter(found.get, devices), key=lambda d: not _has_ours(found[d])):
        parts += [f"\n## {device}\n", *_device(found[device])]
    return "\n".join(parts).rstrip() + "\n"


def _has_ours(found: Sequence[Record]) -> bool:
    return any(r.implementation == OURS for r in found)


def _device(found: Sequence[Record]) -> Iterator[str]:
    versions = found[-1].info.get("versions", {})
    methods = sorted({str(r.info.get("method")) for r in found})
    yield f"{', '.join(f'{k} {v}' for k, v in versions.items())}. Times by {'; '.join(methods)}.\n"
    if not _has_ours(found):
        yield "Triton kernels run on GPUs only: here are torch's own, against which they would be held.\n"
    for suite in dict.fromkeys(r.suite for r in found):
        yield f"### {suite}\n"
        yield _table([r for r in found if r.suite == suite]) + "\n"


def _table(found: Sequence[Record]) -> str:
    """One row a record, with the ratio to every other implementation of its case."""
    others = list(dict.fromkeys(name for r in found for name in r.info.get("ratio_to", {})))
    head = ["case", "implementation", "time", "FLOP/s", "B/s", *(f"x {name}" for name in others)]
    cells = [[*_cells(r), *(_ratio(r, name) for name in others)] for r in found]
    align = ("left", "left", *["right"] * (len(head) - 2))
    return str(tabulate(cells, head, tablefmt="github", disable_numparse=True, colalign=align))


def _cells(r: Record) -> list[str]:
    flops, moved = r.info.get("flops", 0) / r.seconds, r.info.get("bytes", 0) / r.seconds
    return [r.case, r.implementation, seconds(r.seconds), decimal(flops) if flops else "", decimal(moved)]


def _ratio(r: Record, name: str) -> str:
    ratio = r.info.get("ratio_to", {}).get(name)
    return f"{ratio:.2f}" if ratio else ""


def main(argv: list[str]) -> int:
    """Print the page, or write it."""
    text = page()
    if "--write" in argv:
        try:
            replace(PAGE, text)
        except OSError as error:
            print(f"tables: cannot write {PAGE}: {error.strerror}", file=sys.stderr)
            return 2
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
