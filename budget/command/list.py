"""`budget list`: architectures, families, presets, devices, prices, clusters, laws, stacks that are known."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from .. import arch as architectures
from .. import cluster, device, law, stack, table
from ..config import Workload
from ..errors import InputError, some, unknown
from ..fold.count import params
from ..named import Any
from ..read import hf_families, preset
from ..read.source import resolve
from ..report._answer import Answer, Column, Table
from ..runs import cost
from ._columns import CLUSTERS, DEVICES, HOLDS, LAWS, LOSS, PRESETS, PRICED, PRICES, TIERS
from ._model import architecture_parser
from ._output import output_flags, write
from ._stack import stack_fields, stack_lines

HELP = "architectures with their flags, families, presets, devices, laws"
EXAMPLES = """examples:
  budget list architectures
  budget list architectures transformer
  budget list families qwen2
  budget list presets llama
  budget list devices a100
  budget list devices --format csv
  budget list prices h100
  budget list clusters dgx-h100
  budget list stacks
  budget list laws
"""


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("kind", nargs="?", help=", ".join(LISTS))
    parser.add_argument("name", nargs="?", help="one of them in full, or a part of names")
    output_flags(parser)


def run(args: Namespace) -> int:
    """Print the list."""
    if args.kind is None:
        print("\n".join(f"budget list {kind:<15}{len(NAMES[kind]()):>4}" for kind in LISTS))
        return 0
    if args.kind not in LISTS:
        raise unknown("list", args.kind, LISTS, f"allowed: {', '.join(LISTS)}")
    write(LISTS[args.kind](args.name), args)
    return 0


def _having(word: str | None, kind: str) -> tuple[str, ...]:
    """The names that have a word in them; all without one. Raises InputError where none has."""
    found = _with(word, NAMES[kind]())
    if not found:
        raise _none(kind, word)
    return found


def _none(kind: str, word: str | None) -> InputError:
    return unknown(kind, word, NAMES[kind](), f"`budget list {kind}` has the names")


def _with(word: str | None, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if (word or "").lower() in name.lower())


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


def _fields(fields: Sequence[tuple[str, Any]], name: str, kind: str) -> Answer:
    """One thing's settings, a line each, and whose names begin with its own."""
    lines = [f"{field} = {value}" for field, value in fields]
    columns = (Column("field", "field"), Column("value", "value"))
    others = [other for other in NAMES[kind]() if other.startswith(name) and other != name]
    foot = f"longer names: {some(others)}" if others else ""
    return _listed(Table(columns, fields, lines=lambda: lines), foot=foot)


def _architectures(name: str | None) -> Answer:
    if name is not None and not _part(name, "architectures"):
        module = architectures.load(name)
        flags = architecture_parser(module.Config).format_help().partition("options:\n")[2]
        fields = [(f.name, f.type, f.default, f.help) for f in module.Config.fields.values()]
        columns = tuple(Column(x, x) for x in ("setting", "type", "default", "help"))
        return _listed(Table(columns, fields), f"{name}: {_first_line(module)}\n\n{flags.rstrip()}")
    rows = [(n, _first_line(architectures.load(n))) for n in _with(name, architectures.names())]
    width = 2 + max(map(len, architectures.names()))
    lines = [_cut(f"{n:<{width}}{text}") for n, text in rows]
    table = Table((Column("name", "architecture"), Column("what", "what")), rows, lines=lambda: lines)
    return _listed(table, foot="flags of one: budget list architectures NAME")


def _cut(line: str, most: int = 79) -> str:
    """A line without its last words, where there is no room for them."""
    return line if len(line) <= most else f"{line[: most - 3].rpartition(' ')[0]} ..."


def _first_line(module: object) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]


def _families(word: str | None) -> Answer:
    """Model_types of Hugging Face configs that are read exactly, or one with its classes."""
    if word in hf_families.known():
        family = hf_families.load(word)
        about = {key: family[key] for key in ("arch", "note", "source") if key in family}
        return _fields([*about.items(), *family["classes"].items()], str(word), "families")
    families = [(n, hf_families.load(n)) for n in _having(word, "families")]
    rows = [(n, entry["arch"], len(entry["classes"]), entry.get("note", "")) for n, entry in families]
    lines = [_cut(f"{n:<27}{arch:<17}{classes:>2}  {note}".rstrip()) for n, arch, classes, note in rows]
    columns = tuple(Column(x, x) for x in ("family", "architecture", "classes", "note"))
    return _listed(
        Table(columns, rows, lines=lambda: lines), foot="classes of one: budget list families NAME"
    )


def _presets(word: str | None) -> Answer:
    others = dict(preset.classes())
    if word in (*preset.names(), *others):
        return _fields(list(preset.find(word).items()), word, "presets")
    captured = [(name, others[name], None) for name in _with(word, others)]
    having = _with(word, preset.names()) if captured else _having(word, "presets")
    rows = sorted((_sized(name) for name in having), key=lambda row: row[1:])
    return _listed(Table(PRESETS, [*rows, *captured]), foot="one of them: budget list presets NAME")


@cache
def _sized(name: str) -> tuple[str, str, int]:
    """A preset's name, architecture and parameters."""
    name, arch, settings, *_ = resolve(name, {})
    network = arch.build(settings, Workload("forward", 1, 0, 0))
    return name, network.arch, params(network).total


