"""A campaign's run: its folder, its workers' environments, its stages and their deadlines."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from .follow import follow
from .lines import read
from .parent import CLOSING_S, Parent, Records, lane, say, stop
from .prepare import environment, unpack
from .refused import RefusedError
from .summary import gate, summary

LOGGED = 2**20  # bytes of log.txt that are kept: a whole folder should stay below 4 MB
COMPILERS = 12  # processes for each assembler; they yield to measurements
REACHED = ("ok", "wrong", "error", "hang", "crash", "cuda_error")  # results of tasks that are not done again
# Four networks are compiled at once; and asking for a GPU must not keep forked children from using it.
WORKERS = {"TORCHINDUCTOR_COMPILE_THREADS": "4", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
UNREACHED_SHARE = 0.5  # of a follow-up's time, for tasks that the run before it did not reach


def run(options: argparse.Namespace) -> int:
    """A campaign; its folder has records.jsonl, env.json, gate.txt, summary.txt and log.txt."""
    start = time.monotonic()
    end = start + options.seconds - CLOSING_S
    if options.seconds < 2 * CLOSING_S:
        raise RefusedError(f"--seconds: {options.seconds:g}; allowed: at least {2 * CLOSING_S:g}")
    if options.on == "cuda" and not _gpu():
        raise RefusedError("--on: there is no GPU here that its driver tells of; allowed: cpu")
    before = read(options.after) if options.after else []
    try:
        os.makedirs(options.out, exist_ok=True)
        log = open(os.path.join(options.out, "log.txt"), "a", encoding="utf-8")  # noqa: SIM115 - until the end
    except OSError as error:
        raise RefusedError(f"--out: cannot write {options.out}: {error.strerror}") from None
    records = Records(options.out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the workers must not outlive this
    with log, tempfile.TemporaryDirectory(prefix="campaign-") as scratch:
        environments = _environments(options, scratch, log)
        parent = Parent(records, environments, options.on, log, before)
        compilers = _compile(environments, log) if options.on == "cuda" else []
        try:
            _stages(options, parent, start, end)
            if options.follow_up:
                parent.keep(())
                follow(options.out, environments["newest"], end)
        finally:
            parent.keep(())
            for process in compilers:
                stop(process)
            if records.lines:
                _close(records, options.out)
            _shorten(log.name)
    return 2 if records.problem else 0


def _gpu() -> bool:
    """Whether a driver lists a GPU; whether torch can use it, the worker finds out."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return os.path.exists("/dev/nvidia0")
    try:
        return subprocess.run([tool, "-L"], capture_output=True, check=False, timeout=30).returncode == 0  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return False


def _environments(options: argparse.Namespace, scratch: str, log: TextIO) -> dict[str, dict[str, str]]:
    """The environment of a worker by its assembler, what was prepared unpacked for it."""
    cache, assembler = (os.path.join(scratch, name) for name in ("cache", "ptxas"))
    os.makedirs(cache)
    bundled = environment(os.environ, cache) | WORKERS
    if options.on == "cpu":
        return {"newest": bundled | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}}
    if not (unpack(options.prepared, cache, assembler, log) and _runs(assembler)):
        return {"newest": bundled}
    return {"newest": bundled | {"TRITON_PTXAS_PATH": assembler}, "bundled": bundled}


def _runs(assembler: str) -> bool:
    """Whether this machine can run an assembler: it may be for another processor, or on a disk without
    programs.
    """
    try:
        subprocess.run([assembler, "--version"], check=True, capture_output=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        say(f"campaign: the assembler that was prepared does not run: {error}", sys.stderr)
        return False
    return True


def _compile(environments: Mapping[str, Mapping[str, str]], log: TextIO) -> list[subprocess.Popen]:
    """Start compiling what the cache lacks, for each assembler."""
    command = [sys.executable, "-m", "budget.bench.campaign.precompile", "--nice", "--jobs", str(COMPILERS)]
    return [
        subprocess.Popen(  # noqa: S603 - this project's own program
            [*command, "--assembler", name],
            stdout=log,
            stderr=log,
            env=dict(variables),
            start_new_session=True,
        )
        for name, variables in environments.items()
    ]


def _stages(options: argparse.Namespace, parent: Parent, start: float, end: float) -> None:
    """Run the stages: each ends when its share of the time is over; time that one leaves goes to later
    ones.
    """
    plan, shares = _plan(parent, end)
    names = options.stages.split(",") if options.stages else list(shares)
    if unknown := [name for name in names if name not in shares]:
        raise RefusedError(f"--stages: {unknown[0]!r}; allowed: {', '.join(shares)}")
    names = list(dict.fromkeys(("A", *names)))  # nothing is worth much without versions and ceilings
    if options.follow_up:
        done = {line["task"] for line in parent.before if line["status"] in REACHED}
        plan = [task for task in plan if task["id"] not in done or task["stage"] == "A"]
        end = start + (end - start) * UNREACHED_SHARE
    tasks = {name: [t for t in plan if t["stage"] == name] for name in names}
    whole, passed, ready = sum(shares[n] for n in names if tasks[n]), 0.0, time.monotonic()
    for i, name in enumerate(names):
        _start(parent, [t for n in names[i : i + 2] for t in tasks[n]])
        short = all(t["do"] == "environment" for t in tasks[name])  # it takes what it takes
        passed += shares[name] if tasks[name] else 0.0
        deadline = end if short else ready + (end - ready) * passed / whole
        say(f"stage {name}: {len(tasks[name])} tasks, {time.monotonic() - start:.0f} s")
        for answer in parent.stage(tasks[name], deadline, end):
            _tell(answer)


def _start(parent: Parent, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Start the workers of this stage and the next, whose import then costs nothing; end all others."""
    lanes = dict.fromkeys(lane(t) for t in tasks if t["assembler"] in parent.environments)
    parent.keep(lanes)
    for wanted in lanes:
        parent.worker(wanted)


def _plan(parent: Parent, end: float) -> tuple[list[dict[str, Any]], dict[str, float]]:
    worker = parent.worker(("newest", ""))
    problem = worker.ready(end - time.monotonic())
    if problem or not worker.plan:
        raise RefusedError(f"the worker did not start: {problem}; log.txt may say more")
    return worker.plan, worker.shares


def _shorten(path: str) -> None:
    """Cut the middle out of a log that is too long to be sent."""
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size > LOGGED:
            file.seek(size - LOGGED // 2)
            last = file.read()
            file.seek(LOGGED // 2)
            file.write(b"\n[...]\n" + last)
            file.truncate()


def _tell(answer: Mapping[str, Any]) -> None:
    if answer["status"] not in ("skipped", "not reached"):
        say(f"  {answer['status']:10s} {answer['task']} {answer.get('error_text', '')[:120]}")


def _close(records: Records, folder: str) -> None:
    """Write the files for people; the records are on disk already."""
    environments = [line["environment"] for line in records.lines if "environment" in line]
    texts = {
        "env.json": json.dumps(environments[0] if environments else {}, indent=1) + "\n",
        "gate.txt": gate(records.lines),
        "summary.txt": summary(records.lines),
    }
    for name, text in texts.items():
        try:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            say(f"campaign: cannot write {name}: {error.strerror}", sys.stderr)
    say(texts["summary.txt"])
