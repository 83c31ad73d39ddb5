"""The preset that a table's name of a model means (`Llama3.1 70B FP8`, `qwen3moe 30B.A3B Q4_K - Medium`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from budget import estimate, table
from budget.read import preset
from budget.read.source import resolve

# Words of tables that are none of the network's: number formats, llama.cpp's mixtures, MLPerf's accuracy.
FORMATS = (
    r"\bi?q\d(_\w+)*( - (tiny|small|medium|large))?(?!\w)|"
    r"\b(bf16|fp(4|8|16|32)|f(16|32)|tf32|u?int[48]|w\d+a\d+|awq|gptq|mxfp4|nvfp4|v1\.5|99(\.9)?)(?!\w)|"
    r"-unsloth(?=-bnb)|-(bnb|gguf|[34568]bit|qat|quantized\.w\d+a\d+)(?!\w)|"
    r"(?<=[\s\d-])moe\b"
)
SIZE = r"(?<![\w.])(\d+(?:\.\d+)?)([mbt])\b"
UNITS = {"m": 1e6, "b": 1e9, "t": 1e12}
NEAR = 0.06  # a size in a name and the parameters: Nemotron 3 Nano 30B has 31.6 B, GPT-2 1.5B has 1.56 B


@cache
def named(name: str) -> str:
    """The preset that is called so, or nothing; of one in few bits the plain one."""
    return _known(name) or next(filter(None, map(_known, _spellings(_plain(name)))), "")


@cache
def likely(name: str) -> str:
    """The preset of a name, also of one that leaves a version out or says a size besides, or nothing.

    It begins so and has so many parameters; if several do, they are one network: `llama 8B`, not `llama 70B`.
    """
    if preset_name := named(name):
        return preset_name
    plain = _plain(name)
    size = re.search(SIZE, plain.lower())
    stem = plain[: size.start()].rstrip(" -_(") if size else plain
    whole = _known(stem) if size else ""
    begin = (
        [n for n in preset.names() if preset.squeezed(n).startswith(preset.squeezed(stem))] if stem else []
    )
    if size:
        params = float(size[1]) * UNITS[size[2]]
        if whole and _near(whole, params):
            return whole
        written = f"{size[1]}{size[2]}"
        begin = [n for n in begin if _meant(n, written, params)] or [
            n for n in _on_the_hub(stem) if _meant(n, written, params)
        ]
    return begin[0] if len(set(map(_network, begin))) == 1 else ""


def _on_the_hub(stem: str) -> list[str]:
    """The presets that networks are whose names on the hub begin so."""
    begin = preset.squeezed(stem)
    called = table.load(preset.FOLDER, "hub.json")
    presets = {_known(n) for n in called if begin and preset.squeezed(n.rpartition("/")[2]).startswith(begin)}
    return sorted(presets & set(preset.names()))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+$", "", re.sub(FORMATS, "", name, flags=re.IGNORECASE))


def _spellings(name: str) -> Iterator[str]:
    short = re.sub(r"^deit3?_(tiny|small|base|large)", r"vit_\1", name.rpartition("/")[2])  # the same network
    words = re.sub(r"[()/]", " ", name)
    yield from (name, " ".join(words.split()), re.sub(r"\(.*?\)", "", name).strip(), short)
    yield re.sub(r"[()]", "", short)
    yield re.sub(r"\bv(?=\d)", "", name)  # Llama v2 7B
    yield re.split(r"\.(?!\d)", short)[0]  # timm's weights, no version: Llama-3.3-Nemotron is no Llama-3
    yield re.sub(r"_\d{3}(\..*)?$", "_224", re.sub(r"_window\d+_", "_window7_", short))  # of other sides


def _known(text: str) -> str:
    """The plain preset that is called so, or nothing."""
    return preset.plain(text) if preset.known(text) else ""


def _near(name: str, params: float) -> bool:
    return abs(float(estimate(name, mode="forward").params.total) / params - 1) <= NEAR


def _meant(name: str, size: str, params: float) -> bool:
    """Whether a preset has so many parameters, and says no other size (Qwen1.5 14B, qwen1.5-moe-a2.7b)."""
    own = re.findall(r"\d+(?:\.\d+)?[mbt]\b", name)
    return _near(name, params) and (not own or size in own)


def _network(name: str) -> str:
    """What tells two networks apart: all settings but how long a sequence may be."""
    _, arch, settings, *_ = resolve(name, {})
    return f"{arch.__name__} { {k: v for k, v in vars(settings).items() if k != 'context'} }"
