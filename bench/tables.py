"""docs/benchmarks.md from the records: every figure in it is measured, none is typed.

    python -m budget.bench.tables [--write]

The newest records of each device: a row a case, with its implementations beside each other; where there is
one alone, a row a suite. First the devices that have run this project's kernels.
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
predicted. In brackets: how many times faster the first implementation of a row is than this one. Where there
is one alone, as on processors, a row is a whole suite; bench/results has each case.

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
    records_of = {device: records.read([os.path.join(folder, device)], device) for device in devices}
    parts = [HEAD]
    for device in sorted(filter(records_of.get, devices), key=lambda d: not _has_ours(records_of[d])):
        parts += [f"\n## {device}\n", *_device(records_of[device])]
    return "\n".join(parts).rstrip() + "\n"


def _has_ours(found: Sequence[Record]) -> bool:
    return any(r.implementation == OURS for r in found)


def _device(found: Sequence[Record]) -> Iterator[str]:
    versions = found[-1].info.get("versions", {})
    methods = sorted({str(r.info.get("method")) for r in found})
    yield f"{', '.join(f'{k} {v}' for k, v in versions.items())}. Times by {'; '.join(methods)}.\n"
    if not _has_ours(found):
        yield "Triton kernels run on GPUs only: here are torch's own, against which they would be held.\n"
    alone = []
    for suite in dict.fromkeys(r.suite for r in found):
        cases = [r for r in found if r.suite == suite]
        if len({r.implementation for r in cases}) == 1:
            alone.append(_spans(suite, cases))
        else:
            yield f"### {suite}\n"
            yield _beside(cases) + "\n"
    if alone:
        yield _table(["suite", "cases", "times", "rates"], alone) + "\n"


def _beside(found: Sequence[Record]) -> str:
    """A row a case: ours, or the first, with its rate; the others with how many times faster that one is."""
    names = sorted(dict.fromkeys(r.implementation for r in found), key=lambda name: name != OURS)
    cases: dict[str, dict[str, Record]] = {}
    for r in found:
        cases.setdefault(r.case, {})[r.implementation] = r
    rows = []
    for case, by_name in cases.items():
        first, *others = (by_name.get(name) for name in names)
        own = [seconds(first.seconds), _rate(first)] if first else ["", ""]
        rows.append([case, *own, *(_against(r, first) if r else "" for r in others)])
    return _table(["case", names[0], "rate", *names[1:]], rows)


def _against(r: Record, first: Record | None) -> str:
    ratio = first and first.info.get("ratio_to", {}).get(r.implementation)
    return seconds(r.seconds) + (f" ({ratio:.2f})" if ratio else "")


def _rate(r: Record) -> str:
    """FLOP/s, or B/s of what has no products."""
    return decimal(_number(r)) + ("FLOP/s" if r.info.get("flops") else "B/s")


def _spans(suite: str, found: Sequence[Record]) -> list[str]:
    """The shortest and the longest time of a suite, the lowest and the highest rate."""
    times, rates = sorted(found, key=lambda r: r.seconds), sorted(found, key=_number)
    return [
        suite,
        str(len(found)),
        f"{seconds(times[0].seconds)} to {seconds(times[-1].seconds)}",
        f"{_rate(rates[0])} to {_rate(rates[-1])}",
    ]


def _number(r: Record) -> float:
    return float(r.info.get("flops", 0) or r.info.get("bytes", 0)) / r.seconds


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ("left", *["right"] * (len(head) - 1))
    return str(tabulate(rows, head, tablefmt="github", disable_numparse=True, colalign=align))


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
