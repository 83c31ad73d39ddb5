"""What the columns of a published table mean: the device, the software, the number formats.

Nothing here looks at a measured column or at a row's id; `source` and `engine` tell the software, no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from budget import device as devices
from budget import stack as stacks
from budget.named import Any, NamedTuple

from .software import facts
from .table import Row, text_of


class NotCoveredError(Exception):
    """Why a row has no prediction, in a few words."""


class Part(NamedTuple):
    """Arguments of `estimate`, and how often that runs; of a step's phases all, or the named one;
    of kernels all, or those of the named kind. What runs -1 times is part of another part. waits: seconds
    that each run takes besides.
    """

    model: Any
    settings: Mapping[str, Any]
    times: float = 1.0
    phase: str = ""
    kind: str = ""
    waits: float = 0.0


class Asked(NamedTuple):
    """A measured quantity and what predicts it.

    parts: what runs, one after the other. work: tokens or samples of all of it, where a rate was measured;
    0: its time, or a number that `of` computes of the first part's estimate. size: which of an answer's sizes
    of memory that is (budget/answer/held.py), whose interval it has; "": none.
    """

    quantity: str
    unit: str
    measured: float | None
    parts: tuple[Part, ...]
    work: float = 0.0
    of: Any = None
    size: str = ""


def number(row: Row, column: str, default: float | None = None) -> float:
    """A column's number. Raises NotCoveredError where there is none and no default."""
    text = row.get(column, "")
    if text:
        return float(text)
    if default is None:
        raise NotCoveredError(f"{column} is not stated")
    return default


def whole(row: Row, column: str, default: int | None = None) -> int:
    """A column's whole number, as `number`."""
    return int(number(row, column, default))


def measured(row: Row, column: str, scale: float = 1.0) -> float | None:
    """A measured column, or None where it is empty."""
    text = row.get(column, "")
    return float(text) * scale if re.fullmatch(r"\d+\.?\d*([eE][+-]?\d+)?", text) else None


FRAMEWORKS = re.compile(r"^$|torch|tensorflow|jax|static batch")  # words that do not tell what runs
MONTHS = "janfebmaraprmayjunjulaugsepoctnovdec"
MONTH = rf"\b({'|'.join(re.findall('...', MONTHS))})[a-z]* (20\d\d)\b"  # as people write a date
DATE = r"(?<![\da-f])(20[12]\d)-?(0[1-9]|1[0-2])(?![\da-f])"  # and no part of a commit
TESTED = r"\btest of 20\d\d-\d\d(-\d\d)?"  # when a row was predicted first, and no date of its own
# A build of llama.cpp's, and no year.
LLAMA = r"llama[.-](?:cpp|bench)"
BUILD = rf"(?:{LLAMA}\)?[ ,(]+(?!20[12]\d\b)|(?:^|{LLAMA}.*?\b)(?:build:? |b))(\d{{4,5}})\b"
CONTAINER = r"\((2\d)\.(0\d|1[0-2])\b|\bnemo ?(2\d)\.?(0\d|1[0-2])\b"  # NVIDIA's: a year and a month


def stack(row: Row, default: str | None = None, mode: str = "") -> str:
    """The software stack of a row, of the version that it states; one that has the mode, if one is given.

    The source tells it where no engine is stated, or one of FRAMEWORKS. Raises NotCoveredError for software
    without a stack where there is no default.
    """
    name = _named_stack(row, default, mode)
    return facts()["xla"].get(name, name) if _compiled(row) else name


def _compiled(row: Row) -> bool:
    """Whether a row names XLA, and not as switched off."""
    words = text_of(row, "engine", "source", "notes")
    return bool(re.search(r"\bxla\b", words)) and not re.search(r"\b(without|no|not) xla\b", words)


def _named_stack(row: Row, default: str | None, mode: str) -> str:
    engine = row.get("engine", "").lower()
    source = row.get("source", "").lower() if FRAMEWORKS.search(engine) else ""
    named = " ".join(re.findall(r"\(([^()]*)\)", source))  # a page's path may have other software's words
    places = [(engine, "words"), (named, "words"), (source, "words"), (engine, "engines")]
    for text, kind in places if default else [*places, (engine, "frameworks")]:
        for words, name in facts()[kind].items():
            match = re.search(rf"(?<![a-z])({words})(?![a-z])", text)
            if text != engine and "torch" in engine and name in facts()["alone"]["stacks"]:
                continue
            if match and (not mode or stacks.load(name).has(mode)):
                return _of_version(row, name, mode)
    if default is None:
        raise NotCoveredError(f"no stack for the engine {row.get('engine', '')[:30]!r}")
    return default


def _of_version(row: Row, name: str, mode: str) -> str:
    """The stack that software was in the version that a row states: the newest where it states none, or where
    of the older nothing is known in that mode.
    """
    was = facts()["before"].get(name, {"version": (), "stack": name})
    older = was["stack"]
    known = not mode or stacks.load(older).has(mode)
    early = before(row, name, tuple(was["version"])) or _earlier(row, was.get("released"))
    older_stack = _of_version(row, older, mode) if known and early else name
    return name if older_stack == older and _unchanged(row, was) else older_stack


def _unchanged(row: Row, was: Mapping[str, Any]) -> bool:
    """Whether nothing changed then on a row's device, as far as the row names one."""
    on = device(row["gpu"]).generation if row.get("gpu") else ""
    return on not in was["changed"] if "changed" in was else on in was.get("unchanged", ())


