"""A software stack as a record: what it decides for every network that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..errors import InputError
from ..named import Any, NamedTuple
from ..size import Size, all_of, any_of
from ._fields import AllReduce

AXES = ("dp", "tp", "pp", "ep", "cp")
# A stack's factors, fitted to published runs; those of time are relative to data/profiles/datasheet.json, the
# others to data/kernels.json:
#   product, ordinary    the rate of matrix products: on tensor units, on ordinary units
#   attention            the rate of a fused attention kernel
#   stream, experts      the bandwidth of matrices that are read once; of experts' matrices among them
#   weight_only          the bandwidth of weights in few bits, which a product widens as it reads them
#   pointwise            the bandwidth of everything that is no product
#   launch, host         the time to start a kernel on the device; the host's time for an operator
#   turn, sequence       an engine's time between two tokens; more of it for each sequence
CLASSES = (
    "product", "ordinary", "attention", "stream", "experts", "weight_only", "pointwise", "launch", "host",
    "turn", "sequence",
)  # fmt: skip
BY_PRECISION = ("autocast", "fsdp", "master", "fp8", "nvfp4")
BESIDES = ("checkpointed", "decode", *BY_PRECISION)  # settings that are added to those of train and serve
# Where a host makes calls besides that of a kernel itself: around attention, each of experts' products and a
# mixer of states (the time model's classes; a mixer has one convolution), to cast the input of a product in
# few bits, and for a collective.
CALLS = ("attention", "grouped", "conv_depthwise", "few_bits", "collective")
SEVERAL = "several"  # the key of the interval for several devices, among those of generations
# An engine's step of prompts, and its sequences at once, where its file has none: vLLM's, but for its smaller
# step on an A100, which no other engine is known to have. Source: vllm-batched-tokens.
ByMemory = Mapping[str, Mapping[float, int]]  # by generation, then by GiB
USUAL_STEP: ByMemory = MappingProxyType({"": {0: 2048, 70: 8192}})
USUAL_SEQUENCES: ByMemory = MappingProxyType({"": {0: 256, 70: 1024}, "sm80": {0: 256}})
# The fields that are mappings by generation of devices; their key "" stands for every other generation.
BY_GENERATION = (
    "attention", "experts", "few_bits", "by_format", "all_reduce", "tensor_units", "reached", "intervals",
    "step_tokens", "sequences",
)  # fmt: skip


class Stack(NamedTuple):
    """What a software stack decides, for all networks alike."""

    name: str
    about: str
    source: tuple[str, ...]  # keys of references.json
    # Its defaults of `estimate`'s settings in training and in serving; None where it does not do that.
    train: Mapping[str, Any] | None
    serve: Mapping[str, Any] | None
    # By axis of the mesh, the fraction of its collectives' time that kernels hide, as far as these take as
    # long. `optimizer`: the same for collectives that follow the optimizer's step, where it is not dp's.
    overlap: Mapping[str, float]
    attention: Mapping[str, str]  # its attention kernel, by generation
    accumulate: str  # the dtype in which its 16-bit products add up
    reached: Mapping[str, Mapping[str, float]]  # its factors (CLASSES), by generation
    like: str  # the stack whose factors it takes, where no published row is its own
    intervals: Mapping[str, tuple[float, float]]  # measured over predicted time, by generation; and SEVERAL
    same: str = ""  # the stack that it equals but for its settings, so that both share their published rows
    graphs: str = ""  # the stack that decodes for it where a token is one graph of compiled code
    unaligned: float = 0.0  # as in a KernelClass
    dispatch: float = 1.0  # the host's time for one of its operators, over that for an eager one
    # By generation, whether its products use tensor units, or ordinary ones alone.
    tensor_units: Mapping[str, bool] = MappingProxyType({"": True})
    all_reduce: Mapping[str, AllReduce] = MappingProxyType({})  # its own, by generation; else NCCL's alone
    # How it multiplies the rows of experts, by generation: all in one kernel (grouped); in one operator of an
    # engine that also does what is around the products (fused); one product after the other, each at the rate
    # of a dense one (loop); or side by side, together at the rate of one kernel (streams). In a loop and on
    # streams each expert's product is a kernel of its own. Sources: torch-grouped-mm, te-multi-stream,
    # aiconfigurator.
    experts: Mapping[str, str] = MappingProxyType({"": "grouped"})
    # By generation, products of weights in few bits that do not read the next weights while they multiply.
    # With up to `rows` rows they are products of vectors: each row after the first takes as long as its FLOPs
    # at `dots` of the ordinary units' rate, and unpacking takes `unpacks` times what dtype.UNPACKING says.
    # With more rows, small sizes cost an `edge`, where one is given. Source: llama-cpp-mmvq.
    few_bits: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    # By generation, what those of more rows reach in a format, of what others do. Source: llama-cpp-formats.
    by_format: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    # Of the ordinary units' rate, what attention of one query to a cache in few bits reaches: each head
    # unpacks what it reads; 0: as fast as it is read. Source: llama-cpp-cache.
    blocks: float = 0
    mmq: bool = False  # it multiplies weights in few bits as integers; data/kernels.json has the rates
    marlin: bool = False  # it multiplies them in Marlin's kernel; data/kernels.json has the rates
    fp4: bool = False  # an engine whose products in fp4 are as fast as alone; others' reach fp8's rate
    awq: bool = False  # it multiplies them in AWQ's kernel of many rows; data/kernels.json has the rates
    tf32: tuple[str, ...] = ()  # the kinds of float32 products that it computes in tf32
    # Its host counts the rows of each expert, outside of any graph: in each layer the host waits for the
    # device and the device for the host. Source: moe-on-the-host.
    counts_experts: bool = False
    own_networks: bool = False  # it trains networks of its own, not transformers' classes
    formats: tuple[str, ...] = ()  # the formats of few bits that are made for it; none: those of any engine
    weights: str = ""  # the dtype of served weights where the device's usual dtype has 32 bits
    by_layers: bool = False  # on several devices each holds some layers and waits for the others, in serving
    prompts_first: bool = False  # an engine that runs all waiting prompts before it goes on decoding
    behind: float = 0  # of an engine, the steps by which its host is late in handing out a token
    share: float = 1  # of an engine, the part of the device's memory that its process takes by default
    cache_share: float = 1  # and the part of what weights and activations leave that its cache takes
    # The most tokens of prompts that an engine takes in a step, and the most sequences at once, by default:
    # by generation, then by the GiB of the device's memory from which on that counts.
    step_tokens: ByMemory = USUAL_STEP
    sequences: ByMemory = USUAL_SEQUENCES
    request_ms: float = 0  # what a request to its server takes besides the steps
    call_us: float = 0  # by which a collective takes longer that its host starts, and no graph
    # The calls that its host makes besides that of a kernel itself, where it starts kernels one by one: by
    # CALLS.
    calls: Mapping[str, float] = MappingProxyType({})
    captures: float = 0  # of an engine, the longest sequence whose tokens its graphs cover; 0: any
    # How often a step moves a recurrent state: once where it is updated in place, more often where it is
    # copied out before and back afterwards. Source: llama-cpp-states.
    states: float = 1
    # Process groups beside one for each axis of the layout: always (""), or where an axis is used.
    groups: Mapping[str, float] = MappingProxyType({})
    context_mib: float = 0  # of the CUDA context, where its CUDA is older than data/reserve.json's
    keeps: tuple[str, ...] = ()  # see KEEPS in _parse.py
    allocator: str = ""  # `torch`: torch's allocator is replayed for its training (fold/allocator.py)
    pools: tuple[str, ...] = ()  # see POOLS in _parse.py
    expandable: float = 0  # devices up to which its launcher asks for expandable segments (fold/pools.py)
    notes: str = ""
    aliases: tuple[str, ...] = ()  # other names that people use for it
    # Settings that are added while whole layers are recomputed, while tokens are generated, or in a
    # precision.
    checkpointed: Mapping[str, Any] = MappingProxyType({})
    decode: Mapping[str, Any] = MappingProxyType({})
    autocast: Mapping[str, Any] = MappingProxyType({})
    fsdp: Mapping[str, Any] = MappingProxyType({})
    master: Mapping[str, Any] = MappingProxyType({})
    fp8: Mapping[str, Any] = MappingProxyType({})
    nvfp4: Mapping[str, Any] = MappingProxyType({})

    def run(self, mode: str, execution: str, attention: str) -> Stack:
        """As a task runs it: where it is eager nothing is compiled, and a training run that names
        FlashAttention has its package in place of what SDPA chooses.
        """
        ran = self._replace(dispatch=1.0) if execution == "eager" else self
        named = mode == "train" and attention == "flash" and self.trains_by_sdpa
        return ran._replace(attention={"": "fa2"}) if named else ran

    @property
    def trains_by_sdpa(self) -> bool:
        """Whether SDPA chooses the attention kernel of its training steps, unless one is named."""
        return (self.train or {}).get("attention") == "sdpa"

    def attention_on(self, generation: str) -> str:
        """The attention kernel that it chooses on a generation of devices."""
        return self.attention.get(generation, self.attention[""])

    def experts_on(self, generation: str) -> str:
        """How it multiplies the rows of experts on a generation of devices: one of EXPERTS in _parse.py."""
        return self.experts.get(generation, self.experts[""])

    def step_tokens_on(self, generation: str, memory: int) -> int:
        """The most tokens of prompts that it takes in a step, on a device of so many bytes."""
        return _with(memory, self.step_tokens.get(generation, self.step_tokens[""]))

    def sequences_on(self, generation: str, memory: int) -> int:
        """The most sequences that it takes at once, on a device of so many bytes."""
        return _with(memory, self.sequences.get(generation, self.sequences[""]))

    def tensor_units_on(self, generation: str) -> bool:
        """Whether its products use the tensor units of a generation of devices."""
        return self.tensor_units.get(generation, self.tensor_units[""])

    def few_bits_on(self, generation: str) -> Mapping[str, Any]:
        """The fields of a KernelClass for its products of weights in few bits, on a generation of devices."""
        fields = self.few_bits.get(generation) or self.few_bits.get("")
        formats = tuple(self.by_format.get(generation, {}).items())
        edge = (fields.get("edge", 0.0), 0.0, 0.0) if fields else ()
        return {**fields, "overlap": 0.0, "edge": edge, "formats": formats} if fields else {}

    def reached_on(self, generation: str) -> Mapping[str, float]:
        """Its factors on a generation of devices, all of CLASSES."""
        if self.like and not self.reached:
            from . import load

            return load(self.like).reached_on(generation)
        return {**dict.fromkeys(CLASSES, 1.0), **self.reached.get("", {}), **self.reached.get(generation, {})}

    def settings(
        self, mode: str, recompute: str = "none", precision: str = "pure", seq: Size = 0
    ) -> Mapping[str, Any]:
        """Its defaults of the settings in a mode. Raises InputError for a mode that it does not have."""
        settings = self.train if mode == "train" else self.serve
        if settings is None:
            from . import all_stacks

            others = ", ".join(sorted(s.name for s in all_stacks() if s.has(mode)))
            raise InputError("stack", f"{self.name} has no mode {mode}; allowed: {others}")
        if mode != "train":
            long = self.captures and mode == "decode" and any_of(seq > self.captures)
            if long and not all_of(seq > self.captures):
                problem = f"got some of up to {self.captures:,.0f} and some longer, which {self.name} runs"
                raise InputError("seq", f"{problem} otherwise; allowed at once: either")
            return settings if long or mode != "decode" else {**settings, **self.decode}
        checkpointed = self.checkpointed if recompute == "full" else {}
        return {**settings, **checkpointed, **(getattr(self, precision) if precision in BY_PRECISION else {})}

    @property
    def modes(self) -> str:
        """What it does: `train`, `serve`, or both."""
        return ", ".join(m for m in ("train", "serve") if getattr(self, m) is not None)

    def has(self, mode: str) -> bool:
        """Whether it runs this mode."""
        return (self.train if mode == "train" else self.serve) is not None


def _with(memory: int, by_gib: Mapping[float, int]) -> int:
    """What counts on a device of so many bytes."""
    return [most for gib, most in by_gib.items() if gib * 2**30 <= memory][-1]
