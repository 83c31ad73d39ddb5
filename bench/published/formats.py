"""What published words for weights are in `estimate` (`int4 (AWQ)`, `W8A8`, `Q4_K - Medium`)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from budget.errors import nearest
from budget.named import Any
from budget.plan.gguf import FORMATS

from .rows import NotCoveredError, before, plain
from .software import differs
from .table import Row, text_of

# Words by how they begin: weights of few bits, or their products' dtype.
WEIGHTS = {
    "fp16": {"dtype": "fp16"}, "f16": {"dtype": "fp16"}, "half": {"dtype": "fp16"},
    "bf16": {"dtype": "bf16"}, "fp32": {"dtype": "fp32"}, "tf32": {"dtype": "tf32"},
    "amp": {"dtype": "fp16", "precision": "autocast"},
    "fp8": {"dtype": "fp8"}, "int8": {"quantize": "int8"}, "int4": {"quantize": "w4a16"},
    "fp4": {"quantize": "nvfp4"},
    "w8a8": {"quantize": "w8a8"}, "w8a16": {"quantize": "gptq-8bit"},
    **{name: {"quantize": name} for name in FORMATS}, "q8": {"quantize": "q8_0"},
    **{f"q{bits}_k": {"quantize": f"q{bits}_k_m"} for bits in (3, 4, 5)}, "q4f16": {"quantize": "q4_0"},
    "nf4": {"quantize": "nf4"}, "bnb.nf4": {"quantize": "nf4"}, "nf4-dq": {"quantize": "nf4-dq"},
    "bnb.nf4-dq": {"quantize": "nf4-dq"},
}  # fmt: skip
# The same by a pattern anywhere: what such weights have beside them. ExLlama's own format has no more.
PACKED = {
    r"gptq.{0,3}(int)?8|8[- ]?(bits?)?.{0,3}gptq": "gptq-8bit", "gptq": "gptq", "exl2": "gptq", "awq": "awq",
    "mxfp4": "mxfp4", "nvfp4": "nvfp4", "w4a16|auto-?round": "w4a16", "smoothquant": "w8a8",
    r"^marlin": "gptq", r"^(bnb|bitsandbytes)[^.\d]*4": "nf4",
    r"^(bnb|bitsandbytes)[^.\d]*8": "int8",
}  # fmt: skip
# A cache of eight bits, of whichever kind, takes a byte; one in llama.cpp's blocks is named.
BYTES = "fp8|float8|int8|8-bit"
EIGHT = re.compile(
    rf"(?<!no )(?<!without )\b({BYTES}) (kv[-_ ]?)?cache|kv[-_ ]cache([-_ ]dtype)?( in|[:=])? ?({BYTES})"
)
BLOCKS = re.compile(
    r"\bcache (?:in |\()?(?P<of>q[458]_[01]|iq4_nl)\b|\b(?P<kv>q[458]_[01]|iq4_nl) (kv[-_ ])?cache"
)
# What leaves a network as its checkpoint is, in sixteen bits.
LEFT = re.compile(r"(none|auto|unquantized|native|16[- ]?bits?)?")


def weights(text: str, column: str, software: str = "", engine: str = "") -> dict[str, Any]:
    """What a column's word for weights is in `estimate`, of an engine's own files. Raises NotCoveredError."""
    word = re.sub(" - (small|medium|large)", lambda found: f"_{found[1][0]}", plain(text))  # as llama-bench
    word = re.sub(r"^weights?[- ]only ", "", word)
    if word.startswith("ud-"):  # Unsloth's own types of each network: the nearest
        word = next(iter(nearest(word, FORMATS)), word)
    bits = re.match(r"(?:int|q)?([34568])(?:-?bit)?\b", word)
    if bits and (differs(software).get("grouped") or "groups of 64" in word):
        return {"quantize": f"mlx-{bits[1]}bit"}
    if match := re.match(r"([48])[- ]?bits?\b", word):
        word = differs(software).get("bits", {}).get(match[1], f"int{match[1]}") + word[match.end() :]
    if match := re.search(r"w8a(8|16)", word):  # beside a word for the kind of the eight bits
        word = "fp8" if "fp8" in word or "float8" in word else match[0]
    own = dict(differs(software).get("weights", {}))
    for face, files in differs(software).get("files", {}).items():
        own |= files if face in engine.lower() else {}
    if LEFT.fullmatch(word) and differs(software).get("checkpoint"):
        return {}
    for some, form in PACKED.items():
        if re.search(some, word):
            return dict(own.get(some, {"quantize": form}))
    for start in sorted(WEIGHTS, key=len, reverse=True):
        if word.startswith(start):
            if start == "int8" and before({"engine_version": word}, "bitsandbytes", (0, 45)):
                return {"quantize": "int8-2024"}
            if start == "int8" and re.search(r"threshold[ =:]*0(?![.\d]*[1-9])|without outliers", word):
                return {"quantize": "int8-whole"}
            return dict(own.get(start, WEIGHTS[start]))
    raise NotCoveredError(f"{column} {text[:30]!r}" if text else f"{column} is not stated")


def cache(row: Row, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The dtype of the KV cache where a row says it, in its column or in its notes."""
    word, text = row.get("kv_precision", "").lower(), text_of(row, "engine", "weight_precision", "notes")
    if few := BLOCKS.search(f"{word} cache; {text}"):
        return {"kv_dtype": few["of"] or few["kv"]}
    if re.match(BYTES, word) or (not word and EIGHT.search(text)):
        return {"kv_dtype": "fp8"}
    return {"kv_dtype": ""} if word and "kv_dtype" in settings else {}
