"""Software stacks: what runs a network on a device, as data (data/stacks/, one file each).

A device's datasheet says what is possible; the software decides what of it is reached, which kernels are
chosen, what a launch costs and which dtypes the tensors have. Nobody runs "a model on a GPU": they run
transformers, Megatron or vLLM on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from .. import checked, files, table
from ..dtype import SHORT
from ..errors import InputError, unknown
from ..named import Any, NamedTuple
from ..size import Size, all_of, any_of
from ._fields import AllReduce as AllReduce
from ._fields import all_reduce, interval, one_of, tensor_units
from ._names import names as names
from ._names import spelled

AXES = ("dp", "tp", "pp", "ep", "cp")
# What a stack reaches, relative to data/kernels.json: the rate of products, on tensor units and on ordinary
# ones, and of attention, the bandwidth of matrices that are read once (stream), of experts among them, of
# weights of few bits that products widen (weight_only), and of all that is no product (pointwise). How long a
# kernel's start takes on the device (launch), and an operator's on the host, relative to
# data/profiles/datasheet.json; the same of an engine between two tokens (turn), and there of each
# sequence.
CLASSES = (
    "product", "ordinary", "attention", "stream", "experts", "weight_only", "pointwise", "launch", "host",
    "turn", "sequence",
)  # fmt: skip
BY_PRECISION = ("autocast", "fsdp", "master", "fp8", "nvfp4")
BESIDES = ("checkpointed", "decode", *BY_PRECISION)  # settings, besides train and serve
SEVERAL = "several"  # of its intervals, beside generations
EXPERTS = ("grouped", "fused", "loop", "streams")
# By generation of devices; "": all others.
BY_GENERATION = ("attention", "experts", "few_bits", "all_reduce", "tensor_units", "reached", "intervals")
# What the passes of several devices may keep beside what the network needs: what a stage has sent, until its
# backward pass; gradients in the weights' dtype, where their sums have another; buckets, which whole ones
# are copied into to be added up. Source: torch-ddp.
KEEPS = ("sent", "gradients", "buckets")
# What is made on a stream of its own, whose freed memory nothing else can use: a device's parts of gradients,
# the buffers that weights are gathered into, or the second of two units (fold/pools.py).
POOLS = ("gradients", "gathers")
# What `--stack` is where nobody says, by mode and vendor: what most people train and serve with; `older` is
# that of NVIDIA's generations before `older_than`, which neither torch.compile's nor vLLM's kernels have.
USUAL = "usual_stacks.json"
HERE = "this machine"  # vendor of the processor that is asked about itself
ENGINES = ("prefill", "decode")  # what engines serve


class Stack(NamedTuple):
    """What a stack decides, for all networks alike.

    train, serve: its defaults of the workload's settings, by their names in `estimate`; None where it does
    not train, or only trains. checkpointed: those of training that recomputes whole layers, those of
    BY_PRECISION: of training in this precision, besides; decode: those of serving while tokens are generated.
    overlap: by a mesh's axis, the fraction of its collectives' seconds that other kernels hide, where these
    take as long, and `optimizer`: of those behind it, where that is not dp's. attention: the kernel by
    generation of devices, "": on any other one. accumulate: the dtype in which its 16-bit products add up.
    reached: by generation, see CLASSES; like: the stack that one without rows of its own borrows from; same:
    the one that it is, but for its settings, so that their rows are one stack's. intervals: by generation, of
    a measured time over the predicted one, and `several`: of one batch on several devices. source: keys of
    references.json.
    """

    name: str
    about: str
    source: tuple[str, ...]
    train: Mapping[str, Any] | None
    serve: Mapping[str, Any] | None
    overlap: Mapping[str, float]
    attention: Mapping[str, str]
    accumulate: str
    reached: Mapping[str, Mapping[str, float]]
    like: str
    intervals: Mapping[str, tuple[float, float]]
    same: str = ""
    graphs: str = ""  # the stack whose tokens its own are where a token is one graph of compiled code
    unaligned: float = 0.0  # see KernelClass
    dispatch: float = 1.0  # of an eager operator's seconds on the host, what its own take (a compiled kernel)
    # By generation, whether its products use a device's tensor units, or its ordinary ones alone.
    tensor_units: Mapping[str, bool] = MappingProxyType({"": True})
    all_reduce: Mapping[str, AllReduce] = MappingProxyType({})  # its own, by generation; none: NCCL's alone
    # By generation, how it multiplies experts' rows: in one kernel (grouped), or with all that is around it
    # as one operator of an engine (fused), one product after the other, each at a product's rate (loop), or
    # side by side at the rate of one kernel (streams). Of the last two each expert's product is started by
    # itself. Sources: torch-grouped-mm, te-multi-stream, aiconfigurator.
    experts: Mapping[str, str] = MappingProxyType({"": "grouped"})
    # By generation, of its products of weights of few bits, which read none while they multiply others: up to
    # so many `rows`, each but the first takes ordinary units, which reach `dots` of their rate, as long as
    # its FLOPs, and unpacking takes `unpacks` of what dtype.UNPACKING says; of more, `edge` are lost, where a
    # generation has that. Source: llama-cpp-mmvq.
    few_bits: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    mmq: bool = False  # such products are in integers, whose rate the data has by generation
    marlin: bool = False  # such products are those of Marlin's kernel, which the data has by generation
    tf32: tuple[str, ...] = ()  # kinds of products that it multiplies in tf32 where they are in float32
    # Its host counts the rows of each expert, outside of a graph, so that it waits for the device in each
    # layer, and the device for it. Source: moe-on-the-host.
    counts_experts: bool = False
    own_networks: bool = False  # those that it trains are its own, not transformers' classes
    formats: tuple[str, ...] = ()  # of weights in few bits, those that are made for it; none: any engine's
    weights: str = ""  # the dtype of those that it serves on a device whose usual one is of 32 bits
    by_layers: bool = False  # serving on several devices, each has some layers and waits for the others
    prompts_first: bool = False  # of an engine: all prompts that wait run before what is decoded goes on
    behind: float = 0  # of an engine: steps after which its host hands a token out, while the next is made
    share: float = 1  # of an engine: what its process takes of a device's memory where nobody says more
    request_ms: float = 0  # what a request to its server takes besides its steps
    captures: float = 0  # of an engine: the longest sequences whose tokens its graphs hold; 0: any
    # How often a step moves a recurrent state that it reads and replaces: in place, or copied out before and
    # back behind it, too. Source: llama-cpp-states.
    states: float = 1
    # Of devices that a process talks to, beside one for each axis of its layout: always, or with an axis.
    groups: Mapping[str, float] = MappingProxyType({})
    context_mib: float = 0  # of its CUDA, where that is older than data/reserve.json's
    keeps: tuple[str, ...] = ()  # see KEEPS
    allocator: str = ""  # whose rules are replayed in training (fold/allocator.py): torch's, or nobody's
    pools: tuple[str, ...] = ()  # see POOLS
    expandable: float = 0  # up to so many devices its launcher asks for segments that grow (fold/pools.py)
    notes: str = ""
    aliases: tuple[str, ...] = ()  # what people call it or run it as, besides its name
    checkpointed: Mapping[str, Any] = MappingProxyType({})
    decode: Mapping[str, Any] = MappingProxyType({})
    autocast: Mapping[str, Any] = MappingProxyType({})
    fsdp: Mapping[str, Any] = MappingProxyType({})
    master: Mapping[str, Any] = MappingProxyType({})
    fp8: Mapping[str, Any] = MappingProxyType({})
    nvfp4: Mapping[str, Any] = MappingProxyType({})

    def attention_on(self, generation: str) -> str:
        """The attention kernel that it chooses on a generation of devices."""
        return self.attention.get(generation, self.attention[""])

    def experts_on(self, generation: str) -> str:
        """How it multiplies the rows of experts on a generation of devices: one of EXPERTS."""
        return self.experts.get(generation, self.experts[""])

    def tensor_units_on(self, generation: str) -> bool:
        """Whether its products use the tensor units of a generation of devices."""
        return self.tensor_units.get(generation, self.tensor_units[""])

    def few_bits_on(self, generation: str) -> Mapping[str, Any]:
        """What its products of weights of few bits have on a generation of devices, as in a KernelClass."""
        of = self.few_bits.get(generation) or self.few_bits.get("")
        return {**of, "overlap": 0.0, "edge": (of.get("edge", 0.0), 0.0, 0.0)} if of else {}

    def reached_on(self, generation: str) -> Mapping[str, float]:
        """By class of kernels, what it reaches of data/kernels.json on a generation of devices."""
        if self.like and not self.reached:
            return load(self.like).reached_on(generation)
        return {**dict.fromkeys(CLASSES, 1.0), **self.reached.get("", {}), **self.reached.get(generation, {})}

    def settings(
        self, mode: str, recompute: str = "none", precision: str = "pure", seq: Size = 0
    ) -> Mapping[str, Any]:
        """Its defaults of the settings in a mode. Raises InputError for a mode that it does not have."""
        found = self.train if mode == "train" else self.serve
        if found is None:
            others = ", ".join(sorted(s.name for s in all_stacks() if s.has(mode)))
            raise InputError("stack", f"{self.name} has no mode {mode}; allowed: {others}")
        if mode != "train":
            long = self.captures and mode == "decode" and any_of(seq > self.captures)
            if long and not all_of(seq > self.captures):
                told = f"got some of up to {self.captures:,.0f} and some longer, which {self.name} runs"
                raise InputError("seq", f"{told} otherwise; allowed at once: either")
            return found if long or mode != "decode" else {**found, **self.decode}
        checkpointed = self.checkpointed if recompute == "full" else {}
        return {**found, **checkpointed, **(getattr(self, precision) if precision in BY_PRECISION else {})}

    @property
    def modes(self) -> str:
        """What it does: `train`, `serve`, or both."""
        return ", ".join(m for m in ("train", "serve") if getattr(self, m) is not None)

    def has(self, mode: str) -> bool:
        """Whether it runs this mode."""
        return (self.train if mode == "train" else self.serve) is not None


FIELDS = tuple(field for field in Stack._fields if field != "name")  # of a file
FEW_BITS, LOSES = ("rows", "dots", "unpacks"), ("edge",)
PLAIN = {  # the most of each
    "unaligned": 1, "dispatch": 1, "context_mib": 1e5, "expandable": 1e9, "behind": 1, "request_ms": 1e3,
    "share": 1, "states": 10, "captures": 1e9,
}  # fmt: skip


def all_stacks() -> tuple[Stack, ...]:
    """All stacks of the data."""
    return tuple(map(load, names()))


def usual(mode: str, vendor: str = "", form: str = "", generation: str = "") -> Stack:
    """The stack of a mode, on a vendor's devices of a generation, where none is named. form: a format of
    weights (`gguf`, `mlx`) that one has for its own, which serves them.
    """
    about = table.load(USUAL)
    if form and mode in ENGINES:
        return load(about["formats"][form])
    names, of_nvidia = about[mode], generation.startswith("sm")
    older = of_nvidia and int(generation[2:]) < about["older_than"]
    return load(names["older"] if older else names.get(vendor, names[""]))


def of_vendors(mode: str) -> dict[str, str]:
    """The stacks that are usual on some vendors' devices alone, by vendor."""
    return {vendor: name for vendor, name in table.load(USUAL)[mode].items() if vendor not in ("", "older")}


