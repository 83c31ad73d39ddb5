"""The cost of device-hours: dollars, energy and carbon, each from a stated input with its source.

Not counted: people, storage, traffic, taxes; the carbon of making the devices and their building.
"""

from __future__ import annotations

from .. import table
from ..device import Device
from ..errors import InputError, unknown, wrong
from ..named import Any, NamedTuple

KINDS = ("on-demand", "reserved", "spot")
USUAL_PUE, USUAL_GRID = "aws", "USA"
UNCOUNTED = ("embodied carbon", "storage and traffic", "people", "failed runs and experiments")


class Stated(NamedTuple):
    """An input and where it is from. low, high: the ends of the range that was found; source: references."""

    value: float
    low: float
    high: float
    what: str
    source: tuple[str, ...] = ()


class Terms(NamedTuple):
    """The cost of a device's hour. None: not known, and so is nothing that follows from it.

    price: dollars an hour; watts: the device's power; all_in_w: with its share of servers, network and
    cooling as provisioned; pue: the site's energy over its computers'; grid: grams of CO2e a kWh.
    """

    price: Stated | None
    watts: Stated | None
    all_in_w: Stated | None
    pue: Stated
    grid: Stated


class Bill(NamedTuple):
    """The cost of so many device-hours. kwh: at the stated power, times PUE; kwh_all_in: as provisioned.

    low, high: the fewest hours at the lowest price, or power, and the most hours at the highest.
    """

    device_hours: float
    usd: float | None
    usd_low: float | None
    usd_high: float | None
    kwh: float | None
    kwh_low: float | None
    kwh_high: float | None
    kwh_all_in: float | None
    co2_kg: float | None
    co2_kg_low: float | None
    co2_kg_high: float | None


def _read(field: str, given: Any, kind: str, *, zero: bool = False) -> float:
    """A quantity as people write it; imported late, as the units take a sixtieth of an estimate to import."""
    from .. import quantity

    return quantity.read(field, given, getattr(quantity, kind), zero=zero)


def terms(device: Device, price: Any = None, power: Any = None, pue: Any = None, grid: Any = None) -> Terms:
    """Prices, power and carbon of a device. Raises InputError.

    price: dollars an hour, or on-demand, reserved or spot; power: watts of a device (its TDP, from 0.85
    of it to 1.5, with its share of a server: budget/data/energy/power.json), or `measured`;
    pue: a number or an operator's name (budget/data/energy/pue.json); grid: g CO2e a kWh, or a country's name
    or ISO code.
    """
    return Terms(usd_per_hour(device, price), _watts(device, power), _all_in(device), _pue(pue), _grid(grid))


def bill(t: Terms, device_hours: float, ends: tuple[float, float] | None = None) -> Bill:
    """The cost of so many device-hours. ends: the fewest and the most hours, where they are uncertain."""
    low, high = ends or (device_hours, device_hours)
    hours = (device_hours, low, high)
    usd = _each(t.price, hours, 1)
    kwh = _each(t.watts, hours, t.pue.value / 1000)
    carbon = _each(t.watts, hours, t.pue.value / 1000 * t.grid.value / 1000)
    all_in = None if t.all_in_w is None else device_hours * t.all_in_w.value / 1000
    return Bill(device_hours, *usd, *kwh, all_in, *carbon)


def _each(
    stated: Stated | None, hours: tuple[float, float, float], times: float
) -> tuple[float | None, float | None, float | None]:
    """A number times a stated input; its range goes from the fewest times the lowest to the most times the
    highest.
    """
    if stated is None:
        return None, None, None
    value, low, high = (
        h * x * times for h, x in zip(hours, (stated.value, stated.low, stated.high), strict=True)
    )
    return value, low, high


