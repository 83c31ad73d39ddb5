"""What no family covers: a config's own class in transformers, made on the meta device to be captured.

Only transformers' own code runs, which is installed here; a config's `auto_map` is never followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy

from ..config import Workload, size
from ..errors import InputError, shown
from ..ir import Model, walk
from ..named import Any
from .hf_classes import UncoveredError

# What a config without a class is taken for: the first of these that its model_type has.
AUTO = (
    "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText",
    "AutoModelForSpeechSeq2Seq", "AutoModel",
)  # fmt: skip
TOKENS, SOUND, FRAMES = 512, 16_000, 3_000  # lengths of inputs where neither workload nor config has one


def module(values: Mapping[str, Any], why: UncoveredError, dtype: str = "") -> Any:
    """A config's class as a torch module without weights, of this dtype or the config's, usually bfloat16.

    Raises InputError: why there is none.
    """
    _require_transformers(why)
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = values.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise why
    quiet = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        config = CONFIG_MAPPING[kind].from_dict(_plain(values))
        cls = _class(values, config, why)
        _without_cache(config)
        with torch.device("meta"):
            made = _made(cls, config, getattr(torch, dtype) if dtype else _dtype(torch, config))
            made.tie_weights()
            _keep_in_float32(made)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a config's values make a class raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError("config", f"transformers cannot build {kind}: {text[:200]}") from None
    finally:
        transformers.logging.set_verbosity(quiet)
    return made


def inputs(made: Any, workload: Workload) -> list[dict[str, Any]]:
    """What a class may run on, the likeliest first: text, images, sound, two of them."""
    import torch

    with torch.device("meta"):  # while these are made, and no longer
        return list(_inputs(made, workload))


def _inputs(made: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    from inspect import signature

    import torch

    takes = signature(made.forward).parameters
    config = made.config
    text = _text(made, takes, workload)
    pixels = {"pixel_values": _pixels(config, workload)} if "pixel_values" in takes else {}
    main = getattr(made, "main_input_name", "")
    if "input_values" in takes:
        yield {"input_values": torch.zeros(workload.batch, workload.seq or SOUND)}
    if "input_features" in takes:
        for given in _features(config, workload):
            yield {**given, **text}
            yield given
    if main == "pixel_values" and pixels:
        yield pixels
    if text:
        yield text
        yield {**text, **pixels}
    if pixels:
        yield pixels
        yield {**pixels, **text}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what would run code or change weights."""
    return {k: v for k, v in values.items() if k not in ("auto_map", "quantization_config")}


def _without_cache(config: Any) -> None:
    """One pass over whole sequences reads no cache: some classes cannot even make theirs."""
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if getattr(part, "use_cache", None):
            part.use_cache = False


def _class(values: Mapping[str, Any], config: Any, why: UncoveredError) -> Any:
    """The class that a config names, or the usual one of its kind. Raises InputError."""
    import transformers

    names = values.get("architectures") or ()
    if names:
        name = names[0] if isinstance(names, list | tuple) else names
        found = getattr(transformers, name, None) if isinstance(name, str) else None
        if getattr(found, "config_class", None) is not type(config):
            told = f"got {shown(name)}, which transformers does not have for {config.model_type}"
            raise why if why.field == "architectures" else InputError("architectures", told)
        return found
    for auto in AUTO:
        mapping = getattr(transformers, auto)._model_mapping  # noqa: SLF001 - there is no public one
        if type(config) in mapping:
            found = mapping[type(config)]
            found = found[0] if isinstance(found, tuple | list) else found
            if found.config_class is not config.sub_configs.get("text_config"):  # a part of it alone
                return found
    raise why


def _dtype(torch: Any, config: Any) -> Any:
    """The config's dtype, or bfloat16."""
    told = getattr(config, "dtype", None)
    return told if isinstance(told, torch.dtype) else torch.bfloat16


def _made(cls: Any, config: Any, dtype: Any) -> Any:
    """A loop over experts would ask which of them are hit: a product over groups of tokens does not."""
    try:
        return cls._from_config(deepcopy(config), dtype=dtype, experts_implementation="grouped_mm")
    except ValueError:  # it has none, or a way of its own
        return cls._from_config(config, dtype=dtype)


def _keep_in_float32(made: Any) -> None:
    """Weights that the class keeps in float32 in a checkpoint of 16 bits, as `from_pretrained` does."""
    import torch

    plan = made._get_dtype_plan(made.dtype)  # noqa: SLF001 - there is no public one
    if not plan:
        return
    from transformers.core_model_loading import build_glob_alternation

    kept = build_glob_alternation(list(plan))[0]
    for path, part in made.named_modules():
        for name, p in list(part.named_parameters(recurse=False)):
            if kept.search(f"{path}.{name}"):
                setattr(part, name, torch.nn.Parameter(p.detach().float(), p.requires_grad))


