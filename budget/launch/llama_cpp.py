"""llama.cpp's server, `llama-server -m FILE`, its container, or the one of llama-cpp-python, and their flags.

Sources: llama-server, llama-cpp-python.
"""

from __future__ import annotations

from ..named import Any
from ..plan.cache import DTYPES
from . import _servers
from ._shared import Settings, one_of, when, whole

STACK = "llama.cpp"
# Where nobody says how many, or -1; these share the context, which others divide. Source: llama-server-slots.
PLACES = 4
ALL = ("all", -1)  # layers on the devices
TYPES = {"f32": "fp32", "f16": "", "bf16": "", **{t: t for t in DTYPES if t[0] in "qi"}}
OFF: Settings = {"attention": "eager"}
SWITCH: dict[Any, Settings] = {True: {}, "on": {}, "auto": {}, False: OFF, "off": OFF}


def _last(path: Any) -> Settings:
    """The name of a file that is loaded from a path or an address."""
    return {"model": str(path).rpartition("/")[2]}


def _context(tokens: Any) -> Settings:
    """Tokens of all places together; 0: the network's own length. Raises InputError."""
    return whole("context")(tokens) if tokens else {}


def _places(count: Any) -> Settings:
    """How many requests at once; -1: as many as where nobody says. Raises InputError."""
    return {} if count == -1 else whole("serving.places")(count)


def _layers(count: Any) -> Settings:
    """The number of layers on the devices, where these are not all."""
    return {} if count in ALL or (isinstance(count, int) and count >= 99) else {"layers": count}


def _split(parts: Any) -> Settings:
    """The number of devices, from the list of their shares."""
    return {"devices": str(parts).count(",") + 1}


FIELDS: dict[str, Any] = {
    "serves": _servers.serves(STACK), "model": "model", "hf_repo": "model", "hf_file": _last,
    "model_url": _last, "docker_repo": _last, "ctx_size": _context, "n_ctx": _context,
    **dict.fromkeys(("parallel", "n_parallel"), _places), "kv_unified": when({"shared": True}),
    **dict.fromkeys(("ubatch_size", "n_ubatch"), whole("serving.step_tokens")),
    **dict.fromkeys(("gpu_layers", "n_gpu_layers"), _layers),
    "cache_type_k": one_of("cache_type_k", TYPES, "k"), "cache_type_v": one_of("cache_type_v", TYPES, "v"),
    "flash_attn": one_of("flash_attn", SWITCH), "tensor_split": _split, "device": _split,
    "split_mode": one_of("split_mode", {"none": "", "layer": "pp", "row": "tp", "tensor": "tp"}, "split"),
}  # fmt: skip
SILENT = (
    *_servers.SILENT, "alias", "api_", "batch_size", "cache_prompt", "cache_reuse", "chat_",
    "check_", "color", "cont_batching", "conversation", "dry_", "fit", "frequency_", "jinja", "keep",
    "main_gpu", "metrics", "min_p", "mlock", "mmap", "n_predict", "no_context_shift", "no_mmap",
    "n_batch", "n_threads", "no_warmup", "no_webui", "numa", "offline", "path", "poll", "predict",
    "presence_", "prio", "props", "reasoning_", "repeat_", "rope_", "samplers", "slot", "sps", "ssl_",
    "temp", "threads", "timeout", "top_", "verbose", "warmup", "webui", "xtc_", "yarn_",
)  # fmt: skip
is_mine = _servers.starts(STACK)


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """The context shared by its places or divided, layers (or rows) over devices, a cache in one dtype."""
    context, places = settings.pop("context", 0), settings.get("serving.places", PLACES)
    shared = settings.pop("shared", False) or "serving.places" not in settings
    keys, values = settings.pop("k", ""), settings.pop("v", "")
    devices, axis = settings.pop("devices", 1), settings.pop("split", "pp")
    unsaid = []
    if "layers" in settings:
        unsaid.append(f"layers on the host, all but {settings.pop('layers')}")
    if keys != values:
        unsaid.append(f"values of the cache in {values or 'fp16'}")
    more = {
        "seq": context if shared else context // places, "kv_dtype": keys, "unsaid": unsaid,
        "serving.places": places, "serving.shared_tokens": context if shared else 0,
    }  # fmt: skip
    layout = {f"layout.{axis}": devices, "layout.devices": devices} if devices > 1 and axis else {}
    return {**settings, **{name: value for name, value in more.items() if value}, **layout}
