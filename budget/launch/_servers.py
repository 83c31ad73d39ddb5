"""The command that starts a server, found in a shell's words, and what the flags of several servers mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..errors import InputError, shown, wrong
from ..named import Any
from ._shared import Settings, degree, one_of, when, whole

# Commands that start a server: programs, as patterns of consecutive words, and containers that run one.
# Sources: vllm-serve, sglang-server, trtllm-serve, llama-server, llama-cpp-python, mlx-lm-server,
# tgi-launcher, ollama-context.
STARTS = {
    "vllm": (r"vllm serve", r"vllm\.entrypoints\.(openai\.)?api_server"),
    "sglang": (r"sglang serve", r"sglang\.launch_server"),
    "tensorrt-llm": (r"trtllm-serve serve", r"trtllm-serve"),
    "llama.cpp": (r"(\S*/)?llama-(server|cli)(\.exe)?", r"llama_cpp\.server"),
    "mlx": (
        r"(\S*/)?mlx_lm\.(server|generate)",
        r"mlx_lm (server|generate)",
    ),
    "ollama": (r"(\S*/)?ollama (run|pull|serve)",),
    "tgi": (r"(\S*/)?text-generation-launcher",),
}
IMAGES = {
    "vllm": r"(docker\.io/)?vllm/vllm-openai(-\w+)?(:\S*)?",
    "llama.cpp": r"ghcr\.io/ggml-org/llama\.cpp:server\S*",
    "tgi": r"(ghcr\.io/)?huggingface/text-generation-inference(:\S*)?",
    "ollama": r"(docker\.io/)?ollama/ollama(:\S*)?",
}
# Those that answer one request at a time, unless told otherwise. Source: llama-cpp-python; llama-cli's is
# recalled.
ALONE = re.compile(r"(\S*/)?llama-cli(\.exe)?|llama_cpp\.server")
APART = ("ollama",)  # servers that get their model by another line than the one that starts them
HUB = re.compile(r"[\w.-]+/[\w.-]+")  # a model's name on the hub
MODELS = ("--model", "--model-path", "--model-id", "--hf-repo", "--model-url", "--docker-repo")
# Variables of the environment that are flags.
VARIABLES = {
    "llama.cpp": r"LLAMA_ARG_(\w+)=(.*)",
    "ollama": r"OLLAMA_(\w+)=(.*)",
    "tgi": r"(MODEL_ID|NUM_SHARD|QUANTIZE|DTYPE|KV_CACHE_DTYPE|MAX_\w+|CUDA_\w+(?<!DEVICES))=(.*)",
}
# Words for a format of weights. A format that the checkpoint's own file states needs no word; "" leaves it
# so.
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
    **{word: {"kv_dtype": "fp8"} for word in ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_e4m3fn")},
    **{word: {} for word in ("bfloat16", "bf16", "float16", "fp16")},
}
SHORT = {
    "-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size",
    "-q": "--quantization", "-ep": "--enable-expert-parallel",
    "-m": "--model", "-mu": "--model-url", "-hf": "--hf-repo", "-hfr": "--hf-repo", "-hff": "--hf-file",
    "-dr": "--docker-repo", "-c": "--ctx-size", "-np": "--parallel", "-ngl": "--gpu-layers",
    "-kvu": "--kv-unified", "-ctk": "--cache-type-k", "-ctv": "--cache-type-v", "-fa": "--flash-attn",
    "-sm": "--split-mode", "-ts": "--tensor-split", "-dev": "--device", "-ub": "--ubatch-size",
    "-cmoe": "--cpu-moe", "-ncmoe": "--n-cpu-moe", "-ot": "--override-tensor", "-nkvo": "--no-kv-offload",
    "-n": "--predict", "-b": "--batch-size", "-t": "--threads", "-tb": "--threads-batch", "-a": "--alias",
    "-v": "--verbose", "-to": "--timeout", "-p": "--port",
    "-md": "--model-draft", "-hfd": "--hf-repo-draft", "-mm": "--mmproj",
}  # fmt: skip


def _share_of(ours: str) -> Callable[[Any], Settings]:
    """A setting that is a share of the device's memory. Raises InputError."""

    def read(share: Any) -> Settings:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise wrong(ours, share, "numbers above 0, up to 1")
        return {f"serving.{ours}": share}

    return read


share = _share_of("share")  # of the memory, that an engine takes
cache_share = _share_of("cache_share")  # of what weights and activations leave, that its cache takes


