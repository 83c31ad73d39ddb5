"""Long work shows a line on a terminal, none elsewhere."""

import io
import sys

from budget import progress
from budget.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def told(monkeypatch, stream, seconds):
    monkeypatch.setattr(sys, "stderr", stream)
    times = iter(range(0, 100 * seconds, seconds)) if seconds else iter([0.0] * 100)
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    tell = Progress()
    with tell:
        for i in range(3):
            tell(f"{i} layouts")
    return stream.getvalue()


def test_a_terminal_sees_the_last_line_and_then_nothing_of_it(monkeypatch):
    lines = told(monkeypatch, Terminal(), 1).split("\r")
    assert [line.removesuffix("\x1b[K") for line in lines] == ["", "0 layouts", "1 layouts", "2 layouts", ""]


def test_what_is_quick_or_goes_into_a_file_says_nothing(monkeypatch):
    assert told(monkeypatch, Terminal(), 0) == ""
    assert told(monkeypatch, io.StringIO(), 1) == ""
