"""Passes of a row of memory that trains nothing: a prompt's, a token's, or one over all that is read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from budget.named import Any
from budget.read.source import resolve

from . import _litgpt as litgpt
from . import _versions as versions
from . import _words as words
from . import training
from .networks import captured, side
from .rows import Part, precision, stack, whole
from .software import differs
from .table import Row, text_of


def parts(row: Row, model: Any, config: Mapping[str, Any]) -> tuple[Part, ...]:
    """The prompt's pass, where a row has one, and the last token's, of all of its hypotheses."""
    config = {**config, **training.masked(row)}
    passes = _passes(model, config, *words.lengths(row, 64))
    if captured(model) and side(row):
        passes = {"forward": {"image": side(row)}}
    software = stack(row, mode=next(iter(passes)))
    how = {"stack": software, "config": config, **numbers(row, software)}
    how |= words.cache(row)
    how |= litgpt.beside(software, model, how)
    batch = whole(row, "micro_batch", 1)
    found = []
    for mode, tokens in passes.items():
        sequences = batch * words.beams(row) if mode == "decode" else batch
        older = versions.older(row, software, mode, model)
        found.append(Part(model, {"batch": sequences, **how, **older, "mode": mode, **tokens}))
    return tuple(found)


def in_pieces(row: Row, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """A token over all of a prompt and the prompt's piece, where it runs in several: as notes say, or as its
    software does unless told otherwise. Sources: mlx-lm-generate, llama-cpp-cublas.
    """
    prompt = next((part for part in parts if part.settings["mode"] == "prefill"), None)
    usual = prompt and differs(prompt.settings["stack"]).get("piece")
    if not (prompt and usual):
        return ()
    said = re.search(r"\bpieces of ([\d,]+)", text_of(row, "notes"))
    piece = int(said[1].replace(",", "")) if said else usual
    if prompt.settings["seq"] <= piece:
        return ()
    whole_prompt, last = ({**prompt.settings, **own} for own in ({"mode": "decode"}, {"seq": piece}))
    token = parts[0] if parts[0] is not prompt else prompt._replace(settings=whole_prompt)
    return token, prompt._replace(settings=last)


def numbers(row: Row, software: str = "") -> dict[str, Any]:
    """The dtype of a row's weights, or its software's form of few bits. Raises NotCoveredError."""
    return _of_dtype(row) if row["quant"].lower() in ("", "none") else words.frozen(row, software)


def _of_dtype(row: Row) -> dict[str, str]:
    """The dtype that a row's network runs in; of mixed precision the weights are float32, and have copies."""
    dtype, kind = precision(words.widened(row, row["precision"] or "bf16"))
    return {"dtype": dtype, **({"precision": "autocast"} if kind == "master" else {})}


def _passes(model: Any, config: Mapping[str, Any], start: int, end: int) -> dict[str, dict[str, int]]:
    """The modes of a row's passes, and their tokens; what generates none has one, over all that it reads. A
    single new token is the prompt's pass's.
    """
    if captured(model):
        return {"forward": {}}
    _, arch, settings, *_ = resolve(model, config)
    encodes = "encoder" in (getattr(settings, "kind", ""), getattr(settings, "part", ""))
    if encodes or "decode" not in getattr(arch, "MODES", ()):
        return {"forward": {"seq": start or end} if "seq" in getattr(arch, "TAKES", ()) else {}}
    prompt = {"prefill": {"seq": start}} if start > 1 else {}
    return prompt if prompt and end == start + 1 else {"decode": {"seq": end}, **prompt}