def _earlier(row: Row, released: Sequence[int] | None) -> bool:
    """Whether a row states no version of an engine, but a month before the one of a release."""
    engine = row.get("engine", "").lower()
    match = re.search(DATE, _dated(row, "engine", "source"))
    if not released or not match or re.search(r"\d\.\d", engine):
        return False
    return [int(match[1]), int(match[2])] < list(released)


def before(row: Row, name: str, begin: tuple[int, ...]) -> bool:
    """Whether a row states a version of a stack's software, or a year and a month, before that one."""
    word = re.sub(r"-(eager|20[12]\d)$", "", name).replace("-", ".")
    number = r"(\d+)\.(\d+)(?:\.(\d+))?"
    named, bare = rf"{word}(?: eager)? v?{number}", rf"(?:^|\bv|\brelease/){number}|"
    # Any other version may be another thing's where a row does not name this one; a version counts before a
    # date. Software that is distinguished by its date has no version that says which one it is.
    own = bool(re.search(word, text_of(row, "engine", "source")))
    known = rf"{bare * own}{named}|{CONTAINER}" if begin < (2000,) else DATE
    for column in ("engine_version", "engine", "source"):
        if match := re.search(known, _dated(row, column)):
            return tuple(int(n) for n in match.groups() if n) < begin
    return False


def month(row: Row) -> tuple[int, ...]:
    """The year and month that a row states, of a source's year the middle, or what is later than all."""
    match = re.search(DATE, _dated(row))
    year = re.search(r"(?:\bof|,) (20[12]\d)\b", text_of(row, "source"))
    return (int(match[1]), int(match[2])) if match else (int(year[1]), 7) if year else (9999,)


def _dated(row: Row, *columns: str) -> str:
    """What columns say, as `text_of`, with months and their years in digits, and that of a build."""
    text = re.sub(TESTED, "", text_of(row, *columns))
    text = re.sub(MONTH, lambda f: f"{f[2]}-{MONTHS.index(f[1]) // 3 + 1:02}", text)
    built = None if re.search(DATE, text) else re.search(BUILD, text)
    begun = [m for m, first in facts()["builds"].items() if built and int(built[1]) >= first]
    return f"{text} {max(begun)}" if begun else text


# Devices whose published names say less, or more, than the data's.
NAMES = {"h100-sxm-96gb-hbm2e-500w": "h100-hbm2e", "v100-sxm3-32gb": "v100-sxm-32gb"}
# How many, beside a device's name: 8xH100, H100 x8.
HOW_MANY = r"^\s*\d+ ?[x\u00d7] ?(?=[a-z])|(?: |(?<=\d))[x\u00d7*] ?\d\d?\s*$"
# Words that tell a device from the one that is called so without them: none of them is ever left out.
TELLING = {
    "ti", "super", "d", "s", "xt", "xtx", "gre", "nano", "nx", "sff", "laptop", "mobile", "max", "q", "ultra",
    "pro", "ada", "black", "z", "gcd",
}  # fmt: skip


@cache
def device(text: str) -> devices.Device:
    """The device that a table calls so. Raises NotCoveredError."""
    whole_text = re.sub(HOW_MANY, "", text.lower().replace("\u2011", "-"))
    whole_text = re.sub(r"\((?:1 )?gcd\)", "gcd", whole_text)
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)|\bgen\d", " ", whole_text))
    for name in (whole_text, *_names(words)):
        if TELLING & set(words) - set(re.findall(r"[a-z0-9]+", name)):
            continue
        if found := devices.find(name):
            return found
    raise NotCoveredError(f"no data on the device {text[:40]!r}")


def _names(words: list[str]) -> Iterator[str]:
    """A device's words as the data may have them, with less and less of what is no name."""
    slug = "-".join(words)
    core = [
        w
        for w in words
        if not re.fullmatch(r"\d+gb|gb|sxm\d?|core|gpu|hbm\w*|nvidia|\d+w|\d+x|[dh]gx|blackwell|nvl\d\d+", w)
    ]
    yield NAMES.get(slug, slug)
    yield "-".join([*core, *(w for w in words if re.fullmatch(r"\d+gb", w))])
    yield "-".join(core)
    yield "-".join(w for w in core if not re.fullmatch(r"\d\d?", w))
    yield "-".join(words[:2])
    yield "rtx-" + "-".join(core)
    yield "quadro-" + "-".join(core)


def plain(text: str) -> str:
    """A word for a number format as most write it: `float16` is `fp16`."""
    return re.sub(r"^float(?=\d)", "fp", text.lower().replace("bfloat", "bf"))


def precision(text: str) -> tuple[str, str]:
    """(dtype, precision) of a published word. Raises NotCoveredError."""
    word = re.sub("^mxfp8", "fp8", plain(text))
    word = re.sub(r"^amp\b", "fp16-amp", word)  # torch.autocast's on a GPU
    for start, dtype in (
        ("bf16", "bf16"),
        ("fp16", "fp16"),
        ("half", "fp16"),
        ("f16", "fp16"),
        ("tf32", "tf32"),
        ("fp32", "fp32"),
    ):
        if word.startswith(start):
            kept = any(sign in word[4:] for sign in ("amp", "master", "mixed", "fp32"))
            return dtype, "master" if kept else "pure"
    for start, kind in (("fp8", "fp8"), ("nvfp4", "nvfp4")):
        if word.startswith(start):
            return "bf16", kind
    raise NotCoveredError(f"precision {text[:30]!r}" if text else "precision is not stated")
