"""A device from a file of one's own, as budget/data/devices/ has them: `--device mine.json`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from .. import checked, files
from ..errors import InputError, wrong
from ..named import Any
from . import clock, modes

RATES = (
    "fp64_tflops", "fp32_tflops", "tf32_tflops", "bf16_tflops", "fp16_tflops", "fp8_tflops", "fp4_tflops",
    "int8_tops", "measured_bf16_tflops", "measured_fp8_tflops",
)  # fmt: skip
NUMBERS = (
    "memory_gb", "visible_mib", "bandwidth_gb_s", "year", "sms", "cores", "l2_mb", "tdp_w", *RATES,
    "link_gb_s", "nic_gbit_s", "host_gb_s", "up_to_mhz",
)  # fmt: skip
TEXTS = ("name", "vendor", "generation", "memory", "link", "host", "source", "confidence", "notes")
NEEDED = ("name", "memory_gb", "bandwidth_gb_s", "source")
BESIDE = {"link_gb_s": "link", "host_gb_s": "host", "up_to_mhz": "tdp_w"}
CONFIDENCE = ("read", "memory", "assumed")
LEAST, MOST = 1e-6, 1e12  # of a figure in its unit
USUAL = {"vendor": "", "year": None, "memory": "", "confidence": "read"}


def read(path: str) -> tuple[str, Mapping[str, Any]]:
    """A device's id, that of the file, and its table, checked. Raises InputError with the file and field."""
    table, file = files.table("device", path), os.path.basename(path)
    check(table, file)
    # Its rates are those of the mode that it is for.
    return file.removesuffix(".json"), {**USUAL, **{k: v for k, v in table.items() if k != "modes"}}


def check(table: Any, file: str) -> None:
    """Raise an InputError for what is no table of a device."""
    at = f"device: {file}"
    checked.table(at, table, FIELDS, NEEDED)
    checked.table(at, table, needed=[name for rate, name in BESIDE.items() if rate in table])
    if not {"fp32_tflops", "bf16_tflops"} & table.keys():
        raise InputError(at, "fp32_tflops is missing; bf16_tflops stands in for it")
    for field, value in table.items():
        FIELDS[field](f"{at}: {field}", value)
    if "up_to_mhz" in table:
        _check_clock(f"{at}: up_to_mhz", table)


def _check_clock(where: str, table: Mapping[str, Any]) -> None:
    """Raise an InputError for a highest clock below that of the rates, or where that is not known."""
    least, highest = clock.hertz(table), table["up_to_mhz"]
    if least is None:
        raise InputError(where, "needs sms, fp32_tflops and a generation whose clock is known")
    if highest * 1e6 < least:
        raise wrong(where, highest, f"{least / 1e6:,.0f} and more, the clock that its rates are for")


def _figure(where: str, value: Any) -> float:
    return checked.number(where, value, LEAST, MOST)


def _sizes(where: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise wrong(where, value, "a list of numbers")
    return tuple(_figure(where, one) for one in value)


def _prices(where: str, value: Any) -> tuple[float, float]:
    return checked.pair(where, value, 0, MOST, "price")


def _confidence(where: str, value: Any) -> str:
    return checked.word(where, value, CONFIDENCE)


FIELDS: Mapping[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(TEXTS, checked.text),
    **dict.fromkeys(NUMBERS, _figure),
    "modes": modes.check,
    "confidence": _confidence,
    "aliases": checked.texts,
    "sold_gb": _sizes,
    "usd_per_hour": _prices,
}
