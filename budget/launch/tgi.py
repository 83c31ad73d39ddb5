"""Text Generation Inference, `text-generation-launcher` or its container. Source: tgi-launcher.

Its times are vLLM's: it has no stack of its own.
"""

from __future__ import annotations

from typing import Any

from . import _servers
from ._shared import degree, one_of, whole

STACK = "vllm"
QUANTIZED = {
    **_servers.QUANTIZED, "bitsandbytes": {"quantize": "int8"}, "bitsandbytes-nf4": {"quantize": "nf4"},
    "bitsandbytes-fp4": {"quantize": "nf4"}, "marlin": {"quantize": "gptq"},
}  # fmt: skip
FIELDS: dict[str, Any] = {
    **_servers.FIELDS, "serves": _servers.serves(STACK), "model_id": "model", "num_shard": degree("tp"),
    "quantize": one_of("quantize", QUANTIZED), "max_total_tokens": whole("seq"),
    "max_batch_total_tokens": whole("tokens"), "max_concurrent_requests": whole("serving.places"),
    "cuda_memory_fraction": _servers.share,
    "cuda_graphs": lambda sizes: {"execution": "fused"} if sizes == 0 else {},
}  # fmt: skip
SILENT = (
    *_servers.SILENT, "disable_grammar", "huggingface_hub_cache", "json_output", "master_", "max_batch_pre",
    "max_best_of", "max_input", "max_stop", "max_top_n", "max_waiting", "ngrok", "otlp", "payload_limit",
    "prometheus", "rope_", "shard_uds", "sharded", "usage_stats", "validation_", "waiting_", "weights_cache",
)  # fmt: skip
is_mine = _servers.starts("tgi")


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """As many requests as the tokens of all together hold at the greatest length."""
    tokens, longest = settings.pop("tokens", 0), settings.get("seq", 0)
    if tokens and longest:
        places = min(settings.get("serving.places", tokens), max(tokens // longest, 1))
        settings = {**settings, "serving.places": places}
    return {**_servers.finish(settings), "unsaid": ["TGI's own times: vLLM's are taken"]}
