"""`budget explain`: what a term of an answer means, and its source."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from textwrap import fill

from .. import table
from ..errors import unknown
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
    references = table.load("references.json")
    if asked not in terms and asked in references:
        print(fill(f"{_source(asked)}; read {references[asked]['read']}", 79, break_on_hyphens=False))
        return 0
    told = {_plain(word): term for term, entry in terms.items() for word in (*entry.get("also", ()), term)}
    term = told.get(_plain(asked))
    if term is None:
        flags = _flags()
        if (flag := _plain(asked).replace(" ", "-")) not in flags:
            raise unknown("term", asked, (*terms, *flags), "`budget explain` has all words")
        print(fill(f"--{flag}, a flag of budget {flags[flag]}", 79, break_on_hyphens=False))
        return 0
    entry = terms[term]
    print(fill(" ".join(entry["text"].split()), 79))
    print(fill(f"source: {_source(entry.get('source'))}", 79, break_on_hyphens=False))
    return 0


FLAGS_OF = ("estimate", "serve", "fit", "scale", "goodput")  # the first that has a flag tells it


def _flags() -> dict[str, str]:
    """What each flag means, in its help's words, behind its command."""
    found: dict[str, str] = {}
    for command in FLAGS_OF:
        parser = Parser(prog=f"budget {command}")
        import_module(f"{__package__}.{command}").flags(parser)
        found = {**{flag: f"{command}: {told}" for flag, told in parser.meanings().items()}, **found}
    return found


def _plain(words: str) -> str:
    """Words without what tells their spellings apart: MFU, KV cache, memory-bound."""
    return re.sub(r"[\W_]+", " ", words.lower()).strip() or words


def _source(key: str | None) -> str:
    if key is None:
        return "derived from the operators (docs/design.md)"
    reference = table.load("references.json")[key]
    return ", ".join(str(reference[k]) for k in ("title", "section", "url") if reference.get(k))