def _devices(word: str | None) -> Answer:
    try:
        named = () if word is None else (device.load(word),)
    except InputError:
        named = ()
    every = map(device.load, NAMES["devices"]())
    devices = named or tuple(d for d in every if _with(word, (f"{d.id} {d.name} {d.vendor}",)))
    if not devices:
        raise _none("devices", word)
    rows = [
        (
            d.id,
            d.name,
            d.usable_bytes,
            d.bandwidth,
            d.rate("fp16"),
            d.flops.get("bf16"),
            d.tdp_w,
            price.value if (price := cost.usd_per_hour(d)) else None,
        )
        for d in devices
    ]
    return _listed(
        Table(DEVICES, rows), foot="FLOP/s are dense; $ an hour: on-demand, the median of what is known"
    )


def _prices(word: str | None) -> Answer:
    """The devices whose prices are known, or every price of one."""
    if word is not None:
        board = device.load(word)
        rows = [[p.get(c.key, "") for c in PRICES] for p in cost.prices(board.id)]
        if not rows:
            return _unpriced(board)
        return _listed(
            Table(PRICES, rows), foot=f"{board.name}; dollars an hour; sources: budget explain KEY"
        )
    prices = [(name, cost.usd_per_hour(device.load(name))) for name in NAMES["prices"]()]
    return _listed(
        Table(PRICED, [(name, *usd[:3], usd.what.partition(", ")[2]) for name, usd in prices if usd]),
        foot="on-demand, dollars an hour and device; each price: budget list prices DEVICE",
    )


def _unpriced(board: device.Device) -> Answer:
    """What is known of a device whose prices nobody has read."""
    price = cost.usd_per_hour(board)
    rows = [(board.id, *price[:3], price.what.partition(", ")[2])] if price else []
    foot = (
        f"{board.name}; no price of it was read" if price else f"no price of {board.name} is known: --price"
    )
    return _listed(Table(PRICED, rows), foot=foot)


def _part(word: str | None, kind: str) -> bool:
    """Whether a word is no name itself but a part of some."""
    return word is None or (word not in NAMES[kind]() and bool(_with(word, NAMES[kind]())))


def _stacks(name: str | None) -> Answer:
    if name is not None and not _part(name, "stacks"):
        return _fields(list(stack_fields(stack.load(name))), name, "stacks")
    rows = [(s.name, s.modes, s.about) for s in stack.all_stacks() if _with(name, (s.name,))]
    columns = (Column("name", "stack"), Column("modes", "modes"), Column("about", "what"))
    usual = f"unless one is named: {_usual('train', 'train')}; {_usual('decode', 'serve')}"
    return _listed(Table(columns, rows, lines=lambda: stack_lines(rows)), foot=usual)


def _usual(mode: str, to: str) -> str:
    """What the stack of a mode is where none is named, and on some vendors' devices."""
    others = (
        f", {name} on {'a processor' if vendor == stack.HERE else vendor + ' devices'}"
        for vendor, name in stack.of_vendors(mode).items()
    )
    return f"{stack.usual(mode).name} to {to}{''.join(others)}"


def _laws(name: str | None) -> Answer:
    """All scaling laws, or one with its constants, range and source."""
    if name is not None and not _part(name, "laws"):
        about = law.load(name).about
        fields = [(k, str(v)) for k, v in about.items() if k not in ("draws", "checks")]
        return _fields(fields, name, "laws")
    rows = [
        (x.id, x.about["params_are"], LOSS[x.has_loss], HOLDS[x.about["reproduces"]])
        for x in law.every()
        if _with(name, (x.id,))
    ]
    return _listed(Table(LAWS, rows), foot="one of them: budget list laws NAME; what they say: budget scale")


def _clusters(name: str | None) -> Answer:
    """All clusters, or one with each of its tiers."""
    if name is not None and not _part(name, "clusters"):
        about = cluster.load(name)
        tiers = [(t.link.name, _joined(t), t.bandwidth, t.link.reached, t.link.step_s) for t in about.tiers]
        measured = "".join("" if t.link.measured else f"\nnot measured: {t.link.name}" for t in about.tiers)
        foot = "\n".join(x for x in (about.notes, f"source: {', '.join(about.source)}{measured}") if x)
        return _listed(Table(TIERS, tiers), foot=foot)
    rows = []
    for c in map(cluster.load, _with(name, cluster.names())):
        inner, outer = c.tiers[0], c.tiers[-1]
        beyond = outer.bandwidth / outer.oversubscription if outer is not inner else None
        rows.append((c.id, c.sold[0], c.node, inner.bandwidth, beyond))
    return _listed(Table(CLUSTERS, rows), foot="its links: budget list clusters NAME")


def _joined(tier: cluster.Tier) -> str:
    return "x".join(map(str, tier.torus)) or str(tier.devices or "any")


LISTS: Mapping[str, Callable[[str | None], Answer]] = {
    "architectures": _architectures,
    "families": _families,
    "presets": _presets,
    "devices": _devices,
    "prices": _prices,
    "clusters": _clusters,
    "laws": _laws,
    "stacks": _stacks,
}
NAMES: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "architectures": architectures.names,
    "families": hf_families.known,
    "presets": preset.names,
    "devices": device.names,
    "prices": lambda: table.files("prices"),
    "clusters": cluster.names,
    "laws": law.names,
    "stacks": stack.names,
}
