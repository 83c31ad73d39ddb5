"""vLLM's server: `vllm serve MODEL`, its module or its container, and their flags. Source: vllm-serve."""

from __future__ import annotations

from collections.abc import Mapping

from ..named import Any
from . import _servers
from ._shared import when

STACK = "vllm"
FIELDS = {
    **_servers.FIELDS, "serves": _servers.serves(STACK), "enable_expert_parallel": when({"experts": True}),
}  # fmt: skip
SILENT = _servers.SILENT
finish = _servers.finish


def is_mine(table: Mapping[str, Any]) -> bool:
    """A line that starts it."""
    return table.get("serves") == STACK
