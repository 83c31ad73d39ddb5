"""Hugging Face configs: a config.json, or the same as a dict, to an architecture's Config.

Each model_type is a file in data/families/: which of its fields is which of ours, the family's
own defaults for missing ones, and what is fixed. What needs a computation is a function in
hf_rules.py, hf_mixtures.py, hf_images.py or hf_stacks.py. Nothing is guessed and no code is run: an
unknown model_type is an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from importlib import import_module

from .. import arch as architectures
from .. import table
from ..config import make
from ..errors import InputError, hint, shown, some
from ..named import Any
from . import hf_classes
from .hf_classes import UncoveredError
from .hf_fields import activation, has_few_bits

FOLDER = "families"

# Settings in which 0 is our own word for what follows from others; in a config it is a 0.
DERIVED = (
    "experts", "kv_heads", "head_dim", "d_ff", "expert_d_ff", "embed_dim", "decoder_layers", "decoder_heads",
    "decoder_d_ff", "value_head_dim", "q_latent", "kv_latent", "dt_rank", "inner", "pooler_width",
    "projection", "index_heads", "decoder", "mamba_head_dim", "full_kv_heads",
)  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16")  # of weights
# Model_types of code on the hub, with a class of transformers': which family's that is.
ELSEWHERE = {"kimi_k2": "deepseek_v3"}
AROUND = ("tie_word_embeddings", "id2label", "num_labels")  # what the config around a nested one decides


def read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Any]:
    """(name of the architecture, its Config). Raises InputError that names the config's own field."""
    if not isinstance(source, Mapping):
        from .hf_files import load

        source = load(source)
    values = source
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise InputError("model_type", f"got {shown(kind)}; known: {some(known())}")
    family = _family(kind)
    return _read(values, family, kind, hf_classes.head(values, kind, family))


def _read(
    values: Mapping[str, Any], family: Mapping[str, Any], kind: str, head: Mapping[str, Any]
) -> tuple[str, Any]:
    """The same for a family, with the settings of a class's head."""
    settings = _complete(values, family)
    if "nested" in family:
        inner = _nested(settings, family)
        kind = inner["model_type"]
        name, text = _read(inner, family.get("text") or _family(kind), kind, head)
        if "tower" in family:
            from . import hf_towers

            try:
                if hf_towers.around(family, name):
                    return hf_towers.read(settings, family, name, text)
            except UncoveredError:  # then the text stands alone, and what is left out is named
                if hf_towers.around(family, name) == name:
                    raise
        return name, text
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


def uncounted(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What a config describes and its architecture leaves out, for a config that `read` takes."""
    return () if _sees(values) else tuple(_family(values["model_type"]).get("uncounted", ()))


def has_tower(values: Mapping[str, Any]) -> bool:
    """Whether a config's class takes images as well, which its family's file leaves out."""
    return "vision_config" in values and "nested" in _family(values["model_type"]) and not _sees(values)


def _sees(values: Mapping[str, Any]) -> bool:
    """Whether a config's tower is counted."""
    if "tower" not in _family(values["model_type"]):
        return False
    from .hf_towers import COUNTED

    return read(values)[0] in COUNTED


def usual(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of its weights: their family, their dtype, and their format where they are in few
    bits. Raises InputError.
    """
    kind = values["model_type"]
    told = {"family": ELSEWHERE.get(kind, kind), **_dtype(values), **_kept(values)}
    if not has_few_bits(values):
        return told
    from .hf_quantized import packing

    family = _family(kind)
    dtype, formats = told.get("dtype", "bfloat16"), family.get("formats", ())
    return {**told, "packing": packing(values, dtype, formats, family.get("nested", ""))}


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """The weights that the family's class keeps in float32."""
    family = _family(values["model_type"])
    if "float32" not in family:
        return {}
    from ..plan.kept import Kept

    return {"kept": Kept(**{when: tuple(tags) for when, tags in family["float32"].items()})}


def _dtype(values: Mapping[str, Any]) -> dict[str, Any]:
    inner = values.get(_family(values["model_type"]).get("nested", ""))
    for config in (values, inner if isinstance(inner, Mapping) else {}):
        for field in ("dtype", "torch_dtype"):
            name = config.get(field)
            if name in (None, "auto"):
                continue
            if not isinstance(name, str) or name.removeprefix("torch.") not in DTYPES:
                raise InputError(field, f"got {shown(name)}; allowed: {', '.join(DTYPES)}")
            return {"dtype": name.removeprefix("torch.")}
    return {}


def known() -> tuple[str, ...]:
    """All model_types, sorted."""
    return table.files(FOLDER)


def _family(kind: str) -> Mapping[str, Any]:
    kind = ELSEWHERE.get(str(kind), kind)
    if not table.has(FOLDER, str(kind)):
        raise UncoveredError("model_type", f"unknown name {shown(kind)}; {hint(kind, known())}")
    return table.load(FOLDER, f"{kind}.json")


def _nested(settings: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The config inside, of which the one around it decides the head and what it is tied to.

    Older configs of some families are flat: they have its fields among their own. Where the class makes
    one text model only, it does so whatever model_type says there (`nested_fixed`); `nested_usual` has
    the fields that the family gives it, where they are not the text model's own.
    """
    inner = settings.get(family["nested"])
    if inner is None:
        inner = {**settings, "model_type": family["nested_type"]} if family.get("flat") else {}
    if not isinstance(inner, Mapping):
        raise InputError(family["nested"], "allowed: a table of settings")
    around = {name: settings[name] for name in AROUND if settings.get(name) is not None}
    if family.get("tied_inside") or (family.get("tied_either") and not around.get("tie_word_embeddings")):
        around.pop("tie_word_embeddings", None)
    own = family["nested_type"]
    kind = own if family.get("nested_fixed") else inner.get("model_type", own)
    kind = family.get("nested_once", {}).get(kind, kind)  # as it was called before
    return {**family.get("nested_usual", {}), **inner, **around, "model_type": kind}


def _complete(values: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The config with other spellings resolved and the family's defaults filled in.

    Checked for what it must have and for what is not covered.
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
    for name in family.get("required", ()):
        if values.get(name) is None:
            raise InputError(name, "missing, and the family has no default")
    for name, allowed in family.get("only", {}).items():
        if values.get(name) is not None and values[name] != allowed:
            raise UncoveredError(name, f"got {shown(values[name])}; allowed: {json.dumps(allowed)}")
    return {**defaults, **values}


def _translate(ours: str, name: str, settings: Mapping[str, Any]) -> Any:
    value = settings[name]
    if ours in DERIVED and not isinstance(value, bool) and value == 0:
        raise InputError(name, f"got {shown(value)}; allowed: 1 or more")
    return activation(settings, name) if ours == "activation" else value
