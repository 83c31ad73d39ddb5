"""Hugging Face configs: a config.json, or the same as a dict, to an architecture's Config.

hf_families.py reads one family's fields; here is the rest of a config: another config inside it, a tower of
images, the dtype and the format of its weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import InputError, shown, some, wrong
from ..named import Any
from . import hf_classes, hf_families
from .hf_classes import UncoveredError
from .hf_fields import has_few_bits

DTYPES = ("float32", "bfloat16", "float16")  # of weights
AROUND = ("tie_word_embeddings", "id2label", "num_labels")  # decided by the config around a nested one


def read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Any]:
    """(name of the architecture, its Config). Raises InputError that names the config's own field."""
    if not isinstance(source, Mapping):
        from .hf_files import load

        source = load(source)
    values = source
    kind = values.get("model_type")
    if kind is None:
        way = '"llama" or another of `budget list families`; "architectures" with a class of transformers; '
        way += '"arch" and the settings of one of `budget list architectures`'
        raise InputError("model_type", f"missing; allowed: {way}")
    if not isinstance(kind, str):
        raise InputError("model_type", f"got {shown(kind)}; known: {some(hf_families.known())}")
    family = hf_families.load(kind)
    return _read(values, family, kind, hf_classes.head(values, kind, family))


def typed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config with a model_type. Where it has none, it gets that of the only family with the class that it
    names.
    """
    names = values.get("architectures")
    if values.get("model_type") is not None or not isinstance(names, list | tuple) or len(names) != 1:
        return values
    if not isinstance(names[0], str):
        return values
    families = [kind for kind in hf_families.known() if names[0] in hf_families.load(kind).get("classes", {})]
    return {**values, "model_type": families[0]} if len(families) == 1 else values


def _read(
    values: Mapping[str, Any], family: Mapping[str, Any], kind: str, head: Mapping[str, Any]
) -> tuple[str, Any]:
    """`read` for one family, with the settings of a class's head."""
    settings = hf_families.complete(values, family)
    if "nested" in family:
        inner = _nested(settings, family)
        kind = inner["model_type"]
        name, text = _read(inner, family.get("text") or hf_families.load(kind), kind, head)
        if "tower" in family:
            from . import hf_towers

            try:
                if name in hf_towers.wholes(family):
                    return hf_towers.read(settings, family, name, text)
            except UncoveredError:  # then the text stands alone, and what is left out is named
                if hf_towers.wholes(family)[name] == name:
                    raise
        return name, text
    return hf_families.read(settings, family, kind, head)


def uncounted(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that a config describes and its architecture leaves out, for a config that `read` takes."""
    return _uncounted(values, hf_families.load(values["model_type"]))


def _uncounted(values: Mapping[str, Any], family: Mapping[str, Any]) -> tuple[str, ...]:
    """The uncounted parts of a family and of the one inside it: towers, and what flags add without
    contractions.
    """
    seen = "tower" in family and _sees(values)
    uncounted = (
        *(() if seen else family.get("uncounted", ())),
        *(what for flag, what in family.get("beside", {}).items() if values.get(flag)),
    )
    if "nested" not in family:
        return uncounted
    inner = _nested(hf_families.complete(values, family), family)
    return uncounted + _uncounted(inner, family.get("text") or hf_families.load(inner["model_type"]))


def has_tower(values: Mapping[str, Any]) -> bool:
    """Whether a config's class takes images as well, which its family's file leaves out."""
    family = hf_families.load(values["model_type"])
    return "vision_config" in values and "nested" in family and not _sees(values)


def _sees(values: Mapping[str, Any]) -> bool:
    """Whether a config's tower is counted."""
    family = hf_families.load(values["model_type"])
    if "tower" not in family:
        return False
    from .hf_towers import wholes

    return read(values)[0] in wholes(family).values()


def usual(values: Mapping[str, Any]) -> dict[str, Any]:
    """The usual settings for a config: its family, its weights' dtype and their format in few bits; and the
    attention of its family's class where that has no SDPA. Raises InputError.
    """
    kind = values["model_type"]
    usual = {"family": hf_families.called(kind), **_dtype(values), **_kept(values)}
    usual |= {name: value for name, value in hf_families.load(kind).items() if name == "attention"}
    if not has_few_bits(values):
        return usual
    from .hf_quantized import packing

    family = hf_families.load(kind)
    dtype, formats = usual.get("dtype", "bfloat16"), family.get("formats", ())
    return {**usual, "packing": packing(values, dtype, formats, family.get("nested", ""))}


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """The weights that the family's class keeps in float32."""
    family = hf_families.load(values["model_type"])
    if "float32" not in family:
        return {}
    from ..plan.kept import Kept

    return {"kept": Kept(**{when: tuple(tags) for when, tags in family["float32"].items()})}


def _dtype(values: Mapping[str, Any]) -> dict[str, Any]:
    inner = values.get(hf_families.load(values["model_type"]).get("nested", ""))
    for config in (values, inner if isinstance(inner, Mapping) else {}):
        for field in ("dtype", "torch_dtype"):
            name = config.get(field)
            if name in (None, "auto"):
                continue
            if not isinstance(name, str) or name.removeprefix("torch.") not in DTYPES:
                raise wrong(field, name, ", ".join(DTYPES))
            return {"dtype": name.removeprefix("torch.")}
    return {}


def _nested(settings: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The nested config; the outer one decides the head and whether it is tied.

    Older configs of some families are flat: they have its fields among their own. Where the class can make
    only one text model, the nested model_type does not count (`nested_fixed`); `nested_usual` has the
    defaults that the family gives the nested config in place of the text model's own.
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
    kind = own if family.get("nested_fixed") else hf_families.called(inner.get("model_type", own))
    return {**family.get("nested_usual", {}), **inner, **around, "model_type": kind}
