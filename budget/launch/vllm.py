"""vLLM's server: `vllm serve MODEL`, its module or its container, and their flags. Source: vllm-serve."""

from __future__ import annotations

import re

from ..named import Any
from . import _servers
from ._shared import Settings, when, whole

STACK = "vllm"
UNITS = {"k": 10**3, "m": 10**6, "K": 2**10, "M": 2**20}


def _length(tokens: Any) -> Settings:
    """Tokens: a number, thousands (16k, 25.6k), or multiples of 1,024 (16K). Raises InputError."""
    match = re.fullmatch(r"(\d+)([KM])|(\d+(?:\.\d+)?)([km])", str(tokens))
    if match is not None:
        tokens = int(float(match[1] or match[3]) * UNITS[match[2] or match[4]])
    return {} if tokens == -1 else whole("seq")(tokens)  # -1: as long as fits


FIELDS = {
    **_servers.FIELDS, "serves": _servers.serves(STACK), "enable_expert_parallel": when({"experts": True}),
    "max_model_len": _length,
}  # fmt: skip
SILENT = _servers.SILENT
finish = _servers.finish
is_mine = _servers.starts(STACK)
