"""Numbers formatted for people: decimal units for FLOPs and rates, binary units for memory."""

from __future__ import annotations


def decimal(value: float, unit: str = "") -> str:
    """1.5e12, "FLOP" -> "1.50 TFLOP"."""
    for power, prefix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power * 0.9995:
            return f"{_three(value / 10**power)} {prefix}{unit}"
    return f"{_three(value)} {unit}".rstrip()


def count(value: float) -> str:
    """Parameters: 124,439,808 -> "124.4 M", with B for 10^9."""
    for power, prefix in ((12, "T"), (9, "B"), (6, "M")):
        if value >= 10**power:
            scaled = value / 10**power
            return f"{scaled:,.2f} {prefix}" if scaled < 10 else f"{scaled:,.1f} {prefix}"
    return f"{value:,.0f}"


def memory(value: float) -> str:
    """Bytes in GiB; below 0.1 GiB in MiB, and so on."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 2**power * 0.1:
            return f"{_three(value / 2**power)} {unit}"
    return f"{value:.0f} B"


def seconds(value: float) -> str:
    """Seconds in a unit from nanoseconds to years."""
    for size, unit in ((365.25 * 86400, "years"), (86400, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if value >= size * (1 if size == 1 else 2):
            return f"{_three(value / size)} {unit}"
    for power, unit in ((-3, "ms"), (-6, "us")):
        if value >= 10**power:
            return f"{_three(value / 10**power)} {unit}"
    return f"{_three(value * 1e9)} ns"


def usd(value: float | None) -> str:
    """Dollars: whole ones from 100 on; empty for None."""
    return "" if value is None else f"${value:,.0f}" if value >= 100 else f"${value:,.3g}"


def energy(kwh: float | None) -> str:
    """Watt-hours with a prefix; empty for None."""
    return "" if kwh is None else decimal(kwh * 1000, "Wh")


def mass(kg: float | None) -> str:
    """Kilograms, or tonnes; empty for None."""
    return "" if kg is None else f"{_three(kg / 1000)} t" if kg >= 1000 else f"{kg:,.3g} kg"


def times(value: float) -> str:
    """A factor, without an exponent: 22.1, 6,420."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _three(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == int(value) and abs(value) < 1000:
        return f"{value:.0f}"
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