def _chunk(tokens: Any) -> Settings:
    """The tokens of a prompt that SGLang takes at once; -1: whole prompts, of its 16,384 tokens in a step.

    Source: sglang-prefill-size.
    """
    return whole("serving.step_tokens")(16384 if tokens == -1 else tokens)


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
    "max_batch_size": whole("serving.places"), "gpu_memory_utilization": share,
    "mem_fraction_static": share,
    "max_num_batched_tokens": whole("serving.step_tokens"), "chunked_prefill_size": _chunk,
    "enforce_eager": when({"execution": "fused"}), "disable_cuda_graph": when({"execution": "fused"}),
}  # fmt: skip
SILENT = (
    "allowed_", "api_key", "chat_template", "cors_", "disable_log", "disable_radix", "disable_uvicorn",
    "download_dir", "enable_auto_tool", "enable_cache_report", "enable_chunked_prefill", "enable_log",
    "enable_metrics", "enable_prefix_caching", "enable_prompt_tokens",
    "host", "language_model_only", "limit_mm", "load_format",
    "log_", "no_enable_prefix", "port", "random_seed", "reasoning_parser", "revision",
    "seed", "served_model_name", "show_time", "swap_space", "tokenizer", "tool_call_parser",
    "trust_remote_code", "uvicorn", "watchdog",
)  # fmt: skip


def started(commands: Iterable[list[str]]) -> list[str]:
    """The words of the command that starts a server: `--serves` with the server, variables as flags, and a
    bare word as its `--model`; None where no command does. Where several commands have one model, as on
    several nodes, the longest is taken. Raises InputError for several models.
    """
    lines = sorted(filter(None, map(_started, commands)), key=len)
    by_model = {model: words for words in lines if (model := _model(words))}
    if len(by_model) > 1:
        raise InputError("--run", f"starts servers of {shown(', '.join(by_model), 90)}; allowed: of one")
    words = next(iter(by_model.values()), lines[-1] if lines else [])
    others = (one[2:] for one in lines if words[1] in APART and one[1] == words[1] and not _model(one))
    return [*words, *(word for one in others for word in one)] if by_model else words


def _model(words: list[str]) -> str:
    """The model in a server's flags, or ""."""
    both = zip(words, [*words[1:], ""], strict=True)
    stated = (
        value or word for flag, word in both for name, _, value in (flag.partition("="),) if name in MODELS
    )
    return next(stated, "")


def _started(words: list[str]) -> list[str]:
    for name, patterns in STARTS.items():
        for pattern in patterns:
            wide = 1 + pattern.count(" ")
            for at in range(len(words) - wide + 1):
                if re.fullmatch(pattern, program := " ".join(words[at : at + wide])):
                    alone = ["--n-parallel=1"] if ALONE.fullmatch(program) else []
                    return _line(name, words[:at], words[at + wide :], alone)
    for name, pattern in IMAGES.items():
        for at, word in enumerate(words):
            rest = words[at + 1 :]
            if re.fullmatch(pattern, word) and (
                not rest or rest[0].startswith("-") or HUB.fullmatch(rest[0])
            ):
                return _line(name, words[:at], rest)
    return []


def _line(name: str, before: list[str], rest: list[str], usual: Sequence[str] = ()) -> list[str]:
    flags = [f"--{match[1].lower()}={match[2]}" for match in _variables(name, before)]
    bare = ["--model"] if rest and not rest[0].startswith("-") else []
    return ["--serves", name, *usual, *flags, *bare, *(_long(word) for word in rest)]


def _variables(name: str, words: list[str]) -> Iterator[re.Match[str]]:
    return (match for word in words if (match := re.fullmatch(VARIABLES.get(name, "(?!)"), word)))


def _long(word: str) -> str:
    """A flag with one dash as one with two; a negative number is no flag."""
    return SHORT.get(word, f"-{word}" if re.fullmatch(r"-[a-zA-Z][\w-]*", word) else word)


def starts(name: str) -> Callable[[Mapping[str, Any]], bool]:
    """A test of whether a table is a line that starts this server."""
    return lambda table: table.get("serves") == name


def serves(name: str) -> Callable[[Any], Settings]:
    """The settings for a line that starts this server: its stack, in mode decode."""
    return lambda _: {"mode": "decode", "stack": name}


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Experts are divided over the devices of tp alone; each of dp is a replica."""
    tp = settings.get("layout.tp", 1)
    experts = settings.pop("experts", False)
    if experts:
        settings["layout.ep"] = tp
    ep = settings.get("layout.ep", 1)
    settings = {**settings, "layout.etp": max(tp // ep, 1)} if ep > 1 else settings
    copies = settings.pop("copies", 1)
    if settings.pop("within", False) or ((experts or ep > 1) and copies > 1):  # all share their experts
        settings["unsaid"] = [f"data parallelism of attention alone, {copies}"]
        copies = 1
    settings = {**settings, "layout.dp": copies} if copies > 1 else settings
    devices = tp * settings.get("layout.pp", 1) * copies
    return {**settings, "layout.devices": devices} if devices > 1 else settings
