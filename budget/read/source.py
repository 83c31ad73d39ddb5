"""What `estimate` is asked about: a preset, an architecture, a file, a config, a Model or a torch module."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from .. import arch as architectures
from ..config import Settings, Workload, make, one_shape, size
from ..errors import InputError, unknown
from ..ir import Model
from ..named import Any, NamedTuple
from ..size import Size
from . import module as modules
from . import preset


class Named(NamedTuple):
    """An architecture with its settings, under the name that it was asked for by."""

    name: str
    arch: Any  # its module
    settings: Settings
    uncounted: tuple[str, ...]

    def build(self, workload: Workload) -> Model:
        """The network for a workload. Raises InputError for sizes that it cannot have."""
        built: Model = self.arch.build(self.settings, workload)
        return built._replace(name=self.name, uncounted=(*built.uncounted, *self.uncounted))


class Ready(NamedTuple):
    """A Model, which has its sizes."""

    model: Model

    def build(self, _: Workload) -> Model:
        """The model as it is."""
        return self.model


class Source(NamedTuple):
    """A network to build, the workload to build it for, and the dtype and the optimizer it usually has."""

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
    asked: Mapping[str, Any],
) -> Source:
    """The source of a model. `asked`: the other settings, of which a torch module cannot have all.

    Raises InputError for what is not known, and for what this kind of model cannot be asked.
    """
    if modules.is_module(model) or modules.is_captured(model):
        modules.check(model, mode, asked, config)
    if modules.is_module(model):
        model = modules.program(model, inputs=inputs, mode=mode, dtype=dtype, **sizes)
    elif inputs is not None:
        raise InputError("inputs", "allowed: for a torch module only")
    elif isinstance(model, Model):
        for field in (*sizes, *config):
            raise InputError(field, "a Model has its own; allowed: with a preset or an architecture")
    if isinstance(model, Model):
        own = {k: v for k, v in model.config.items() if k == "dtype"}
        return Source(Ready(model), Workload(mode, model.samples), own)
    name, arch, settings, usual, uncounted = resolve(model, config)
    architectures.check(arch, name, mode, sizes)
    one_shape({**vars(settings), **sizes})
    known = {k: size(k, usual[k]) for k in ("batch", "seq", "image") if k in usual}
    return Source(Named(name, arch, settings, uncounted), Workload(mode, **{**known, **sizes}), usual)


Resolved = tuple[str, Any, Any, Mapping[str, Any], tuple[str, ...]]


def resolve(model: object, config: Mapping[str, Any]) -> Resolved:
    """(name, architecture's module, Config, a preset's usual workload, uncounted). Raises InputError."""
    usual: Mapping[str, Any] = {}
    if isinstance(model, Mapping):
        name = str(model.get("model_type", "config"))
        arch, settings, usual, uncounted = _hugging_face(model)
    elif isinstance(model, os.PathLike) or (isinstance(model, str) and _is_path(model)):
        folder, file = os.path.split(os.path.abspath(model))
        stem = os.path.splitext(file)[0]
        name = os.path.basename(folder) if stem == "config" else stem
        arch, settings, usual, uncounted = _hugging_face(model)
    elif isinstance(model, str):
        name, arch, settings, usual, uncounted = _named(model)
    else:
        raise InputError(
            "model", f"got {type(model).__name__}; allowed: a name, a path, a config dict, a Model"
        )
    module = architectures.load(arch)
    values = {**(vars(settings) if isinstance(settings, Settings) else settings), **config}
    return name, module, make(module.Config, values), usual, uncounted


@lru_cache(maxsize=64)
def _named(name: str) -> Resolved:
    if name in architectures.names():
        return name, name, {}, {}, ()
    try:
        name, found = preset.look_up(name)
    except InputError:
        raise unknown("model", name, (*preset.names(), *architectures.names())) from None
    table = dict(found)
    usual = table.pop("workload", {})
    for about in preset.ABOUT:
        table.pop(about, None)
    if "model_type" in table:
        arch, settings, own, uncounted = _hugging_face(table)
        usual = {**own, **usual}
    else:
        arch, settings, uncounted = table.pop("arch"), table, ()
    return name, arch, settings, usual, uncounted


def _hugging_face(source: Any) -> tuple[str, Any, Mapping[str, Any], tuple[str, ...]]:
    from . import hf_config

    values = source if isinstance(source, Mapping) else hf_config.load(source)
    return *hf_config.read(values), hf_config.usual(values), hf_config.uncounted(values)


def _is_path(text: str) -> bool:
    return os.sep in text or text.endswith(".json")
