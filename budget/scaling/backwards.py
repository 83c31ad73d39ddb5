"""Backwards from a budget: what to train on how much, how good it gets, how long it takes, what it costs.

The chain is compute = 6 x parameters x tokens = device-hours x peak x MFU, and dollars, energy and carbon are
device-hours times stated rates (runs/cost.py). A scaling law says which parameters and tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

from .. import law
from ..answer import Estimate
from ..checked import text
from ..cluster import usual
from ..device import Device, several
from ..errors import InputError, wrong
from ..estimate import as_device, estimate
from ..estimate import plan as layouts
from ..law import FLOPS, USUAL, Law
from ..layout import Layout
from ..layout import layout as parse_layout
from ..named import TYPE_CHECKING, Any
from ..quantity import COUNT, DAYS, KWH, PLAIN, SHARE, USD, read
from ..quantity import FLOPS as COMPUTE
from ..runs import cost
from ..runs.cost import Stated
from ..search.layouts import MOST
from .chain import Ask, Plan, batch_of, samples_of, sizes
from .shape import shape
from .utilisation import laid_out, one_device, whole_run

if TYPE_CHECKING:
    from ..search.best import Tried
    from .fitted import FittedLaw

SCHEMA = "budget.scale/1"
SPENT = {"compute": COMPUTE, "usd": USD, "kwh": KWH, "loss": PLAIN}  # with params or tokens, or without
UNITS = {**SPENT, "params": COUNT, "tokens": COUNT, "days": DAYS}
START = 0.4  # an MFU to begin with
ROUNDS = 5  # of finding an MFU of a shape whose size follows from the MFU
CLOSE = 0.1  # of a size: how near it must be to the size for which a layout was searched
FINE = 0.02  # of a size: how near to the largest one that a layout holds
MONTH = 30.0  # days: how long a run may take where nobody says


def scale(
    *,
    compute: Any = None,
    usd: Any = None,
    kwh: Any = None,
    loss: Any = None,
    devices: Any = None,
    days: Any = None,
    params: Any = None,
    tokens: Any = None,
    device: str | Device | None = "h100",
    dtype: str | None = "bf16",
    law: str | Law | FittedLaw | None = USUAL,
    mfu: Any = None,
    price: Any = None,
    power: Any = None,
    pue: Any = None,
    grid: Any = None,
    unique_tokens: Any = None,
    experts: Any = None,
    layout: Any = None,
    global_batch: Any = None,
) -> Plan:
    """What a budget buys: parameters, tokens, loss, days, dollars, kWh, carbon, a concrete network.

    The budget is one of compute (FLOPs), usd, kwh, loss (nats a token of the law's data), devices with days,
    params, or tokens. Beside another budget, params or tokens fixes the model's size or its data, and devices
    or days how the work is spread. Quantities are numbers, or text with units (`2 EFLOP`, `$1e6`, `30d`,
    `4M-tokens`).
    mfu: of 6 N D; the estimate's own where it is not given. layout: of the devices, as `tp=8,pp=4,dp=16`;
    where devices are given without one, the best of a small search. The MFU then includes communication,
    bubbles and failures, with global_batch tokens in a step. price, power, pue, grid: see cost.terms. law: a
    name (budget/data/laws), a file of `budget fit-law` or what budget.fit_law found. Raises InputError.
    """
    device, devices = several("h100" if device is None else device, devices)
    asked = {"compute": compute, "usd": usd, "kwh": kwh, "loss": loss}
    asked |= {"params": params, "tokens": tokens, "days": days}
    spread = None if layout is None else parse_layout(layout)
    more = {"unique": unique_tokens, "experts": experts}
    if experts is not None and read("experts", experts, COUNT) < 1:
        raise wrong("experts", experts, "from 1")
    on = as_device(device)
    return plan(
        Ask(
            given=_one_budget(_given(asked, devices, spread)),
            law=_law(USUAL if law is None else law),
            more={k: read(k, v, COUNT) for k, v in more.items() if v is not None},
            device=on,
            dtype="bf16" if dtype is None else text("dtype", dtype),
            terms=cost.terms(on, price, power, pue, grid),
            mfu=None if mfu is None else Stated(*(read("mfu", mfu, SHARE),) * 3, "your MFU"),
            layout=spread,
            batch=None if global_batch is None else read("global_batch", global_batch, COUNT),
        )
    )


def _given(asked: Mapping[str, Any], devices: Any, layout: Layout | None) -> dict[str, float]:
    """The given quantities as numbers, with the devices or those of the layout."""
    given = {k: read(k, v, UNITS[k]) for k, v in asked.items() if v is not None}
    given |= {"devices": _devices(devices)} if devices is not None else {}
    if layout is not None and given.setdefault("devices", layout.devices) != layout.devices:
        raise wrong("devices", devices, f"the layout's {layout.devices:,}")
    return given


def _devices(given: Any) -> float:
    not_whole = wrong("devices", given, f"whole numbers from 1 to {MOST:,}")
    try:
        count = read("devices", given, COUNT)
    except InputError:
        raise not_whole from None
    if count != int(count) or count > MOST:
        raise not_whole
    return count


def _law(given: str | Law | FittedLaw) -> Law:
    given = getattr(given, "law", given)
    chosen = given if isinstance(given, Law) else law.load(text("law", given))
    if not hasattr(chosen.form, "optimum"):
        raise InputError("law", f"{chosen.id} says nothing of an optimum; allowed: {', '.join(optimal())}")
    return chosen


def optimal() -> list[str]:
    """The laws that say where the optimum is."""
    return [x.id for x in law.every() if hasattr(x.form, "optimum")]


def _one_budget(given: dict[str, float]) -> dict[str, float]:
    """The given quantities, if they are one budget. Raises InputError."""
    spent = [k for k in SPENT if k in given]
    sizes = [k for k in ("params", "tokens") if k in given]
    both = "devices" in given and "days" in given
    if not spent and not sizes and not both:
        allowed = f"{', '.join(SPENT)}, params, tokens, or devices with days"
        raise InputError("plan", f"got no budget; allowed: one of {allowed}")
    if len(spent) > 1 or (spent and len(sizes) > 1):
        raise InputError("plan", f"got {' and '.join([*spent, *sizes])}; allowed: one of them")
    if both and (spent or len(sizes) > 1):
        other = spent[0] if spent else "params and tokens"
        raise InputError("plan", f"got {other}, and devices with days; allowed: one of the two")
    return given


def plan(ask: Ask) -> Plan:
    """The answer to a checked question."""
    if ask.mfu is not None:
        return _planned(ask, _network(ask, *sizes(ask, ask.mfu.value)), ask.mfu)
    if ask.layout is not None:
        return _settled(ask, laid_out)
    alone = _settled(ask, one_device)
    if alone.devices == 1:
        return alone
    return ("devices" in ask.given and _searched(ask)) or _settled(ask, whole_run)


def _searched(ask: Ask) -> Plan | None:
    """The plan on the best layout of a small search at about its size; None where no cluster of so many
    devices is known, or no layout divides them.
    """
    (params, tokens), plans = sizes(ask, START), list[Plan]()
    for _ in range(ROUNDS):
        try:
            best = _best(ask, params, tokens)
        except InputError as error:
            if error.field in ("cluster", "devices"):
                break
            raise
        plans.append(_on_layout(ask, best, params))
        if abs(plans[-1].params / params - 1) < CLOSE:
            break  # the same layout is the best of this size, too
        params, tokens = plans[-1].params, plans[-1].tokens
    return max(plans, key=lambda plan: (plan.network.fits, plan.mfu.value), default=None)


def _on_layout(ask: Ask, best: Tried, params: float) -> Plan:
    """The plan on a layout that is the best one of so many parameters: of what its MFU leads to, or where
    memory does not hold that, of the most that it holds.
    """
    on = ask._replace(layout=best.layout, step={"batch": best.batch, "recompute": best.recompute})
    assert best.estimate is not None  # the best one has been priced
    try:
        settled = _settled(on, laid_out)
    except InputError:  # what divides this size may not divide the one that its MFU leads to
        return _planned(on, best.estimate, laid_out(best.estimate))
    if settled.network.fits or not best.estimate.fits or settled.params <= params or "tokens" in ask.given:
        return settled
    return _held(on, best.estimate, params, settled)


def _held(on: Ask, fits: Estimate, params: float, larger: Plan) -> Plan:
    """The plan of the largest network that the layout holds, between one that fits and one that does not."""
    found, too_many = fits, larger.params
    while too_many / params - 1 > FINE:
        size = (params * too_many) ** 0.5
        try:
            one = _network(on, size, larger.compute / FLOPS / size)
        except InputError:  # what divides the others may not divide this one
            break
        if one.fits:
            params, found = size, one
        else:
            too_many = size
    return _planned(on._replace(most=params), found, laid_out(found))


def _best(ask: Ask, params: float, tokens: float) -> Tried:
    """The best layout of a network of this size on the devices that are given. Raises InputError."""
    network = shape(params)
    batch = f"{batch_of(ask, FLOPS * params * tokens):.0f}-tokens"
    return layouts(
        network.preset,
        int(ask.given["devices"]),
        config=network.config,
        dtype=ask.dtype,
        device=ask.device,
        global_batch=batch,
    ).best


def _settled(ask: Ask, mfu_of: Callable[[Estimate], Stated]) -> Plan:
    """The plan whose network has the MFU from which its size follows."""
    network = _network(ask, *sizes(ask, START))
    for _ in range(ROUNDS):
        again = _network(ask, *sizes(ask, mfu_of(network).value))
        if again.model.config == network.model.config:
            break
        network = again
    return _planned(ask, network, mfu_of(network))


def _planned(ask: Ask, network: Estimate, mfu: Stated) -> Plan:
    first = Plan(ask, *sizes(ask, mfu.value), network, mfu, 1)
    return Plan(*first[:-1], _spread(first))


def _network(ask: Ask, params: float, tokens: float) -> Estimate:
    """A training step of a network of this size: of one sequence, or of the batch on the layout."""
    network = shape(params, 1 if ask.layout is None else ask.layout.tp)
    settings: dict[str, Any] = {"config": network.config, "dtype": ask.dtype, "device": ask.device}
    one = estimate(network.preset, batch=1, **settings)
    if ask.layout is None:
        return one
    samples = samples_of(ask, one, FLOPS * params * tokens)
    return estimate(network.preset, layout=ask.layout, global_batch=samples, **settings, **ask.step)


def _spread(alone: Plan) -> int:
    """The number of devices: as given, or enough to finish in time and to hold the network, in whole nodes or
    in a power of two within one.
    """
    given = alone.ask.given
    if "devices" in given:
        return int(given["devices"])
    in_time = ceil(alone.device_hours / 24 / given.get("days", MONTH) * (1 - 1e-12))
    count, node = max(1, in_time, alone.holding), _node(alone.ask.device)
    return ceil(count / node) * node if count > node else min(node, 1 << (count - 1).bit_length())


def _node(device: Device) -> int:
    """Devices of a node in which this one is sold; 1 where no links between them are known."""
    try:
        return usual(device).node
    except InputError:
        return 1
