"""vLLM's server: `vllm serve MODEL`, its module or its container, and their flags. Source: vllm-serve."""

from __future__ import annotations

from . import _servers
from ._shared import when

STACK = "vllm"
FIELDS = {
    **_servers.FIELDS, "serves": _servers.serves(STACK), "enable_expert_parallel": when({"experts": True}),
}  # fmt: skip
SILENT = _servers.SILENT
finish = _servers.finish
is_mine = _servers.starts(STACK)
