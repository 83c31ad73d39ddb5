"""Words that several frameworks share, and their meaning: dtypes, optimizers, adapters' targets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..errors import InputError, shown, wrong
from ..named import Any
from ..plan._beside import OURS
from ..plan.optimizer import ALIASES, CHOICES, named
from ..size import ceil_div

Settings = Mapping[str, Any]

# Optimizers by their names in transformers, DeepSpeed, torchtitan, Axolotl and others.
OPTIMIZERS = {**{name: name for name in CHOICES}, **ALIASES, "fusedadam": "adamw_fused"}
ALL = "all-linear"  # as peft calls every linear layer but the head


def optimizer(name: Any) -> Settings:
    """An optimizer by its name. Raises InputError."""
    ours = OPTIMIZERS.get(named(str(name).lower()))
    if ours is None:
        raise wrong("optimizer", name, ", ".join(sorted(OPTIMIZERS)))
    return {"optimizer": ours}


def whole(ours: str) -> Callable[[Any], Settings]:
    """A whole number of 1 or more. Raises InputError."""

    def read(value: Any) -> Settings:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise wrong(ours, value, "whole numbers from 1")
        return {ours: value}

    return read


def degree(axis: str) -> Callable[[Any], Settings]:
    """A degree of parallelism; -1 stands for all devices that are left, which a file does not know."""

    def read(value: Any) -> Settings:
        if isinstance(value, bool) or not isinstance(value, int) or value < -1:
            raise wrong(axis, value, "whole numbers, or -1")
        return {f"layout.{axis}": value}

    return read


def one_of(field: str, meanings: Mapping[Any, Any], ours: str = "") -> Callable[[Any], Settings]:
    """One of several words: its meaning for the setting `ours`, or as several settings. Raises InputError."""

    def read(value: Any) -> Settings:
        if value not in list(meanings):  # a list is none of them, and cannot be looked up
            raise wrong(field, value, ", ".join(meanings))
        settings = meanings[value]
        return {ours: settings} if ours else settings

    return read


def padded(vocab: int, multiple: int, tp: int) -> int:
    """A vocabulary padded so that each of tp devices has a multiple. Source: megatron-lm."""
    part = multiple * max(tp, 1)
    return int(ceil_div(vocab, part)) * part


def when(settings: Settings) -> Callable[[Any], Settings]:
    """The settings for a flag that is set."""
    return lambda value: settings if value is True or str(value).lower() in ("true", "full", "1") else {}


def eager_if(word: str) -> Callable[[Any], Settings]:
    """The setting for a choice of attention's kernel: with this word, scores are written."""
    return lambda value: {"attention": "eager"} if value == word else {}


# Kernels that Liger puts in place of a network's own by default. Source: liger.
LIGER = when({"fuse": "norm,gate,chunked_cross_entropy"})

# Parts of the names of programs for reinforcement and preference learning, in which several networks run.
SEVERAL = ("dpo", "grpo", "ppo", "rloo", "kto", "gkd", "online", "rlhf")


def several(value: Any) -> Settings:
    """Raise an InputError for a way of training in which several networks run."""
    raise InputError("method", f"got {shown(value)}, which runs several networks; allowed: fine-tuning")


def one_network(script: Any) -> Settings:
    """No settings, for a program that trains one network. Raises InputError for one that runs several."""
    words = re.split(r"[\W_]+", str(script).lower())
    return several(script) if set(words) & set(SEVERAL) else {}


def targets(value: Any) -> Settings:
    """Modules with adapters: listed ones, or all. Raises InputError."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    if names in (["all"], [ALL]):
        return {"lora_targets": ALL}
    for name in names:
        if name not in OURS:
            raise wrong("lora_targets", name, f"all, {', '.join(OURS)}")
    return {"lora_targets": ",".join(names)}


# Modules outside of layers, by their names in transformers.
OUTSIDE = {"embed_tokens": "embed", "lm_head": "head"}


def saved(value: Any) -> Settings:
    """Modules that train as copies beside an adapter. Raises InputError."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value or ())
    for name in names:
        if name not in OUTSIDE:
            raise wrong("modules_to_save", name, ", ".join(OUTSIDE))
    return {"modules_to_save": ",".join(OUTSIDE[name] for name in names)} if names else {}


class Beside(str):  # noqa: SLOT000 - it is filled behind the path that it is
    """The path of a launch file that another one names, in the same folder, with its contents."""

    form: str
    settings: Settings  # without the program's own settings: its model, its samples and the stack
    known: tuple[str, ...]
    left: tuple[str, ...]


def staged(value: Any) -> Settings:
    """DeepSpeed's stage, from its file; where the file is not here, from its name, as Axolotl's and
    LLaMA-Factory's have it (zero3_bf16.json, ds_z3_config.json).
    """
    if isinstance(value, Beside):
        kept = {k: x for k, x in value.settings.items() if k == "offload" or k.startswith("layout.")}
        return {"deepspeed": True, "layout.zero": 0, **kept}
    stage = re.search(r"z(?:ero)?([0-3])(?!\d)", str(value))
    settings: dict[str, Any] = {"deepspeed": True, "layout.zero": int(stage[1]) if stage else 0}
    return settings if stage and "offload" not in value else {**settings, "unsaid": ("deepspeed",)}


def in_16_bits(settings: dict[str, Any], deepspeed: bool) -> dict[str, Any]:
    """The precision of weights that train in the bfloat16 in which they are loaded. DeepSpeed keeps float32
    copies at every stage; for FSDP the stack decides. Sources: axolotl, ms-swift, deepspeed-config.
    """
    if settings.get("dtype", "bfloat16") != "bfloat16":
        return settings
    if deepspeed:
        return {**settings, "precision": "master"}
    divided = settings.get("layout.zero") or settings.get("layout.fsdp")
    return settings if divided else {**settings, "precision": "pure"}


def recompute(value: Any) -> Settings:
    """none, selective or full, from torchtitan's and Megatron's words. Raises InputError."""
    if value not in ("none", "selective", "full"):
        raise wrong("recompute", value, "none, selective, full")
    return {"recompute": value}
