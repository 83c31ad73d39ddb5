"""A line on the terminal while something takes long, which goes when it ends; nothing where nobody looks."""

from __future__ import annotations

import sys
from time import monotonic

SECONDS = 0.3  # until the first line, and from one to the next


class Progress:
    """`tell = Progress()`, then `with tell: tell("34 layouts tried")`, as often as one likes."""

    def __init__(self) -> None:
        self._last, self._shown = monotonic(), False

    def __call__(self, line: str) -> None:
        """Show a line, now and then."""
        if monotonic() - self._last > SECONDS and sys.stderr.isatty():
            self._last, self._shown = monotonic(), True
            sys.stderr.write(f"\r{line}\033[K")
            sys.stderr.flush()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
