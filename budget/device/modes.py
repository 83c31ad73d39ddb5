"""Power modes of boards that have several: each is a device of its own, `jetson-agx-orin-30w`.

A board's name alone means its highest mode, which its rates are for, and the interval of a time then reaches
to the mode in which it is shipped (answer/unsaid.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .. import checked
from ..errors import wrong
from ..named import Any
from . import clock

# Of each mode but the highest: multiprocessors, their MHz, and the part of the memory's clock.
FIELDS = ("highest", "shipped", "others", "source")


def check(where: str, value: Any) -> None:
    """Raises InputError for what is no table of modes."""
    if not isinstance(value, Mapping) or {*value} != {*FIELDS}:
        raise wrong(where, value, f"a table of {', '.join(FIELDS)}")
    for name, clocks in checked.each(f"{where}.others", value["others"], checked.listed).items():
        if len(clocks) != 3:
            raise wrong(f"{where}.others.{name[:20]}", clocks, "multiprocessors, MHz, part of memory's clock")
        for x in clocks:
            checked.number(f"{where}.others.{name[:20]}", x, 1e-3, 1e5)
    checked.word(f"{where}.shipped", value["shipped"], (value["highest"], *value["others"]))


def tables(about: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each mode of a board, and the table of the device that the board is in it."""
    modes = about.get("modes")
    for mode in (modes["highest"], *modes["others"]) if modes else ():
        units, rate, memory = _parts(about, mode)
        rates = {key: value * rate for key, value in about.items() if key.endswith(("_tflops", "_tops"))}
        rated = {"name": f"{about['name']}, {mode}", "aliases": [], "sms": units, **rates}
        in_mode = {**about, **rated, **{key: about[key] * memory for key in ("bandwidth_gb_s", "host_gb_s")}}
        yield mode, {key: value for key, value in in_mode.items() if key != "modes"}


def assumed(device: str, about: Mapping[str, Any]) -> tuple[str, str]:
    """The device that a board is as it is shipped, unless that is its highest mode, and what to say of its
    modes; nothing of a board without.
    """
    if "up_to_mhz" in about:
        least, most = about["tdp_w"], about["up_to_mhz"]  # Source: geforce-laptops
        return "", f"{least:g} W assumed, the least of notebooks; they clock it to {most:,.0f} MHz"
    if (modes := about.get("modes")) is None:
        return "", ""
    highest, shipped, others = modes["highest"], modes["shipped"], [*modes["others"]]
    if shipped == highest:
        return "", f"{highest} assumed, as shipped; --device {device}-{others[0].lower()} is another"
    as_shipped = f"{device}-{shipped.lower()}"
    return as_shipped, f"{highest} assumed; --device {as_shipped} as shipped"


def instead(device: str, about: Mapping[str, Any]) -> str:
    """What to say where a board is asked for in a mode that it has not."""
    if (modes := about.get("modes")) is None:
        return f"no power modes of {about['name']} are known, times are at full power; allowed: {device}"
    names = [f"{device}-{mode.lower()}" for mode in (*modes["others"], modes["highest"])]
    return f"{about['name']} has other power modes; allowed: {', '.join(names)}"


def _parts(about: Mapping[str, Any], mode: str) -> tuple[int, float, float]:
    """A mode's multiprocessors, and the parts of the highest mode's rates and of its memory's."""
    if mode not in about["modes"]["others"]:
        return about["sms"], 1.0, 1.0
    units, mhz, memory = about["modes"]["others"][mode]
    highest = clock.hertz(about)
    assert highest is not None, "modes are of boards whose clock is known"
    return units, units * mhz * 1e6 / (about["sms"] * highest), memory
