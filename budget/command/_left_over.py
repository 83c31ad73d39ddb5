"""Arguments that a command does not take: what they are instead, and the flags of other commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import import_module

from .. import device
from ..errors import InputError, nearest, unknown
from ._parser import Parser

FLAGS_OF = ("estimate", "serve", "fit", "scale", "goodput")  # the first that has a flag tells it


def flags_of_commands() -> dict[str, str]:
    """What each flag means, in its help's words, behind its command."""
    meanings: dict[str, str] = {}
    for command in FLAGS_OF:
        parser = Parser(prog=f"budget {command}")
        import_module(f"{__package__}.{command}").flags(parser)
        meanings = {
            **{flag: f"{command}: {meaning}" for flag, meaning in parser.meanings().items()},
            **meanings,
        }
    return meanings


def left_over(words: Sequence[str], known: Iterable[str], where: str) -> InputError:
    """The error for arguments that nothing takes: an unknown flag, or a word too many."""
    flag = next((word for word in words if word.startswith("-")), None)
    if flag is not None:
        return unknown("flag", flag, known, of_another(flag) or where)
    return too_many(words[0])


def of_another(flag: str) -> str:
    """Which command has a flag that this one has not, be it by another name; "" for none."""
    commands = {f"--{name}": meaning.partition(":")[0] for name, meaning in flags_of_commands().items()}
    if command := commands.get(f"--{flag.lstrip('-').replace('_', '-')}"):
        return f"it is a flag of budget {command}"
    near = nearest(flag, [*commands])
    if not near or isinstance(near, str):
        return ""
    return f"did you mean {near[0]!r} of budget {commands[near[0].split()[0]]}?"


def too_many(word: str) -> InputError:
    """The error for a word that nothing takes, which may be one of a list."""
    ways = ["a list is one word: 784,256,10 or tp=8,pp=2"] if re.fullmatch(r"(\w+=)?\d+", word) else []
    if device.find(word):
        ways = [f"a device has a flag, --device {word}"]
    elif word.isdecimal():
        ways = [f"a number has a flag, as --devices {word}", *ways]
    elif not ways:
        ways = ["a name of several words stands in quotes"]
    return InputError("usage", "; ".join([f"{word!r} is one argument too many", *ways]))
