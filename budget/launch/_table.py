"""A launch file's table: of TOML, JSON or YAML, or the arguments of a line of a shell's script.

Nothing is run, and no tag constructs an object.
"""

from __future__ import annotations

import json
import os
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping

from ..errors import InputError, as_path, shown
from ..named import Any
from ..size import number
from . import _docker, _windows
from ._commands import commands, contained
from ._servers import started
from ._shell import programs, words

ADAPTER = "adapter_config.json"  # in a folder that peft saved
LARGEST = 1_000_000  # bytes; a launch file has a few thousand
ALIASES = 100  # in a YAML file: more could make it explode
SEVERAL = ("recompute_modules",)  # arguments that take several words


def load(path: str) -> Mapping[str, Any]:
    """The table in a TOML, JSON or YAML file, or the arguments of a shell's line, which may stand in place of
    a path. Raises InputError.
    """
    if os.path.isdir(path):
        path = os.path.join(path, ADAPTER)
        if not os.path.exists(path):
            allowed = f"a launch file, or an adapter's folder, which has {ADAPTER}"
            raise InputError("--run", f"{called(os.path.dirname(path))} is a folder; allowed: {allowed}")
    try:
        ending, text = ("", path) if is_command(path) else (os.path.splitext(path)[1].lower(), _text(path))
        table = _parsed(ending, text)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError("--run", f"{called(path)} cannot be read: {why}") from None
    if not isinstance(table, Mapping):
        raise InputError("--run", f"{called(path)} holds no table of settings")
    return table


def is_command(path: str) -> bool:
    """Whether it is no path, but a command itself: `vllm serve NAME`."""
    return len(path.split()) > 1 and not os.path.exists(path)


def _text(path: str) -> str:
    """What a file holds. Raises InputError, and ValueError for what is no text."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError("--run", f"{called(path)}: {error.strerror or 'cannot be read'}") from None
    if len(content) > LARGEST:
        raise InputError("--run", f"{called(path)} has more than {LARGEST:,} bytes")
    utf16 = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))  # as PowerShell writes
    return content.decode("utf-16" if utf16 else "utf-8-sig")


def _parsed(ending: str, text: str) -> Any:
    if ending == ".toml":
        import tomllib

        return tomllib.loads(text)
    if ending == ".json":
        return json.loads(text)
    if ending in (".yaml", ".yml"):
        tables = _yaml(text)
        served = started(contained(tables))
        return arguments(served) if served else tables[0] if len(tables) == 1 else tables
    text = _windows.script(text) if ending in _windows.ENDINGS else text
    text = _docker.script(text) if _docker.is_mine(text) else text
    return arguments(started(commands(text)) or programs(words(text)))


def arguments(words: list[str]) -> dict[str, Any]:
    """`--num-layers 32 --bf16` as a table: {"num_layers": 32, "bf16": True}.

    Where a flag has two different values, as in two branches of a script, the table has both in one text. A
    Python program's name is under `script`.
    """
    table: dict[str, list[Any]] = {}
    name = last = ""
    for word in words:
        if word.startswith("--"):
            last = ""
            name, given, value = word[2:].partition("=")
            name = name.replace("-", "_")
            table.setdefault(name, []).append(_value(value) if given else True)
        elif word.endswith(".py") or word == ")":
            name = ""
            if word != ")":
                table.setdefault("script", []).append(os.path.basename(word))
        elif name:
            table[name][-1], name, last = _value(word), "", name
        elif last in SEVERAL and word.isidentifier():
            table[last][-1] = f"{table[last][-1]} {word}"
    return {
        name: one[0] if all(x == one[0] for x in one) else " or ".join(map(str, dict.fromkeys(one)))
        for name, one in table.items()
    }


def _value(word: str) -> Any:
    value = number(word)
    return {"true": True, "false": False}.get(word.lower(), word) if value is word else value


def _yaml(text: str) -> list[Any]:
    """A YAML file's tables: tags that construct objects are refused, and aliases beyond a hundred."""
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise InputError("--run", "YAML needs PyYAML: pip install 'compute-budget[run]'") from None
    try:
        if sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)) > ALIASES:
            raise InputError("--run", f"has more than {ALIASES} aliases; allowed: values written out")
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def called(path: str) -> str:
    """A file's name in errors; a command whole."""
    return shown(path) if is_command(path) else as_path(os.path.basename(path))
