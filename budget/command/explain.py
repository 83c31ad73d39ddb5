"""`budget explain`: what a term of an answer means, and its source."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from textwrap import fill

from .. import arch, device, stack, table
from ..defaults import CHOICES
from ..errors import unknown
from ..layout import Layout
from ..plan import fields
from ._left_over import flags_of_commands
from ._parser import Parser

HELP = "what a word of an answer means, or a source that it names"
EXAMPLES = """examples:
  budget explain mfu
  budget explain kv cache
  budget explain --lora-rank         a flag
  budget explain besiroglu-2024      a source
  budget explain            all words
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    parser.add_argument("term", nargs="*", help="a word of an answer, a flag, or a source's key")
    parser.open = True  # to a flag of another command, as it is typed there


def run(args: Namespace, rest: Sequence[str]) -> int:
    """Print one explanation, or all terms."""
    terms = table.load("explain.json")
    asked = " ".join((*args.term, *rest))
    if not asked:
        print(fill(", ".join(terms), 79))
        return 0
    by_word = {_plain(word): term for term, entry in terms.items() for word in (*entry.get("also", ()), term)}
    is_source = asked in table.load("references.json")
    term = None if is_source and asked not in terms else by_word.get(_plain(asked))
    if term is None:
        flags = flags_of_commands()
        flag = _plain(asked).replace(" ", "-")
        what = f"--{flag}, a flag of budget {flags[flag]}" if flag in flags else _value(asked, flags)
        what = what or _name(asked) or _setting(asked)
        lines = [line for line in (what, _read(asked) if is_source else "") if line]
        if not lines:
            raise unknown("term", asked, (*terms, *flags), "`budget explain` has all words")
        print("\n".join(fill(line, 79, break_on_hyphens=False) for line in lines))
        return 0
    entry = terms[term]
    print(fill(" ".join(entry["text"].split()), 79))
    print(fill(f"source: {_source(entry.get('source'))}", 79, break_on_hyphens=False))
    return 0


def _value(asked: str, flags: Mapping[str, str]) -> str:
    """What a flag's value chooses, as the flag's help says before it lists the values; "" for none."""
    choices = {**CHOICES, **{name: field.choices for name, field in fields().items()}}
    flags_with = [name for name, values in choices.items() if asked.lower() in values]
    flags_of = ("".join((f"--{name}".replace("_", "-"), _about(name, flags))) for name in flags_with)
    return f"{asked.lower()}, a value of {'; of '.join(flags_of)}" if flags_with else ""


def _about(name: str, flags: Mapping[str, str]) -> str:
    if name in CHOICES:
        return f" (budget explain {name})"
    return f" ({flags[name.replace('_', '-')].partition(': ')[2].partition(': ')[0]})"


def _name(asked: str) -> str:
    """What a name is that is no word of an answer, and where it is listed; "" for none."""
    from .list import NAMES

    name = asked.lower()
    if name in stack.names():
        return f"{name} is one of the stacks: {stack.load(name).about}; budget list stacks {name}"
    rented, many = device.several(name, None)
    if board := device.find(rented):
        has = f"{board.usable_bytes / 2**30:.1f} GiB, {board.bandwidth / 1e9:,.0f} GB/s"
        rates = ", ".join(f"{dtype} {rate / 1e12:,.4g}" for dtype, rate in board.flops.items())
        what = f"{name} is one of the devices" if many is None else f"{name}: {many} devices"
        return f"{what}: {board.name}, {has}; dense TFLOP/s: {rates}; budget list devices {board.id}"
    kind = next((kind for kind, names in NAMES.items() if name in names()), "")
    return f"{name} is one of the {kind}: budget list {kind} {name}" if kind else ""


def _setting(asked: str) -> str:
    """What a setting of a layout or of an architecture means, as `vpp=2` or `d_model`; "" for none."""
    name = _plain(asked.partition("=")[0]).replace(" ", "_")
    if name in Layout.fields:
        return f"{name}, of --layout: {Layout.fields[name].help}"
    first = "transformer"  # that of most networks
    for kind in sorted(arch.names(), key=lambda kind: kind != first):
        if name in (fields := arch.load(kind).Config.fields):
            return f"{name}, of --arch {kind}: {fields[name].help}"
    return ""


def _read(key: str) -> str:
    """A source, and when it was read."""
    return f"{_source(key)}; read {table.load('references.json')[key]['read']}"


def _plain(words: str) -> str:
    """Words without what tells their spellings apart: MFU, KV cache, memory-bound."""
    return re.sub(r"[\W_]+", " ", words.lower()).strip() or words


def _source(key: str | None) -> str:
    if key is None:
        return "derived from the operators (docs/design.md)"
    reference = table.load("references.json")[key]
    return ", ".join(str(reference[k]) for k in ("title", "section", "url") if reference.get(k))
