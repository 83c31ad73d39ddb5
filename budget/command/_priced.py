"""The flags of money, energy and a whole run, shared by the commands that estimate."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..answer import Estimate

LENGTH = {
    "tokens": ("N", "tokens of a whole run, as 15T: days, dollars, kWh"),
    "samples": ("N", "or its samples, as 1.3M"),
    "epochs": ("N", "how often (1)"),
}
TERMS = {
    "price": ("$", "dollars an hour and device, or on-demand, reserved, spot (on-demand)"),
    "power": ("W", "watts of a device, or measured: what the GPU here draws now (its TDP)"),
    "pue": ("P", "a number, or aws, google, meta, microsoft, oracle, industry (aws)"),
    "grid": ("G", "g CO2e a kWh, or a country (United States)"),
}


def priced_flags(parser: ArgumentParser) -> None:
    """Add them."""
    group = parser.add_argument_group("money and energy")
    for name, (metavar, text) in {**LENGTH, **TERMS}.items():
        group.add_argument(f"--{name}", metavar=metavar, help=text)


def priced(e: Estimate, args: Namespace) -> Estimate:
    """The estimate with them. Raises InputError."""
    given = {name: getattr(args, name) for name in (*LENGTH, *TERMS)}
    return e.priced(**given) if any(v is not None for v in given.values()) else e
