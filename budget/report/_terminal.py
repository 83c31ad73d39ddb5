"""What the terminal is like: its width, and whether it shows colours."""

from __future__ import annotations

import os
import re
import sys

USUAL, LEAST = 80, 40  # columns


def width() -> int:
    """Columns of the terminal, or COLUMNS; 80 where the output is none."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return max(LEAST, int(columns))
    try:
        return max(LEAST, os.get_terminal_size(sys.stdout.fileno()).columns)
    except (AttributeError, OSError, ValueError):  # a pipe, a file, a notebook
        return USUAL


def coloured() -> bool:
    """Whether standard output shows colours. NO_COLOR and FORCE_COLOR decide where they are set."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


GREEN, RED, BOLD, BLUE = 32, 31, 1, 34
RULES = (
    (r"\bdoes not fit\b.*", RED),
    (r"(?<=\s)fits(?=$|:)", GREEN),
    (r"(?<=  )#+", BLUE),
    (r"^[a-z]+(?= {2,}\S)", BOLD),
)


def colour(text: str) -> str:
    """A summary in colours: its lines' first words, bars, and whether it fits."""
    for pattern, code in RULES:
        text = re.sub(pattern, f"\x1b[{code}m\\g<0>\x1b[0m", text, flags=re.MULTILINE)
    return text
