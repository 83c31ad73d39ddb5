"""SGLang's server, `sglang serve` or its launch_server module, and its flags. Source: sglang-server."""

from __future__ import annotations

from . import _servers
from ._shared import degree

STACK = "sglang"
FIELDS = {
    **_servers.FIELDS, "serves": _servers.serves(STACK), "model_path": "model", "ep_size": degree("ep"),
    "ep": degree("ep"), "expert_parallel_size": degree("ep"),
}  # fmt: skip
SILENT = _servers.SILENT
finish = _servers.finish
is_mine = _servers.starts(STACK)
