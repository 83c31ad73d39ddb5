"""Alternatives to a plan: the same loss from smaller networks, repeated data, inference demand, experts,
other laws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from .. import law
from ..estimate import estimate
from ..law import FLOPS, Law, _search
from ..named import Any, NamedTuple
from .chain import Plan
from .shape import shape

SHARES = (1.0, 0.7, 0.5, 0.35, 0.25)  # of the plan's parameters
EXPERTS = (1, 2, 4, 8, 16, 32)  # Ludziejewski et al.'s own
USERS, CACHED = 64, 2048  # how decoding is priced: sequences at once, tokens in the cache; an example
MOST_TOKENS = 1e6  # times the plan's; more is out of reach


class Smaller(NamedTuple):
    """A network as good as the plan's, with fewer parameters. more: its compute over the plan's."""

    params: float
    tokens: float
    compute_flops: float
    more: float
    usd: float | None


class Served(NamedTuple):
    """A network as good as the plan's, trained and then used: dollars of both (None without a price)."""

    params: float
    tokens: float
    flops: float  # 6 N D + 2 N D_inference. Source: sardana-2023
    train_usd: float | None
    devices: int  # that hold it and its cache
    usd_per_million: float | None  # tokens that it generates
    total_usd: float | None


class Repeated(NamedTuple):
    """The plan's tokens where fewer are unique. worth: as many fresh tokens. best_*: for the same compute."""

    epochs: float
    worth: float
    loss: float
    loss_fresh: float
    best_params: float
    best_tokens: float
    best_loss: float


class Mixture(NamedTuple):
    """The best mixture for the plan's compute; dense: the compute that a dense network needs for its loss."""

    experts: int
    active: float
    tokens: float
    loss: float
    dense: float | None


class Other(NamedTuple):
    """A law's optimum for the plan's compute. beyond: the factor by which this exceeds the law's own runs."""

    law: str
    about: str
    params_are: str
    params: float
    tokens: float
    loss: float | None
    beyond: float | None
    reproduces: bool | None


def smaller(plan: Plan, shares: Sequence[float] = SHARES) -> Iterator[Smaller]:
    """Networks of the plan's loss with fewer parameters and more tokens; none where the law has no loss."""
    for share in shares:
        tokens = _tokens(plan, share)
        if tokens is None:
            return
        params = plan.params * share
        compute = FLOPS * params * tokens
        usd = plan.bill.usd
        more = compute / plan.compute
        yield Smaller(params, tokens, compute, more, None if usd is None else usd * more)


def _tokens(plan: Plan, share: float) -> float | None:
    """The tokens with which a network of a share of the parameters reaches the loss; None: it never does."""
    chosen, params = plan.ask.law, plan.params * share
    if plan.loss is None:
        return None
    if share == 1:
        return plan.tokens

    def loss(tokens: float) -> float:
        return chosen.loss(params, tokens, **plan.ask.more)

    return _search.crossing(loss, plan.loss, plan.tokens, plan.tokens * MOST_TOKENS)


def served(plan: Plan, tokens: float) -> list[Served]:
    """The networks of `smaller`, each with the price of generating so many tokens on the plan's device."""
    return [_served(plan, one, tokens) for one in smaller(plan)]


def _served(plan: Plan, one: Smaller, tokens: float) -> Served:
    price, size = plan.ask.terms.price, shape(one.params)
    step = estimate(
        size.preset, config=size.config, mode="decode", device=plan.ask.device, batch=USERS, seq=CACHED
    )
    hours = step.times.step / USERS / 3600  # of a device, for a token
    each = None if price is None else hours * price.value
    flops = one.compute_flops + 2 * one.params * tokens
    total = None if each is None or one.usd is None else one.usd + each * tokens
    held = ceil(step.memory.peak / step.device.usable_bytes)
    million = None if each is None else each * 1e6
    return Served(one.params, one.tokens, flops, one.usd, held, million, total)


def repeated(plan: Plan, unique: float) -> Repeated:
    """The effect of repeated data on the plan, by Muennighoff et al.'s law."""
    muennighoff = law.load("muennighoff")
    params, tokens = muennighoff.optimum(plan.compute, unique=unique)
    return Repeated(
        epochs=plan.tokens / min(unique, plan.tokens),
        worth=muennighoff.form.worth(muennighoff.constants, plan.tokens, unique),
        loss=muennighoff.loss(plan.params, plan.tokens, unique=unique),
        loss_fresh=muennighoff.loss(plan.params, plan.tokens),
        best_params=params,
        best_tokens=tokens,
        best_loss=muennighoff.loss(params, tokens, unique=unique),
    )


def mixtures(plan: Plan, most: float) -> Iterator[Mixture]:
    """The best mixtures of up to so many experts, one active, by Ludziejewski et al.'s law."""
    ludziejewski = law.load("ludziejewski")

    def dense(flops: float) -> float:
        return ludziejewski.loss(*ludziejewski.optimum(flops))

    for experts in (e for e in EXPERTS if e <= most):
        active, tokens = ludziejewski.optimum(plan.compute, experts=experts)
        loss = ludziejewski.loss(active, tokens, experts=experts)
        flops = _search.crossing(dense, loss, plan.compute * 0.999, plan.compute * 1e6)
        yield Mixture(experts, active, tokens, loss, flops)


def others(plan: Plan) -> Iterator[Other]:
    """Every law that has an optimum, for the plan's compute."""
    for other in law.every():
        if hasattr(other.form, "optimum"):
            params, tokens = other.optimum(plan.compute)
            loss = other.loss(params, tokens) if other.has_loss else None
            name, counted, holds = (other.about[k] for k in ("name", "params_are", "reproduces"))
            yield Other(other.id, name, counted, params, tokens, loss, beyond(other, params, tokens), holds)


def beyond(other: Law, params: float, tokens: float) -> float | None:
    """By what factor a run lies outside the law's own runs; 1 within them, None where none are stated."""
    ranges: Any = other.about.get("range")
    if not ranges:
        return None
    at = {"params": params, "tokens": tokens, "compute": FLOPS * params * tokens}
    return float(max(max(at[k] / high, low / at[k], 1.0) for k, (low, high) in ranges.items()))
