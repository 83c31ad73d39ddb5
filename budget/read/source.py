"""The model of an estimate: a preset, an architecture, a file, a config, a Model or a torch module."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache

from .. import arch as architectures
from ..config import Settings, Workload, make, one_shape, size
from ..errors import InputError, unknown
from ..ir import Model
from ..named import Any, NamedTuple
from ..size import Size, once
from . import preset

# A name with such an ending is a file's, whether the file can be read (hf_files.py) or not.
ENDINGS = (".json", ".json.gz", ".gguf", ".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


class Named(NamedTuple):
    """An architecture with its settings, and the name that the user gave."""

    name: str
    arch: Any  # its module
    settings: Settings
    uncounted: tuple[str, ...]

    def build(self, workload: Workload) -> Model:
        """The network for a workload. Raises InputError for sizes that are not possible."""
        built: Model = self.arch.build(self.settings, workload)
        return built._replace(name=self.name, uncounted=(*built.uncounted, *self.uncounted))

    def routed(self) -> Named:
        """The network in which a token goes to its own experts alone, as in all code that has experts
        apart.
        """
        if not getattr(self.settings, "every_expert", False):
            return self
        return self._replace(settings=type(self.settings)(**{**vars(self.settings), "every_expert": False}))


class Ready(NamedTuple):
    """A Model, whose sizes are fixed."""

    model: Model

    def build(self, _: Workload) -> Model:
        """The model as it is."""
        return self.model

    def routed(self) -> Ready:
        """As it is."""
        return self


class Source(NamedTuple):
    """A network, the workload to build it for, and its usual settings (dtype, optimizer)."""

    network: Named | Ready
    workload: Workload
    usual: Mapping[str, Any]


def find(
    model: object,
    mode: str,
    sizes: Mapping[str, Size],
    config: Mapping[str, Any],
    inputs: Any,
    dtype: str | None,
    requested: Mapping[str, Any],
) -> Source:
    """The source of a model. requested: the other settings, some of which a torch module cannot have.

    Raises InputError for an unknown name, and for settings that this kind of model cannot have; ProgramError
    for a Model that contradicts itself.
    """
    if hasattr(model, "model_type") and hasattr(model, "to_dict"):  # a config of transformers
        model = model.to_dict()
    model = preset.of_page(model)
    if is_module(model) or (isinstance(model, Model) and model.captured):
        _check(model, mode, requested, config)
    if is_module(model):
        from .module import program

        _without_sound(sizes)
        model = program(model, inputs=inputs, mode=mode, dtype=dtype, **sizes)
    elif inputs is not None:
        raise InputError("inputs", "allowed: for a torch module only")
    elif isinstance(model, Model):
        from ..ir.verify import verify

        for field in (*sizes, *config):
            raise InputError(field, "a Model has its own; allowed: with a preset or an architecture")
        verify(model)
    elif (own_class := _captured(model, {**requested}, config, mode=mode, dtype=dtype, **sizes)) is not None:
        _check(own_class, mode, {**requested, "attention": None}, config)  # its reader has seen to attention
        model = own_class
    if isinstance(model, Model):
        own = {k: v for k, v in model.config.items() if k == "dtype"}
        return Source(Ready(model), Workload(mode, model.samples), own)
    name, arch, settings, usual, uncounted = resolve(model, config)
    architectures.check(arch, name, mode, sizes)
    one_shape({**vars(settings), **sizes})
    known = {k: size(k, usual[k]) for k in ("batch", "seq", "image", "sound") if k in usual}
    if "context" in config and hasattr(arch, "LONGEST"):  # who asks for a longer one means to use it
        known["seq"] = settings.context
    return Source(Named(name, arch, settings, uncounted), Workload(mode, **{**known, **sizes}), usual)


def is_module(model: object) -> bool:
    """Whether a model is a torch module."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _check(model: Any, mode: str, requested: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    from .module import check

    check(model, mode, requested, config)


Resolved = tuple[str, Any, Any, Mapping[str, Any], tuple[str, ...]]


def resolve(model: object, config: Mapping[str, Any]) -> Resolved:
    """(name, architecture's module, Config, a preset's usual workload, uncounted). Raises InputError."""
    usual: Mapping[str, Any] = {}
    model = preset.of_page(model)
    if isinstance(model, Mapping):
        values = _config(model)
        name = str(values.get("model_type", values.get("arch", "config")))
        arch, settings, usual, uncounted = _of_config(values)
    elif isinstance(model, os.PathLike) or (isinstance(model, str) and _is_path(model)):
        folder, file = os.path.split(os.path.abspath(model))
        stem = re.sub(r"\.(json|json\.gz|gguf|safetensors)$", "", file)
        values = _config(model)
        inside = {"config": os.path.basename(folder), "-": str(values.get("model_type", "config"))}
        name = inside.get(stem, stem)
        arch, settings, usual, uncounted = _of_config(values)
    elif isinstance(model, str):
        name, arch, settings, usual, uncounted = _named(model)
    else:
        raise InputError(
            "model", f"got {type(model).__name__}; allowed: a name, a path, a config dict, a Model"
        )
    module = architectures.load(arch)
    if isinstance(settings, Settings) and not config:
        return name, module, settings, usual, uncounted
    values = vars(settings) if isinstance(settings, Settings) else settings
    if config.get("dropout") == 0:  # none anywhere, but where a rate of its own is asked for
        rates = (field for field in module.Config.fields if field.endswith("_dropout"))
        config = {**dict.fromkeys(rates, 0.0), **config}
    return name, module, make(module.Config, {**values, **config}), usual, uncounted


