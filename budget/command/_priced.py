"""The flags of money, energy and a whole run, shared by the commands that estimate."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from ..answer import Estimate
from ..errors import wrong

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


def priced(estimates: Sequence[Estimate], args: Namespace) -> list[Estimate]:
    """The estimates with them; a list of prices has one for each device. Raises InputError."""
    given = {name: getattr(args, name) for name in (*LENGTH, *TERMS)}
    if all(v is None for v in given.values()):
        return list(estimates)
    boards = list(dict.fromkeys(e.device.id for e in estimates))
    prices = [None] if args.price is None else args.price.split(",") if len(boards) > 1 else [args.price]
    if len(prices) == 1:
        prices *= len(boards)
    if len(prices) != len(boards):
        raise wrong("--price", args.price, f"one, or one for each of {', '.join(boards)}")
    price_of = dict(zip(boards, prices, strict=True))
    return [e.priced(**{**given, "price": price_of[e.device.id]}) for e in estimates]
