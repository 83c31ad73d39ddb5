"""The command that starts a server, found in a shell's words, and what the flags of several servers mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..errors import InputError, shown
from ..named import Any
from ..read import preset
from ._shared import Told, degree, one_of, when, whole

# What starts a server, as patterns of words that follow each other: a program of its own, a module behind
# `python -m`, or a container. Sources: vllm-serve, sglang-server, trtllm-serve.
STARTS = {
    "vllm": (r"vllm serve", r"vllm\.entrypoints\.(openai\.)?api_server", r"vllm/vllm-openai(-rocm)?(:\S*)?"),
    "sglang": (r"sglang serve", r"sglang\.launch_server"),
    "tensorrt-llm": (r"trtllm-serve serve", r"trtllm-serve"),
}
# Words for a format of weights. What a checkpoint's own file says needs none, and these leave it at that.
OF_FILES = ("compressed-tensors", "modelopt", "modelopt_fp8", "auto-round")
QUANTIZED = {
    "fp8": {"quantize": "fp8-dynamic"}, "w8a8_fp8": {"quantize": "fp8-dynamic"},
    "w8a8_int8": {"quantize": "w8a8"}, "awq": {"quantize": "awq"}, "awq_marlin": {"quantize": "awq"},
    "gptq": {"quantize": "gptq"}, "gptq_marlin": {"quantize": "gptq"},
    "bitsandbytes": {"quantize": "nf4"}, "mxfp4": {"quantize": "mxfp4"},
    "modelopt_fp4": {"quantize": "nvfp4"}, **{word: {} for word in OF_FILES},
}  # fmt: skip
DTYPES = {"half": "float16", "float": "float32", **{d: d for d in ("float16", "bfloat16", "float32")}}
CACHES = {
    **{word: {"kv_dtype": "fp8"} for word in ("fp8", "fp8_e4m3", "fp8_e5m2")},
    **{word: {} for word in ("bfloat16", "bf16", "float16", "fp16")},
}
SHORT = {
    "-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size",
    "-q": "--quantization", "-ep": "--enable-expert-parallel",
}  # fmt: skip


def _share(share: Any) -> Told:
    """The part of the device's memory that an engine takes. Raises InputError."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError("share", f"got {shown(share)}; allowed: numbers above 0, up to 1")
    return {"serving.share": share}


# Flags that several servers have, as they are spelled in Python.
FIELDS: dict[str, Any] = {
    "model": "model", "dtype": one_of("dtype", DTYPES, "dtype"),
    "kv_cache_dtype": one_of("kv_cache_dtype", CACHES), "quantization": one_of("quantization", QUANTIZED),
    "tensor_parallel_size": degree("tp"), "tp_size": degree("tp"), "tp": degree("tp"),
    "pipeline_parallel_size": degree("pp"), "pp_size": degree("pp"),
    **{name: whole("copies") for name in ("data_parallel_size", "dp_size", "dp")},
    "enable_dp_attention": when({"within": True}),
    "max_model_len": whole("seq"), "context_length": whole("seq"), "max_seq_len": whole("seq"),
    "max_num_seqs": whole("serving.places"), "max_running_requests": whole("serving.places"),
    "max_batch_size": whole("serving.places"), "gpu_memory_utilization": _share,
    "mem_fraction_static": _share,
    "enforce_eager": when({"execution": "fused"}), "disable_cuda_graph": when({"execution": "fused"}),
}  # fmt: skip
SILENT = (
    "allowed_", "api_key", "chat_template", "cors_", "disable_log", "disable_radix", "disable_uvicorn",
    "download_dir", "enable_auto_tool", "enable_cache_report", "enable_chunked_prefill", "enable_log",
    "enable_metrics", "enable_prefix_caching", "enable_prompt_tokens", "free_gpu_memory_fraction",
    "host", "kv_cache_free_gpu", "language_model_only", "limit_mm", "load_format",
    "log_", "no_enable_prefix", "port", "random_seed", "reasoning_parser", "revision",
    "seed", "served_model_name", "show_time", "swap_space", "tokenizer", "tool_call_parser",
    "trust_remote_code", "uvicorn", "watchdog",
)  # fmt: skip


def started(words: list[str]) -> list[str]:
    """A line that starts a server from there on: `--serves` it, and a bare word behind as its `--model`.
    Other lines as they are.
    """
    for name, patterns in STARTS.items():
        for pattern in patterns:
            wide = 1 + pattern.count(" ")
            for at in range(len(words) - wide + 1):
                if re.fullmatch(pattern, " ".join(words[at : at + wide])):
                    rest = words[at + wide :]
                    bare = ["--model"] if rest and not rest[0].startswith("-") else []
                    return ["--serves", name, *bare, *(SHORT.get(word, word) for word in rest)]
    return words


def starts(name: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a table is of a line that starts this server."""
    return lambda table: table.get("serves") == name


def serves(name: str) -> Callable[[Any], Told]:
    """That a line starts this server, whose tokens are what takes its time."""
    return lambda _: {"mode": "decode", "stack": name}


def finish(told: dict[str, Any]) -> dict[str, Any]:
    """A hub's name in few bits as its preset in that format; experts on the devices of tp, and no others;
    of dp each a replica.
    """
    name = str(told.get("model", ""))
    found = None if preset.known(name) else preset.few_bits(name.rpartition("/")[2])
    if found:
        told = {"quantize": found[1], **told, "model": found[0]}
    tp = told.get("layout.tp", 1)
    experts = told.pop("experts", False)
    if experts:
        told["layout.ep"] = tp
    ep = told.get("layout.ep", 1)
    told = {**told, "layout.etp": max(tp // ep, 1)} if ep > 1 else told
    copies = told.pop("copies", 1)
    if told.pop("within", False) or ((experts or ep > 1) and copies > 1):  # all share their experts
        told["unsaid"] = [f"data parallelism of attention alone, {copies}"]
        copies = 1
    told = {**told, "layout.dp": copies} if copies > 1 else told
    devices = tp * told.get("layout.pp", 1) * copies
    return {**told, "layout.devices": devices} if devices > 1 else told
