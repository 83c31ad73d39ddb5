"""A job for each of several items, on all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence

from budget.named import Any


def side_by_side(job: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """What a job makes of each, on all cores: a fork has the rows, which would take long to send."""
    if len(items) < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [job(item) for item in items]
    with multiprocessing.get_context("fork").Pool(initializer=_jobs.append, initargs=(job,)) as pool:
        return pool.map(_run, items, chunksize=1)


_jobs: list[Callable[[Any], Any]] = []  # of a fork, the one that it was made for


def _run(item: Any) -> Any:
    return _jobs[-1](item)
