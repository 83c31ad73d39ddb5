"""Which head a config's own class has: it follows from the class's exact name, in `architectures`.

A family's `classes` list transformers' classes by name, each with a word of data/heads.json or with settings
of its own. A class that is not there is someone else's code, or not covered.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import table
from ..config import HUGE, Settings
from ..errors import InputError, shown, some, wrong
from ..named import Any

LABELLED = (
    "mlm_pooled",
    "tokens",
    "last",
    "pooled",
    "classifier",
    "sequence",
    "frames",
)  # heads with an output for each label


class UncoveredError(InputError):
    """A class that transformers may well have, but the package's own families do not."""


def uncovered(field: str, value: object, allowed: str) -> UncoveredError:
    """The error for a value that the package's own families do not have."""
    return UncoveredError(field, wrong(field, value, allowed).problem)


def head(values: Mapping[str, Any], kind: str, family: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings that follow from the config's class; none where it names no class.

    Raises InputError.
    """
    names = values.get("architectures")
    if names is None or names == []:
        return _settings(family, family["usual"]) if "usual" in family else {}
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise wrong("architectures", names, "a list of names")
    known, earlier = family.get("classes", {}), family.get("renamed", {})
    names = [earlier.get(name, name) for name in names]
    for name in names:
        if name not in known:
            raise UncoveredError("architectures", f"got {shown(name)}; allowed for {kind}: {some(known)}")
    return _settings(family, known[names[0]])


def _settings(family: Mapping[str, Any], word: Any) -> Mapping[str, Any]:
    """The settings for a word of data/heads.json; settings stay what they are."""
    settings: Mapping[str, Any] = (
        table.load("heads.json")[family["arch"]][word] if isinstance(word, str) else word
    )
    return settings


def labels(
    hf: Mapping[str, Any], head: Mapping[str, Any], config: type[Settings], usual: int = 2
) -> dict[str, Any]:
    """A classifier's number of outputs, where the class does not fix it. Raises InputError."""
    if "labels" not in config.fields or "labels" in head or head.get("head") not in LABELLED:
        return {}
    return {"labels": count(hf, usual)}


def count(hf: Mapping[str, Any], usual: int = 2) -> int:
    """How many labels there are: as many as have names, else num_labels, else 2. Raises InputError."""
    named, number = hf.get("id2label"), hf.get("num_labels")
    if named is not None and not isinstance(named, Mapping):
        raise wrong("id2label", named, "a table of names")
    if number is None:
        return usual if named is None else len(named)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= HUGE:
        raise wrong("num_labels", number, f"whole numbers from 0 to {HUGE:,}")
    if named is not None and len(named) != number:
        raise InputError("num_labels", f"got {number}, and id2label has {len(named)}; allowed: one number")
    return number
