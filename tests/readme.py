"""The documents' console blocks, pictures, notebook and replayed records: `python tests/readme.py` runs what
stands in them and writes what it prints.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import shlex
from math import inf
from pathlib import Path
from unittest.mock import patch

from budget.__main__ import main
from budget.fitting import ways

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "tutorial.md")
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
PICTURES = {
    "docs/llama-3-8b.svg": "budget estimate llama-3-8b --device h100 --format svg",
    "docs/plan.svg": "budget scale --usd 1e6 --device h100 --format svg",
}
# By the profiles of this machine, so that no test holds it.
REPLAYED = {"docs/accuracy.html": "budget validate bench/results --format html"}
ACCURACY = ROOT / "docs" / "accuracy.md"
# Rows of README.md and docs/accuracy.md that repeat the scoreboard's, by what was left out.
REPEATED = {
    "a fifth of each pair": (
        "| time, a fifth of each software's rows left out | {rows} published runs | {median:.1f} % |",
        "](#one-device) | {rows} published rows, a fifth left out | {median:.0f} %, {p90:.0f} % |",
    ),
    "each pair of stack and device": (
        "| time, of a software and device that nobody measured together | the same | {median:.1f} % |",
        "| | the same, each pair left out | {median:.0f} %, {p90:.0f} % |",
    ),
    "each source": (
        "| time, of a publication that the fit has not seen | the same | {median:.1f} % |",
        "error of a time is {median:.1f} %, over {rows} published runs, each predicted",
        "| | the same, each source left out | {median:.0f} %, {p90:.0f} % |",
    ),
    "training on one node": (
        "| | training on one node, {rows} rows of stacks with other sources | {median:.1f} %, {p90:.0f} % |",
    ),
    "inference on one GPU": (
        "| | inference on one GPU, {rows} rows of such stacks | {median:.1f} %, {p90:.0f} % |",
    ),
}
SCORE = re.compile(r"^\| (.+) left out \| (\d+) \| ([\d.]+)% \| ([\d.]+)%", re.MULTILINE)
ASKED = re.compile(
    r"^\| (.+) \| each source, of stacks with others \| (\d+) \| ([\d.]+)% \| ([\d.]+)%", re.MULTILINE
)
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block: its lines behind `$ `."""
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def printed(command: str) -> str:
    """What `budget ...` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), patch.object(ways, "SECONDS", inf):  # the same on any machine
        main(shlex.split(command)[1:])
    return out.getvalue()


def filled(block: str) -> str:
    """A block with what its commands print today."""
    return "".join(f"$ {c}\n{printed(c)}" for c in commands(block))


def update(text: str) -> str:
    """A document with all blocks filled."""
    return BLOCK.sub(lambda m: f"```console\n{filled(m[1])}```", text)


def repeated(text: str) -> str:
    """A document with the scoreboard's figures as docs/accuracy.md has them now."""
    scoreboard = ACCURACY.read_text("utf-8")
    for name, rows, median, p90 in (*SCORE.findall(scoreboard), *ASKED.findall(scoreboard)):
        for row in REPEATED.get(name, ()):
            told = row.format(rows=rows, median=float(median), p90=float(p90))
            text = re.sub(re.sub(r"\\\{.+?\\\}", r"[\\d.]+", re.escape(row)), told, text)
    return text


def outputs(sources: list[str]) -> list[list[dict[str, object]]]:
    """What a notebook shows below each of its cells, run in order: printed text, and the last value."""
    scope: dict[str, object] = {}
    return [_run(source, scope) for source in sources]


def _run(source: str, scope: dict[str, object]) -> list[dict[str, object]]:
    code, last = ast.parse(source), None
    if code.body and isinstance(code.body[-1], ast.Expr):
        last = ast.Expression(code.body.pop().value)
    out, value = io.StringIO(), None
    with contextlib.redirect_stdout(out):
        exec(compile(code, "tour.ipynb", "exec"), scope)  # noqa: S102 # the project's own notebook
        if last is not None:
            value = eval(compile(last, "tour.ipynb", "eval"), scope)  # noqa: S307
    shown: list[dict[str, object]] = []
    if text := out.getvalue():
        shown.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {k: v.splitlines(keepends=True) for k, v in _bundle(value).items()}
        shown.append({"output_type": "display_data", "metadata": {}, "data": data})
    return shown


def _bundle(value: object) -> dict[str, str]:
    if hasattr(value, "_repr_mimebundle_"):
        return value._repr_mimebundle_()
    if hasattr(value, "_repr_svg_"):
        return {"text/plain": "<picture>", "image/svg+xml": value._repr_svg_()}
    return {"text/plain": repr(value)}


def run_notebook() -> str:
    """The notebook with today's outputs."""
    whole = json.loads(NOTEBOOK.read_text("utf-8"))
    code = [c for c in whole["cells"] if c["cell_type"] == "code"]
    for cell, shown in zip(code, outputs(["".join(c["source"]) for c in code]), strict=True):
        cell["outputs"] = shown
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, command in {**PICTURES, **REPLAYED}.items():
        (ROOT / name).write_text(printed(command), "utf-8")
    for document in (*DOCUMENTS, ACCURACY):
        document.write_text(repeated(update(document.read_text("utf-8"))), "utf-8")
    NOTEBOOK.write_text(run_notebook(), "utf-8")
