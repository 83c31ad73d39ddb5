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
import stat
from collections.abc import Mapping
from importlib import import_module

from .. import arch as architectures
from .. import table
from ..config import make
from ..errors import InputError, shown, unknown
from ..ir import RULES
from ..named import Any

FOLDER = "families"
LARGEST = 10_000_000  # bytes; a config has a few thousand

ACTIVATIONS = {name: kind for kind, rule in RULES.items() for name in rule.config}

DTYPES = ("float32", "bfloat16", "float16")  # of weights
AROUND = ("architectures", "tie_word_embeddings")  # what the config around a nested one decides
# The head of a class, by the first ending that its name has; "": one that is not covered.
HEADS = {
    "ForCausalLM": "lm", "LMHeadModel": "lm", "ForConditionalGeneration": "lm", "ForMaskedLM": "mlm",
    "DoubleHeadsModel": "", "Model": "none",
}  # fmt: skip


def read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, Any]:
    """(name of the architecture, its Config). Raises InputError that names the config's own field."""
    values = source if isinstance(source, Mapping) else load(source)
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise InputError("model_type", f"got {shown(kind)}; known: {', '.join(known())}")
    family = _family(kind)
    settings = _complete(values, family)
    if "nested" in family:
        return read(_nested(settings, family))
    arch = architectures.load(family["arch"])
    names = family.get("fields", {})
    given = {ours: name for ours, name in names.items() if settings.get(name) is not None}
    fields = {ours: _translate(ours, name, settings) for ours, name in given.items()}
    fields = {**fields, **family.get("set", {})}
    if "rules" in family:
        module = import_module(f"{__package__}.{family['rules']}")
        fields |= getattr(module, kind.replace("-", "_"))(settings)
    try:
        return family["arch"], make(arch.Config, {**fields, **_head(values, fields)})
    except InputError as error:
        problem = str(error).removeprefix(f"{error.field}: ")
        theirs = re.sub(r"\w+", lambda word: str(names.get(word[0], word[0])), problem)
        raise InputError(str(names.get(error.field, error.field)), theirs) from None


def uncounted(values: Mapping[str, Any]) -> tuple[str, ...]:
    """What a config describes and its architecture leaves out, for a config that `read` takes."""
    left_out = tuple(_family(values["model_type"]).get("uncounted", ()))
    return (*left_out, "quantized weights") if values.get("quantization_config") else left_out


def usual(values: Mapping[str, Any]) -> dict[str, Any]:
    """The workload that a config speaks of: its dtype. Raises InputError."""
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


def load(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The table in a JSON file. Raises InputError."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise InputError("config", f"{_name(path)} is not a file")
        if about.st_size > LARGEST:
            raise InputError("config", f"{_name(path)} has {about.st_size:,} bytes; allowed: to {LARGEST:,}")
        with open(path, "rb") as file:
            values = json.loads(file.read(LARGEST))
    except OSError as error:
        raise InputError("config", f"{_name(path)}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("config", f"{_name(path)} is not JSON: {_reason(error)}") from None
    if not isinstance(values, dict):
        raise InputError("config", f"{_name(path)} holds no table of settings")
    return values


def _name(path: str | os.PathLike[str]) -> str:
    return ascii(os.fspath(path))[1:-1][-80:]


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "not text" if isinstance(error, UnicodeDecodeError) else str(error)[:80]


def _family(kind: str) -> Mapping[str, Any]:
    if kind not in known():
        raise unknown("model_type", kind, known())
    return table.load(FOLDER, f"{kind}.json")


def _nested(settings: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The config inside, of which the one around it decides the head and what it is tied to.

    Older configs of some families are flat: they have its fields among their own.
    """
    inner = settings.get(family["nested"])
    if inner is None:
        inner = {**settings, "model_type": family["nested_type"]} if family.get("flat") else {}
    if not isinstance(inner, Mapping):
        raise InputError(family["nested"], "allowed: a table of settings")
    around = {name: settings[name] for name in AROUND if settings.get(name) is not None}
    return {"model_type": family["nested_type"], **inner, "architectures": None, **around}


def _complete(values: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
    """The config with other spellings resolved and the family's defaults filled in.

    Checked for what it must have and for what is not covered.
    """
    values = dict(values)
    for other, name in family.get("aliases", {}).items():
        if other in values:
            values.setdefault(name, values[other])
    defaults = family.get("defaults", {})
    for name in defaults:
        if name in values and values[name] is None and name not in family.get("nullable", ()):
            raise InputError(name, "got null; allowed: a value")
    for name in family.get("required", ()):
        if values.get(name) is None:
            raise InputError(name, "missing, and the family has no default")
    for name, allowed in family.get("only", {}).items():
        if values.get(name) is not None and values[name] != allowed:
            raise InputError(name, f"got {shown(values[name])}; allowed: {json.dumps(allowed)}")
    return {**defaults, **values}


def _translate(ours: str, name: str, settings: Mapping[str, Any]) -> Any:
    value = settings[name]
    if ours != "activation":
        return value
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise InputError(name, f"got {shown(value)}; allowed: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[value]


def _head(values: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Which head the config's own class has; the family's usual one where it names none."""
    classes = values.get("architectures")
    if classes is None or not isinstance(fields.get("head"), str):  # an image network has none, or its width
        return {}
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise InputError("architectures", "allowed: a list of names")
    found = next(map(_head_of, classes), fields["head"])
    return {"head": found, "pooler": False, "head_bias": True} if found == "mlm" else {"head": found}


def _head_of(name: str) -> str:
    """The head that a class of transformers has. Raises InputError for one that is not covered."""
    found = next((head for end, head in HEADS.items() if name.endswith(end)), "")
    if not found:
        allowed = ", ".join(end for end, head in HEADS.items() if head)
        raise InputError("architectures", f"got {shown(name)}; allowed: names that end with {allowed}")
    return found