@lru_cache(maxsize=64)
def _named(name: str) -> Resolved:
    if name in architectures.names():
        return name, name, {}, {}, ()
    asked = name
    try:
        name, entry = preset.look_up(name)
    except InputError:
        from .hf_files import check

        check(name)
        if "/" in name:
            near = preset.in_few_bits(name) or preset.near_on_the_hub(name)
            way = f"{near}allowed: the hub's names of presets, or its config.json in --config FILE"
            raise InputError("model", f"no file and no preset is called {name[:80]!r}; {way}") from None
        way = preset.in_few_bits(name) + (
            "`budget list presets` has the names; --config FILE and --module FILE:FACTORY take any model"
        )
        raise unknown(
            "model", name, (*preset.names(), *dict(preset.classes()), *architectures.names()), way
        ) from None
    table = dict(entry)
    form = preset.of_ollama(asked)
    form = "" if form and preset.plain(name) != name else form  # which has few bits of its own
    published = entry.get("published", f"{name} --quantize {form}" if form else "")
    usual = {**table.pop("workload", {}), **({"published": published} if published else {})}
    for about in preset.ABOUT:
        table.pop(about, None)
    if preset.captured(entry):
        raise InputError(
            "model", f"{name} is captured whole; allowed: estimate, fit, plan, without its settings"
        )
    if "model_type" in table:
        arch, settings, own, uncounted = _hugging_face(table)
        usual = {**own, **usual}
    else:
        arch, settings, uncounted = table.pop("arch"), table, ()
    return name, arch, settings, usual, uncounted


def _captured(
    model: object, requested: Mapping[str, Any], config: Mapping[str, Any], **run: Any
) -> Model | None:
    """The program of transformers' own class, for a config that no family covers; None for any other model.

    requested, config: settings; bad ones are refused before the class is captured, which takes long. run:
    mode, dtype, batch, seq and image. Raises InputError where transformers has no such class either.
    """
    if isinstance(model, str) and not _is_path(model):
        name, whole = _whole_class(model)
        captured = _captured(whole, requested, config, **run)
        return captured and captured._replace(name=name)
    if not isinstance(model, Mapping | os.PathLike | str):
        return None
    from . import hf_config
    from .hf_classes import UncoveredError

    values = _config(model)
    if _own(values):
        return None
    if "_class_name" in values and "model_type" not in values:
        from . import diffusers_class

        _check(None, "forward", {**requested, "attention": None}, config)
        return diffusers_class.program(values, attention=requested["attention"], **run)
    try:
        hf_config.read(values)
    except UncoveredError as error:
        why = error
    else:
        if run.get("image") is None or not hf_config.has_tower(values):
            return None
        why = UncoveredError("image", "the family's file has no vision tower")
    from . import hf_class

    _without_sound(run)
    _check(None, "forward", requested, config)
    return hf_class.program(values, why, **run)


def _config(model: Mapping[str, Any] | os.PathLike[str] | str) -> Mapping[str, Any]:
    """A table, or the one that a file holds, with its model_type. Raises InputError."""
    from . import hf_config, hf_files

    return hf_config.typed(model if isinstance(model, Mapping) else hf_files.load(model))


def _without_sound(sizes: Iterable[str]) -> None:
    """Raise an InputError for sound: for a torch module nothing makes an input of it."""
    if "sound" in sizes:
        raise InputError(
            "sound", "a torch module hears what is in its inputs; allowed: with a tower of sound"
        )


def _whole_class(name: str) -> tuple[str, Mapping[str, Any] | None]:
    """A preset's own name and the config of its class in transformers or diffusers, where no architecture
    here covers it.
    """
    try:
        name, config = preset.look_up(name)
    except InputError:
        return name, None
    if not preset.captured(config):
        return name, None
    return name, {key: value for key, value in config.items() if key not in preset.ABOUT}


def _own(values: Mapping[str, Any]) -> bool:
    """Whether a config has an architecture's own settings: {"arch": "mlp", "sizes": [784, 10]}."""
    return "arch" in values and not {"model_type", "_class_name"} & set(values)


def _of_config(values: Mapping[str, Any]) -> tuple[str, Any, Mapping[str, Any], tuple[str, ...]]:
    if _own(values):
        about = ("arch", *preset.ABOUT)
        return values["arch"], {k: v for k, v in values.items() if k not in about}, {}, ()
    return _hugging_face(values)


def _hugging_face(values: Mapping[str, Any]) -> tuple[str, Any, Mapping[str, Any], tuple[str, ...]]:
    from . import hf_config

    return *hf_config.read(values), hf_config.usual(values), hf_config.uncounted(values)


# An owner's repository, and of GGUF files which, as llama.cpp and Ollama name them.
ON_THE_HUB = r"(hf\.co/|huggingface\.co/)?[\w.-]*\w[\w.-]*/[\w.-]+(:[\w.-]+)?"


def _is_path(text: str) -> bool:
    """Whether a name is a file's or a folder's; where none has it, `owner/name` may be on the hub."""
    if text.endswith(ENDINGS):
        return True
    return os.sep in text and (os.path.exists(text) or not re.fullmatch(ON_THE_HUB, text))


@once
def built(network: Named | Ready, workload: Workload) -> Model:
    """A network for a workload, made once: a stack's defaults, the counts and each layout ask for it."""
    return network.build(workload)
