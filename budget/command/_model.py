"""The flags that name a model and its workload, shared by the commands that estimate."""

from __future__ import annotations

import os
import re
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from functools import partial

from .. import arch as architectures
from ..comparison import LISTS
from ..config import Field, Settings
from ..defaults import CHOICES
from ..errors import InputError, unknown
from ..estimate import usual_device
from ..named import Any
from ..plan import fields
from ..read import preset
from ..read.source import resolve
from ..size import number
from ..stack import usual
from ._lists import how_many, names, side, size, sizes
from ._parser import Parser, Several

DEFAULT_ARCH = "transformer"


def workload_flags(parser: Parser, lists: Any = "store") -> None:
    """Add the flags of the workload and the device, and on demand those of the techniques.

    lists: the action of flags that may be lists.
    """
    add = parser.add_argument
    several = partial(add, action=lists)
    several("--mode", metavar="M", help=f"{', '.join(CHOICES['mode'])} (train)")
    several("--batch", metavar="N", help="sequences, images or samples on one device (1)")
    several(
        "--seq", metavar="N", help="tokens or time steps; in decode, those in the cache (the model's own)"
    )
    several("--image", metavar="N", help="pixels along a side (the model's own)")
    several("--sound", metavar="N", help="seconds of sound before the words (none)")
    several("--dtype", metavar="T", help="bf16, fp16, fp32, tf32, fp8 (bf16, or what the device has)")
    several("--optimizer", metavar="O", help=f"{', '.join(CHOICES['optimizer'])} (adamw)")
    several("--recompute", metavar="R", help=f"{', '.join(CHOICES['recompute'])} (none)")
    several("--attention", metavar="A", help=f"{', '.join(CHOICES['attention'])} (the stack's)")
    several(
        "--stack", metavar="S", help="the software that runs it: budget list stacks (torch-compile, vllm)"
    )
    several(
        "--execution",
        metavar="E",
        help=f"{', '.join(CHOICES['execution'])}: budget explain execution (the stack's)",
    )
    several(
        "--device", metavar="D", help="its name, auto for this machine, or a .json (the cluster's, or h200)"
    )
    add(
        "--layout",
        metavar="L",
        help="how it is spread over devices: tp=8,pp=4,dp=16,zero=1 (docs/layouts.md)",
    )
    add("--devices", metavar="N", help="how many; without a layout, the best one of a small search")
    add("--cluster", metavar="C", help="what joins the devices: budget list clusters (the device's usual)")
    add("--global-batch", metavar="N", help="samples of all devices in a step, or 4M-tokens")
    add("--micro-batch", metavar="N", help="samples of one device at once: the same as --batch")
    add("--reserve", metavar="R", help="memory not for tensors: 2GiB, 10%% (the device's usual)")
    parser.set_defaults(techniques={})
    parser.open, parser.lists = True, lists is Several
    parser.later, parser.settled = technique_flags, _of_architectures


def _of_architectures(args: Namespace, rest: list[str]) -> bool:
    """Whether the flags that were not recognized are flags of the architectures that are named."""
    bare = [*words(rest)[0], *filter(None, [getattr(args, "arch", None)])]
    try:
        configs = [resolve(model, {})[1].Config for model in bare or [DEFAULT_ARCH]]
    except InputError:  # the command says what is wrong
        return False
    known = {_flag(name) for config in configs for name in config.fields}
    given = (word.partition("=")[0] for word in rest if word.startswith("--"))
    return all(flag in known or flag.replace("--no-", "--", 1) in known for flag in given)


def technique_flags(parser: Parser) -> None:
    """Add the flags of all techniques, which imports their files."""
    parser.set_defaults(techniques=fields())
    group = parser.add_argument_group("techniques (docs/techniques.md)")
    stacks = usual("train").settings("train")
    for f in fields().values():
        choices = f": {', '.join(f.choices)}" if f.choices else ""
        default = "the stack's" if f.name in stacks else f.default
        default = f" ({default})" if default not in ("", 0) else ""
        many = {"action": Several} if f.name in LISTS and parser.lists else {}
        _add_setting(group, f, f.help + choices + default, **many)


def source_flags(parser: ArgumentParser) -> None:
    """Add the flags that name one model; a preset is a positional argument (see `words`)."""
    parser.usage = f"{parser.prog} [PRESET | --arch A | --config FILE | --module F] [flags]"
    parser.add_argument(
        "--arch", metavar="A", help="an architecture, whose flags budget list architectures NAME has"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a config.json, a model's folder, .gguf; -: standard input"
    )
    parser.add_argument(
        "--run",
        metavar="FILE",
        help="a launch file, or a command in quotes: what it trains or serves, and how",
    )
    module_flag(parser)


def module_flag(parser: ArgumentParser, **settings: Any) -> None:
    """Add the flag that names a torch module; settings: argparse's."""
    text = "a torch module, or (module, inputs), that a file's function returns"
    parser.add_argument("--module", metavar="FILE:FACTORY", help=text, **settings)
    text = "sizes of a module's input, as 8x3x224x224 or int64:8x128; for each input once"
    parser.add_argument("--input", metavar="SIZES", action="append", help=text)