def load(name: str) -> Stack:
    """A stack by its name, or by the path of a file of one's own. Raises InputError."""
    if table.has("stacks", name):
        return _shipped(name)
    if name.endswith(".json"):
        return parse(files.table("stack", name), os.path.basename(name))
    if found := spelled(name):
        return _shipped(found)
    raise unknown("stack", name, names(), "`budget list stacks` has the names")


@cache
def _shipped(name: str) -> Stack:
    return parse(table.load("stacks", f"{name}.json"), f"{name}.json")


def parse(about: Any, file: str) -> Stack:
    """A stack from its table. Raises InputError that names the file and the field."""
    at = f"stack: {file}"
    checked.table(at, about, FIELDS, ("about", "source"))
    plain: dict[str, Any] = {
        mode: checked.table(f"{at}: {mode}", about[mode])
        for mode in ("train", "serve", *BESIDES)
        if mode in about
    }
    if same := _other(at, about, "same"):
        fitted = table.load("stacks", f"{same}.json")
        about = {**about, **{key: fitted[key] for key in ("reached", "intervals") if key in fitted}}
    kernels = table.load("kernels.json")["attention"]
    plain |= {k: checked.number(f"{at}: {k}", about[k], 0, most) for k, most in PLAIN.items() if k in about}

    def told(key: str, check: Callable[..., Any], usual: Any, *allowed: Any) -> Any:
        return check(f"{at}: {key}", about.get(key, usual), *allowed)

    return Stack(
        **{"train": None, "serve": None, **{mode: {} for mode in BESIDES}, **plain},
        name=file.removesuffix(".json"),
        about=told("about", checked.text, ""),
        source=told("source", checked.sources, ""),
        overlap={
            **dict.fromkeys(AXES, 0.0),
            **told("overlap", checked.numbers, {}, (*AXES, "optimizer"), 0, 1),
        },
        attention={"": "fa2", **told("attention", checked.each, {}, one_of(kernels))},
        tensor_units=tensor_units(f"{at}: tensor_units", about.get("tensor_units", {})),
        accumulate=told("accumulate", checked.word, "fp32", ("fp16", "fp32")),
        reached=told("reached", checked.each, {}, lambda at, of: checked.numbers(at, of, CLASSES, 0.01, 100)),
        like=_other(at, about, "like"),
        same=same,
        graphs=_other(at, about, "graphs"),
        intervals=told("intervals", checked.each, {}, interval),
        all_reduce=told("all_reduce", checked.each, {}, all_reduce),
        experts={"": "grouped", **told("experts", checked.each, {}, one_of(EXPERTS))},
        few_bits=_few_bits(at, about),
        mmq=told("mmq", checked.flag, False),
        marlin=told("marlin", checked.flag, False),
        tf32=told("tf32", checked.words, [], ("conv", "matmul")),
        counts_experts=told("counts_experts", checked.flag, False),
        own_networks=told("own_networks", checked.flag, False),
        formats=told("formats", checked.texts, []),
        weights=told("weights", checked.word, "", ("", *SHORT)),
        by_layers=told("by_layers", checked.flag, False),
        prompts_first=told("prompts_first", checked.flag, False),
        groups=told("groups", checked.numbers, {}, ("", *AXES), 0, 100),
        keeps=told("keeps", checked.words, [], KEEPS),
        allocator=told("allocator", checked.word, "", ("", "torch")),
        pools=told("pools", checked.words, [], POOLS),
        notes=told("notes", checked.text, ""),
        aliases=told("aliases", checked.texts, []),
    )


def _other(at: str, about: Any, key: str) -> str:
    """Another stack's name, or nothing."""
    name = about.get(key, "")
    return checked.word(f"{at}: {key}", name, names()) if name != "" else ""


def _few_bits(at: str, about: Any) -> Mapping[str, Mapping[str, float]]:
    """Its own, by generation, or those of the stack that it names."""
    own = about.get("few_bits", {})
    if isinstance(own, str):
        return load(_other(at, about, "few_bits")).few_bits if own else {}
    return checked.each(
        f"{at}: few_bits",
        own,
        lambda at, of: checked.numbers(at, of, (*FEW_BITS, *LOSES), 0.01, 100, FEW_BITS),
    )
