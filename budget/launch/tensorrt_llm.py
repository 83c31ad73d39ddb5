"""TensorRT-LLM's server, `trtllm-serve MODEL`, and its flags. Source: trtllm-serve."""

from __future__ import annotations

from collections.abc import Mapping

from ..named import Any
from . import _servers
from ._shared import degree

STACK = "tensorrt-llm"
FIELDS = {**_servers.FIELDS, "serves": _servers.serves(STACK), "ep_size": degree("ep")}
SILENT = (*_servers.SILENT, "backend")
finish = _servers.finish


def is_mine(table: Mapping[str, Any]) -> bool:
    """A line that starts it."""
    return table.get("serves") == STACK
