"""Ollama: `ollama run NAME`, or pull, alone or in its container, and the variables of `ollama serve`.

Its times are llama.cpp's, and a name of its library without a type of weights has the library's usual one.
Sources: ollama-context, ollama-library.
"""

from __future__ import annotations

from ..named import Any
from ..read import preset
from . import _servers
from ._shared import Settings, one_of, whole

STACK = "llama.cpp"
CACHES = {"f16": "", "q8_0": "q8_0", "q4_0": "q4_0"}


def _model(name: Any) -> Settings:
    """A name of the library with its usual weights. Who starts Ollama means its library by any name, with a
    size or without: `mistral`.
    """
    own = str(name)
    form = preset.of_ollama(own if ":" in own else own + preset.LATEST) if preset.known(own) else ""
    form = form and (preset.published_type(own) or form)
    return {"model": name, **({"quantize": form} if form else {})}


FIELDS: dict[str, Any] = {
    "serves": lambda _: {"mode": "decode", "stack": STACK},
    "model": _model, "context_length": whole("seq"), "num_parallel": whole("serving.places"),
    "kv_cache_type": one_of("kv_cache_type", CACHES, "kv_dtype"),
}  # fmt: skip
SILENT = (
    "debug", "flash_attention", "format", "gpu_overhead", "hidethinking", "host", "insecure", "keep", "load_",
    "max_loaded", "max_queue", "models", "nowordwrap", "origins", "think", "verbose",
)  # fmt: skip
is_mine = _servers.starts("ollama")


def finish(settings: dict[str, Any]) -> dict[str, Any]:
    """Name the context as unsaid: Ollama chooses it by the device's memory."""
    unsaid = {} if "seq" in settings else {"unsaid": ["the context, by Ollama's default 4k to 256k"]}
    return {**settings, **unsaid}
