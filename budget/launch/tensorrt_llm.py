"""TensorRT-LLM's server, `trtllm-serve MODEL`, and its flags. Source: trtllm-serve."""

from __future__ import annotations

from . import _servers
from ._shared import degree

STACK = "tensorrt-llm"
FIELDS = {**_servers.FIELDS, "serves": _servers.serves(STACK), "ep_size": degree("ep")}
SILENT = (*_servers.SILENT, "backend")
finish = _servers.finish
is_mine = _servers.starts(STACK)
