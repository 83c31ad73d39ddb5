"""Settings that a source does not state: its software's defaults and recipes, in the words of the tables.

recipes.toml has them. What a row states is never replaced, and what neither says stays empty.
Sources: megatron-bridge-recipes, nemo-launcher, automodel, chatglm-efficient-tuning, llama-factory,
maxtext-defaults, ms-swift, torchtitan-defaults, trl, unsloth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from budget.named import Any

from .names import likely
from .rows import month
from .software import toml
from .table import Row, text_of

EMPTY = ("", "-", "n/a", "na")
# A container of NVIDIA's: a year, a month, and a patch.
RELEASE = r"(?<![\d.])(2\d)\.(0[1-9]|1[0-2])(?:\.(\d\d?))?(?![\d.])|\bnemo(2\d)(0[1-9]|1[0-2])\b"
NEWEST = (98,)
FORMATS = ("nvfp4", "mxfp8", "fp8", "bf16")  # the first that a row's word has
# What a recipe is for; its others are columns.
WHICH = ("models", "devices", "formats", "kinds", "since", "before", "released")


@cache
def recipes() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """By a pattern of the engine or the source, or a stack."""
    return toml("recipes.toml")


def filled(row: Row, software: str, device: str) -> Row:
    """The row with what its software says where it states nothing."""
    row_says = {column: text for column, text in row.items() if text.strip().lower() not in EMPTY}
    if "differ" in row_says.get("recompute", ""):  # some recipes do, which ones the source does not say
        del row_says["recompute"]
    empty = dict.fromkeys(row.keys() - row_says.keys(), "")
    name, format_ = row.get("model", "").strip(), _plain(row.get("precision", "").lower())
    has = {
        "models": likely(name),
        "devices": device,
        "formats": next((known for known in FORMATS if known in format_), ""),
        "kinds": row.get("kind", ""),
    }
    own: dict[str, str] = {}
    source = text_of(row, "engine", "source")
    for word, known in recipes().items():
        if word == software or re.search(word, source):
            stated = re.search(rf"(?:{word}) v?(\d+(?:\.\d+)+)", source)
            when = _numbers(stated[1]) if stated else release(row)
            for recipe in (r for r in known if _fits(r, has, when)):
                if stated or month(row) >= _numbers(recipe.get("released", "0")):
                    own |= {column: text for column, text in recipe.items() if column not in WHICH}
    return {**empty, **own, **row_says}


def _fits(recipe: Mapping[str, Any], has: Mapping[str, str], when: tuple[int, ...]) -> bool:
    """Whether a recipe is for what a row has, in its release."""
    since, before = (_numbers(recipe.get(key, usual)) for key, usual in (("since", "0"), ("before", "99")))
    return since <= when < before and all(has[key] in recipe[key] for key in has if key in recipe)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def release(row: Row) -> tuple[int, ...]:
    """The container that a row was measured in, as its source or notes say; the newest where they don't."""
    for column in ("engine_version", "source", "notes"):
        if match := re.search(RELEASE, row.get(column, "").lower()):
            return tuple(int(n) for n in match.groups() if n)
    return NEWEST


def _plain(word: str) -> str:
    """`fp8-mx` is `mxfp8`."""
    return re.sub(r"fp8[-_ (]*mx", "mxfp8", word)
