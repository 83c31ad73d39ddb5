"""A network on a processor in a process of its own, as people run it.

One that has run others finds room in what they freed, where a new one has to wait for the pages of each large
tensor (budget/fold/pages.py): a training step of a Llama took 344 ms alone and 271 behind twelve others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .cases import Case
from .forked import answered
from .networks import import_all

SUITE = "models"
LONGEST_S = 300.0  # until a network is measured


def is_apart(case: Case, where: str) -> bool:
    """Whether a case gets a process of its own: networks do where the C library is Linux's. They run before
    all others, as a child of a process that has computed with threads cannot use any.
    """
    return case.suite == SUITE and where == "cpu" and sys.platform == "linux"


def apart(take: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The group of records that a function takes, in a child of this process. Raises AssertionError."""
    import_all()
    answer = answered(lambda say, _: say({"group": take()}), LONGEST_S)
    assert "group" in answer, answer["error_text"]
    group: dict[str, Any] = answer["group"]
    return group
