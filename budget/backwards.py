"""Backwards from a budget: what to train on how much, how good it gets, how long it takes, what it costs.

The chain is compute = 6 x parameters x tokens = device-hours x peak x MFU, and dollars, energy and carbon are
device-hours times stated rates (cost.py). A scaling law says which parameters and tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from json import loads
from math import ceil

from . import cost, law
from .answer import Estimate
from .cost import Bill, Stated, Terms
from .device import Device
from .device import load as load_device
from .errors import InputError, shown
from .estimate import estimate
from .estimate import plan as layouts
from .face import Shown
from .law import FLOPS, Law, _search
from .layout import Layout
from .layout import layout as parse_layout
from .named import TYPE_CHECKING, Any, NamedTuple
from .quantity import COUNT, DAYS, KWH, SHARE, USD, read
from .quantity import FLOPS as COMPUTE
from .shape import shape
from .utilisation import laid_out, one_device, whole_run

if TYPE_CHECKING:
    from .search import Tried

SCHEMA = "budget.scale/1"
BUDGETS = {"compute": COMPUTE, "usd": USD, "kwh": KWH, "params": COUNT, "tokens": COUNT}
START = 0.4  # an MFU to begin with
ROUNDS = 5  # of finding an MFU of a shape whose size follows from the MFU
CLOSE = 0.02  # of a size: how near to it the one is for which a layout was searched
BATCH = 4e6  # tokens of a step where nobody says; an example
MONTH = 30.0  # days: how long a run may take where nobody says
MOST = 1e9  # devices
SIZES = (1e3, 1e20)  # between which parameters and tokens are searched


class Ask(NamedTuple):
    """A budget. given: what of compute, usd, kwh, params, tokens, devices and days, each in its unit."""

    given: Mapping[str, float]
    law: Law
    more: Mapping[str, float]  # what laws ask for: unique tokens, experts
    device: Device
    dtype: str
    terms: Terms
    mfu: Stated | None  # None: the estimate's own
    layout: Layout | None = None  # of the devices, where it is known
    batch: float = BATCH  # on several devices: tokens of a step of all
    step: Mapping[str, Any] = {}  # with a layout that was searched: its micro-batch and recomputation


class _Plan(NamedTuple):
    ask: Ask
    params: float
    tokens: float
    network: Estimate  # a training step of a concrete network of about this size
    mfu: Stated  # of 6 N D
    devices: int


class Plan(Shown, _Plan):
    """What a budget buys. The law is a fit, the MFU a prediction, a price one of many: all have intervals."""

    report = "_scale"

    def __repr__(self) -> str:
        return f"Plan({self.params:.3g} parameters, {self.tokens:.3g} tokens, {self.compute:.3g} FLOPs)"

    @property
    def compute(self) -> float:
        """FLOPs of training, as 6 N D."""
        return FLOPS * self.params * self.tokens

    @property
    def device_hours(self) -> float:
        """Hours of one device, at the MFU."""
        return self.compute / self.rate(self.mfu.value) / 3600

    def rate(self, mfu: float) -> float:
        """FLOPs a second of one device."""
        return self.ask.device.rate(self.ask.dtype) * mfu

    @property
    def days(self) -> float:
        """How long it takes on `devices`."""
        return self.device_hours / 24 / self.devices

    @property
    def bill(self) -> Bill:
        """Dollars, energy and carbon of training."""
        return cost.bill(self.ask.terms, self.device_hours)

    @property
    def loss(self) -> float | None:
        """Nats a token of the law's own data; None where the law has no loss."""
        found: float | None = self._loss(self.ask.law, self.params, self.tokens)
        return found

    @property
    def loss_ends(self) -> tuple[float, float] | None:
        """90 % of the law's bootstrap samples, at all of the MFU's ends where compute follows from it."""
        sizes = {self._at(mfu) for mfu in (self.mfu.low, self.mfu.value, self.mfu.high)}
        if not self.ask.law.has_loss:
            return None
        ends = [
            x for n, d in sizes for x in self.ask.law.interval(partial(self._loss, params=n, tokens=d)) or ()
        ]
        return (min(ends), max(ends)) if ends else None

    def _loss(self, of: Law, params: float, tokens: float) -> Any:
        return of.loss(params, tokens, **self.ask.more) if of.has_loss else None

    def _at(self, mfu: float) -> tuple[float, float]:
        return sizes(self.ask, mfu)

    @property
    def outside(self) -> list[str] | None:
        """In which of the law's ranges this is not; None where it states none."""
        return self.ask.law.outside(self.params, self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object. Keys may be added but are never renamed; they include units."""
        found: dict[str, Any] = loads(self._as("json"))
        return found


def scale(
    *,
    compute: Any = None,
    usd: Any = None,
    kwh: Any = None,
    devices: Any = None,
    days: Any = None,
    params: Any = None,
    tokens: Any = None,
    device: str | Device = "h100",
    dtype: str = "bf16",
    law: str = law.USUAL,
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

    One budget of compute (FLOPs), usd, kwh, devices with days, params or tokens. With a budget, params or
    tokens fixes that side of the model, and devices or days how it is spread. Quantities are numbers, or text
    with units (`2 EFLOP`, `$1e6`, `30d`, `4M-tokens`). mfu: of 6 N D; without it, the estimate's own.
    layout: of the devices, as `tp=8,pp=4,dp=16`; without one, where devices are given, the best of a small
    search. The MFU then has communication, bubbles and failures in it, with global_batch tokens in a step.
    price, power, pue, grid: see cost.terms. law: a name (budget/data/laws) or a file of `budget fit-law`.
    Raises InputError.
    """
    asked = {"compute": compute, "usd": usd, "kwh": kwh, "params": params, "tokens": tokens}
    given = {k: read(k, v, BUDGETS[k]) for k, v in asked.items() if v is not None}
    given |= {"days": read("days", days, DAYS)} if days is not None else {}
    given |= {"devices": _devices(devices)} if devices is not None else {}
    spread = None if layout is None else parse_layout(layout)
    if spread is not None and given.setdefault("devices", spread.devices) != spread.devices:
        raise InputError("devices", f"got {shown(devices)}; allowed: the layout's {spread.devices:,}")
    more = {"unique": unique_tokens, "experts": experts}
    if experts is not None and read("experts", experts, COUNT) < 1:
        raise InputError("experts", f"got {shown(experts)}; allowed: from 1")
    return plan(
        Ask(
            _one_budget(given),
            _law(law),
            {k: read(k, v, COUNT) for k, v in more.items() if v is not None},
            found := load_device(device) if isinstance(device, str) else device,
            dtype,
            cost.terms(found, price, power, pue, grid),
            None if mfu is None else Stated(*(read("mfu", mfu, SHARE),) * 3, "your MFU"),
            spread,
            BATCH if global_batch is None else read("global_batch", global_batch, COUNT),
        )
    )


def _devices(given: Any) -> float:
    count = read("devices", given, COUNT)
    if count != int(count) or count > MOST:
        raise InputError("devices", f"got {shown(given)}; allowed: whole numbers from 1 to {MOST:,.0f}")
    return count


def _law(name: str) -> Law:
    found = law.load(name)
    if not hasattr(found.form, "optimum"):
        raise InputError("law", f"{name} says nothing of an optimum; allowed: {', '.join(optimal())}")
    return found


def optimal() -> list[str]:
    """The laws that say where the optimum is."""
    return [x.id for x in law.every() if hasattr(x.form, "optimum")]


def _one_budget(given: dict[str, float]) -> dict[str, float]:
    """What was given, if it is one budget. Raises InputError."""
    spent = [k for k in ("compute", "usd", "kwh") if k in given]
    sizes = [k for k in ("params", "tokens") if k in given]
    both = "devices" in given and "days" in given
    if not spent and not sizes and not both:
        allowed = "compute, usd, kwh, params, tokens, or devices with days"
        raise InputError("budget", f"got none; allowed: one of {allowed}")
    if len(spent) > 1 or (spent and len(sizes) > 1):
        raise InputError("budget", f"got {' and '.join([*spent, *sizes])}; allowed: one of them")
    if both and (spent or len(sizes) > 1):
        raise InputError(
            "budget", f"devices with days is one, {spent[0] if spent else 'params and tokens'} another"
        )
    return given


def plan(ask: Ask) -> Plan:
    """The answer to a checked question."""
    if ask.mfu is not None:
        return _planned(ask, _network(ask, sizes(ask, ask.mfu.value)[0]), ask.mfu)
    if ask.layout is not None:
        return _settled(ask, laid_out)
    alone = _settled(ask, one_device)
    if alone.devices == 1:
        return alone
    return ("devices" in ask.given and _searched(ask)) or _settled(ask, whole_run)


def _searched(ask: Ask) -> Plan | None:
    """The plan on the best layout of a small search for about its size; None where nothing is known of what
    joins so many devices, or no layout divides them.
    """
    params, found = sizes(ask, START)[0], None
    for _ in range(ROUNDS):
        try:
            best = _best(ask, params)
        except InputError as error:
            if error.field in ("cluster", "devices"):
                return found
            raise
        on = ask._replace(layout=best.layout, step={"batch": best.batch, "recompute": best.recompute})
        assert best.estimate is not None  # the best one has been priced
        found = _planned(on, best.estimate, laid_out(best.estimate))
        with suppress(InputError):  # what divides this size may not divide the one that its MFU leads to
            found = _settled(on, laid_out)
        if abs(found.params / params - 1) < CLOSE:
            return found
        params = found.params
    return found


def _best(ask: Ask, params: float) -> Tried:
    """The best layout of a network of this size on the devices that are given. Raises InputError."""
    of = shape(params)
    batch = f"{ask.batch:.0f}-tokens"
    return layouts(
        of.preset,
        int(ask.given["devices"]),
        config=of.config,
        dtype=ask.dtype,
        device=ask.device,
        global_batch=batch,
    ).best


def _settled(ask: Ask, mfu_of: Callable[[Estimate], Stated]) -> Plan:
    """The plan whose network has the MFU that its size follows from."""
    network = _network(ask, sizes(ask, START)[0])
    for _ in range(ROUNDS):
        again = _network(ask, sizes(ask, mfu_of(network).value)[0])
        if again.model.config == network.model.config:
            break
        network = again
    return _planned(ask, network, mfu_of(network))


def _planned(ask: Ask, network: Estimate, mfu: Stated) -> Plan:
    found = Plan(ask, *sizes(ask, mfu.value), network, mfu, 1)
    return Plan(*found[:-1], _spread(ask, found.device_hours))


def _network(ask: Ask, params: float) -> Estimate:
    """A training step, of one sequence, of a network of this size."""
    found = shape(params, 1 if ask.layout is None else ask.layout.tp)
    settings: dict[str, Any] = {"config": found.config, "dtype": ask.dtype, "device": ask.device}
    one = estimate(found.preset, batch=1, **settings)
    if ask.layout is None:
        return one
    each = ask.layout.dp * ask.step.get("batch", 1) * (ask.layout.pp if ask.layout.vpp > 1 else 1)
    samples = max(1, round(ask.batch / one.length / each)) * each
    return estimate(found.preset, layout=ask.layout, global_batch=samples, **settings, **ask.step)


def _spread(ask: Ask, device_hours: float) -> int:
    """On how many devices: as given, or as many as finish in time."""
    if "devices" in ask.given:
        return int(ask.given["devices"])
    return max(1, ceil(device_hours / 24 / ask.given.get("days", MONTH) * (1 - 1e-12)))


def sizes(ask: Ask, mfu: float) -> tuple[float, float]:
    """(parameters, tokens) for the budget, where a device reaches this MFU."""
    given, flops = ask.given, _flops(ask, mfu)
    best: Callable[[float], tuple[float, float]] = partial(ask.law.optimum, **ask.more)
    if flops is not None:
        if "params" in given:
            return given["params"], flops / FLOPS / given["params"]
        return (flops / FLOPS / given["tokens"], given["tokens"]) if "tokens" in given else best(flops)
    if "params" in given and "tokens" in given:
        return given["params"], given["tokens"]
    side = 0 if "params" in given else 1
    target = given["params"] if side == 0 else given["tokens"]
    found = _search.crossing(lambda c: -best(c)[side], -target, SIZES[0], SIZES[1] ** 2)
    if found is None:
        raise InputError(
            "params" if side == 0 else "tokens", f"got {target:g}; no compute has its optimum there"
        )
    other = best(found)[1 - side]
    return (target, other) if side == 0 else (other, target)


def _flops(ask: Ask, mfu: float) -> float | None:
    """The compute of the budget; None where only sizes are given."""
    given, t = ask.given, ask.terms
    if "compute" in given:
        return given["compute"]
    if "usd" in given:
        hours = given["usd"] / _known(t.price, "price", ask).value
    elif "kwh" in given:
        hours = given["kwh"] / (_known(t.watts, "power", ask).value / 1000 * t.pue.value)
    elif "devices" in given and "days" in given:
        hours = given["devices"] * given["days"] * 24
    else:
        return None
    return hours * 3600 * ask.device.rate(ask.dtype) * mfu


def _known(stated: Stated | None, what: str, ask: Ask) -> Stated:
    if stated is None:
        raise InputError(what, f"none of {ask.device.name} is known; allowed: your own by --{what}")
    return stated
