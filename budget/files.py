"""Files of the user's: a table read, a text put in place at once."""

from __future__ import annotations

import os
import stat

from .errors import InputError, as_path
from .named import Any


def table(field: str, path: str, more: str = "") -> Any:
    """What a JSON file holds, unchecked. more: the end of the message. Raises InputError."""
    import json

    try:
        with open(path, encoding="utf-8-sig") as file:  # editors on Windows put a mark before it
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(field, f"cannot read {as_path(path)}: {why}{more}") from None


def replace(path: str, text: str) -> None:
    """Put a text into a file, new or old, at once; links lead to their target. Raises OSError, ValueError.

    What is no regular file (a terminal, a pipe) cannot be replaced and is written to.
    """
    path = os.path.realpath(path)
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return
    temporary = os.path.join(os.path.dirname(path), f".budget-{os.urandom(8).hex()}")
    # An ordinary open, so that a new file has the rights that the user's umask gives.
    try:
        file = open(temporary, "x", encoding="utf-8")  # noqa: SIM115 - closed below, before it is removed
    except OSError as error:
        error.filename = path  # the user's, not ours
        raise
    try:
        with file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _mode(path: str) -> int | None:
    """What a path is and who may use it; None for one that is new."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
