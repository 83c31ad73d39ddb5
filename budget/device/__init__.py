"""Devices: what the arithmetic runs on, from datasheets (data/devices) or detected on this machine.

Peaks are dense rates: what a datasheet prints "with sparsity" is twice as much and is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from .. import table
from ..dtype import short_name
from ..errors import InputError, unknown
from ..named import Any, NamedTuple
from ..stack import HERE
from . import clock, modes

# Memories and caches are sold in binary units: an "80 GB" GPU has 80 x 2^30 bytes of chips, of which
# its driver shows 79.6 (H100) to 80 (A100), and 15/16 where the ECC lives in the same chips (T4, A10,
# L4, L40S), and of a B300's 288 GB 268.6 GiB. Sources: modal-gpu-memory, driver-memory. The data says it
# as `visible_mib` where it is known. B200's 7.7 TB/s: torchao reads them. Source: torchao-b200.
GIB, MIB = 2**30, 2**20

# The format that is used instead of one without a stated rate, and the fraction of its rate.
# Quantized operands are widened. Float32 on a TPU is six bfloat16 passes. Source: jax-precision.
# A TPU's vector unit does 8 x 128 lanes x 4 additions a cycle and core, with two cores at 1.75 GHz
# 14 TFLOP/s to the matrix unit's 459 (v5p; the clock is recalled). Source: scaling-book-tpus.
INSTEAD = {
    "fp4": ("fp8", 1.0),
    "fp8": ("fp16", 1.0),
    "int4": ("fp16", 1.0),
    "int8": ("fp16", 1.0),
    "fp16": ("bf16", 1.0),
    "bf16": ("fp32", 1.0),
    "tf32": ("fp32", 1.0),
    "fp32": ("bf16", 1 / 6),
    "vector": ("bf16", 1 / 32),
}
NARROW = ("bf16", "fp16", "fp8")  # formats that devices have or lack
# The median over the devices of which somebody measured it in bf16 (`measured_bf16_tflops`). Derived.
REACHED = 0.795


class Link(NamedTuple):
    """A way between devices; bandwidth in bytes/s, in one direction, for each device."""

    name: str
    bandwidth: float


class Device(NamedTuple):
    """One accelerator, or this machine's processor. None: the source does not state it.

    memory_bytes: as sold, binary. usable_bytes: what the driver shows of it, where that is known.
    bandwidth: bytes/s of the device's memory. l2_bytes: the last cache on the chip.
    flops: dense peaks in FLOP/s by format (fp64 fp32 tf32 bf16 fp16 fp8 int8 fp4), and `vector`,
    float32 without tensor units, for pointwise work. `rate` fills the gaps.
    measured: matrix products as someone measured them, FLOP/s by format.
    intra, inter: the link to the devices of the same node, and the network card to other nodes.
    hertz: the clock at which its ordinary units have their rate, where their number is known.
    usd_per_hour: a low and a high price in clouds.
    provenance: where the rates come from, and uncertainty: the factor by which they may be off.
    """

    id: str
    name: str
    vendor: str
    year: int | None
    memory_bytes: int
    usable_bytes: int
    memory: str
    bandwidth: float
    flops: Mapping[str, float]
    measured: Mapping[str, float]
    sms: int | None
    l2_bytes: int | None
    tdp_w: float | None
    intra: Link | None
    inter: Link | None
    usd_per_hour: tuple[float, float] | None
    hertz: float | None
    source: str
    confidence: str
    provenance: str
    uncertainty: float
    notes: str
    # Its architecture's name: sm90, gfx942, tpu, apple9 (Source: metal-families); kernels are chosen by it.
    generation: str = ""
    host: Link | None = None  # to the host's memory; its own bandwidth where the two share one memory
    shipped: str = ""  # the device that it is in another power mode, where it is shipped in that one
    modes: str = ""  # what is assumed of its power: the mode, a notebook's watts
    highest: float | None = None  # hertz to which notebooks set it, whose rates are those of the least

    def rate(self, dtype: str) -> float:
        """Peak FLOP/s in a format (`bf16`, `bfloat16`, `vector`), or of what computes it instead.

        Raises InputError for a format that nothing on the device computes.
        """
        key, fraction = self._computes(dtype)
        return self.flops[key] * fraction

    def _computes(self, dtype: str) -> tuple[str, float]:
        """The format with a stated rate that computes another one, and the fraction of its rate."""
        key, fraction = short_name(dtype), 1.0
        for _ in range(len(INSTEAD) + 1):  # a bound, as bf16 and fp32 stand in for each other
            if key in self.flops:
                return key, fraction
            key, part = INSTEAD.get(key, (key, 1.0))
            fraction *= part
        known = ", ".join(self.flops)
        raise InputError("dtype", f"{self.name} states no rate for {dtype[:40]}; known: {known}")

    @property
    def usual_dtype(self) -> str:
        """What networks run in where nobody says: bf16, else fp16, or fp32 where that is faster."""
        if "bf16" in self.flops:
            return "bf16"
        return "fp16" if self.flops.get("fp16", 0) >= self.flops["fp32"] else "fp32"

    def has(self, dtype: str) -> bool:
        """Whether it computes bf16, fp16 or fp8 itself; where rates are assumed, nobody knows."""
        key = short_name(dtype)
        return key not in NARROW or key in self.flops or self.confidence == "assumed"

    def lacks(self, dtype: str) -> str:
        """What a narrow format that it does not have is computed in, in one line; empty where it has it."""
        if self.has(dtype):
            return ""
        key, instead = short_name(dtype), self._computes(dtype)[0]
        usual = "" if instead == self.usual_dtype else f"; --dtype {self.usual_dtype} is its own"
        return f"{self.name} has no {key}: computed at the rate of {instead}{usual}"

    def reached(self, dtype: str) -> float:
        """The fraction of the peak rate that large products were measured to reach, in this format or in the
        nearest one that was measured; the usual fraction if none was. What runs without tensor units is
        taken to reach its peak.
        """
        if self.rate(dtype) == self.rate("vector"):
            return 1.0
        wide = short_name(dtype) not in ("fp8", "int8", "fp4")
        for key in ("bf16",) if wide else ("fp8", "bf16"):
            if key in self.measured and key in self.flops:
                return self.measured[key] / self.flops[key]
        return REACHED


def names() -> tuple[str, ...]:
    """The ids of all devices in the data, sorted."""
    return table.files("devices")


def several(name: Any, devices: Any) -> tuple[Any, Any]:
    """A device's name and how many are meant, which the name may say: `2x h100`. Raises InputError."""
    if not isinstance(name, str) or name in ("auto", "cpu") or _plain(name):
        return name, devices
    from . import spelled

    return spelled.several(name[:80], devices)


