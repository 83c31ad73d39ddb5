"""The flags of a command's output, and where it goes: a format, a file or the terminal."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from .. import report
from ..errors import InputError, as_path
from ..report._answer import Answer


def output_flags(parser: ArgumentParser) -> None:
    """Add the flags --format and --output."""
    forms = report.names()
    text = f"{', '.join(forms)} (that of the output's ending, or table)"
    parser.add_argument("--format", metavar="F", choices=forms, type=_form, help=text)
    parser.add_argument(
        "--output", metavar="FILE", help="write there instead: x.svg, x.html, x.json, x.csv, x.md"
    )


def _format(path: str) -> str:
    """The format of a file by its name's ending; a table where there is none. Raises InputError."""
    ending = os.path.splitext(path)[1].lstrip(".").lower()
    form = _form(ending)
    if form not in report.names():
        kinds = ", ".join(f".{name}" for name in (*report.names(), "md", "txt"))
        raise InputError(
            "--output", f"no format is called .{ending}; allowed: --format F, or an ending of {kinds}"
        )
    return form


def _form(ending: str) -> str:
    """The format that a file's ending, or people, call so."""
    return {"": "table", "txt": "table", "log": "table", "md": "markdown"}.get(ending.lower(), ending.lower())


def _coloured(text: str) -> str:
    """A text in colours, where standard output shows them."""
    from ..report._terminal import colour, coloured

    return colour(text) if coloured() else text


def write(answer: Answer, args: Namespace) -> None:
    """Write an answer, with what its launch file says, to standard output, or to a file, which is replaced at
    once. Raises InputError.
    """
    if getattr(args, "run", None) is not None:
        from ._launched import with_launch_file

        answer = with_launch_file(answer, args)
    path = args.output
    if path == "":
        raise InputError("--output", "got ''; allowed: a file's name, or - for standard output")
    form = args.format or _format(path or "")
    text = report.render(answer, form)
    if path in (None, "-"):
        print(_coloured(text) if form == "table" else text)
        return
    from ..files import replace

    try:
        replace(path, text + "\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError("--output", f"cannot write {as_path(path)}: {why}") from None
