"""The columns of what `budget list` shows."""

from __future__ import annotations

from collections.abc import Callable

from ..named import Any
from ..report._answer import Column
from ..report._units import count, memory


def or_none(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same, and a dash where there is nothing."""
    return lambda value: "-" if value is None else show(value)


PRESETS = (
    Column("name", "preset"),
    Column("arch", "architecture"),
    Column("params", "params", or_none(count)),
)
LOSS = {True: "yes", False: "no"}
HOLDS = {True: "reproduced", False: "not reproduced", None: "none printed"}
LAWS = (
    Column("law", "law"),
    Column("params_are", "its N"),
    Column("loss", "a loss"),
    Column("reproduces", "its own printed points"),
)
CLUSTERS = (
    Column("cluster", "cluster"),
    Column("device", "device"),
    Column("node", "node"),
    Column("inside_bytes_s", "inside GB/s", lambda rate: f"{rate / 1e9:,.4g}"),
    Column("outside_bytes_s", "outside GB/s", or_none(lambda rate: f"{rate / 1e9:,.3g}")),
)
TIERS = (
    Column("link", "link"),
    Column("devices", "joins"),
    Column("bytes_s", "GB/s", lambda rate: f"{rate / 1e9:,.4g}"),
    Column("reached", "reached", lambda share: f"{share:.0%}"),
    Column("step_s", "us a step", lambda seconds: f"{seconds * 1e6:.3g}"),
)
DEVICES = (
    Column("id", "id"),
    Column("device", "device", lambda name: name if len(name) <= 20 else f"{name[:18]}.."),
    Column("memory_bytes", "memory", memory),
    Column("bandwidth_bytes_s", "GB/s", lambda rate: f"{rate / 1e9:,.0f}"),
    Column("fp16_flop_s", "fp16 T", lambda rate: f"{rate / 1e12:,.0f}"),
    Column("bf16_flop_s", "bf16 T", or_none(lambda rate: f"{rate / 1e12:,.0f}")),
    Column("tdp_w", "W", or_none("{:,.0f}".format)),
    Column("usd_per_hour", "$/h", or_none("{:,.2f}".format)),
)
PRICED = (
    Column("id", "device"),
    *(
        Column(key, shown, "{:,.2f}".format)
        for key, shown in (("usd", "$/h"), ("low", "low"), ("high", "high"))
    ),
    Column("what", "what"),
)
PRICES = (
    Column("usd", "$/h", "{:,.2f}".format),
    *(Column(key, key) for key in ("kind", "provider", "date", "source")),
)
