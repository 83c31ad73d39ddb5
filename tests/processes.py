"""Tasks spread over processes that may die: one that crashes, or takes too long, is lost alone."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

FORK = get_context("fork")  # a child has all that is imported


class Lost(NamedTuple):
    """A task without an answer, and why."""

    why: str


class Worker:
    """A process that takes one task after another."""

    def __init__(self, work: Callable[[Any], Any], memory: int):
        self.end, other = FORK.Pipe()
        self.process = FORK.Process(target=_serve, args=(work, other, memory), daemon=True)
        self.process.start()
        other.close()  # so that its death ends the pipe

    def give(self, task: Any, seconds: float) -> None:
        self.task, self.until = task, time.monotonic() + seconds
        self.end.send(task)

    def stop(self) -> str:
        """End it, and say how it ended."""
        self.process.kill()
        self.process.join()
        self.end.close()
        return f"exit status {self.process.exitcode}"


def answers(
    work: Callable[[Any], Any],
    tasks: Iterable[Any],
    jobs: int,
    *,
    seconds: float = 120,
    memory: int = 2 * 2**30,
) -> Iterator[tuple[Any, Any]]:
    """Each task with its answer, as they end; Lost where its process died or took more seconds.

    memory: bytes that a process may have beside those of this one.
    """
    left = iter(tasks)
    free = [Worker(work, memory) for _ in range(jobs)]
    busy: dict[Connection, Worker] = {}
    try:
        while True:
            while free and (task := next(left, left)) is not left:
                worker = free.pop()
                worker.give(task, seconds)
                busy[worker.end] = worker
            if not busy:
                return
            first = min(worker.until for worker in busy.values())
            ready = wait(list(busy), max(0.0, first - time.monotonic()))
            late = [end for end, worker in busy.items() if worker.until < time.monotonic()]
            for end in ready or late:
                worker = busy.pop(end)
                try:
                    answer = end.recv() if ready else Lost(f"no answer in {seconds:g} s")
                except EOFError:
                    worker.process.join()
                    answer = Lost(f"its process died, exit status {worker.process.exitcode}")
                if isinstance(answer, Lost):
                    worker.stop()
                    free.append(Worker(work, memory))
                else:
                    free.append(worker)
                yield worker.task, answer
    finally:
        for worker in (*free, *busy.values()):
            worker.stop()


def _serve(work: Callable[[Any], Any], end: Connection, memory: int) -> None:
    """In the process: answer until nobody asks."""
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            end.send(work(end.recv()))
