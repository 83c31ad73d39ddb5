"""Several estimates side by side: common settings once, above a table of those that differ and of the
results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..answer import Estimate
from ..named import Any, NamedTuple
from ._answer import Answer, Column, Table
from ._summary import MODES, degrees, dtypes, techniques
from ._units import count, decimal, energy, memory, seconds, usd


class Figure(NamedTuple):
    """A column of a comparison, and what to say of it above the table where all estimates share it."""

    key: str
    heading: str
    get: Callable[[Estimate], Any]
    show: Callable[[Any], str] = str
    shared: Callable[[Any], str] = str

    @property
    def column(self) -> Column:
        """As a table has it."""
        return Column(self.key, self.heading, self.show)


def devices(e: Estimate) -> str:
    """A device's name, with how many there are of it."""
    return e.device.name if e.spread is None else f"{e.devices:,} x {e.device.name}"


def _size(value: float) -> str:
    return f"{value:,.0f}" if value else ""  # no size of this network


def _typed(layout: str | None) -> str:
    """A layout as --layout takes it, without spaces."""
    return (layout or "").replace(", ", ",")


NUMBER = "{:,.0f}".format
MODEL = Figure("model", "model", lambda e: e.model.name)
DEVICE = Figure("device", "device", devices, shared="on {}".format)
NAMED = DEVICE._replace(get=lambda e: e.device.name)
MANY = Figure("devices", "devices", lambda e: e.devices, NUMBER, "on {:,.0f} devices".format)
DTYPE = Figure("dtype", "dtype", lambda e: e.task.dtype)  # by its name, for scripts
ASKED = (
    Figure("params", "params", lambda e: e.params.total, count, lambda n: f"{count(n)} parameters"),
    Figure("mode", "mode", lambda e: e.task.workload.mode, shared=lambda mode: MODES.get(mode, mode)),
    Figure("batch", "batch", lambda e: e.task.workload.batch, NUMBER, "batch {:,.0f}".format),
    Figure("seq", "seq", lambda e: e.unit == "tokens" and e.seq, _size, "seq {:,.0f}".format),
    Figure("image", "image", lambda e: e.task.workload.image, _size, "images of {0:,.0f} x {0:,.0f}".format),
    Figure("sound", "sound", lambda e: e.task.workload.sound, NUMBER, "{:,.0f} s of sound".format),
    Figure("precision", "dtype", dtypes),
    Figure("optimizer", "optimizer", lambda e: e.task.optimizer if e.task.workload.mode == "train" else ""),
    Figure("recompute", "recompute", lambda e: e.task.recompute, shared="recompute {}".format),
    Figure("attention", "attention", lambda e: e.task.attention, shared="{} attention".format),
    Figure("techniques", "with", techniques),
    Figure("stack", "stack", lambda e: e.stack.name),
    DEVICE,
    Figure("layout", "layout", lambda e: e.spread and degrees(e.spread.layout), _typed, "{}".format),
    Figure(
        "step", "FLOP", lambda e: e.flops.forward + e.flops.backward, decimal, lambda n: decimal(n, "FLOP")
    ),
)
RUN = (
    Figure("days", "run", lambda e: e.job and e.job.seconds / 86400, lambda d: seconds(d * 86400)),
    Figure("usd", "dollars", lambda e: e.job and e.job.bill.usd, usd),
    Figure("kwh", "energy", lambda e: e.job and e.job.bill.kwh, energy),
)
DOLLARS = Figure("usd_per_million", "$/M", lambda e: e.cost()["usd_per_million"], usd)
SPEED = ("step", "peak", "rate", "MFU", "MBU", "usd_per_million")
FORWARD = Figure("forward", "forward", lambda e: e.flops.forward)
FOUND = (
    Figure("peak", "peak", lambda e: e.memory.peak, memory),
    Figure("fits", "fits", lambda e: e.fits, lambda fits: "yes" if fits else "no"),
    Figure("time", "time", lambda e: e.times.step, seconds),
)
RATE = Figure("rate", "rate", lambda e: e.rate[0], decimal)
EACH_RATE = Figure("rate", "rate", lambda e: e.rate, lambda rate: f"{decimal(rate[0])} {rate[1]}/s")
MFU = Figure("MFU", "MFU", lambda e: e.throughput.mfu, "{:.0%}".format)
MBU = Figure("MBU", "MBU", lambda e: e.mbu, "{:.0%}".format)  # of one token's products MFU says little
USUAL = ("none", "compiled", "sdpa", "flash")  # what goes without saying


def answer(estimates: Sequence[Estimate]) -> Answer:
    """The comparison, for every format."""
    return Answer(
        data=lambda: [e.to_dict() for e in estimates],
        records=lambda: _table(
            estimates, (MODEL, DTYPE, *ASKED, FORWARD, *FOUND, RATE, MFU, *_whole(estimates))
        ),
        text=lambda: heading(estimates),
        tables=lambda: (table(estimates),),
        foot="\n".join(filter(None, (f(estimates) for f in (knee, _within, _each, _narrowly)))),
        estimates=estimates,
    )