def words(rest: list[str]) -> tuple[list[str], list[str]]:
    """(positional arguments, flags with their values) among the arguments that a parser did not recognize.

    An architecture's flags are not known yet, so a word after a flag is taken for its value.
    """
    bare: list[str] = []
    flags: list[str] = []
    for before, word in zip(["", *rest], rest, strict=False):
        value = _is_flag(before) and "=" not in before and not before.startswith("--no-")
        (flags if value or word.startswith("-") else bare).append(word)
    return bare, flags


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not word[1:2].isdigit()


def source(args: Namespace, rest: list[str]) -> tuple[str, list[str]]:
    """The name of the model, and the architecture's flags. Raises InputError for several models."""
    bare, flags = words(rest)
    if len(bare) > 1:
        from ._left_over import too_many

        raise too_many(bare[1])
    if args.config == "":  # a shell's variable that is not set
        raise InputError("--config", "got ''; allowed: a file, a folder, or - for standard input")
    named = [x for x in (*bare, args.arch, args.config) if x is not None]
    if len(named) > 1:
        raise InputError("model", "name one of PRESET, --arch and --config, not several")
    if args.arch is not None and args.arch not in architectures.names():
        raise _no_architecture(args.arch)
    if args.config is not None:
        return os.path.join(".", args.config) if os.sep not in args.config else str(args.config), flags
    return str(named[0]) if named else DEFAULT_ARCH, flags


def _no_architecture(name: str) -> InputError:
    """The error for a name that is no architecture's; it may be a preset's."""
    try:
        preset.look_up(name)
    except InputError:
        return unknown("--arch", name, architectures.names(), "`budget list architectures` has the names")
    return InputError("--arch", f"{name!r} is the name of a model; allowed: the name alone, without --arch")


def from_file(spec: str, args: Namespace) -> tuple[Any, dict[str, Any]]:
    """A torch module from the user's file, and the arguments of `estimate`. Raises InputError."""
    try:
        from ..read import torch_file
    except ImportError:
        raise InputError("--module", "torch is not installed: pip install 'compute-budget[torch]'") from None
    module, inputs = torch_file.load(spec)
    return module, {**run_settings(args), "inputs": args.input or inputs}


def settings_from(model: str, args: Namespace, rest: list[str]) -> dict[str, Any]:
    """The flags as arguments of `estimate`. Raises InputError."""
    config = architecture_flags(resolve(model, {})[1].Config, args, rest) if rest else {}
    return {**run_settings(args), "config": config}


def run_settings(args: Namespace) -> dict[str, Any]:
    """The flags of the workload, the techniques and the device as arguments of `estimate`."""
    return {
        "batch": sizes("--batch", args.batch),
        "seq": sizes("--seq", args.seq),
        "image": sizes("--image", side(args.image)),
        "sound": sizes("--sound", args.sound),
        "mode": names("train" if args.mode is None else args.mode),
        "dtype": names(args.dtype),
        "optimizer": names(args.optimizer),
        "recompute": names("none" if args.recompute is None else args.recompute),
        "attention": names(args.attention),
        "execution": names(args.execution),
        "stack": names(args.stack),
        **technique_settings(args),
        "device": names(usual_device(args.cluster) if args.device is None else args.device),
        "reserve": number(args.reserve),
        "layout": args.layout,
        "devices": how_many(args.devices),
        "cluster": args.cluster,
        "global_batch": number(args.global_batch),
        "micro_batch": number(args.micro_batch),
    }


def technique_settings(args: Namespace) -> dict[str, Any]:
    """The techniques' flags that were given."""
    given = {f: getattr(args, f.name) for f in args.techniques.values()}
    return {f.name: _values(f, value) for f, value in given.items() if value is not None}


def _values(f: Field, value: Any) -> Any:
    """A technique's value, or a list of them where `compare` takes several."""
    if f.name in LISTS and isinstance(value, str) and "," in value:
        return [_value(f.type, part) for part in value.split(",")]
    return _value(f.type, value)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def architecture_flags(cls: type[Settings], args: Namespace, rest: list[str]) -> dict[str, Any]:
    """The values of an architecture's own flags. Raises InputError for an unknown flag."""
    parser = architecture_parser(cls)
    values, left = parser.parse_known_args(rest)
    if left:
        from ._left_over import left_over

        known = [_flag(name) for name in cls.fields]
        known += [_flag(name) for name in vars(args) if name != "techniques"]
        raise left_over(left, known, "allowed: those that --help has")
    kinds = {f.name: f.type for f in cls.fields.values()}
    return {name: _value(kinds[name], value) for name, value in vars(values).items()}


def architecture_parser(cls: type[Settings]) -> Parser:
    """A parser of the flags that a Config's fields define."""
    parser = Parser(add_help=False, argument_default=SUPPRESS)
    for f in cls.fields.values():
        _add_setting(parser, f, f"{f.help} ({_shown(f.default)})")
    return parser


def _add_setting(parser: Any, f: Field, text: str, **settings: Any) -> None:
    if f.type == "bool":
        parser.add_argument(_flag(f.name), action=BooleanOptionalAction, help=text)
    else:
        parser.add_argument(_flag(f.name), metavar="X", help=text, **settings)


def _shown(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _value(kind: str, value: Any) -> Any:
    if kind.startswith("tuple"):
        return tuple(map(number, re.split(r"\s*,\s*|\s+|(?<=\d)-(?=\d)", str(value).strip("[()] "))))
    if kind == "int":
        return size(value)
    return number(value) if kind == "float" else value
