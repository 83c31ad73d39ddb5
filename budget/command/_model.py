"""The flags that name a model and its workload, shared by the commands that estimate."""

from __future__ import annotations

import os
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace

from .. import arch as architectures
from .. import report
from ..config import Field, Settings
from ..errors import InputError, unknown
from ..estimate import CHOICES
from ..files import replace
from ..named import Any
from ..plan import fields
from ..read.source import resolve
from ..report._answer import Answer
from ._parser import Parser

DEFAULT_ARCH = "transformer"


def workload_flags(parser: Parser) -> None:
    """Flags of the workload and the device; those of the techniques where they are wanted."""
    add = parser.add_argument
    add("--mode", default="train", metavar="M", help=f"{', '.join(CHOICES['mode'])} (train)")
    add("--batch", metavar="N", help="sequences, images or samples on one device (1)")
    add("--seq", metavar="N", help="tokens or time steps; in decode, those in the cache (the model's own)")
    add("--image", metavar="N", help="pixels along a side (the model's own)")
    add("--dtype", metavar="T", help="bf16, fp16, fp32, tf32, fp8 (bf16)")
    add("--optimizer", metavar="O", help=f"{', '.join(CHOICES['optimizer'])} (adamw)")
    add("--recompute", default="none", metavar="R", help=f"{', '.join(CHOICES['recompute'])} (none)")
    add("--attention", metavar="A", help=f"{', '.join(CHOICES['attention'])} (sdpa to train, flash to serve)")
    add(
        "--execution",
        default="compiled",
        metavar="E",
        help="compiled, or eager: a launch for each operator (compiled)",
    )
    add("--device", default="h200", metavar="D", help="a device's name, or auto for this machine (h200)")
    parser.set_defaults(techniques={})
    parser.later = technique_flags


def technique_flags(parser: Parser) -> None:
    """Flags of all techniques, whose files are imported for them."""
    parser.set_defaults(techniques=fields())
    group = parser.add_argument_group("techniques (docs/techniques.md)")
    for f in fields().values():
        choices = f": {', '.join(f.choices)}" if f.choices else ""
        default = "" if f.default in ("", 0) else f" ({f.default})"
        _add_setting(group, f, f.help + choices + default)


def source_flags(parser: ArgumentParser) -> None:
    """Flags that name one model; a preset is a bare word (see `words`)."""
    parser.usage = f"{parser.prog} [PRESET | --arch A | --config FILE | --module F] [flags]"
    parser.add_argument(
        "--arch", metavar="A", help="an architecture with its own flags: budget list architectures"
    )
    parser.add_argument("--config", metavar="FILE", help="a Hugging Face config.json, read offline")
    module_flag(parser)


def module_flag(parser: ArgumentParser, **settings: Any) -> None:
    """The flag that names a torch module; `settings` are argparse's own."""
    text = "a torch module, or (module, inputs), that a file's function returns"
    parser.add_argument("--module", metavar="FILE:FACTORY", help=text, **settings)
    text = "sizes of a module's input, as 8x3x224x224 or int64:8x128; for each input once"
    parser.add_argument("--input", metavar="SIZES", action="append", help=text)


def words(rest: list[str]) -> tuple[list[str], list[str]]:
    """(bare words, flags with their values) of what a command's own parser left over.

    An architecture's flags are not known yet, so a word behind a flag is taken for its value.
    """
    bare: list[str] = []
    flags: list[str] = []
    for before, word in zip(["", *rest], rest, strict=False):
        value = before.startswith("--") and "=" not in before and not before.startswith("--no-")
        (flags if value or word.startswith("-") else bare).append(word)
    return bare, flags


def source(args: Namespace, rest: list[str]) -> tuple[str, list[str]]:
    """The one model that is named, and the architecture's flags. Raises InputError for several."""
    bare, flags = words(rest)
    if len(bare) > 1:
        raise InputError("usage", f"{bare[1]!r} is one argument too many")
    named = [x for x in (*bare, args.arch, args.config) if x is not None]
    if len(named) > 1:
        raise InputError("model", "name one of PRESET, --arch and --config, not several")
    if args.arch is not None and args.arch not in architectures.names():
        raise unknown("--arch", args.arch, architectures.names())
    if args.config is not None:
        return os.path.join(".", args.config) if os.sep not in args.config else str(args.config), flags
    return str(named[0]) if named else DEFAULT_ARCH, flags


