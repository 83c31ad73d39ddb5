"""A device from a file of one's own, as budget/data/devices/ has them: `--device mine.json`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from .. import files
from ..errors import InputError, shown
from ..named import Any

RATES = (
    "fp64_tflops", "fp32_tflops", "tf32_tflops", "bf16_tflops", "fp16_tflops", "fp8_tflops", "fp4_tflops",
    "int8_tops", "measured_bf16_tflops", "measured_fp8_tflops",
)  # fmt: skip
NUMBERS = (
    "memory_gb", "visible_mib", "bandwidth_gb_s", "year", "sms", "l2_mb", "tdp_w", *RATES,
    "link_gb_s", "nic_gbit_s", "host_gb_s",
)  # fmt: skip
TEXTS = ("name", "vendor", "generation", "memory", "link", "host", "source", "confidence", "notes")
OTHERS = ("aliases", "usd_per_hour")
NEEDED = ("name", "memory_gb", "bandwidth_gb_s", "source")
BESIDE = {"link_gb_s": "link", "host_gb_s": "host"}
CONFIDENCE = ("read", "memory", "assumed")
LEAST, MOST = 1e-6, 1e12  # of a figure in its unit
USUAL = {"vendor": "", "year": None, "memory": "", "confidence": "read"}


def read(path: str) -> tuple[str, Mapping[str, Any]]:
    """A device's id, that of the file, and its table, checked. Raises InputError with the file and field."""
    table, file = files.table("device", path), os.path.basename(path)
    check(table, file)
    return file.removesuffix(".json"), {**USUAL, **table}


def check(table: Any, file: str) -> None:
    """Raise an InputError for what is no table of a device."""
    if not isinstance(table, Mapping):
        raise InputError("device", f"{file}: got {shown(table)}; allowed: a table")
    for field in (*NEEDED, *(name for rate, name in BESIDE.items() if rate in table)):
        if field not in table:
            raise InputError("device", f"{file}: {field} is missing")
    if not {"fp32_tflops", "bf16_tflops"} & table.keys():
        raise InputError("device", f"{file}: fp32_tflops is missing; bf16_tflops stands in for it")
    for field, value in table.items():
        if field not in FIELDS:
            known = ", ".join(FIELDS)
            raise InputError("device", f"{file}: {field[:40]} is no field of a device; allowed: {known}")
        right, allowed = FIELDS[field]
        if not right(value):
            raise InputError("device", f"{file}: {field}: got {shown(value)}; allowed: {allowed}")


def _is_number(value: Any, least: float = LEAST) -> bool:
    """Whether it is one that a size, a rate or a price may have."""
    return not isinstance(value, bool) and isinstance(value, int | float) and least <= value < MOST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_filled(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_prices(value: Any) -> bool:
    """Whether it is a low and a high one."""
    both = isinstance(value, list) and len(value) == 2 and all(_is_number(p, 0) for p in value)
    return both and value[0] <= value[1]


# Of each field, whether a value may be its, and what may.
FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(TEXTS, (_is_text, "text")),
    **dict.fromkeys(NUMBERS, (_is_number, "a number above 0")),
    "name": (_is_filled, "text"),
    "source": (_is_filled, "text"),
    "confidence": (CONFIDENCE.__contains__, ", ".join(CONFIDENCE)),
    "aliases": (_are_texts, "a list of names"),
    "usd_per_hour": (_are_prices, "a low and a high price"),
}
