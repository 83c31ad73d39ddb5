"""Numbers and lists in flags: `--batch 8,16,32`, `--seq 1k..128k`, `--device a100,h100`."""

from __future__ import annotations

import re

from ..errors import InputError, wrong
from ..named import Any
from ..size import number

PREFIX = {"": 1, "k": 2**10, "m": 2**20}  # 128k tokens are 131,072, as models' contexts are named


def names(text: str | None) -> Any:
    """A name, or a list of them by commas."""
    return text.split(",") if text and "," in text else text


def sizes(field: str, text: str | None) -> Any:
    """A size, or a list of them: `16`, `128k`, `8,16,32`, and `1..64`, which doubles: 1, 2, 4, ..., 64.

    What is no size stays text: the check that names the field refuses it. Raises InputError.
    """
    if text is None:
        return None
    numbers: list[Any] = []
    if re.search(r",0\d\d(?!\d)", text):
        raise InputError(field, f"got {text}, a list with thousands in it; allowed: {text.replace(',', '')}")
    if re.fullmatch(r"\d{1,3},\d{3}", text) and (whole := int(text.replace(",", ""))).bit_count() == 1:
        raise InputError(
            field, f"got {text}, which may be a list; allowed: {whole}, or '{text.replace(',', ', ')}'"
        )
    for part in text.split(","):
        low, dots, high = part.partition("..")
        numbers += _doubled(field, size(low), size(high)) if dots else [size(part)]
    return numbers if len(numbers) > 1 else numbers[0]


def side(text: str | None) -> str | None:
    """Pixels along a side, which may be given twice: `224x224`. Raises InputError where they differ."""
    sides = re.fullmatch(r"(?P<n>\d+)\s*[xX*×]\s*(?P<other>\d+)", text or "")  # noqa: RUF001 - as people type
    if sides is None:
        return text
    if sides["n"] != sides["other"]:
        raise wrong("--image", text, "pixels along a side, of images that are square")
    return sides["n"]


def size(text: str) -> Any:
    """A size: `16`, or `128k`; what is none stays text."""
    match = re.fullmatch(r"(-?[\d_]+(?:\.\d+)?(?:e\d+)?)([kKmM]?)", text.strip(), re.ASCII)
    if match is None:
        return text
    value = float(match[1]) * PREFIX[match[2].lower()]
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _doubled(field: str, low: Any, high: Any) -> list[int]:
    if not (isinstance(low, int) and isinstance(high, int) and 0 < low < high):
        raise InputError(field, f"got {low}..{high}; allowed: a smaller size .. a larger one, as 1..64")
    powers = [low]
    while powers[-1] * 2 < high:
        powers.append(powers[-1] * 2)
    return [*powers, high]


def how_many(text: str | None) -> Any:
    """A number of devices. Raises InputError for names of them."""
    if text and "," in text:
        return [how_many(part) for part in text.split(",")]
    value = number(text)
    if isinstance(value, str):
        allowed = "how many, a whole number; which ones: --device"
        raise wrong("--devices", text, allowed)
    return value
