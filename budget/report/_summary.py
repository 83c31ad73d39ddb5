"""The summary of an estimate: parameters, FLOPs, memory with a bar per kind, time, cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..answer import Estimate
from ..errors import InputError
from ..named import TYPE_CHECKING, Any
from ..size import is_number, is_one, is_zero
from ._terminal import width
from ._trust import trust
from ._units import count, decimal, energy, mass, memory, seconds, usd

if TYPE_CHECKING:
    from ..layout import Layout
    from ..runs.job import Job

BAR = 32
WIDTH = 80
NOTED = 0.99  # goodput from which on failures are not worth a line
WAITS = 0.05  # of a step, from which on it is said that the device waits for the host
# Settings that the first line shows, if the architecture has them.
HEADLINE = (
    "kind", "cell", "sizes", "layers", "d_model", "heads", "hidden_size", "experts", "vocab", "classes",
)  # fmt: skip


BRIEF = {"bfloat16": "bf16", "float16": "fp16"}
# What training in 16 bits stores: autocast's and FSDP's weights are float32, master's have a float32 copy.
PRECISIONS = {
    "pure": "pure {}",
    "autocast": "{} + fp32 master",
    "master": "{} + fp32 master",
    "fsdp": "{} + fp32 master",
    "fp8": "fp8 + {}",
    "nvfp4": "nvfp4 + {}",
}
MODES = {"train": "training", "forward": "forward pass"}


def summary(estimate: Estimate) -> str:
    """Plain text of at most 80 columns. Raises InputError for an estimate of arrays."""
    if not is_number(estimate.times.step):
        raise InputError("format", "a table shows one case; allowed for arrays: json, csv")
    lines = [
        *_head(estimate),
        "",
        *_counts(estimate),
        *_memory(estimate),
        *_time(estimate),
        *trust(estimate),
    ]
    return "\n".join(line.rstrip() for line in fold(lines))


def fold(lines: Iterable[str]) -> list[str]:
    """Lines broken into what the terminal has room for: between their parts, or else between words."""
    folded, most = [], min(width(), WIDTH)
    for line in lines:
        rest = line
        while len(rest) > most:
            cut = max(rest.rfind("   ", 13, most), rest.rfind("; ", 13, most) + 1)
            cut = cut if cut > 13 else rest.rfind(" ", 14, most)
            cut = cut if cut > 14 else most  # one long word: a path
            folded.append(rest[:cut].rstrip())
            rest = " " * 14 + rest[cut:].lstrip()
        folded.append(rest)
    return folded


def shorten(text: str, width: int) -> str:
    """The text without its last comma-separated parts, so that it fits the width."""
    while len(text) > width and ", " in text:
        text = text.rpartition(", ")[0]
    return text[:width]


def describe(estimate: Estimate) -> str:
    """The network's main settings in one line."""
    config = estimate.model.config
    return ", ".join(_named(key, value) for key in HEADLINE if (value := config.get(key)))


def _named(key: str, value: Any) -> str:
    """A setting: words and lists of sizes without its name."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value) if isinstance(value, str) else f"{key} {f'{value:,}' if is_number(value) else value}"


def taken_for(e: Estimate) -> Iterator[str]:
    """A line where a network's weights run wider than they are published."""
    if e.task.published and e.task.workload.mode != "train" and "quantize" not in e.task.techniques.used:
        yield f"dtype       taken for {e.task.dtype}; published in few bits: {e.task.published}"


def _head(e: Estimate) -> Iterator[str]:
    total = count(e.params.total) + " parameters"
    what = f"{e.model.name}: {describe(e)}".removesuffix(": ")
    yield f"{shorten(what, 77 - len(total)):<{79 - len(total)}} {total}"
    yield workload(e)
    if shapes := e.model.config.get("inputs"):
        yield "inputs      " + ", ".join(f"{name} {'x'.join(map(str, n))}" for name, n in shapes.items())
    if lacking := e.device.lacks(e.task.dtype):
        yield f"dtype       {lacking}"
    yield from taken_for(e)
    if e.spread is not None:
        trains = e.task.workload.mode == "train"
        chosen = f"; micro-batch {e.task.workload.batch}" + f", recompute {e.task.recompute}" * trains
        best = f"{chosen}; the best of {e.searched} tried" if e.searched else ""
        micro = f"; {e.spread.micro:,} micro-batches" if e.spread.micro > 1 else ""
        yield f"layout      {degrees(e.spread.layout, trains=trains)}{micro}{best}"
    if used := techniques(e):
        yield f"with        {used}"


