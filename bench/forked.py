"""A process of its own that measures: it answers in lines of JSON, and its errors are answers, too."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from .campaign.fatal import one_line

Say = Callable[[Mapping[str, Any]], None]
Wait = Callable[[], None]
CRASHED = {"status": "crash", "error_text": "the process ended"}


class Forked:
    """A child of this process that does some work, sends answers, and may wait for go().

    work: called with a function that sends an answer and one that waits; its error is the last answer.
    """

    def __init__(self, work: Callable[[Say, Wait], None]):
        self._from, answers = os.pipe()
        signals, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._from)
            os.close(self._go)
            _work(work, answers, signals)
        os.close(answers)
        os.close(signals)

    def go(self) -> None:
        """Let it go on."""
        os.write(self._go, b"go")

    def receive(self, timeout: float) -> dict[str, Any]:
        """Its next answer; a `crash` where it ended without one, a `hang` where none came in time."""
        end, text = time.monotonic() + timeout, b""
        while not text.endswith(b"\n"):
            if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                return {"status": "hang", "error_text": f"nothing heard for {timeout:.0f} s"}
            part = os.read(self._from, 2**16)
            if not part:
                return CRASHED
            text += part
        answer: dict[str, Any] = json.loads(text)
        return answer

    def stop(self) -> None:
        """End it, if it has not ended yet, with what it started where that is a group of its own."""
        if self.pid:
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(OSError):
                    kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self._from)
            os.close(self._go)
            self.pid = 0


def answered(work: Callable[[Say, Wait], None], timeout: float) -> dict[str, Any]:
    """The first answer of a child that does some work, which ends with it."""
    child = Forked(work)
    try:
        return child.receive(timeout)
    finally:
        child.stop()


def _work(work: Callable[[Say, Wait], None], answers: int, signals: int) -> None:
    def say(answer: Mapping[str, Any]) -> None:
        os.write(answers, json.dumps(answer).encode() + b"\n")

    def wait() -> None:
        os.read(signals, 2)

    try:
        work(say, wait)
    except Exception as error:  # noqa: BLE001 - the parent has to know
        traceback.print_exc()
        say({"status": "error", "error_text": one_line(error)})
    os._exit(0)
