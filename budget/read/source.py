"""What a model is named by (a preset, an architecture, a file, a config) to an architecture's Config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from .. import arch as architectures
from ..config import Settings, make
from ..errors import InputError, unknown
from ..model import Model
from ..named import Any
from . import preset

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
    values = vars(settings) if isinstance(settings, Settings) else settings
    if config.get("dropout") == 0:  # none anywhere, but where a rate of its own is asked for
        rates = (field for field in module.Config.fields if field.endswith("_dropout"))
        config = {**dict.fromkeys(rates, 0.0), **config}
    return name, module, make(module.Config, {**values, **config}), usual, uncounted


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


def captured(model: object, **run: Any) -> Model | None:
    """The program of transformers' own class, of a config that no family covers; None for any other model.

    run: mode, dtype, batch, seq and image. Raises InputError where transformers has no such class either.
    """
    from . import hf_config
    from .hf_classes import UncoveredError

    if not (isinstance(model, Mapping | os.PathLike) or (isinstance(model, str) and _is_path(model))):
        return None
    values = model if isinstance(model, Mapping) else hf_config.load(model)
    try:
        hf_config.read(values)
    except UncoveredError as why:
        from . import hf_class

        return hf_class.program(values, why, **run)
    return None


def _hugging_face(source: Any) -> tuple[str, Any, Mapping[str, Any], tuple[str, ...]]:
    from . import hf_config

    values = source if isinstance(source, Mapping) else hf_config.load(source)
    return *hf_config.read(values), hf_config.usual(values), hf_config.uncounted(values)


def _is_path(text: str) -> bool:
    return os.sep in text or text.endswith(".json")
