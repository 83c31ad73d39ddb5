"""The commands of a shell's text, each as its words, and those of a table's containers, as in Compose,
Kubernetes and similar files: an image, a command, its arguments, an environment.

Nothing is run. Sources: compose, kubernetes, skypilot-yaml.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from ..named import Any
from ._shell import filled, variables

ENDS = ";&|\n"  # each ends a command
COMMENTS = re.compile(r"(?m)^\s*#.*$|(?<=\s)#.*$")
ARRAY = re.compile(r"(?:^|\s)(\w+)\+?=\(([^()]*)\)")
ALL_OF = re.compile(r"\$\{(\w+)\[[@*]\]\}")
INSIDE = re.compile(r"\s--?\w|^[\w./-]+ (serve )?[\w./-]+$")  # a command in one word, as behind `sh -c`
COMMAND = ("image", "entrypoint", "command", "cmd", "args", "run", "commands")  # in the order of its words
ENVIRONMENT = ("environment", "env", "envs")
DEEPEST = 12


def commands(text: str, known: Mapping[str, str] | None = None) -> Iterator[list[str]]:
    """The words of each command of a shell's text, with the variables that the text or `known` defines.

    A line that begins with a flag continues the line before. Raises ValueError.
    """
    text = COMMENTS.sub("", re.sub(r"\\\r?\n", " ", text))
    arrays = {name: " ".join(content.split()) for name, content in ARRAY.findall(text)}
    text = ALL_OF.sub(lambda found: arrays.get(found[1], found[0]), re.sub(r"\s*\n\s*(?=-)", " ", text))
    known = {**(known or {}), **variables(text)}
    marks = shlex.shlex(text, posix=True, punctuation_chars=ENDS)
    marks.whitespace, marks.whitespace_split, marks.commenters = " \t\r", True, ""
    words: list[str] = []
    for word in marks:
        full = filled(word, known)
        if not word.strip(ENDS):
            yield words
            words = []
        else:
            words += _divided(full) if full != word or INSIDE.search(full) else [full]
    yield words


def _divided(word: str) -> list[str]:
    """The words of a variable, or of a script in one word; JSON stays one word."""
    try:
        return [word] if word.startswith("{") else shlex.split(word)
    except ValueError:
        return word.split()


def contained(table: Any, outside: Mapping[str, str] | None = None, deep: int = 0) -> Iterator[list[str]]:
    """The words of each container's commands in a table, behind the variables of the environments around
    it.
    """
    known = dict(outside or {})
    if isinstance(table, list):
        for one in table:
            yield from contained(one, known, deep + 1)
    elif isinstance(table, Mapping) and deep < DEEPEST:
        known |= {**_sky(table), **dict(_environment(table))}
        text = " ".join(_text(name, table[name]) for name in COMMAND if name in table)
        for words in commands(text, known) if text.strip() else ():
            yield [*(f"{name}={value}" for name, value in known.items()), *words]
        for name, one in table.items():
            if isinstance(one, Mapping | list) and name not in (*COMMAND, *ENVIRONMENT):
                yield from contained(one, known, deep + 1)


def _sky(table: Mapping[str, Any]) -> dict[str, str]:
    """The variable in which a task of SkyPilot finds the devices of a node. Source: skypilot-yaml."""
    resources = table.get("resources")
    asked = resources.get("accelerators") if isinstance(resources, Mapping) else None
    if isinstance(asked, Mapping) and len(asked) == 1:  # {H100: 8}
        asked = ":".join(map(str, *asked.items()))
    match = re.fullmatch(r"[^:,{}]+(?::(\d+))?", asked) if isinstance(asked, str) else None
    return {"SKYPILOT_NUM_GPUS_PER_NODE": match[1] or "1"} if match else {}


def _text(name: str, command: Any) -> str:
    """A field's part of a container's command: a script as it is, the other words of a list one by one."""
    if not isinstance(command, list):
        return command if isinstance(command, str) else ""
    words = [re.sub(r"\$\((\w+)\)", r"${\1}", str(word)) for word in command]  # Kubernetes' variables
    return ("\n" if name == "commands" else " ").join(
        shlex.quote(word) if word.startswith(("{", "[")) else word for word in words
    )


def _environment(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Variables of a mapping, of `NAME=value`, or of names and values."""
    for pairs in (table.get(name) for name in ENVIRONMENT):
        if isinstance(pairs, Mapping):
            yield from ((str(name), filled(str(value), {})) for name, value in pairs.items())
        for one in pairs if isinstance(pairs, list) else ():
            if isinstance(one, Mapping):
                yield str(one.get("name")), filled(str(one.get("value", "")), {})
            elif "=" in str(one):
                name, _, value = str(one).partition("=")
                yield name, filled(value, {})
