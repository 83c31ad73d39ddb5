"""A plan as an Answer: what to train, the loss it reaches, what it costs, and the source of each number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..named import Any
from ..runs import cost
from ..scaling import alternatives
from ..scaling.backwards import MONTH, SCHEMA
from ..scaling.chain import Plan
from ._alternatives import Extra, inputs, rests_on, tables
from ._answer import Answer
from ._frontier import picture
from ._summary import degrees, describe, shorten
from ._units import count, decimal, energy, mass, memory, seconds, times, usd


def answer(plan: Plan, extra: Extra | None = None) -> Answer:
    """A plan for every format."""
    more = extra or Extra()
    return Answer(
        data=lambda: data(plan, more),
        records=lambda: inputs(plan),
        text=lambda: "\n".join(line.rstrip() for line in _text(plan)),
        tables=lambda: [t for t in tables(plan, more) if t.rows],
        foot="\n".join(_foot(plan, more)),
        pictures=lambda: (picture(plan),),
    )


def data(plan: Plan, extra: Extra | None = None) -> dict[str, Any]:
    """The JSON object."""
    ask, bill, more, hours = plan.ask, plan.bill, extra or Extra(), plan.hours_ends
    days = hours and tuple(h / 24 / plan.devices for h in hours)
    return {
        "schema": SCHEMA,
        "asked": dict(ask.given),
        "params": plan.params,
        **_ends("params", plan.ends("params")),
        "tokens": plan.tokens,
        **_ends("tokens", plan.ends("tokens")),
        "tokens_per_param": plan.tokens / plan.params,
        "compute_flops": plan.compute,
        **_ends("compute_flops", plan.compute_ends),
        "loss": plan.loss,
        **_ends("loss", plan.loss_ends),
        "batch_tokens": plan.batch,
        "steps": plan.tokens / plan.batch,
        "learning_rate": plan.learning_rate,
        "days": plan.days,
        **_ends("days", days),
        "devices": plan.devices,
        "layout": None if ask.layout is None else vars(ask.layout),
        "micro_batch": plan.network.task.workload.batch,
        "recompute": plan.network.task.recompute,
        "device": ask.device.name,
        "mfu": plan.mfu.value,
        "mfu_low": plan.mfu.low,
        "mfu_high": plan.mfu.high,
        **bill._asdict(),
        **_ends("device_hours", hours),
        "law": ask.law.id,
        "extrapolated": None if plan.outside is None else bool(plan.outside),
        "beyond": alternatives.beyond(ask.law, plan.params, plan.tokens),
        "model": _model(plan),
        "inputs": {k: v._asdict() for k, v in rests_on(plan)},
        "over_training": [x._asdict() for x in alternatives.smaller(plan)],
        "laws": [x._asdict() for x in alternatives.others(plan)],
        **_asked(plan, more),
        "uncounted": list(cost.UNCOUNTED),
    }


def _ends(name: str, ends: Sequence[float] | None) -> dict[str, float | None]:
    """The keys of an interval; null where nothing is known of it."""
    low, high = ends or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _asked(plan: Plan, extra: Extra) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if extra.unique is not None:
        given["repeated"] = alternatives.repeated(plan, extra.unique)._asdict()
    if extra.inference is not None:
        given["inference"] = [x._asdict() for x in alternatives.served(plan, extra.inference)]
    if extra.experts is not None:
        given["mixtures"] = [x._asdict() for x in alternatives.mixtures(plan, extra.experts)]
    return given


def _model(plan: Plan) -> dict[str, Any]:
    e = plan.network
    names = ("layers", "d_model", "heads", "kv_heads", "d_ff", "vocab")
    return {
        "params": e.params.total,
        **{k: e.model.config[k] for k in names},
        "seq": e.length,
        "flops_per_token": (e.flops.forward + e.flops.backward) / e.model.tokens,
        "state_bytes": plan.state_bytes,
    }


def _text(plan: Plan) -> Iterator[str]:
    ask = plan.ask
    asked = ", ".join(f"{SHOWN[k][0]} {SHOWN[k][1](v)}".strip() for k, v in ask.given.items())
    yield shorten(f"plan        {asked} on {ask.device.name}", 79)
    yield ""
    e, ratio = plan.network, plan.tokens / plan.params
    params = f"{count(plan.params)} parameters{_between(plan.ends('params'), count)}"
    tokens = f"{count(plan.tokens)} tokens{_between(plan.ends('tokens'), count)}"
    flops = f"{plan.compute:.3g} FLOPs{_between(plan.compute_ends, '{:.3g}'.format)}, as 6 N D"
    yield f"train       {params} on {tokens}, {times(ratio)} a parameter; {flops}"
    yield from _loss(plan)
    batch_of = "your batch" if ask.batch else "DeepSeek LLM's law, the batch to a power of two"
    yield (
        f"step        {count(plan.batch)} tokens, {plan.batch // e.length:,} sequences: "
        f"{plan.tokens / plan.batch:,.0f} steps; learning rate {plan.learning_rate:.2g} at most ({batch_of})"
    )
    yield f"network     {describe(e)}: {count(e.params.total)}"
    share = 6 * e.params.total * e.model.tokens / (e.flops.forward + e.flops.backward)
    yield (
        f"              counted with attention at {e.length:,} tokens: 6 N D is {share:.0%} of its FLOPs;"
        f" weights, gradients and optimizer {memory(plan.state_bytes)}{' a device' * (e.devices > 1)}"
    )
    if ask.layout is None and max(plan.devices, plan.holding) > 1:
        each = f"{memory(plan.state_bytes / plan.devices)} of {memory(e.device.usable_bytes)} a device"
        lays = f"--devices {plan.devices} lays them out"
        way = lays if plan.holding <= plan.devices else f"DOES NOT FIT: {plan.holding:,} devices hold them"
        where = "divided over all (zero=3)" if plan.devices > 1 else "on one device"
        yield f"              {where} {each}; {way}"
    if ask.layout is not None:
        verdict = "fits" if e.fits else "DOES NOT FIT"
        size = memory(e.device.usable_bytes)
        best = "; the best of a small search" if ask.step else ""
        if ask.most is not None:
            best += "; holds no larger network, so more of the budget goes to tokens"
        step = f"micro-batch {e.task.workload.batch}, recompute {e.task.recompute}"
        yield f"layout      {degrees(ask.layout)}; {step}{best}"
        yield f"              peak {memory(e.memory.peak)} of {size} a device: {verdict}"
    yield from _time(plan)
    yield from _money(plan)


def _loss(plan: Plan) -> Iterator[str]:
    if plan.loss is None:
        yield f"loss        {plan.ask.law.id} says nothing of it"
        return
    ends = plan.loss_ends
    interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    yield f"loss        {plan.loss:.3f}{interval} {plan.ask.law.about['loss_is']}; {_range(plan)}"


def _range(plan: Plan) -> str:
    outside, law = plan.outside, plan.ask.law
    if outside is None:
        return "the law's range is not stated"
    if not outside:
        return "within the law's runs"
    far = times(alternatives.beyond(law, plan.params, plan.tokens) or 1)
    return f"EXTRAPOLATED {far} x beyond the law's runs in {', '.join(outside)}"


def _between(ends: Sequence[Any] | None, show: Callable[[Any], str]) -> str:
    return f" ({show(ends[0])} to {show(ends[1])})" if ends else ""


def _apart(low: float | None, high: float | None) -> tuple[float, float] | None:
    return (low, high) if low is not None and high is not None and low < high else None


def _time(plan: Plan) -> Iterator[str]:
    ask, ends = plan.ask, plan.hours_ends
    days = ends and [h / 24 / plan.devices * 86400 for h in ends]
    mfu = f"MFU {plan.mfu.value:.1%}"
    if plan.mfu.low < plan.mfu.high:
        mfu += f" ({plan.mfu.low:.0%} to {plan.mfu.high:.0%})"
    paid = "price" if "usd" in ask.given else "power" if "kwh" in ask.given else ""
    took = seconds(plan.days * 86400) + ("" if paid else _between(days, seconds))
    days_asked = ask.given.get("days", MONTH)
    chosen = "devices" not in ask.given and plan.devices > 1
    late = plan.device_hours / 24 / days_asked > plan.holding - 1
    what = f"what finishes in {days_asked:,.3g} days" if late else "what holds the network"
    spread = f" ({what}, rounded up)" * chosen
    hours = f"{plan.device_hours:,.0f} device-hours{_between(ends, '{:,.0f}'.format)}"
    bought = f" by the {paid}" * bool(paid)
    whole = f"; {hours}{bought}" * (plan.devices > 1)
    yield f"time        {took} on {plan.devices:,} x {ask.device.name}{spread}{whole} at {mfu}"
    yield f"              {plan.mfu.what}"


def _money(plan: Plan) -> Iterator[str]:
    t, bill = plan.ask.terms, plan.bill
    if t.price is not None:
        ranges = t.price.low < t.price.high
        hourly = _between((t.price.low, t.price.high) if ranges else None, "{:,.3g}".format)
        ends = _between(_apart(bill.usd_low, bill.usd_high), usd)
        yield f"money       ${bill.usd:,.0f}{ends} at ${t.price.value:,.3g}{hourly} an hour: {t.price.what}"
    else:
        yield f"money       no price of {plan.ask.device.name} is known: --price"
    if bill.kwh is None or t.watts is None:
        yield f"energy      the power of {plan.ask.device.name} is not known: --power"
        return
    ranges = t.watts.low < t.watts.high
    all_in = f"; {energy(bill.kwh_all_in)} all-in, as provisioned" if bill.kwh_all_in else ""
    used = _between(_apart(bill.kwh_low, bill.kwh_high), energy)
    drawn = _between((t.watts.low, t.watts.high) if ranges else None, "{:,.0f}".format)
    yield (
        f"energy      {energy(bill.kwh)}{used} at {t.watts.value:,.0f}{drawn} W x PUE {t.pue.value:g}"
        f" ({t.watts.what}; {t.pue.what}){all_in}"
    )
    where = f"{t.grid.value:,.3g} g/kWh ({t.grid.what})"
    carbon = _between(_apart(bill.co2_kg_low, bill.co2_kg_high), mass)
    yield f"carbon      {mass(bill.co2_kg)}{carbon} CO2e at {where}; embodied not counted"


SHOWN: dict[str, Any] = {
    "compute": ("compute", lambda v: decimal(v, "FLOP") if v < 1e21 else f"{v:.3g} FLOP"),
    "usd": ("", usd),
    "kwh": ("", energy),
    "loss": ("loss", "{:g}".format),
    "params": ("parameters", count),
    "tokens": ("tokens", count),
    "devices": ("devices", "{:,.0f}".format),
    "days": ("days", "{:,.3g}".format),
}


def _foot(plan: Plan, extra: Extra) -> Iterator[str]:
    law = plan.ask.law
    if "note" in law.about:
        yield f"law         {law.id}: {law.about['name']}. {law.about['note']}"
    yield "            losses of different laws are of different data: compare sizes, not losses"
    if extra.inference is not None:
        users, cached = alternatives.USERS, alternatives.CACHED
        yield (
            f"served      {users} sequences decode at once with {cached:,} tokens each in the cache, on as"
            " many devices as hold them, communication between these not counted: budget serve has it"
        )
    if extra.unique is not None:
        yield "repeated    by Muennighoff et al.'s law (muennighoff), in nats a token"
    if extra.experts is not None:
        yield "experts     by Ludziejewski et al.'s law (ludziejewski)"
    yield f"not counted {', '.join(cost.UNCOUNTED)}"