def _plain(name: str) -> bool:
    """Whether a name can say nothing but which device: an id, or a file."""
    return name.endswith(".json") or table.has("devices", name)


def load(name: str) -> Device:
    """A device by its id, an alias or the name that its driver shows; `auto` or `cpu`: this machine; or by
    the path of a file of one's own.

    Raises InputError with the nearest known name.
    """
    if name.endswith(".json"):
        from . import own

        return _device(*own.read(name))
    device = _load(name)
    return device._replace(flops=dict(device.flops), measured=dict(device.measured))


@cache
def _load(name: str) -> Device:
    if name == "auto":
        return detect()
    if name == "cpu":
        return cpu()
    if (device := find(name)) is None:
        from . import spelled

        if hint := spelled.near(name[:80]):
            raise InputError("device", f"unknown name {name[:60]!r}; {hint}")
        choices = [*names(), *spelled.aliases(), "auto", "cpu"]
        raise unknown("device", name, choices, "`budget list devices` has the names")
    return device


def find(name: str) -> Device | None:
    """A device of the data by its id, an alias or the name that its driver shows, or None."""
    if table.has("devices", name):  # an id as it is; other spellings take the tables of all
        return _device(name, table.load("devices", f"{name}.json"))
    from . import spelled

    found = spelled.find(name[:80])
    return _device(*found) if found else None