def heading(estimates: Sequence[Estimate]) -> str:
    """What all estimates share, in one line."""
    shared = [
        f
        for f in (MODEL, *_asked(estimates))
        if _same(f, estimates) and not (f is MODEL and _alone(estimates))
    ]
    values = [(f, value) for f in shared if (value := f.get(estimates[0])) and value not in USUAL]
    return ", ".join(f.shared(value) for f, value in values)


def apart(estimates: Sequence[Estimate]) -> Table:
    """What tells the estimates apart."""
    return _table(estimates, _apart(estimates))


def _apart(estimates: Sequence[Estimate]) -> list[Figure]:
    first = [MODEL] if _alone(estimates) or not _same(MODEL, estimates) else []
    return [*first, *(f for f in _asked(estimates) if not _same(f, estimates))]


def table(estimates: Sequence[Estimate]) -> Table:
    """What tells the estimates apart, and what was found of each."""
    units = {e.rate[1] for e in estimates}
    rate = RATE._replace(heading=f"{units.pop()}/s") if len(units) == 1 else EACH_RATE
    decodes = all(e.task.workload.mode == "decode" for e in estimates)
    columns = [*FOUND, rate, MBU if decodes else MFU]
    # Only for one model on several devices: beside models there is no room.
    if _same(MODEL, estimates) and not _same(DEVICE, estimates) and any(map(DOLLARS.get, estimates)):
        columns.append(DOLLARS)
    whole = _whole(estimates)
    fields = [
        f for f in (*_apart(estimates), *columns) if not whole or f.key not in SPEED
    ]  # there is room for either
    return _table(estimates, (*fields, *whole))


def _whole(estimates: Sequence[Estimate]) -> Sequence[Figure]:
    return RUN if all(e.job for e in estimates) else ()


def _alone(estimates: Sequence[Estimate]) -> bool:
    """Whether nothing that was asked differs: the model's name then begins the rows."""
    return all(_same(f, estimates) for f in ASKED)


def _same(figure: Figure, estimates: Sequence[Estimate]) -> bool:
    return len({figure.get(e) for e in estimates}) == 1


def _asked(estimates: Sequence[Estimate]) -> Sequence[Figure]:
    """What was asked, with the devices' number apart from their name where either is the same for all."""
    alone = all(e.spread is None for e in estimates)
    if alone or _same(DEVICE, estimates) or not (_same(MANY, estimates) or _same(NAMED, estimates)):
        return ASKED
    at = ASKED.index(DEVICE)
    return (*ASKED[:at], MANY, NAMED, *ASKED[at + 1 :])


def _table(estimates: Sequence[Estimate], figures: Sequence[Figure]) -> Table:
    return Table([f.column for f in figures], [[f.get(e) for f in figures] for e in estimates])


def _within(estimates: Sequence[Estimate]) -> str:
    """How long the whole runs may take, row by row."""
    jobs = [e.job for e in estimates if e.job]
    if len(jobs) < len(estimates):
        return ""
    ranges = "; ".join(f"{seconds(job.low)} to {seconds(job.high)}" for job in jobs)
    return f"by the intervals of their steps the runs take {ranges}"


def _each(estimates: Sequence[Estimate]) -> str:
    """Whose the batch is, where more devices train on more samples at once."""
    several = {e.model.samples: e for e in estimates if e.task.workload.mode == "train"}
    if _same(MANY, estimates) or len(several) < 2:
        return ""
    of_steps = ", ".join(f"{samples:,}" for samples in several)
    asked = any(
        "accumulate" in e.task.techniques.used for e in estimates
    )  # as a global batch is worked through
    same = "" if asked else " (the same: --global-batch)"
    return f"a batch is one replica's: steps are of {of_steps} samples{same}"


def _narrowly(estimates: Sequence[Estimate]) -> str:
    """Why a peak below the device's memory does not fit, where that is so."""
    if any(not e.fits and e.memory.peak <= e.device.usable_bytes for e in estimates):
        return "what must fit is the process, more than its tensors' peak: budget explain process"
    return ""


def knee(estimates: Sequence[Estimate]) -> str:
    """For one question at several batches, the smallest batch with nine tenths of the highest rate."""
    differ = [f.key for f in (MODEL, *ASKED) if not _same(f, estimates)]
    fit = [e for e in estimates if e.fits]
    if set(differ) - {"step"} != {"batch"} or not fit:
        return ""
    best = max(e.rate[0] for e in fit)
    enough = min((e for e in fit if e.rate[0] >= 0.9 * best), key=lambda e: e.task.workload.batch)
    rate = f"{decimal(best)} {enough.rate[1]}/s"
    return f"of what fits, batch {enough.task.workload.batch:,} reaches 90% of the highest rate, {rate}"
