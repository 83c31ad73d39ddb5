"""`budget list`: what there is to estimate, and what to run it on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import arch as architectures
from .. import device
from ..errors import InputError, unknown
from ..read import preset
from ..report._units import decimal, memory
from ._model import architecture_parser

HELP = "architectures with their flags, presets, devices"
EXAMPLES = """examples:
  budget list architectures
  budget list architectures transformer
  budget list presets
  budget list devices
"""
KINDS = ("architectures", "presets", "devices")


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("kind", nargs="?", help=", ".join(KINDS))
    parser.add_argument("name", nargs="?", help="one of them, in full")


def run(args: Namespace, rest: list[str]) -> int:
    """Print the list."""
    if rest:
        raise unknown("flag", rest[0], ("--help",))
    if args.kind not in KINDS:
        raise InputError("list", f"got {args.kind or 'nothing'}; allowed: {', '.join(KINDS)}")
    print(
        "\n".join(
            {"architectures": _architectures, "presets": _presets, "devices": _devices}[args.kind](args.name)
        )
    )
    return 0


def _architectures(name: str | None) -> list[str]:
    if name is not None:
        module = architectures.load(name)
        text = architecture_parser(module.Config).format_help().partition("options:\n")[2]
        return [f"{name}: {_first_line(module)}", "", text.rstrip()]
    lines = [f"{n:<18}{_first_line(architectures.load(n))}"[:79] for n in architectures.names()]
    return [*lines, "", "flags of one: budget list architectures NAME"]


def _first_line(module: object) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]


def _presets(name: str | None) -> list[str]:
    if name is not None:
        return [f"{key} = {value}" for key, value in preset.find(name).items()]
    return list(preset.names())


def _devices(name: str | None) -> list[str]:
    from tabulate import tabulate

    found = [device.load(n) for n in ([name] if name else device.names())]
    rows = [
        [d.name, memory(d.memory_bytes), decimal(d.bandwidth, "B/s"), decimal(d.rate("bfloat16"), "FLOP/s")]
        for d in found
    ]
    return str(
        tabulate(rows, ["device", "memory", "bandwidth", "bf16 dense"], "plain", disable_numparse=True)
    ).splitlines()