def _text(made: Any, takes: Mapping[str, Any], workload: Workload) -> dict[str, Any]:
    import torch

    if "input_ids" not in takes and "decoder_input_ids" not in takes:
        return {}
    limit = getattr(made.config.get_text_config(), "max_position_embeddings", None)
    usual = min(TOKENS, limit) if isinstance(limit, int) and limit > 0 else TOKENS
    ids = torch.zeros(workload.batch, workload.seq or usual, dtype=torch.int64)
    given = {"input_ids": ids} if "input_ids" in takes else {}
    if "decoder_input_ids" in takes:
        given["decoder_input_ids"] = ids
    head = getattr(made, "get_output_embeddings", lambda: None)()
    if workload.mode == "train" and head is not None and "labels" in takes:
        given["labels"] = ids
    return given


def _pixels(config: Any, workload: Workload) -> Any:
    import torch

    vision = getattr(config, "vision_config", config)
    side = workload.image or getattr(vision, "image_size", None) or 224
    height, width = (side, side) if isinstance(side, int) else tuple(side)[:2]
    return torch.zeros(workload.batch, getattr(vision, "num_channels", None) or 3, height, width)


def _features(config: Any, workload: Workload) -> Iterator[dict[str, Any]]:
    """Spectrograms: channels first or last."""
    import torch

    for name in ("num_mel_bins", "feature_size", "input_feat_per_channel", "feature_projection_input_dim"):
        channels = getattr(config, name, None)
        if channels:
            positions = getattr(config, "max_source_positions", None)
            frames = 2 * positions if positions else workload.seq or FRAMES
            with suppress(TypeError):
                yield {"input_features": torch.zeros(workload.batch, channels, frames)}
                yield {"input_features": torch.zeros(workload.batch, frames, channels)}


def _require_transformers(why: UncoveredError) -> None:
    """Raise an InputError that says what would answer, where torch or transformers is not installed."""
    try:
        import torch  # noqa: F401 - whether it is there
        import transformers  # noqa: F401
    except ImportError:
        told = str(why).removeprefix(f"{why.field}: ")
        way = "pip install 'compute-budget[hf]' answers what transformers can build"
        raise InputError(why.field, f"{told[:200]}; {way}") from None


def _unreached(made: Any, model: Model) -> tuple[str, ...]:
    """The outermost modules of which nothing reads a weight: a tower of images, where the input is text."""
    read = {t.name for o, _ in walk(model.nodes) if o.kind != "resident" for t in o.ins}
    names = tuple(name for name, _ in made.named_parameters())

    def outermost(module: Any, path: str) -> Iterator[str]:
        for name, child in module.named_children():
            own = {n for n in names if n.startswith(f"{path}{name}.")}
            if own and read.isdisjoint(own):
                yield re.sub(r"\d+", "*", f"{path}{name}")
            elif own - read:
                yield from outermost(child, f"{path}{name}.")

    return tuple(f"{name}, which no input reaches" for name in dict.fromkeys(outermost(made, "")))


def program(values: Mapping[str, Any], why: UncoveredError, mode: str, dtype: str, **sizes: Any) -> Model:
    """The program of a config's class, on the first inputs that it runs on. Raises InputError."""
    _require_transformers(why)
    from ..dtype import full_name
    from . import torch_module

    if mode not in torch_module.MODES:
        raise InputError(
            "mode", f"got {mode!r}; allowed for a captured class: {', '.join(torch_module.MODES)}"
        )
    workload = Workload(mode, **{name: size(name, x) for name, x in sizes.items() if x is not None})
    first: InputError | None = None
    told = dtype or any(values.get(name) not in (None, "auto") for name in ("dtype", "torch_dtype"))
    for usual in ("",) if told else ("", "float32"):  # XLNet mixes float32 into whatever its weights are
        made = module(values, why, full_name(dtype) if dtype else usual).train(mode == "train")
        for given in inputs(made, workload):
            cast = {k: t.to(made.dtype) if t.is_floating_point() else t for k, t in given.items()}
            try:
                model = torch_module.capture(made, cast, mode)
            except InputError as error:
                first = first or error
                continue
            about = {"class": type(made).__name__, "model_type": values["model_type"], "captured": True}
            left = (*model.uncounted, *_unreached(made, model))
            return model._replace(config={**model.config, **about}, uncounted=left)
    raise first or InputError("config", f"{type(made).__name__} takes inputs that are not known here")
