"""A campaign's parent: gives tasks to workers, keeps their answers, and outlives them.

It loads neither torch nor CUDA. A silent worker is killed (`hang`), one that ends by itself is replaced
(`crash`, or a CUDA error that it has written), and the next task is one of another kernel.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import FileIO
from typing import Any, TextIO

HARD = ("hang", "crash", "cuda_error")  # results that end a worker
FAILURES = 2  # of these, and a kernel's other tasks are skipped
STARTING_S = 90.0  # until a worker has imported torch
CLOSING_S = 10.0  # before the end: the summary is written


Lane = tuple[str, str]  # an assembler, and "" or the kind of worker


def lane(task: Mapping[str, Any]) -> Lane:
    """Which worker runs a task."""
    return task["assembler"], task["lane"]


def stop(process: subprocess.Popen) -> None:
    """End a process that leads a session, and all that it started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Worker:
    """One process that runs tasks, with an assembler of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: TextIO):
        self.process = subprocess.Popen(  # noqa: S603 - this project's own program
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=dict(environment),
            start_new_session=True,
        )  # fmt: skip
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ)
        self._buffer = b""
        self.plan: list[dict[str, Any]] | None = None
        self.shares: dict[str, float] = {}  # of the time, by stage

    def ready(self, timeout: float) -> str:
        """Wait for the plan; "" or what became of the worker instead."""
        if self.plan is not None:
            return ""
        answer = self._line(timeout)
        if isinstance(answer, str):
            return answer
        if "refused" in answer:
            return str(answer["refused"])
        self.shares = answer["shares"]
        self.plan = [dict(zip(answer["fields"], task, strict=True)) for task in answer["plan"]]
        return ""

    def run(
        self, task: str, given: Mapping[str, Any], timeout: float, end: float = math.inf
    ) -> dict[str, Any] | str:
        """The answer to a task; `hang` after so much silence, or at the end; or `crash`."""
        try:
            self.process.stdin.write(json.dumps([task, given]).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return "crash"
        while True:
            answer = self._line(min(timeout, end - time.monotonic()))
            if isinstance(answer, str) or "alive" not in answer:
                return answer

    def _line(self, timeout: float) -> dict[str, Any] | str:
        end = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                return "hang"
            part = os.read(self.process.stdout.fileno(), 2**20)
            if not part:
                return "crash"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError:
            return "crash"

    def stop(self) -> None:
        """End the process and all that it started."""
        stop(self.process)
        self._selector.close()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


class Records:
    """The lines of a campaign, each on disk at once; printed where the disk is full."""

    def __init__(self, folder: str):
        self.path = os.path.join(folder, "records.jsonl")
        self.lines: list[dict[str, Any]] = []
        self.problem = ""

    def add(self, answer: dict[str, Any]) -> None:
        """Keep an answer."""
        self.lines.append(answer)
        text = json.dumps(answer)
        try:
            with open(self.path, "ab", buffering=0) as file:
                _append(file, text.encode() + b"\n")
        except OSError as error:
            if not self.problem:
                self.problem = f"cannot write {self.path}: {error.strerror}; records follow on stdout"
                say(f"campaign: {self.problem}", sys.stderr)
            say(text)


def _append(file: FileIO, line: bytes) -> None:
    """Write a line to disk, or nothing of it."""
    before = file.tell()
    try:
        written = file.write(line)
        os.fsync(file.fileno())
    except OSError:
        file.truncate(before)
        raise
    if written != len(line):
        file.truncate(before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def say(text: str, file: TextIO | None = None) -> None:
    """Print, if that is possible: where stdout is a file, its disk may be full, too."""
    with contextlib.suppress(OSError):
        print(text, file=file or sys.stdout, flush=True)


class Parent:
    """Runs a plan's stages until their deadlines."""

    def __init__(
        self,
        records: Records,
        environments: Mapping[str, Mapping[str, str]],
        on: str,
        log: TextIO,
        before: Sequence[dict[str, Any]] = (),
    ):
        self.records, self.environments, self.on, self.log = records, environments, on, log
        self.before = before  # the lines of the run that this one follows
        self.workers: dict[Lane, Worker] = {}
        self.failures: Counter[str] = Counter()
        self.avoid = ""  # the kernel that failed last

    def worker(self, lane: Lane) -> Worker:
        """The live worker of a lane, started if there is none."""
        if lane not in self.workers:
            command = [sys.executable, "-m", "budget.bench.campaign.worker", self.on, lane[1]]
            self.workers[lane] = Worker(command, self.environments[lane[0]], self.log)
        return self.workers[lane]

    def keep(self, lanes: Collection[Lane]) -> None:
        """End the workers of all other lanes: they hold memory of the device."""
        for lane in [lane for lane in self.workers if lane not in lanes]:
            self.workers.pop(lane).stop()

    def stage(
        self, tasks: Sequence[Mapping[str, Any]], deadline: float, end: float
    ) -> Iterator[dict[str, Any]]:
        """Run a stage's tasks until its deadline; yields each answer. end: when everything stops."""
        pending = [t for t in tasks if t["assembler"] in self.environments]
        while pending and time.monotonic() < deadline:
            task = next((t for t in pending if t["kernel"] != self.avoid), pending[0])
            pending.remove(task)
            if self.failures[task["kernel"]] >= FAILURES:
                yield self._answer(task, "skipped", f"{FAILURES} failures of {task['kernel']}")
                continue
            yield self._run(task, end)
        for task in pending:
            yield self._answer(task, "not reached", "the stage's time was over")

    def _run(self, task: Mapping[str, Any], end: float) -> dict[str, Any]:
        worker, start = self.worker(lane(task)), time.monotonic()
        left = end - start
        found: Any = worker.ready(min(STARTING_S, left)) or worker.run(
            task["id"], self.given(task), task["silent_s"], end
        )
        if isinstance(found, str):
            known = {
                "hang": f"nothing heard, after {time.monotonic() - start:.0f} s",
                "crash": "the worker ended",
            }
            found = self._answer(task, found if found in HARD else "crash", known.get(found, found))
        else:
            for part in found.pop("parts", [{}]):
                self.records.add({**found, **part})
        self.avoid = ""
        if found["status"] in HARD:
            self.failures[task["kernel"]] += 1
            self.avoid = task["kernel"]
            self.workers.pop(lane(task)).stop()
        return found

    def _answer(self, task: Mapping[str, Any], status: str, text: str) -> dict[str, Any]:
        answer = {k: task[k] for k in ("stage", "kernel", "assembler")}
        answer |= {"task": task["id"], "status": status, "error_text": text}
        self.records.add(answer)
        return answer

    def given(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The earlier answers that a task needs."""
        if task["do"] not in ("search", "again"):
            return {}
        return {"winners": [line["tuned"] for line in (*self.before, *self.records.lines) if "tuned" in line]}