def workload(e: Estimate) -> str:
    """What is run, on what, in one line."""
    task = e.task
    tokens = f" x {e.length:,.0f} token{'s' * (e.length != 1)}" if e.model.counts_tokens else ""
    if not is_zero(e.model.cached):
        tokens = f", {e.model.cached:,.0f} tokens in the cache"
    mode = MODES.get(task.workload.mode, task.workload.mode)
    optimizer = f", {task.optimizer}" if task.workload.mode == "train" else ""
    batch, each = e.model.samples if e.spread else task.workload.batch, ""
    if task.workload.mode != "train" and batch != task.workload.batch:
        each = f" ({task.workload.batch:,.0f} a replica)"
    on = e.device.name if e.devices == 1 else f"{e.devices:,} x {e.device.name}"
    return f"{mode}: batch {batch:,.0f}{each}{tokens}, {dtypes(e)}{optimizer}, on {on}"


def degrees(layout: Layout, *, trains: bool = True) -> str:
    """A layout's settings that are not the usual ones of a run that trains, or serves: tp=8, pp=4."""
    unusual = {name: x for name, x in vars(layout).items() if x != layout.fields[name].default}
    if layout.sp or is_one(layout.tp) or not trains:
        unusual.pop("sp", None)
    return ", ".join(
        f"{k}={'+'.join(map(str, x)) if isinstance(x, tuple) else x}" for k, x in unusual.items()
    )


def dtypes(e: Estimate) -> str:
    """The dtype of the products, and in training that of what is stored."""
    name, task = BRIEF.get(e.task.dtype, ""), e.task
    if task.workload.mode != "train" or not name or e.model.captured:
        return task.dtype
    return PRECISIONS[task.precision].format(name)


def techniques(e: Estimate) -> str:
    """Its techniques and their values, but for what goes without saying: what the stack does anyway, and the
    micro-batches of a layout that was searched for.
    """
    w = e.task.workload
    usual = e.stack.settings(w.mode, e.task.recompute, e.task.precision, w.seq)
    if e.searched:
        usual = {**usual, "accumulate": e.task.techniques.used.get("accumulate")}
    return ", ".join(f"{k} {v}" for k, v in e.task.techniques.used.items() if usual.get(k) != v)


def where(op: str) -> str:
    """An operator's name in words: `d:` stands for its backward pass."""
    return f"backward of {op[2:]}" if op.startswith("d:") else op


def _counts(e: Estimate) -> Iterator[str]:
    f, h = e.flops, e.hardware
    less = not f.backward and h.forward < f.forward  # an engine's kernels need fewer than formulas count
    parts = [f"forward {decimal(h.forward if less else f.forward, 'FLOP')}"]
    if f.backward:
        parts += [
            f"backward {decimal(f.backward, 'FLOP')}",
            f"step {decimal(f.forward + f.backward, 'FLOP')}",
        ]
    yield "compute     " + "   ".join(parts)
    again = h.forward + h.backward - f.forward - f.backward
    rest = h.forward_pointwise + h.backward_pointwise + h.optimizer
    notes = [f"elementwise {decimal(rest, 'FLOP')}"]
    if less:
        notes.append(f"{decimal(f.forward, 'FLOP')} where keys and values of the cache are made anew")
    elif again:
        by = " by fused kernels" if e.task.recompute == "none" else ""
        notes.append(f"{f'recomputed{by}' if again > 0 else 'not run'} {decimal(abs(again), 'FLOP')}")
    yield "              " + "   ".join(notes)
    if e.params.active != e.params.total:
        yield f"              {count(e.params.active)} parameters active for a token"


def verdict(e: Estimate) -> str:
    """Whether it fits, and what is lacking."""
    return "fits" if e.fits else f"does not fit: {memory(e.process - e.device.usable_bytes)} too much"


def _memory(e: Estimate) -> Iterator[str]:
    m, fit = e.memory, verdict(e)
    head = f"memory      peak {memory(m.peak)} of {memory(e.device.usable_bytes)}, in {where(m.at)}"
    yield (f"{head:<{79 - len(fit)}} {fit}" if len(head) + len(fit) < 79 else f"{head}\n            {fit}")
    for kind, value in m.at_peak.items():
        bar = "#" * round(BAR * value / m.peak)
        if kind == "activations" and value < m.activations / 2:
            bar = f"{bar} ({memory(m.activations)} before the backward pass)".lstrip()
        if value or bar:
            yield f"              {kind:<12}{memory(value):>10}  {bar}"
    if e.process != m.peak:
        yield f"              process     {memory(e.process):>10}  {e.reserve.words}"
    sizes = e.sizes()
    ends = [
        f"{name}{memory(sizes[f'{size_of}_low'])} to {memory(sizes[f'{size_of}_high'])}"
        for size_of, name in (("peak", ""), ("process", "process "))[: 1 + (e.process != m.peak)]
    ]
    yield f"              range       {'; '.join(ends)}"
    if (other := e.otherwise) is not None:
        name, peak = other
        precision = PRECISIONS[name].format(BRIEF[e.task.dtype])
        yield f"              otherwise   {memory(peak):>10}  as {precision} (--precision {name})"


