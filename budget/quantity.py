"""Quantities as people write them: `4M-tokens`, `30d`, `$1e6`, `2 EFLOP`, `1.2 GWh`, `40%`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite

from .errors import wrong
from .named import Any, NamedTuple

DECIMAL = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21, "Y": 1e24}
COUNTED = {"K": 1e3, "k": 1e3, "M": 1e6, "m": 1e6, "G": 1e9, "B": 1e9, "b": 1e9, "T": 1e12, "t": 1e12}
COUNTED |= {"P": 1e15, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}


class Kind(NamedTuple):
    """What a quantity is: its units in terms of the one that is used, and an example. most: its upper end."""

    units: Mapping[str, float]
    example: str
    most: float = 1e40


def _prefixed(prefixes: Mapping[str, float], units: Mapping[str, float]) -> dict[str, float]:
    prefixed = {p + u: x * y for p, x in prefixes.items() for u, y in units.items()}
    return {**prefixed, **units}


WORDS = {"tokens": 1.0, "token": 1.0, "params": 1.0, "parameters": 1.0, "samples": 1.0, "images": 1.0}
TIME = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0}
TIME |= dict.fromkeys(("d", "day", "days"), 86400.0) | dict.fromkeys(("w", "week", "weeks"), 604800.0)
TIME |= dict.fromkeys(("y", "year", "years"), 31557600.0)  # of 365.25 days
WORK = {"FLOP": 1.0, "FLOPs": 1.0, "FLOPS": 1.0}
RATED = {f"{u}{day}": 86400.0 for u in ("FLOP/s", "FLOPs", "F") for day in ("days", "day")}

COUNT = Kind(COUNTED | WORDS | {p + w: x for p, x in COUNTED.items() for w in WORDS}, "70B or 4M-tokens")
DEVICES = Kind(COUNTED, "16384 or 16k")
FLOPS = Kind(DECIMAL | _prefixed(DECIMAL, WORK | RATED), "1e24, 2 EFLOP or 3640 PFLOP/s-days")
# Above all that there is: the world has some 5e14 dollars, and makes 3e13 kWh a year. Recalled, not read.
USD = Kind(COUNTED | {"USD": 1.0, "usd": 1.0, "dollars": 1.0}, "$1e6, 250k or 2M", 1e15)
KWH = Kind({"kWh": 1.0, "Wh": 1e-3, "MWh": 1e3, "GWh": 1e6, "TWh": 1e9}, "400000, 400 MWh or 1.2 GWh", 1e15)
DAYS = Kind({name: t / 86400 for name, t in TIME.items()}, "30, 30d, 6 weeks or 12h", 1e7)
HOURS = Kind({name: t / 3600 for name, t in TIME.items()}, "50000, 50000h or 5 years", 1e12)
SECONDS = Kind(TIME, "0.2, 200ms or 15min", 1e15)
PER_SECOND = Kind({"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600}, "20, 20/s or 500/min", 1e9)
SHARE = Kind({"%": 0.01}, "40% or 0.4", 1.0)
WATTS = Kind({"W": 1.0, "kW": 1e3}, "700, 700W or 1.7 kW", 1e7)
PLAIN = Kind({}, "1.2")
THOUSANDS = r"[-+]?[1-9]\d{0,2}(,\d{3})+(?![\d,])"  # 1,000,000; 2,5 is two and a half to some, 25 to others
NUMBER = r"\$?\s*([-+]?[0-9.][0-9._,]*(?:[eE][-+]?[0-9]+)?)"


def read(field: str, given: Any, kind: Kind, *, zero: bool = False) -> float:
    """A number above 0, or 0 where that is allowed, in the kind's own unit. Raises InputError for others."""
    allowed = f"{'0, or ' * zero}a number above 0, as {kind.example}"
    no_number = wrong(field, given, allowed)
    if isinstance(given, bool):
        raise no_number
    try:
        value = float(given) if isinstance(given, int | float) else _of_text(str(given), kind.units)
    except (ValueError, OverflowError):
        raise no_number from None
    if not (isfinite(value) and value > 0) and not (zero and value == 0):
        raise no_number
    if value > kind.most:
        raise wrong(field, given, f"at most {kind.most:,.10g}, as {kind.example}")
    return value


def _of_text(text: str, units: Mapping[str, float]) -> float:
    match = re.fullmatch(NUMBER + r"(.*)", text.strip()[:80], re.DOTALL)
    if match is None or (text.strip()[:1] == "$" and units is not USD.units):
        raise ValueError(text)
    number, unit = match[1], re.sub(r"[\s-]", "", match[2])
    if (unit and unit not in units) or ("," in number and not re.match(THOUSANDS, number)):
        raise ValueError(text)
    number = number.replace(",", "")
    return float(number) * (units[unit] if unit else 1)
