"""Families of Hugging Face configs, one for each model_type: a file of data/families/ maps its fields to
ours, and has the family's own defaults and fixed settings.

Where a setting has to be computed, a function in hf_rules.py, hf_mixtures.py, hf_images.py or hf_stacks.py
does so. Nothing is guessed and no code is run: an unknown model_type is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module

from .. import arch as architectures
from .. import table
from ..config import make
from ..errors import InputError, hint, shown, wrong
from ..named import Any
from . import hf_classes
from .hf_classes import UncoveredError, uncovered
from .hf_fields import activation

FOLDER = "families"
# Settings in which our 0 means that the value follows from others; in a config it is just a 0.
DERIVED = (
    "experts", "kv_heads", "head_dim", "d_ff", "expert_d_ff", "embed_dim", "decoder_layers", "decoder_heads",
    "decoder_d_ff", "value_head_dim", "q_latent", "kv_latent", "dt_rank", "inner", "pooler_width",
    "projection", "index_heads", "decoder", "mamba_head_dim", "full_kv_heads",
)  # fmt: skip
# How families spell depth, width and heads: a word of another family would silently leave the default in
# place.
SPELLINGS = (
    ("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    ("hidden_size", "d_model", "n_embd", "hidden_dim", "dim", "model_dim"),
    ("num_attention_heads", "num_heads", "n_head", "n_heads"),
)
CALLED = "model_types.json"  # other names of families


def known() -> tuple[str, ...]:
    """All model_types, sorted."""
    return table.files(FOLDER)


def called(kind: Any) -> Any:
    """The family of a model_type: that of its name, unless configs have another name for one."""
    return table.load(CALLED)["same"].get(str(kind), kind)


def load(kind: str) -> Mapping[str, Any]:
    """A model_type's family. Raises InputError for one that is not known."""
    kind = called(kind)
    if not table.has(FOLDER, str(kind)):
        known_here = "`budget list families` has those that are written here"
        raise UncoveredError("model_type", f"unknown name {shown(kind)}; {hint(kind, known(), known_here)}")
    return table.load(FOLDER, f"{kind}.json")


def complete(values: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The config with aliases resolved and the family's defaults filled in, checked for required fields and
    for values that are not covered.
    """
    values = dict(values)
    for other, name in family.get("aliases", {}).items():
        if other in values and values.setdefault(name, values[other]) != values[other]:
            raise InputError(
                other, f"got {shown(values[other])}, and {name} {shown(values[name])}; allowed: one"
            )
    defaults = family.get("defaults", {})
    for name in defaults:
        if name in values and values[name] is None and name not in family.get("nullable", ()):
            raise InputError(name, "got null; allowed: a value")
    _spelled(values, family)
    for name in family.get("required", ()):
        if values.get(name) is None:
            raise InputError(name, "missing, and the family has no default")
    for name, allowed in family.get("only", {}).items():
        if values.get(name) is not None and values[name] != allowed:
            import json

            raise uncovered(name, values[name], json.dumps(allowed))
    return {**defaults, **values}


def _spelled(values: Mapping[str, Any], family: Mapping[str, Any]) -> None:
    """Raise an InputError for a size under another family's name, where the family's own is missing."""
    own = {*family.get("fields", {}).values(), *family.get("defaults", {}), *family.get("aliases", {})}
    for words in SPELLINGS:
        ours = [name for name in words if name in own]
        if not ours or any(values.get(name) is not None for name in ours):
            continue
        for name in words:
            if values.get(name) is not None and name not in own:
                raise InputError(name, f"no field of this model_type; allowed: {' or '.join(ours)}")


def read(
    settings: Mapping[str, Any], family: Mapping[str, Any], kind: str, head: Mapping[str, Any]
) -> tuple[str, Any]:
    """(name of the architecture, its Config) of completed settings, with those of a class's head.

    Raises InputError that names the config's own field.
    """
    arch = architectures.load(family["arch"])
    names = family.get("fields", {})
    given = {ours: name for ours, name in names.items() if settings.get(name) is not None}
    fields = {ours: _translate(ours, name, settings) for ours, name in given.items()}
    fields = {**fields, **family.get("set", {})}
    if "rules" in family:
        module = import_module(f"{__package__}.{family['rules']}")
        fields |= getattr(module, family.get("rule", kind.replace("-", "_")))(settings)
    fields |= hf_classes.labels(settings, head, arch.Config, family.get("labels", 2))
    try:
        return family["arch"], make(arch.Config, {**fields, **head})
    except InputError as error:
        problem = str(error).removeprefix(f"{error.field}: ")
        theirs = re.sub(r"\w+", lambda word: str(names.get(word[0], word[0])), problem)
        raise InputError(str(names.get(error.field, error.field)), theirs) from None


def _translate(ours: str, name: str, settings: Mapping[str, Any]) -> Any:
    value = settings[name]
    if ours in DERIVED and not isinstance(value, bool) and value == 0:
        raise wrong(name, value, "1 or more")
    return activation(settings, name) if ours == "activation" else value
