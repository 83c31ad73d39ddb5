"""Everything that fifteen minutes on a GPU are worth: `python -m budget.bench.campaign run --out DIR`.

    run      check and measure on the GPU at hand, until --seconds are over
    prepare  compile what the plan needs, without a GPU, so that none of the time goes into it

docs/benchmarks.md says when to use which.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, TextIO

from .campaign_parent import CLOSING_S, Parent, Records, lane
from .campaign_prepare import WHEEL, environment, prepare, unpack
from .campaign_summary import gate, summary

PREPARED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prepared")
COMPILERS = 14  # processes


def main(argv: list[str]) -> int:
    """The exit status: 2 for what the caller got wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m budget.bench.campaign", description=__doc__.split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="check and measure until the time is over")
    run.add_argument("--seconds", type=float, default=500, help="in all (500)")
    run.add_argument("--out", required=True, metavar="DIR", help="a folder for the results; made if need be")
    run.add_argument("--stages", default="", metavar="A,B", help="these alone, in this order (all)")
    run.add_argument("--on", default="cuda", choices=("cuda", "cpu"))
    run.add_argument(
        "--prepared", default=PREPARED, metavar="DIR", help="what `prepare` made (bench/prepared)"
    )
    ahead = commands.add_parser("prepare", help="compile what the plan needs, without a GPU")
    ahead.add_argument("--prepared", default=PREPARED, metavar="DIR", help="where to (bench/prepared)")
    ahead.add_argument("--nvcc-wheel", default="", metavar="FILE", help=f"{WHEEL}, else pip fetches it")
    ahead.add_argument("--jobs", type=int, default=0, help="processes (one a core)")
    options = parser.parse_args(argv)
    try:
        return RUN[options.command](options)
    except RefusedError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 2


class RefusedError(Exception):
    """What the caller got wrong, in one line."""


def run(options: argparse.Namespace) -> int:
    """A campaign; its folder has records.jsonl, env.json, gate.txt, summary.txt and log.txt."""
    start = time.monotonic()
    end = start + options.seconds - CLOSING_S
    if options.on == "cuda" and not _gpu():
        raise RefusedError("--on: there is no GPU here that its driver tells of; allowed: cpu")
    if options.seconds < 2 * CLOSING_S:
        raise RefusedError(f"--seconds: {options.seconds:g}; allowed: at least {2 * CLOSING_S:g}")
    try:
        os.makedirs(options.out, exist_ok=True)
        log = open(os.path.join(options.out, "log.txt"), "a", encoding="utf-8")  # noqa: SIM115 - until the end
    except OSError as error:
        raise RefusedError(f"--out: cannot write {options.out}: {error.strerror}") from None
    records = Records(options.out)
    with log, tempfile.TemporaryDirectory(prefix="campaign-") as scratch:
        environments = _environments(options, scratch, log)
        parent = Parent(records, environments, options.on, log)
        compilers = _compile(environments, log) if options.on == "cuda" else {}
        try:
            _stages(options, parent, compilers, start, end)
        finally:
            parent.keep(())
            for process in compilers.values():
                process.kill()
            _close(records, options.out)
    return 2 if records.problem else 0


def _gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        return subprocess.run([tool, "-L"], capture_output=True, check=False, timeout=30).returncode == 0  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return False


def _environments(options: argparse.Namespace, scratch: str, log: TextIO) -> dict[str, dict[str, str]]:
    """The environment of a worker by its assembler, what was prepared unpacked for it."""
    cache, assembler = (os.path.join(scratch, name) for name in ("cache", "ptxas"))
    bundled = environment(os.environ, cache)
    if options.on == "cpu":
        return {"newest": bundled | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}}
    if not unpack(options.prepared, cache, assembler, log):
        return {"newest": bundled}
    return {"newest": environment(os.environ, cache, assembler), "bundled": bundled}


def _compile(environments: Mapping[str, Mapping[str, str]], log: TextIO) -> dict[str, subprocess.Popen]:
    """Start compiling what the cache lacks, for each assembler."""
    command = [sys.executable, "-m", "budget.bench.campaign_cache", "--jobs", str(COMPILERS)]
    return {
        name: subprocess.Popen(command, stdout=log, stderr=log, env=dict(environment), start_new_session=True)  # noqa: S603
        for name, environment in environments.items()
    }


def _stages(
    options: argparse.Namespace,
    parent: Parent,
    compilers: dict[str, subprocess.Popen],
    start: float,
    end: float,
) -> None:
    """Run the stages: each ends when its share of the time is over; what one leaves is for the later ones."""
    plan, shares = _plan(parent, end)
    names = options.stages.split(",") if options.stages else list(shares)
    if unknown := [name for name in names if name not in shares]:
        raise RefusedError(f"--stages: {unknown[0]!r}; allowed: {', '.join(shares)}")
    whole, done, start = sum(shares[name] for name in names), 0.0, time.monotonic()
    for name in names:
        done += shares[name]
        tasks = [t for t in plan if t["stage"] == name and t["assembler"] in parent.environments]
        soon = [t for t in plan if t["stage"] in names[names.index(name) : names.index(name) + 2]]
        parent.keep({lane(t) for t in soon})
        for where in {lane(t) for t in soon if t["assembler"] in parent.environments}:
            parent.worker(where)
        short = all(t["do"] == "environment" for t in tasks)  # and nothing is worth much without them
        deadline = end if short else start + (end - start) * done / whole
        if not short:
            _wait(compilers, deadline)
        print(f"stage {name}: {len(tasks)} tasks, {time.monotonic() - start:.0f} s", flush=True)
        for answer in parent.stage(tasks, deadline, end):
            _tell(answer)


def _plan(parent: Parent, end: float) -> tuple[list[dict[str, Any]], dict[str, float]]:
    worker = parent.worker(("newest", ""))
    problem = worker.ready(end - time.monotonic())
    if problem or not worker.plan:
        raise RefusedError(f"the worker did not start ({problem}); log.txt says why")
    return worker.plan, worker.shares


def _wait(compilers: dict[str, subprocess.Popen], deadline: float) -> None:
    """Until the newest assembler's kernels are there, or half of the time until the deadline is over."""
    process = compilers.get("newest")
    if process is not None and process.poll() is None:
        try:
            process.wait((deadline - time.monotonic()) / 2)
        except subprocess.TimeoutExpired:
            print("compiling goes on beside the measurements", flush=True)


def _tell(answer: Mapping[str, Any]) -> None:
    if answer["status"] not in ("skipped", "not reached"):
        print(f"  {answer['status']:10s} {answer['task']} {answer.get('error_text', '')[:120]}", flush=True)


def _close(records: Records, folder: str) -> None:
    """Write what people read; the records are there already."""
    environment = [line["environment"] for line in records.lines if "environment" in line]
    texts = {
        "env.json": json.dumps(environment[0] if environment else {}, indent=1) + "\n",
        "gate.txt": gate(records.lines),
        "summary.txt": summary(records.lines),
    }
    for name, text in texts.items():
        try:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            print(f"campaign: cannot write {name}: {error.strerror}", file=sys.stderr)
    print(texts["summary.txt"], flush=True)


def _prepare(options: argparse.Namespace) -> int:
    print(prepare(options.prepared, options.nvcc_wheel, options.jobs))
    return 0


RUN = {"run": run, "prepare": _prepare}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
