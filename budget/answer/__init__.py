"""The result of an estimate: what was counted, and what follows from it, computed on demand."""

from __future__ import annotations

from functools import cached_property

from .. import arch as architectures
from ..config import Task
from ..device import Device
from ..device.kernel_class import Profile
from ..device.reserve import Reserve
from ..dtype import IN_FEW_BITS
from ..errors import InputError, shown, unknown
from ..fold.count import Flops, Params
from ..fold.memory import Memory, Walked, memory
from ..fold.throughput import Throughput, over, peak, throughput
from ..fold.time import Times, bound, by_kind, moved, time
from ..ir import Model
from ..named import TYPE_CHECKING, Any, NamedTuple
from ..plan import chosen, keeps_weights
from ..plan.fuse import attention
from ..plan.techniques import steps
from ..runs import cost
from ..runs.cost import Terms
from ..size import is_zero
from ..stack import Stack
from .face import Shown
from .held import Held, ranges
from .unsaid import interval

if TYPE_CHECKING:
    from ..cluster import Cluster
    from ..fold.step import Ran, Spread
    from ..runs.job import Job


TIMED = ("forward", "backward", "optimizer", "communication", "bubble", "overhead", "step")
LEAST = 0.5  # bytes of a weight: no setting stores one in fewer


class _Estimate(NamedTuple):
    task: Task
    device: Device
    stack: Stack
    reserve: Reserve
    profile: Profile
    model: Model
    program: Model
    params: Params
    flops: Flops  # the model's: attention in full, recomputation not counted
    hardware: Flops  # what the device computes, recomputation included
    walked: Walked
    spread: Spread | None = None  # over several devices
    cluster: Cluster | None = None  # that joins them
    terms: Terms | None = None  # what an hour costs, where it is not the usual
    job: Job | None = None  # a whole run, where one was asked for
    searched: int = 0  # of so many layouts that were tried this is the best one
    tried: tuple[Any, ...] = ()  # the first of them in order, as search/ has them