def usd_per_hour(device: Device, given: Any = None) -> Stated | None:
    """The median of providers' prices of a kind, or the user's own. None: none is known. Raises
    InputError.
    """
    if given is not None and given not in KINDS:
        try:
            return _own(_read("price", given, "USD"), "your price")
        except InputError as error:
            problem = str(error).removeprefix("price: ")
            raise InputError("price", f"{problem}, or {', '.join(KINDS)}") from None
    kind = given or KINDS[0]
    rows = [r for r in prices(device.id) if r["kind"] == kind]
    if not rows:
        return _recalled(device, kind) if given is None else _none(device, kind)
    usd = sorted(r["usd"] for r in rows)
    dates = sorted(r["date"][:7] for r in rows)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    notes = {r["note"] for r in rows if "note" in r}
    what = f"{kind}, median of {len(rows)} prices, {when}" if len(rows) > 1 else f"{kind}, one price, {when}"
    what += f" ({'; '.join(sorted(notes))})" if notes else ""
    return Stated(_median(usd), usd[0], usd[-1], what, tuple(sorted({r["source"] for r in rows})))


def _median(values: list[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def prices(device: str) -> list[dict[str, Any]]:
    """Every price of a device that was read, as budget/data/prices has it."""
    rows: list[dict[str, Any]] = (
        table.load("prices", f"{device}.json")["prices"] if table.has("prices", device) else []
    )
    return rows


def _none(device: Device, kind: str) -> Stated:
    known = sorted({r["kind"] for r in prices(device.id)})
    also = f"{', '.join(known)} or " if known else ""
    raise InputError("price", f"no {kind} price of {device.name} is known; allowed: {also}dollars an hour")


def _recalled(device: Device, kind: str) -> Stated | None:
    if device.usd_per_hour is None:
        return None
    low, high = device.usd_per_hour
    return Stated((low + high) / 2, low, high, f"{kind}, the middle of a recalled range", (device.source,))


def _own(value: float, what: str) -> Stated:
    return Stated(value, value, value, what)


def _watts(device: Device, given: Any) -> Stated | None:
    if given == "measured":
        from ..device.machine import power_w

        watts = power_w()
        if not watts:
            raise InputError("power", "no NVIDIA GPU here says what it draws; allowed: watts")
        return _own(watts, "what this machine's GPU draws now")
    if given is not None:
        return _own(_read("power", given, "WATTS"), "your power of a device")
    if device.tdp_w is None:
        return None
    about = table.load("energy", "power.json")["of_tdp"]
    low, high = (about[end]["share"] * device.tdp_w for end in ("low", "high"))
    sources = (device.source, about["low"]["source"], about["high"]["source"])
    return Stated(device.tdp_w, low, high, "the device's TDP", sources)


def _all_in(device: Device) -> Stated | None:
    about = table.load("energy", "power.json")
    row = about["rows"].get(device.id)
    what = "with servers, network and cooling, as provisioned"
    return Stated(*(row["all_in_w"],) * 3, what, (about["source"],)) if row else None


def _pue(given: Any) -> Stated:
    rows = table.load("energy", "pue.json")["rows"]
    row = rows.get(USUAL_PUE if given is None else str(given).lower())
    if row is None:
        try:
            value = _read("pue", given, "PLAIN")
        except InputError:
            raise unknown("pue", given, [*rows, "a number from 1"]) from None
        if not 1 <= value <= 5:
            raise wrong("pue", given, "from 1 to 5")
        return _own(value, "your PUE")
    values = [r["pue"] for r in rows.values()]
    return Stated(row["pue"], min(values), max(values), f"{row['name']} {row['year']}", (row["source"],))


def _grid(given: Any) -> Stated:
    about = table.load("energy", "grid.json")
    rows = about["rows"]
    named = {**{k.lower(): r for k, r in rows.items()}, **{r["name"].lower(): r for r in rows.values()}}
    row = named.get((USUAL_GRID if given is None else str(given)).lower())
    if row is None:
        try:
            value = _read("grid", given, "PLAIN", zero=True)
        except InputError:
            allowed = "g CO2e a kWh, or a country's name or ISO code, as SWE (budget/data/energy/grid.json)"
            raise unknown("grid", given, [r["name"] for r in rows.values()], f"allowed: {allowed}") from None
        return _own(max(value, 0.0), "your grid")
    values = [r["g_per_kwh"] for r in rows.values()]
    what = f"{row['name']} {row['year']}"
    return Stated(row["g_per_kwh"], min(values), max(values), what, (about["source"],))
