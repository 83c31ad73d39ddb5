"""A scaling experiment on this machine: train small networks on real data, then fit a law to the results.

    python -m budget.bench.scaling run [--family mlp|text] [--minutes 10] [--out FILE]
    python -m budget.bench.scaling report [--records FILE] [--picture FILE]

`run` goes on where an interrupted one stopped: every training is on disk as soon as it ends. It needs torch
and scikit-learn (compute-budget[scaling]) and uses one thread. docs/scaling.md has the results of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDS = os.path.join(HERE, "records.jsonl")
BUSY = 1.5  # load a processor from which a machine counts as busy


def main(argv: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="budget.bench.scaling", description=__doc__.partition("\n")[0])
    does = parser.add_subparsers(dest="does", required=True)
    run = does.add_parser("run", help="train what the records do not have yet")
    run.add_argument("--family", choices=("mlp", "text"), help="only these networks")
    run.add_argument("--minutes", type=float, default=10.0, help="of processor time, then stop (10)")
    run.add_argument("--out", default=RECORDS, help="the records, one a line")
    run.add_argument("--only", default="", help="only trainings whose name has this in it")
    report = does.add_parser("report", help="fit the law, and draw it")
    report.add_argument("--records", default=RECORDS)
    report.add_argument("--picture", help="an SVG of the curves")
    options = parser.parse_args(argv)
    try:
        return train_all(options) if options.does == "run" else tell(options)
    except KeyboardInterrupt:
        print("interrupted; run again to go on")
        return 130


def train_all(options: argparse.Namespace) -> int:
    """Train what is missing, smallest first, until the time is over."""
    import torch

    from . import data, train

    torch.set_num_threads(1)
    done = {r["key"] for r in read(options.out)}
    families = [options.family] if options.family else list(train.PLANS)
    plans = [run for f in families for run in train.PLANS[f]()]
    left = [run for run in plans if run.key not in done and options.only in run.key]
    texts = data.text() if any(run.family == "text" for run in left) else None
    rates: dict = {}
    start = time.process_time()
    for run in left:
        if time.process_time() - start > options.minutes * 60:
            print(f"{options.minutes:g} minutes are over; run again to go on")
            return 0
        shape = (run.family, run.sizes)
        if shape not in rates:
            rates[shape] = train.tune(run, texts)
        rate, tried = rates[shape]
        one = train.record(run, rate, texts)
        one["lr_tried"] = {str(k): round(v, 4) for k, v in tried.items()}
        one["busy"] = os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)
        append(options.out, one)
        what = f"{run.key:<28} {one['params']:>9,} parameters  loss {one['loss']:.4f}"
        print(
            f"{what}  {one['accuracy']:.1%}  {one['measured_s']:.2f} s ({one['predicted_s']:.2f})", flush=True
        )
    return 0


def append(path: str, record: dict) -> None:
    """Add a record, on a line of its own even where an interruption left half a line."""
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record).encode() + b"\n")


def read(path: str) -> list[dict]:
    """The records of a file; none where there is no file. A line that an interruption cut is left out."""
    if not os.path.exists(path):
        return []
    records = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records


def tell(options: argparse.Namespace) -> int:
    """Print the laws of both families, and draw them."""
    from . import fitted, picture

    records = read(options.records)
    if not records:
        print(f"no records in {options.records}; first: python -m budget.bench.scaling run", file=sys.stderr)
        return 2
    families = fitted.families(records)
    print("\n\n".join(fitted.text(f) for f in families))
    if options.picture:
        with open(options.picture, "w", encoding="utf-8") as file:
            file.write(picture.draw(families) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
