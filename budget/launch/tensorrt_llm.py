"""TensorRT-LLM's server, `trtllm-serve MODEL`, its flags, and the fields of its file of extra options.

Sources: trtllm-serve, trtllm-kv-cache.
"""

from __future__ import annotations

from . import _servers
from ._shared import degree, one_of, whole

STACK = "tensorrt-llm"
FREE = tuple(f"{before}free_gpu_memory_fraction" for before in ("", "kv_cache_", "kv_cache_config."))
FIELDS = {
    **_servers.FIELDS, "serves": _servers.serves(STACK), "ep_size": degree("ep"),
    "max_num_tokens": whole("serving.step_tokens"),
    "moe_expert_parallel_size": degree("ep"),
    **dict.fromkeys(FREE, _servers.cache_share),
    "kv_cache_config.dtype": one_of("kv_cache_config.dtype", _servers.CACHES),
}  # fmt: skip
SILENT = (
    *_servers.SILENT, "backend", "kv_cache_config.enable_block_reuse", "cuda_graph_config", "print_iter_log",
    "stream_interval",
)  # fmt: skip
finish = _servers.finish
is_mine = _servers.starts(STACK)
