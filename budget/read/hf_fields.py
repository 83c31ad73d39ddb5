"""Fields of Hugging Face configs, checked: flags, whole numbers, lists, activations."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import HUGE
from ..errors import InputError, wrong
from ..ir import RULES
from ..named import Any

Settings = Mapping[str, Any]
LONGEST_PATTERN = 10_000  # layers with a pattern of their own; more must be a typing error

ACTIVATIONS = {name: kind for kind, rule in RULES.items() for name in rule.config}


def activation(hf: Settings, name: str) -> str:
    """Our name of an activation. Raises InputError."""
    value = hf[name]
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise wrong(name, value, ", ".join(sorted(ACTIVATIONS)))
    return ACTIVATIONS[value]


def has_few_bits(values: Mapping[str, Any]) -> bool:
    """Whether a config, or one inside it, has a table of a format in few bits."""
    inside = (value for value in values.values() if isinstance(value, Mapping))
    quantized = any(config.get("quantization_config") is not None for config in (values, *inside))
    return quantized or isinstance(values.get("quantization"), Mapping)  # MLX's


def _flag(hf: Settings, name: str, usual: bool) -> bool:
    value = hf.get(name, usual)
    if value is not None and not isinstance(value, bool):
        raise wrong(name, value, "true or false")
    return bool(value)  # a class that tests null takes it for false


def _whole(hf: Settings, name: str, usual: int | None = None, *, least: int = 1) -> int:
    value = hf.get(name)
    if value is None and usual is not None:
        return usual
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= HUGE:
        raise wrong(name, value, f"whole numbers from {least} to {HUGE:,}")
    return value


def _list(hf: Settings, name: str) -> list[Any]:
    value = hf.get(name)
    if not isinstance(value, list | tuple):
        raise wrong(name, value, "a list")
    return list(value)


def buildable(values: Mapping[str, Any]) -> None:
    """Raise an InputError for more layers than a class can be built with: each is an object."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            buildable(value)
        elif "layers" in str(name) and isinstance(value, int) and value > LONGEST_PATTERN:
            raise InputError(name, f"got {value:,}; allowed for a captured class: up to {LONGEST_PATTERN:,}")


def _short(count: int, name: str) -> int:
    if count > LONGEST_PATTERN:
        raise InputError(name, f"got {count:,}; allowed: up to {LONGEST_PATTERN:,} layers that differ")
    return count
