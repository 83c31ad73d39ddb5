"""Configs that no family covers: their own class in transformers, made on the meta device to be captured.

Only the installed transformers' own code runs; a config's `auto_map` is never followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy

from ..config import Workload, size
from ..errors import InputError, shown
from ..ir import Model
from ..named import Any
from . import _caches, hf_families
from ._class_inputs import inputs
from ._described import described
from ._timm import freeze_as_timm, text_alone, without_timm
from .hf_classes import UncoveredError
from .hf_fields import buildable

# The class of a config that names none: the first of these kinds that its model_type has.
AUTO = (
    "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText",
    "AutoModelForSpeechSeq2Seq", "AutoModel", "AutoModelForTextToWaveform",
)  # fmt: skip
SMALL = 10**9  # parameters up to which a class that looks at numbers is made a second time, with numbers
WHOLE = "; allowed: the config of what it is a part of"
WAY_OUT = "; allowed: in Python, estimate(the_module, inputs={...})"


@contextmanager
def quiet() -> Iterator[None]:
    """Within, transformers prints no messages, and does not ask the hub for a backbone's config."""
    from unittest.mock import patch

    import transformers
    from huggingface_hub import constants

    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        with patch.object(constants, "HF_HUB_OFFLINE", True):
            yield
    finally:
        transformers.logging.set_verbosity(level)


def module(values: Mapping[str, Any], why: UncoveredError, dtype: str = "", where: str = "meta") -> Any:
    """A config's class as a torch module without weights, of this dtype or the config's, usually bfloat16.

    where: cpu for a module whose buffers have numbers. Raises InputError with the reason why there is none.
    """
    _require_transformers(why)
    import torch
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = values.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise _unknown(why)
    buildable(values)
    try:
        config = CONFIG_MAPPING[kind].from_dict(_plain(values))
        text = text_alone(config)
        cls = _class({}, text, why) if text else _class(values, config, why)
        config = text or config
        _whole_pass(config)
        replaced = without_timm(config)
        with torch.device(where):
            network = _made(cls, config, getattr(torch, dtype) if dtype else _dtype(torch, config))
            network.tie_weights()
            _keep_in_float32(network)
            if replaced:
                freeze_as_timm(network)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a config's values make a class raise
        raise InputError("config", f"transformers cannot build {kind}: {_reason(error)}") from None
    return network


def _reason(error: Exception) -> str:
    """Why transformers raised this; where a library is missing, its name and how to install it."""
    written = re.sub(r"(\w+)\(\n.*\n\)", r"\1", str(error), flags=re.DOTALL)  # a module, written out
    text = " ".join(written.split()) or type(error).__name__
    library = re.search(r"requires the (\S+) library", text)
    if "couldn't connect to" in text:
        return "it would ask the hub for a part; allowed: a config that holds all of them"
    if library is None:
        return text[:200]
    way = re.search(r"`(pip install [^`]+)`", text) or re.search(r"(https?://\S+\w)", text)
    how = way[1] if way else f"pip install {library[1]}"
    return f"{library[1]} is not installed; {'see ' * how.startswith('http')}{how}"


def _unknown(why: UncoveredError) -> InputError:
    """The error for a model_type that the installed transformers does not have."""
    from transformers import __version__

    problem = str(why).removeprefix(f"{why.field}: ").partition("; known: ")[0]
    newer = f"transformers {__version__} has none such (a newer one may; code beside a config is never run)"
    return InputError(why.field, f"{problem[:140]}; {newer}")


def _whole_instead(kind: str) -> InputError | None:
    """A hint that the whole network has a family, for a part of it whose pass depends on data; None for
    others.
    """
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    whole = model_type_to_module_name(kind)
    if whole == kind or whole not in hf_families.known():
        return None
    why = f"{kind} alone does what depends on data, which a capture does not have"
    return InputError("model_type", f"{why}; allowed: the config of {whole}, which it is a part of")


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what would run code or change weights, to be used up."""
    left = {k: v for k, v in values.items() if k not in ("auto_map", "quantization_config")}
    return deepcopy(left)  # configs of pairs take their parts' types out


DROPS = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")  # share of the layers that a step skips


def _whole_pass(config: Any) -> None:
    """Let a pass skip no layer and, over whole sequences, use no cache, which some classes cannot make."""
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        if getattr(part, "use_cache", None):
            part.use_cache = False
        for name in DROPS:
            if getattr(part, name, None):
                setattr(part, name, 0.0)


def _class(values: Mapping[str, Any], config: Any, why: UncoveredError) -> Any:
    """The class that a config names, or the usual one of its kind. Raises InputError."""
    import transformers

    names = values.get("architectures") or ()
    if names:
        name = names[0] if isinstance(names, list | tuple) else names
        cls = getattr(transformers, name, None) if isinstance(name, str) else None
        if getattr(cls, "config_class", None) is not type(config):
            problem = f"got {shown(name)}, which transformers does not have for {config.model_type}"
            raise why if why.field == "architectures" else InputError("architectures", problem)
        return cls
    for auto in AUTO:
        mapping = getattr(transformers, auto)._model_mapping  # noqa: SLF001 - there is no public one
        if type(config) in mapping:
            cls = mapping[type(config)]
            cls = cls[0] if isinstance(cls, tuple | list) else cls
            if cls.config_class not in config.sub_configs.values():  # a part of it alone
                return cls
    return _part(config)


def _part(config: Any) -> Any:
    """The class of a config that no Auto class has: a tower, or the text of a pair; public ones first.

    Its constructor says which config it takes. Raises InputError where there is none.
    """
    from importlib import import_module

    import transformers

    own: Any = type(config)
    classes: list[Any] = []
    code = own.__module__.replace(".configuration_", ".modeling_")
    with suppress(ImportError):
        every: list[Any] = [x for x in vars(import_module(code)).values() if isinstance(x, type)]
        for x in every:
            if issubclass(x, transformers.PreTrainedModel) and "forward" in vars(x):
                given = x.__init__.__annotations__.get("config")
                classes += [x] if own in (x.config_class, given) or given == own.__name__ else []
    if not classes:
        raise InputError("model_type", f"transformers has no class for {config.model_type} alone{WHOLE}")
    return next((x for x in classes if hasattr(transformers, x.__name__)), classes[0])


def _dtype(torch: Any, config: Any) -> Any:
    """The config's dtype, or bfloat16."""
    stated = getattr(config, "dtype", None)
    return stated if isinstance(stated, torch.dtype) else torch.bfloat16