def _time(e: Estimate) -> Iterator[str]:
    t = e.times
    times, rate, cost = e.seconds(), e.throughput, e.cost()
    low, high = seconds(times["low"]), seconds(times["high"])
    speed, unit = e.rate
    what = "step" if e.flops.backward else "token" if e.task.workload.mode == "decode" else "pass"
    decodes = what == "token"  # its products are of few rows: what they compute says little
    used = f"MBU {e.mbu:.0%}" if decodes else f"MFU {rate.mfu:.1%}"
    yield f"time        {what} {seconds(t.step)} ({low} to {high})   {decimal(speed)} {unit}/s   {used}"
    if not is_zero(e.model.sound):
        yield f"              {decimal(rate.samples_per_s * e.model.sound)} x real time"
    if e.spread is not None and (beside := list(_beside(e))):
        yield "              " + "   ".join(beside)
    fractions = sorted(times["shares"].items(), key=lambda kv: -kv[1])
    parts = [f"{kind} {part:.0%}" for kind, part in fractions if part >= 0.005]
    if decodes:
        parts += [f"{times['bound']}-bound"]
        if e.device.confidence == "assumed":
            parts += [f"MBU is of {decimal(e.device.bandwidth, 'B')}/s, assumed"]
        elif e.mbu > 1:
            parts += ["MBU counts what caches hold, too"]
        parts += [f"{decimal(1 / t.step)} tokens/s a sequence"] if e.task.workload.batch > 1 else []
    elif rate.mfu > 1:
        parts += ["MFU counts masked pairs, too"]
    elif times["overhead"] >= WAITS * t.step:
        parts += [f"waits {times['overhead'] / t.step:.0%} for the host"]
    yield "              " + "   ".join(parts)
    words = []
    if cost["usd_per_million"] is not None:
        words.append(f"${cost['usd_per_million']:,.3g} a million {unit} at ${cost['usd_per_hour']:,.2f}/h")
    if cost["joules_per_step"] is not None:
        one = "pass" if e.task.workload.mode in ("forward", "prefill") else "step"
        words.append(f"energy at most {decimal(cost['joules_per_step'] * e.interval[1], 'J')} a {one}")
    if words:
        yield "cost        " + "   ".join(words)
    if e.job is not None:
        yield from _job(e.job)


def _job(job: Job) -> Iterator[str]:
    """A whole run, in two lines."""
    work = f"{count(job.work)} {job.unit}, {count(job.steps)} steps"
    ends = f"({seconds(job.low)} to {seconds(job.high)})"
    device = f"{job.devices:,} device{'s' * (job.devices > 1)}"
    yield f"whole run   {work}: {seconds(job.seconds)} {ends} on {device}"
    bill = job.bill
    hours = f"{bill.device_hours:,.0f}" if bill.device_hours >= 100 else f"{bill.device_hours:.3g}"
    words = [f"{hours} device-hours"]
    words += [usd(bill.usd), energy(bill.kwh), f"{mass(bill.co2_kg)} CO2e" if bill.co2_kg is not None else ""]
    yield "              " + "   ".join(filter(None, words))
    failing = job.failing
    if failing.fraction < NOTED:
        often = f"one in {seconds(failing.mtbf_s)} if devices fail as Llama 3's did"
        ends = "no end" if job.with_failures is None else seconds(job.with_failures)
        yield f"failures    {often}: goodput {failing.fraction:.0%}, {ends}"


def _beside(e: Estimate) -> Iterator[str]:
    """What of a step is no computing: what is waited for, by axis, and the pipeline's bubble."""
    waits: dict[str, float] = {}
    for r, share in e.spread.slowest(e.ran):  # type: ignore[union-attr] # there are several devices
        for c in r.communications:
            waits[c.what.axis] = waits.get(c.what.axis, 0.0) + c.exposed * share
    for what, s in {**waits, "bubble": e.times.bubble}.items():
        if s >= 0.0005 * e.times.step:
            yield f"{what} {s / e.times.step:.1%}{_unfilled(e) if what == 'bubble' else ''}"


def _unfilled(e: Estimate) -> str:
    """Why most of a pipeline waits: a step of training has fewer micro-batches than it has stages."""
    micro, stages = e.spread.micro, int(e.spread.layout.pp)  # type: ignore[union-attr] # there are several
    if e.task.workload.mode != "train" or micro >= stages:
        return ""
    batches = f"{micro:,} micro-batch{'es' * (micro > 1)}"
    return f" ({batches} in {stages} stages; --global-batch N has more)"
