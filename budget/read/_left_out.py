"""The modules that a format of few bits leaves unquantized, as a config names them.

Each name is a regular expression over a module's path (Packing.skipped), kept with the config's own spelling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import InputError, shown, wrong
from ..named import Any
from ..plan.packed import Packing

FIELD = "quantization_config"
Table = Mapping[str, Any]


def leaving(packing: Packing, names: Mapping[str, str]) -> Packing:
    """A format that leaves modules as they are: expressions, each with the config's own spelling."""
    return packing._replace(skipped=tuple(names), spelled=(*packing.spelled, *names.items()))


def without(packing: Packing, names: Mapping[str, str]) -> Packing:
    """A format that leaves out more modules than it did."""
    return leaving(packing, {**{text: text for text in packing.skipped}, **dict(packing.spelled), **names})


def kept(table: Table, name: str = "modules_to_not_convert") -> dict[str, str]:
    """Modules that stay as they are: their name begins with an expression, or ends in its text."""
    names = table.get(name) or ()
    if not isinstance(names, list | tuple) or not all(isinstance(text, str) for text in names):
        raise wrong(f"{FIELD}.{name}", names, "a list of modules' names")
    return {_expression(f"^(?:{text})|{re.escape(text)}$", text): text for text in names}


def instead(packing: Packing, table: Table, name: str = "modules_to_not_convert") -> Packing:
    """A format whose list of modules left out, where there is one, takes the place of the usual list."""
    return packing if table.get(name) is None else leaving(packing, kept(table, name))


def _expression(text: str, asked: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise InputError(FIELD, f"got {shown(asked)}: {error}; allowed: regular expressions") from None
    return text


def pattern(name: str) -> str:
    """A module's name, or the end or the beginning of one, with `*` for any text, as an expression."""
    escaped = "".join(c if c.isalnum() or c == "_" else ".*" if c == "*" else r"\." for c in name.strip("."))
    return rf"(^|\.){escaped}(\.|$)"


def ignored(name: object) -> str:
    """A name of compressed-tensors' `ignore`, or an expression behind `re:`, as an expression."""
    text = str(name)
    return _expression(f"^(?:{text[3:]})", text) if text.startswith("re:") else pattern(text)