def detect() -> Device:
    """This machine: its GPU or Apple chip where the data has it, otherwise its processor.

    Raises InputError for a GPU that the data does not have: its processor would be no answer.
    """
    from . import machine, spelled

    gpu = machine.gpu()
    if gpu is None:
        chip, gb = machine.processor(), round(machine.facts().memory_bytes / GIB)
        found = spelled.find(f"{chip} {gb}GB") or spelled.find(chip)
        return _device(*found) if found else cpu()
    name, memory = gpu
    try:
        board = load(name)
    except InputError as error:
        raise InputError("device", f"no data on this machine's {name[:80]!r}: {error}") from None
    board = find(f"{board.id}-gcd") or board  # of a board of two dies a driver shows one
    return board._replace(usable_bytes=memory, provenance="datasheet; memory as the driver shows it")


def cpu() -> Device:
    """This machine's processor, at cores x clock x width of its vector units: an upper bound.

    What a core does in a cycle is what processors with its instructions usually do.
    Source: peak-flops-per-cycle. Memory: 10 GB/s a core, at most eight channels of DDR4-2400
    (154 GB/s); assumed. Hence the wide uncertainty.
    """
    from . import machine

    facts = machine.facts()
    peak = facts.cores * facts.hertz * facts.flops_per_cycle
    unit = f"{facts.flops_per_cycle} FLOPs a cycle ({facts.vector_unit})"
    return Device(
        id="cpu",
        name=f"{facts.processor}, {facts.cores} core{'s' * (facts.cores > 1)}",
        vendor=HERE,
        year=None,
        memory_bytes=facts.memory_bytes,
        usable_bytes=facts.memory_bytes,
        memory="RAM",
        bandwidth=min(10e9 * facts.cores, 154e9),
        flops={"fp64": peak / 2, "fp32": peak, "vector": peak},
        measured={},
        sms=facts.cores,
        l2_bytes=None,
        tdp_w=None,
        intra=None,
        inter=None,
        usd_per_hour=None,
        hertz=facts.hertz,
        source="peak-flops-per-cycle",
        confidence="assumed",
        provenance=f"assumed: {facts.cores} x {facts.hertz / 1e9:.2g} GHz x {unit}, 10 GB/s a core",
        uncertainty=4.0,
        notes="rates are upper bounds that few programs reach",
    )


def _device(device: str, t: Mapping[str, Any]) -> Device:
    """A device from its table."""
    rates = {key.partition("_")[0]: t[key] * 1e12 for key in t if key.partition("_")[2] in ("tflops", "tops")}
    if "fp32" in rates:
        rates["vector"] = rates["fp32"]
    memory = round(t["memory_gb"] * GIB)
    shipped, assumed = modes.assumed(device, t)
    return Device(
        id=device,
        name=t["name"],
        vendor=t["vendor"],
        year=t["year"],
        memory_bytes=memory,
        usable_bytes=t["visible_mib"] * MIB if "visible_mib" in t else memory,
        memory=t["memory"],
        bandwidth=t["bandwidth_gb_s"] * 1e9,
        flops=rates,
        measured={k.split("_")[1]: t[k] * 1e12 for k in t if k.startswith("measured_")},
        sms=t.get("sms"),
        l2_bytes=round(t["l2_mb"] * MIB) if "l2_mb" in t else None,
        tdp_w=t.get("tdp_w"),
        intra=Link(t["link"], t["link_gb_s"] * 1e9) if "link_gb_s" in t else None,
        inter=Link("network card", t["nic_gbit_s"] * 1e9 / 8) if "nic_gbit_s" in t else None,
        usd_per_hour=tuple(t["usd_per_hour"]) if "usd_per_hour" in t else None,
        hertz=clock.hertz(t),
        source=t["source"],
        confidence=t["confidence"],
        provenance="datasheet",
        uncertainty=1.0,
        notes=t.get("notes", ""),
        generation=t.get("generation", ""),
        host=Link(t["host"], t["host_gb_s"] * 1e9) if "host_gb_s" in t else None,
        shipped=shipped,
        modes=assumed,
        highest=t["up_to_mhz"] * 1e6 if "up_to_mhz" in t else None,
    )