class Estimate(Shown, _Estimate):
    """What a network costs. Counts are exact; `times` is a prediction with an interval.

    Memory and time are computed on first access.
    """

    def __repr__(self) -> str:
        task, device = self.task, self.device.name
        batch = shown(task.workload.batch)
        return f"Estimate({self.model.name}, {task.workload.mode}, batch={batch}, {task.dtype}, {device})"

    def __dir__(self) -> list[str]:
        """What an answer has, without what tuples have and what it was made from."""
        return sorted({*super().__dir__()} - {"count", "index", "walked"})

    @property
    def memory(self) -> Memory:
        """Bytes on one device: of several, on the one that holds most."""
        return self.walked.memory if self.spread is None else self._most

    @cached_property
    def _most(self) -> Memory:
        return self.spread.most()  # type: ignore[union-attr] # there are several

    @cached_property
    def times(self) -> Times:
        """Seconds of one step or pass. Raises InputError where nothing runs."""
        if self.spread is not None:
            return self.spread.times(self.ran)
        found = time(self.program, self.device, self.profile, self.task.dtype, self.task.execution)
        if is_zero(found.step):
            raise InputError("module", "starts no kernel, it makes views alone; allowed: one that computes")
        return found

    @cached_property
    def ran(self) -> tuple[Ran, ...]:
        """On several devices, one of each different stage with its times and its communications."""
        if self.spread is None or self.cluster is None:
            return ()
        overlap, execution = self.stack.overlap, self.task.execution
        return self.spread.run(self.device, self.profile, self.cluster, overlap, execution)

    @cached_property
    def interval(self) -> tuple[Any, Any]:
        """The factors of a time within which nine of ten measured ones lie."""
        return interval(self)

    @property
    def devices(self) -> Any:
        """How many devices there are."""
        return 1 if self.spread is None else self.spread.layout.devices

    @property
    def fits(self) -> Any:
        """Whether what is needed fits the device's memory at the peak (an array of booleans for arrays)."""
        return self.needed <= self.device.usable_bytes

    @property
    def needed(self) -> Any:
        """Bytes of the device's memory without which the process fails; it may hold more."""
        return self._least + self.reserve.bytes

    @property
    def beyond_one(self) -> bool:
        """Whether one device is too small whatever the settings: its weights alone, in the fewest bits."""
        return self.spread is None and self.params.total * LEAST > self.device.usable_bytes

    @property
    def process(self) -> Any:
        """Bytes of the device's memory that the process holds at the peak: the tensors and the reserve."""
        return self.reserved + self.reserve.bytes

    @cached_property
    def reserved(self) -> Any:
        """Bytes that the allocator holds at the peak: the tensors, what is freed and cached, fragments."""
        return self._held.most(self._least)

    @property
    def in_turn(self) -> Any:
        """Bytes that the allocator holds where an array's elements are one program's steps, one after the
        other, as those of sequences whose lengths vary.
        """
        return self._held.in_turn()

    @cached_property
    def _least(self) -> Any:
        return self._held.least()

    @property
    def _held(self) -> Held:
        room = self.device.usable_bytes - self.reserve.bytes
        return Held(self.program, self.task, self.memory, self.spread, self.stack, self.reserve, room)

    @property
    def otherwise(self) -> tuple[str, Any] | None:
        """The precision that this training does not have, mixed or pure, and the peak bytes with it.

        None where there is no such choice: no training in 16 bits, adapters, a captured network.
        """
        task, used = self.task, self.task.techniques.used
        trained = task.workload.mode == "train" and task.dtype in ("bfloat16", "float16")
        own = self.model.config.get("captured") or task.packing or task.kept or task.precision in IN_FEW_BITS
        if not trained or own or self.spread or self.model.captured or keeps_weights(used):
            return None
        stacks = (self.stack.train or {}).get("precision", "pure")
        mixed = stacks if stacks in ("autocast", "master", "fsdp") else "autocast"
        other = mixed if task.precision == "pure" else "pure"
        changed = task._replace(techniques=chosen({**used, "precision": other}))
        try:
            return other, memory(steps(attention(self.model, changed), changed)[1], task.dtype).peak
        except InputError:  # another technique needs the precision that there is
            return None

    def cost(self) -> dict[str, Any]:
        """Cost at the median on-demand price, or at one's own (`priced`), energy at the device's TDP.

        None if the device's price or TDP is not known. Energy is an upper bound: few programs
        draw the full power all the time.
        """
        hours = self.times.step / 3600 * self.devices
        stated = self.terms.price if self.terms else cost.usd_per_hour(self.device)
        watts = self.terms.watts.value if self.terms and self.terms.watts else self.device.tdp_w
        price = stated and stated.value
        work = self.model.tokens if self.unit == "tokens" else self.model.samples
        return {
            "usd_per_hour": price,
            "price": stated and stated._asdict(),
            "usd_per_step": None if price is None else price * hours,
            "usd_per_million": None if price is None else price * hours / work * 1e6,
            "joules_per_step": None if watts is None else watts * hours * 3600,
        }

    def priced(
        self,
        *,
        tokens: Any = None,
        samples: Any = None,
        epochs: Any = None,
        price: Any = None,
        power: Any = None,
        pue: Any = None,
        grid: Any = None,
    ) -> Estimate:
        """The same estimate at one's own price, power, PUE or grid (cost.terms), and of a whole run.

        tokens, samples: of the run, times epochs; `job` then has its days, dollars, kWh. Raises InputError.
        """
        terms = cost.terms(self.device, price, power, pue, grid)
        from ..runs.job import job, work

        total = work(self.unit, self.length, tokens, samples, epochs)
        if total is None:
            return self._replace(terms=terms)
        m, t = self.model, self.seconds()
        per_step = m.tokens if self.unit == "tokens" else m.samples
        step = (t["step"], t["low"], t["high"])
        return self._replace(terms=terms, job=job(total, self.unit, per_step, step, self.devices, terms))

    @property
    def throughput(self) -> Throughput:
        """Samples, tokens and FLOPs per second, MFU and HFU."""
        m, t = self.model, self.times
        most = peak(t.kernels, self.profile.forms, self.device, self.task.dtype)
        rates = throughput(m.samples, m.tokens, self.flops, self.hardware, t.step, most)
        return rates if self.spread is None else over(self.devices, rates)

    @property
    def seq(self) -> Any:
        """Tokens, time steps or frames as asked (in decode those in the cache), or the usual ones."""
        usual = self.length if is_zero(self.model.cached) else self.model.cached
        return usual if is_zero(self.task.workload.seq) else self.task.workload.seq

    @property
    def length(self) -> Any:
        """Tokens, time steps or frames of one sample; 0 where samples have none."""
        return self.model.tokens // self.model.samples if self.model.counts_tokens else 0

    @property
    def unit(self) -> str:
        """What the network works through: tokens, images, or samples of another kind."""
        arch, tokens = self.model.arch, self.model.counts_tokens
        takes = architectures.takes_of(architectures.load(arch)) if arch in architectures.names() else ()
        if "image" in takes and "seq" not in takes:
            return "images"
        return "tokens" if tokens else "samples"

    @property
    def rate(self) -> tuple[Any, str]:
        """How many units of work a second, and the unit."""
        speed = self.throughput
        return speed.tokens_per_s if self.unit == "tokens" else speed.samples_per_s, self.unit

    @property
    def mbu(self) -> Any:
        """Bandwidth utilization: the bytes that kernels move, over what the device could in this time."""
        return moved(self.times) / (self.times.step * self.device.bandwidth)

    def rows(self, by: str = "operator") -> list[dict[str, Any]]:
        """A breakdown by operator, part of a layer, layer, moment of the memory's curve over time, or rank of
        a pipeline.

        Raises InputError.
        """
        if by == "moment":
            return [{"name": m.op, "phase": m.phase, "bytes": m.total} for m in self.memory.curve]
        if by == "rank" and self.spread is not None:
            return self.spread.rows(self.ran)
        from ..fold.rows import BY, rows  # not for a table

        if by not in BY:
            raise unknown("by", by, (*BY, "moment", "rank (with a layout)"))
        slow = () if self.spread is None else self.spread.slowest(self.ran)
        programs = [(r.rank.program, share) for r, share in slow] or [(self.program, 1)]
        table = rows(self.model, programs, self.times, by)
        return [{"name": name, **values} for name, values in table.items()]

    def seconds(self) -> dict[str, Any]:
        """The time by phase with its interval, and the fraction that each class of kernel takes."""
        t, (low, high) = self.times, self.interval
        return {
            **{name: getattr(t, name) for name in TIMED},
            "low": t.step * low,
            "high": t.step * high,
            "shares": by_kind(t),
            "bound": bound(t),
        }

    def sizes(self) -> dict[str, Any]:
        """Bytes at the peak that are allocated, reserved, and held by the process, each with its interval."""
        sizes = {"peak": self.memory.peak, "reserved": self.reserved, "process": self.process}
        for name, (low, high) in ranges(self.stack, self.task.workload.mode, sizes).items():
            sizes |= {f"{name}_low": low, f"{name}_high": high}
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, in plain numbers (lists for arrays). Keys include units and are never renamed."""
        data: dict[str, Any] = self._as("dict")
        return data