def _made(cls: Any, config: Any, dtype: Any) -> Any:
    """The class, with experts as one product over groups of tokens: a loop would ask which ones are hit."""
    try:
        return cls._from_config(deepcopy(config), dtype=dtype, experts_implementation="grouped_mm")
    except ValueError:  # it has none, or a way of its own
        return cls._from_config(config, dtype=dtype)


def _keep_in_float32(network: Any) -> None:
    """Weights that the class keeps in float32 in a checkpoint of 16 bits, as `from_pretrained` does."""
    import torch

    plan = network._get_dtype_plan(network.dtype)  # noqa: SLF001 - there is no public one
    if not plan:
        return
    from transformers.core_model_loading import build_glob_alternation

    kept = build_glob_alternation(list(plan))[0]
    for path, part in network.named_modules():
        for name, p in list(part.named_parameters(recurse=False)):
            if kept.search(f"{path}.{name}"):
                setattr(part, name, torch.nn.Parameter(p.detach().float(), p.requires_grad))


def _require_transformers(why: UncoveredError) -> None:
    """Raise an InputError that says what to install, where torch or transformers is missing."""
    try:
        import torch  # noqa: F401 - whether it is there
        import transformers  # noqa: F401
    except ImportError:
        problem = str(why).removeprefix(f"{why.field}: ")
        way = "pip install 'compute-budget[hf]' answers what transformers can build"
        raise InputError(why.field, f"{problem[:200]}; {way}") from None


def program(values: Mapping[str, Any], why: UncoveredError, mode: str, dtype: str, **sizes: Any) -> Model:
    """The program of a config's class, on the first inputs that it runs on. Raises InputError."""
    _require_transformers(why)
    workload = Workload(mode, **{name: size(name, x) for name, x in sizes.items() if x is not None})
    with quiet():
        return _program(values, why, workload, dtype)


def _program(values: Mapping[str, Any], why: UncoveredError, workload: Workload, dtype: str) -> Model:
    from torch.nn import Module

    from ..dtype import of_class
    from . import torch_module

    mode = workload.mode
    failed: list[tuple[int, InputError]] = []  # with how many inputs
    size = 0
    stated = dtype or any(values.get(name) not in (None, "auto") for name in ("dtype", "torch_dtype"))
    # XLNet mixes float32 into whatever its weights are; XLM and EnCodec look at numbers
    for where, usual in (("meta", ""), *([] if stated else [("meta", "float32")]), ("cpu", "")):
        looks = any(isinstance(error, torch_module.NeedsDataError) for _, error in failed)
        if where == "cpu" and (size > SMALL or not looks):
            break
        network = module(values, why, of_class(dtype) if dtype else usual, where).train(mode == "train")
        size = sum(p.numel() for p in network.parameters())
        if type(network).forward is Module.forward:
            problem = f"{type(network).__name__} has no forward pass of its own"
            raise InputError("architectures", f"{problem}; allowed: the class and the config of a part")
        serves = mode in _caches.SERVES
        for given in (
            [_caches.prompt(network, workload, where)] if serves else inputs(network, workload, where)
        ):
            cast = {k: t.to(network.dtype) if t.is_floating_point() else t for k, t in given.items()}
            asked = _caches.settings(network) if serves else {}
            try:
                model = torch_module.capture(network, {**cast, **asked}, mode)
            except InputError as error:
                failed.append((len(given), error))
                continue
            if not serves:
                _all_read(network, workload, given, where)
            return described(model, network, values, given)
    raise _without_inputs(failed, values["model_type"], type(network).__name__)


def _all_read(network: Any, workload: Workload, given: Mapping[str, Any], where: str) -> None:
    """Raise an InputError for a size of the workload without which the inputs would be the same."""
    shapes = {name: t.shape for name, t in given.items()}
    for name in ("seq", "image"):
        if stated := getattr(workload, name):
            others = inputs(network, workload._replace(**{name: 2 * stated}), where)
            if shapes in ({key: t.shape for key, t in other.items()} for other in others):
                problem = f"{type(network).__name__} has no {name}, it reads {', '.join(shapes)}"
                raise InputError(name, f"{problem}; allowed: sizes that it reads, as batch")


def _without_inputs(failed: Sequence[tuple[int, InputError]], kind: str, name: str) -> InputError:
    """Why a class runs on none of the known inputs, by each trial's error and its number of inputs."""
    from .torch_module import NeedsDataError

    # A pass that came as far as looking at numbers had the right inputs.
    if looked := [why_not for _, why_not in failed if isinstance(why_not, NeedsDataError)]:
        return _whole_instead(kind) or looked[0]
    if failed and failed[0][1].field != "inputs":
        return failed[0][1]
    most = max(failed, key=lambda pair: pair[0])[1] if failed else ""  # its error with the most inputs
    problem = str(most).removeprefix("inputs: ").partition("; given ")[0][:140]
    why = f": {problem}" if problem else ""
    return InputError("config", f"the inputs of {name} are not known here{why}{WAY_OUT}")
