"""Several estimates at once: of models, devices, batches, lengths, ..."""

from __future__ import annotations

from itertools import product

from .answer import Estimate
from .answer.face import Shown
from .errors import InputError
from .estimate import estimate
from .named import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Unpack

    from .keywords import Lists

# The settings that may be lists. Others, such as inputs, have lists of their own.
LISTS = (
    "batch", "seq", "image", "sound", "mode", "dtype", "optimizer",
    "recompute", "attention", "execution", "stack", "device", "devices",
    "quantize", "kv_dtype", "precision", "lora_rank", "accumulate",
)  # fmt: skip
MOST = 1000  # estimates


class Comparison(Shown, tuple[Estimate, ...]):
    """Estimates side by side."""

    __slots__ = ()
    report = "_comparison"

    def __repr__(self) -> str:
        return f"Comparison of {len(self)} estimates"

    def to_dict(self) -> list[dict[str, Any]]:
        """The JSON of `budget compare`: a list of estimates."""
        data: list[dict[str, Any]] = self._as("dict")
        return data


def compare(*models: object, **settings: Unpack[Lists]) -> Comparison:
    """An estimate of each model in each combination of the settings that are lists.

    budget.compare("gpt2", "bert-base", device=["a100", "h100"], batch=[1, 8, 64])

    models, settings: as those of budget.estimate. Raises InputError.
    """
    if not models:
        raise InputError("model", "got none; allowed: one or more models to compare")
    return Comparison(estimate(model, **one) for model in models for one in cases({**settings}))


def cases(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of each combination of values that are lists. Raises InputError."""
    lists = {
        name: tuple(settings[name]) for name in LISTS if isinstance(settings.get(name), list | tuple | range)
    }
    combinations = [
        {**settings, **dict(zip(lists, values, strict=True))} for values in product(*lists.values())
    ]
    if not 0 < len(combinations) <= MOST:
        raise InputError(next(iter(lists)), f"{len(combinations):,} cases; allowed: 1 to {MOST:,}")
    return combinations