def asked(args: Namespace, rest: list[str]) -> tuple[Any, dict[str, Any]]:
    """The one model that is named, and `estimate`'s arguments for it. Raises InputError."""
    if args.module is None:
        if args.input:
            raise InputError("--input", "sizes of a torch module's input; allowed: with --module")
        model, rest = source(args, rest)
        return model, settings_from(model, args, rest)
    if rest or args.arch is not None or args.config is not None:
        raise InputError("--module", "a file's module has no preset, --arch, --config or flags of its own")
    return from_file(args.module, args)


def from_file(spec: str, args: Namespace) -> tuple[Any, dict[str, Any]]:
    """A torch module that the user's own file makes, and `estimate`'s arguments. Raises InputError."""
    try:
        from ..read import torch_file
    except ImportError:
        raise InputError("--module", "torch is not installed: pip install 'compute-budget[torch]'") from None
    module, inputs = torch_file.load(spec)
    return module, {**run_settings(args), "inputs": args.input or inputs}


def settings_from(model: str, args: Namespace, rest: list[str]) -> dict[str, Any]:
    """The flags as `estimate`'s arguments. Raises InputError."""
    config = architecture_flags(resolve(model, {})[1].Config, args, rest) if rest else {}
    return {**run_settings(args), "config": config}


def run_settings(args: Namespace) -> dict[str, Any]:
    """The flags of the workload, the technique and the device as `estimate`'s arguments."""
    return {
        "batch": _number(args.batch),
        "seq": _number(args.seq),
        "image": _number(args.image),
        "mode": args.mode,
        "dtype": args.dtype,
        "optimizer": args.optimizer,
        "recompute": args.recompute,
        "attention": args.attention,
        "execution": args.execution,
        **technique_settings(args),
        "device": args.device,
    }


def technique_settings(args: Namespace) -> dict[str, Any]:
    """The flags of techniques that were given."""
    given = {f: getattr(args, f.name) for f in args.techniques.values()}
    return {f.name: _value(f.type, value) for f, value in given.items() if value is not None}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def architecture_flags(cls: type[Settings], args: Namespace, rest: list[str]) -> dict[str, Any]:
    """The values of an architecture's own flags. Raises InputError for a flag that nobody knows."""
    parser = architecture_parser(cls)
    values, left = parser.parse_known_args(rest)
    if left:
        known = [_flag(name) for name in cls.fields]
        known += [_flag(name) for name in vars(args) if name != "techniques"]
        flag = next((x for x in left if x.startswith("-")), None)
        raise (
            unknown("flag", flag, known)
            if flag
            else InputError("usage", f"{left[0]!r} is one argument too many")
        )
    kinds = {f.name: f.type for f in cls.fields.values()}
    return {name: _value(kinds[name], value) for name, value in vars(values).items()}


def architecture_parser(cls: type[Settings]) -> Parser:
    """A parser made from a Config's fields."""
    parser = Parser(add_help=False, argument_default=SUPPRESS)
    for f in cls.fields.values():
        _add_setting(parser, f, f"{f.help} ({_shown(f.default)})")
    return parser


def _add_setting(parser: Any, f: Field, text: str) -> None:
    if f.type == "bool":
        parser.add_argument(_flag(f.name), action=BooleanOptionalAction, help=text)
    else:
        parser.add_argument(_flag(f.name), metavar="X", help=text)


def _shown(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _value(kind: str, value: Any) -> Any:
    if kind.startswith("tuple"):
        return tuple(_number(x) for x in str(value).split(","))
    return _number(value) if kind in ("int", "float") else value


def _number(text: str | None) -> Any:
    """A number where the text is one; the text itself otherwise, for the check that names the field."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def output_flags(parser: ArgumentParser) -> None:
    """Flags that say how and where the answer is written."""
    names = report.names()
    parser.add_argument(
        "--format", default="table", metavar="F", choices=names, help=f"{', '.join(names)} (table)"
    )
    parser.add_argument("--output", metavar="FILE", help="write there instead")


def write(answer: Answer, args: Namespace) -> None:
    """To standard output, or to a file that is replaced only when all of it is written. Raises InputError."""
    text, path = report.render(answer, args.format), args.output
    if path is None:
        print(text)
        return
    try:
        replace(path, text + "\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError("--output", f"cannot write {path!r}: {why}") from None
