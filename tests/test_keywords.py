"""What type checkers and editors know of the package's keywords."""

from __future__ import annotations

import subprocess
from pathlib import Path

from keywords import FILE, TYPES, written

from budget.estimate import estimate

ROOT = Path(__file__).parents[1]


def test_the_file_is_what_the_settings_say():
    formatted = subprocess.run(
        ["ruff", "format", "--stdin-filename", "budget/keywords.py", "-"],
        input=written(), capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert FILE.read_text("utf-8") == formatted, "run python tests/keywords.py, and ruff format"


def test_estimate_s_own_keywords_are_there():
    code = estimate.__code__
    own = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    assert set(own) == set(TYPES)
