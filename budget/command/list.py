"""`budget list`: the architectures, presets, devices and software stacks that are known."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import arch as architectures
from .. import device, stack
from ..errors import InputError, unknown
from ..read import preset
from ..report._answer import Answer, Column, Table
from ..report._units import decimal, memory
from ._model import architecture_parser, output_flags, write

HELP = "architectures with their flags, presets, devices, software stacks"
EXAMPLES = """examples:
  budget list architectures
  budget list architectures transformer
  budget list presets
  budget list devices
  budget list devices --format csv
  budget list stacks
"""
KINDS = ("architectures", "presets", "devices", "stacks")


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("kind", nargs="?", help=", ".join(KINDS))
    parser.add_argument("name", nargs="?", help="one of them, in full")
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the list."""
    if rest:
        raise unknown("flag", rest[0], ("--help", "--format", "--output"))
    if args.kind not in KINDS:
        raise InputError("list", f"got {args.kind or 'nothing'}; allowed: {', '.join(KINDS)}")
    lists = {"architectures": _architectures, "presets": _presets, "devices": _devices, "stacks": _stacks}
    write(lists[args.kind](args.name), args)
    return 0


def _listed(table: Table, text: str = "", foot: str = "") -> Answer:
    """A table, or a text in its place."""
    keys = [c.key for c in table.columns]
    return Answer(
        data=lambda: [dict(zip(keys, row, strict=True)) for row in table.rows],
        records=lambda: table,
        text=lambda: text,
        tables=lambda: () if text else (table,),
        foot=foot,
    )


def _architectures(name: str | None) -> Answer:
    if name is not None:
        module = architectures.load(name)
        flags = architecture_parser(module.Config).format_help().partition("options:\n")[2]
        fields = [(f.name, f.type, f.default, f.help) for f in module.Config.fields.values()]
        columns = tuple(Column(x, x) for x in ("setting", "type", "default", "help"))
        return _listed(Table(columns, fields), f"{name}: {_first_line(module)}\n\n{flags.rstrip()}")
    rows = [(n, _first_line(architectures.load(n))) for n in architectures.names()]
    lines = [f"{n:<18}{text}"[:79] for n, text in rows]
    table = Table((Column("name", "architecture"), Column("what", "what")), rows, lines=lambda: lines)
    return _listed(table, foot="flags of one: budget list architectures NAME")


def _first_line(module: object) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]


def _presets(name: str | None) -> Answer:
    if name is not None:
        fields = list(preset.find(name).items())
        lines = [f"{key} = {value}" for key, value in fields]
        return _listed(
            Table((Column("field", "field"), Column("value", "value")), fields, lines=lambda: lines)
        )
    names = preset.names()
    return _listed(Table((Column("name", "preset"),), [(n,) for n in names], lines=lambda: names))


def _devices(name: str | None) -> Answer:
    found = [device.load(n) for n in ([name] if name else device.names())]
    rows = [(d.name, d.memory_bytes, d.bandwidth, d.rate("bfloat16")) for d in found]
    return _listed(Table(DEVICES, rows))


def _stacks(name: str | None) -> Answer:
    if name is not None:
        found = stack.load(name)
        lines = [f"{field} = {value}" for field, value in found._asdict().items() if value]
        fields = [(field, str(value)) for field, value in found._asdict().items()]
        return _listed(
            Table((Column("field", "field"), Column("value", "value")), fields, lines=lambda: lines)
        )
    rows = [(s.name, s.modes, s.about) for s in stack.all_stacks()]
    lines = [f"{name:<20}{modes:<13}{about}"[:79] for name, modes, about in rows]
    columns = (Column("name", "stack"), Column("modes", "modes"), Column("about", "what"))
    usual = f"unless one is named: {stack.USUAL['train']} to train, {stack.USUAL['decode']} to serve"
    return _listed(Table(columns, rows, lines=lambda: lines), foot=usual)


DEVICES = (
    Column("device", "device"),
    Column("memory_bytes", "memory", memory),
    Column("bandwidth_bytes_s", "bandwidth", lambda rate: decimal(rate, "B/s")),
    Column("bf16_flop_s", "bf16 dense", lambda rate: decimal(rate, "FLOP/s")),
)
