"""mlx-lm's server and generator, `mlx_lm.server --model X`, and their flags. Source: mlx-lm-server."""

from __future__ import annotations

from . import _servers

STACK = "mlx"
FIELDS = {"serves": _servers.serves(STACK), "model": "model"}
SILENT = (
    *_servers.SILENT, "chat_", "ignore_chat", "max_tokens", "min_p", "prompt", "system_prompt", "temp",
    "top_", "use_default_chat", "verbose", "xtc_",
)  # fmt: skip
is_mine = _servers.starts(STACK)
