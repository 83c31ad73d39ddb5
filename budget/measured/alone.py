"""One suite at a time, on a machine that does nothing else: other programs would be part of its times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..device.profile import user_folder
from ..errors import InputError

BUSY = 0.2  # of the processors that others may use while this machine is measured
WATCHED_S = 2.0
BUSY_ANYWAY = "BUDGET_MEASURE_BUSY"  # set: measure all the same


@contextmanager
def alone() -> Iterator[None]:
    """One suite at a time on a machine: two disturb each other. Raises InputError for a second one."""
    os.makedirs(folder := os.path.dirname(user_folder()), exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path := os.path.join(folder, "measuring.lock"), "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError("bench", f"another suite measures this machine ({path}); wait for it") from None
        yield


def idle(watched_s: float = WATCHED_S) -> None:
    """Raise an InputError where other programs use the processors: times would include theirs."""
    import psutil

    busy = psutil.cpu_percent(watched_s) / 100
    if busy > BUSY:
        raise InputError(
            "calibrate",
            f"other programs use {busy:.0%} of the processors; allowed: {BUSY:.0%} (stop them, or "
            f"{BUSY_ANYWAY}=1)",
        )
