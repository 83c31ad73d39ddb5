"""`budget list`: the architectures, presets, devices, clusters and software stacks that are known."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import arch as architectures
from .. import cluster, device, stack
from ..errors import InputError, unknown
from ..read import preset
from ..report._answer import Answer, Column, Table
from ..report._units import decimal, memory
from ._model import architecture_parser, output_flags, write

HELP = "architectures with their flags, presets, devices, clusters, stacks"
EXAMPLES = """examples:
  budget list architectures
  budget list architectures transformer
  budget list presets
  budget list devices
  budget list devices --format csv
  budget list clusters
  budget list clusters dgx-h100
  budget list stacks
"""
KINDS = ("architectures", "presets", "devices", "clusters", "stacks")


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
    lists = {
        "architectures": _architectures,
        "presets": _presets,
        "devices": _devices,
        "clusters": _clusters,
        "stacks": _stacks,
    }
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


def _clusters(name: str | None) -> Answer:
    """All clusters, or one with each of its tiers."""
    if name is not None:
        found = cluster.load(name)
        tiers = [(t.link.name, _joined(t), t.bandwidth, t.link.reached, t.link.step_s) for t in found.tiers]
        measured = "".join("" if t.link.measured else f"\nnot measured: {t.link.name}" for t in found.tiers)
        foot = "\n".join(x for x in (found.notes, f"source: {', '.join(found.source)}{measured}") if x)
        return _listed(Table(TIERS, tiers), foot=foot)
    rows = []
    for c in map(cluster.load, cluster.names()):
        inner, outer = c.tiers[0], c.tiers[-1]
        beyond = outer.bandwidth / outer.oversubscription if outer is not inner else None
        rows.append((c.id, c.sold[0], c.node, inner.bandwidth, beyond))
    return _listed(Table(CLUSTERS, rows), foot="its links: budget list clusters NAME")


def _joined(tier: cluster.Tier) -> str:
    return "x".join(map(str, tier.torus)) or str(tier.devices or "any")


def _rate(rate: float | None) -> str:
    return "" if rate is None else decimal(rate, "B/s")


CLUSTERS = (
    Column("cluster", "cluster"),
    Column("device", "device"),
    Column("node", "node"),
    Column("inside_bytes_s", "inside", _rate),
    Column("outside_bytes_s", "outside", _rate),
)
TIERS = (
    Column("link", "link"),
    Column("devices", "joins"),
    Column("bytes_s", "a device, one way", _rate),
    Column("reached", "reached", lambda share: f"{share:.0%}"),
    Column("step_s", "a step", lambda seconds: f"{seconds * 1e6:.3g} us"),
)
