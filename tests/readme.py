"""The README's console blocks and pictures: `python tests/readme.py` runs their commands and writes what
they print.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

from budget.__main__ import main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PICTURES = {"docs/llama-3-8b.svg": "budget estimate llama-3-8b --format svg"}
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block: its lines behind `$ `."""
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def printed(command: str) -> str:
    """What `budget ...` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(shlex.split(command)[1:])
    return out.getvalue()


def filled(block: str) -> str:
    """A block with what its commands print today."""
    return "".join(f"$ {c}\n{printed(c)}" for c in commands(block))


def update(text: str) -> str:
    """The README with all blocks filled."""
    return BLOCK.sub(lambda m: f"```console\n{filled(m[1])}```", text)


if __name__ == "__main__":
    for name, command in PICTURES.items():
        (ROOT / name).write_text(printed(command), "utf-8")
    README.write_text(update(README.read_text("utf-8")), "utf-8")
