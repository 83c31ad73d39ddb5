"""A Dockerfile as a shell script: the RUN lines of its last stage, its environment, and the command of its
container.

Nothing is built. Source: dockerfile.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from copy import deepcopy

from ..named import Any
from ._shell import filled

FIRST = re.compile(r"(?i)\A(\s*#.*\n|\s*\n)*\s*(ARG|FROM)\s+\S")
FROM = re.compile(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$")
INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s+(\S.*)")


def is_mine(text: str) -> bool:
    """Whether a text is a Dockerfile."""
    return bool(FIRST.match(text) and FROM.search(text))


def script(text: str) -> str:
    """The script of a Dockerfile. Where only the base image has an entrypoint, that image's name stands
    before the words of CMD, as in `docker run`.
    """
    stages: dict[str, dict[str, Any]] = {}
    arguments: dict[str, str] = {}
    last: dict[str, Any] = {"image": "", "run": [], "env": {}}
    for name, words in _instructions(text):
        if name == "FROM" and (match := FROM.fullmatch(f"FROM {words}")):
            image = filled(match[1], arguments)
            last = deepcopy(stages.get(image, {"image": image, "run": [], "env": {}}))
            stages[match[2] or image] = last
        elif name == "ARG":
            arguments |= _variables(words)
        elif name == "ENV":
            last["env"] |= _variables(words)
        elif name == "RUN":
            last["run"].append(_words(words))
        elif name in ("ENTRYPOINT", "CMD"):
            last[name] = _words(words)
    environment = (f"{name}={shlex.quote(value)}" for name, value in last["env"].items())
    start = last.get("ENTRYPOINT", last["image"])
    return "\n".join([*last["run"], " ".join([*environment, start, last.get("CMD", "")])])


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions with their text, each in one line."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\s*\n", " ", lines).splitlines():
        if match := INSTRUCTION.fullmatch(line.rstrip()):
            yield match[1].upper(), match[2]


def _variables(text: str) -> dict[str, str]:
    """`NAME=value ...`, or `NAME value`."""
    name, given, value = text.partition("=")
    if not given or " " in name:
        name, _, value = text.partition(" ")
        return {name: value.strip()}
    pairs = (word.partition("=") for word in shlex.split(text))
    return {name: value for name, _, value in pairs}


def _words(text: str) -> str:
    """A command as a shell has it, of one in JSON its words."""
    try:
        words = json.loads(text)
    except ValueError:
        return text
    return shlex.join(map(str, words)) if isinstance(words, list) else text
