"""The tables beside a plan: what else its loss or its compute could be, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from textwrap import wrap

from .. import law
from ..named import Any, NamedTuple
from ..runs.cost import Stated
from ..scaling import alternatives
from ..scaling.chain import STEP, Plan
from ._answer import Column, Table
from ._units import count, decimal, times, usd


class Extra(NamedTuple):
    """What else was asked for: tokens of inference, unique tokens, experts. Not given: None."""

    inference: float | None = None
    unique: float | None = None
    experts: float | None = None


def tables(plan: Plan, extra: Extra) -> Iterator[Table]:
    """All of them, some of them empty."""
    smaller = [(x.params, x.tokens, x.tokens / x.params, x.more, x.usd) for x in alternatives.smaller(plan)]
    yield Table(SMALLER, smaller, "The same loss from fewer parameters")
    if extra.inference is not None:
        yield Table(SERVED, _served(plan, extra.inference), f"And {count(extra.inference)} tokens generated")
    if extra.unique is not None:
        yield Table(REPEATED, _repeated(plan, extra.unique), f"Of {count(extra.unique)} unique tokens")
    if extra.experts is not None:
        rows = [
            (str(x.experts), x.active, x.tokens, x.loss, x.dense and x.dense / plan.compute)
            for x in alternatives.mixtures(plan, extra.experts)
        ]
        yield Table(MIXTURES, rows, "Mixtures of experts, one of them active")
    yield Table(LAWS, [_other(x) for x in alternatives.others(plan)], "What the laws say of this compute")
    whole = inputs(plan)
    yield whole._replace(title="What it rests on", lines=lambda: list(_sources(whole)))


def _served(plan: Plan, tokens: float) -> list[Sequence[Any]]:
    points = alternatives.served(plan, tokens)
    cheapest = min((x.total_usd for x in points if x.total_usd is not None), default=None)
    return [
        (x.params, x.tokens, x.train_usd, x.devices, x.usd_per_million, x.total_usd, x.total_usd == cheapest)
        for x in points
    ]


def _sources(table: Table) -> Iterator[str]:
    yield f"{'rests on':<16}{'value':>10}{'low':>10}{'high':>10}  source"
    for name, value, low, high, _, source in table.cells():
        first, *more = wrap(source, 79 - 48, break_on_hyphens=False) or [""]
        ends = f"{low:>10}{high:>10}" if low != high else f"{'-':>10}{'-':>10}"  # nothing is known of them
        yield f"{name:<16}{value:>10}{ends}  {first}"
        yield from (f"{'':<48}{line}" for line in more)
    yield "sources: budget explain KEY; all prices: budget list prices DEVICE"


def _repeated(plan: Plan, unique: float) -> list[Sequence[Any]]:
    x = alternatives.repeated(plan, unique)
    return [
        ("this plan", plan.params, plan.tokens, x.epochs, x.worth, x.loss - x.loss_fresh),
        ("the best", x.best_params, x.best_tokens, x.best_tokens / unique, None, x.best_loss - x.loss_fresh),
    ]


def _other(x: alternatives.Other) -> Sequence[Any]:
    far = "not stated" if x.beyond is None else "within" if x.beyond <= 1 else f"{times(x.beyond)} x out"
    return (x.law, x.params, x.tokens, x.tokens / x.params, x.loss, far, x.params_are)


def _loss_shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


PARAMS, TOKENS = Column("params", "parameters", count), Column("tokens", "tokens", count)
EACH = Column("each", "each", times)
LOSS = Column("loss", "loss", _loss_shown)
SMALLER = (
    Column("params", "same loss from", count),
    TOKENS,
    EACH,
    Column("more", "compute", "{:.2f} x".format),
    Column("usd", "dollars", usd),
)
SERVED = (
    Column("params", "and served", count),
    TOKENS,
    Column("train_usd", "training", usd),
    Column("devices", "devices", "{:,}".format),
    Column("usd_per_million", "a million", usd),
    Column("total_usd", "in all", usd),
    Column("least", "", lambda least: "least" if least else ""),
)
REPEATED = (
    Column("what", "repeated data"),
    PARAMS,
    TOKENS,
    Column("epochs", "epochs", "{:.3g}".format),
    Column("worth", "worth fresh", lambda v: "" if v is None else count(v)),
    Column("lost", "loss more by", "{:+.4f}".format),
)
MIXTURES = (
    Column("experts", "experts"),
    Column("active", "active", count),
    TOKENS,
    LOSS,
    Column("dense", "as dense with", lambda v: "" if v is None else f"{v:.2f} x compute"),
)
LAWS = (Column("law", "law"), PARAMS, TOKENS, EACH, LOSS, Column("range", "its runs"), Column("n", "its N"))


def rests_on(plan: Plan) -> Iterator[tuple[str, Stated]]:
    """What the plan rests on, each with its ends and its source."""
    t, device, fitted = plan.ask.terms, plan.ask.device, plan.ask.law
    peak = device.rate(plan.ask.dtype)
    for name, value in fitted.constants.items():
        low, high = fitted.interval(partial(_constant, name)) or (value, value)
        yield name, Stated(value, low, high, f"the law {fitted.id}", _keys(fitted))
    if plan.ask.batch is None:
        steps = law.load(STEP)
        yield "batch_tokens", Stated(*(float(plan.batch),) * 3, steps.about["name"], _keys(steps))
    yield "mfu", plan.mfu
    yield "peak_flop_s", Stated(peak, peak, peak, f"{device.name}, {plan.ask.dtype}, dense", (device.source,))
    if t.price is not None:
        yield "usd_per_hour", t.price
    if t.watts is not None:
        yield "watts", t.watts
    if t.all_in_w is not None:
        yield "all_in_watts", t.all_in_w
    yield "pue", t.pue
    yield "g_co2e_per_kwh", t.grid


def _constant(name: str, fitted: law.Law) -> float:
    return fitted.constants[name]


def _keys(fitted: law.Law) -> tuple[str, ...]:
    return (fitted.about["source"],) if "source" in fitted.about else ()


def inputs(plan: Plan) -> Table:
    """The inputs as a table."""
    rows = [
        (name, x.value, x.low, x.high, x.what, ", ".join(x.source) or x.what) for name, x in rests_on(plan)
    ]
    columns = (
        Column("input", "input"),
        Column("value", "value", _short),
        Column("low", "low", _short),
        Column("high", "high", _short),
        Column("what", "what"),
        Column("source", "source"),
    )
    return Table(columns, rows)


def _short(value: float) -> str:
    return decimal(value) if value >= 1000 else f"{value:.3g}"
