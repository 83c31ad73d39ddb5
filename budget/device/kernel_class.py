"""The time model's numbers: how each class of kernels spends its time on a device, and its host.

profile.py finds, reads and writes them; fold/time.py turns them into seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..named import NamedTuple

# The class whose numbers another one has, if a profile has none for it.
LIKE = {
    "conv": "matmul",
    "conv_backward": "conv",
    "conv_apart": "conv",  # of groups that are products apart
    "conv_apart_backward": "conv_backward",
    "conv_depthwise": "conv",  # of groups of one channel
    "conv_depthwise_backward": "conv_backward",
    "conv_depthwise_weights": "conv_depthwise_backward",  # whose gradients torch's own kernel makes
    "grouped": "matmul",
    "weight_only_matmul": "matmul",  # weights of few bits, widened within the product
    "weight_only_grouped": "grouped",
    "attention": "matmul",
    "attention_backward": "attention",
    "recurrent": "matmul",
    "state": "matmul",  # what goes over a recurrent state, which it reads and replaces
    "reduction": "pointwise",
    "gather": "pointwise",
    "optimizer": "pointwise",
}
CLASSES = ("matmul", "pointwise", *LIKE)
BACKWARD = "_backward"  # behind a kind's name: its gradient's own numbers
# What a product is where a device has no products in the few bits of its weights, which it widens.
WIDENED = {"matmul": "weight_only_matmul", "grouped": "weight_only_grouped"}


class KernelClass(NamedTuple):
    """How one class of kernels spends its time; docs/times.md has the equation.

    share: the fraction of the peak rate that large contractions reach; narrow: that of the peak in float8 (in
    int8, of int8 by int8), 0: the same. units: the format in which float32 is multiplied, where it is another
    one; its peak is that one's then, but `share` is still of float32's. vector: that of everything else.
    unaligned: of the rate of ordinary units, that of batched products whose matrices are no multiples of 16
    bytes, where a library has no better kernels; 0: it has.
    ordinary: of the rate of ordinary units, that of products that are never on tensor units; 0: they are.
    small: an attention's heads of up to so many numbers, and their rate where they are on tensor units.
    edge: the loss on small M, N and K: the efficiency is multiplied by M/(M + edge), and so on. tile:
    rows and columns of an output tile where whole waves of tiles run (a GPU). whole: a side of the tiles
    of kernels that do not split K: of fewer tiles than units, others idle; 0: they split it. tail: of
    attention, the waves of tiles of queries by which units wait for the last one. heads: of attention, to
    multiples of so many a head's numbers are padded; 0: they are not. traffic: bytes really
    moved for each byte counted. bandwidth: of the profile's, what it reaches. overlap: of arithmetic with
    moving bytes; 1: the longer of the two counts, 0: both.
    start_s: seconds of a launch before anything is computed. loop_s: in the place of the profile's launch,
    where a library's own loop starts its kernels, and no network's code; 0: that does. host_s: of the host
    around a kernel of the forward pass, in a network's code: reshaping heads, modules within modules.
    waits: the host waits for what is before it (experts' rows that it counts), so that its seconds and the
    device's add up. apart: each expert's product is started by itself. widens: bytes/s of weights of few
    bits; 0: as many as are read.
    rows: up to so many of them, a product is of vectors: each but the first takes ordinary units, which reach
    `dots` of their rate, as long as its FLOPs, and so does unpacking the weights, where that is longer than
    reading them: `unpacks` of the dot products that it takes (dtype.UNPACKING). Of more rows,
    formats has what those in some formats of weights reach of others' rate. Sources: llama-cpp-formats,
    llama-cpp-mmvq.
    """

    share: float = 1.0
    narrow: float = 0.0
    units: str = ""
    vector: float = 1.0
    unaligned: float = 0.0
    ordinary: float = 0.0
    small: tuple[float, float] = (0.0, 1.0)
    edge: tuple[float, ...] = (0.0, 0.0, 0.0)
    tile: tuple[int, ...] = ()
    whole: float = 0.0
    tail: float = 0.0
    heads: int = 0
    traffic: float = 1.0
    bandwidth: float = 1.0
    overlap: float = 1.0
    start_s: float = 0.0
    loop_s: float = 0.0
    host_s: float = 0.0
    waits: bool = False
    apart: bool = False
    widens: float = 0.0
    rows: float = 0.0
    dots: float = 1.0
    unpacks: float = 0.0
    formats: tuple[tuple[str, float], ...] = ()


class Dispatch(NamedTuple):
    """Seconds of the host for each operator of a phase, besides its launches, and for a training step."""

    forward: float
    backward: float
    optimizer: float
    step: float = 0.0


class Profile(NamedTuple):
    """A device's efficiencies, relative to its data's peak rates; an interval multiplies a predicted time.

    memory: the fraction of the bandwidth for little data. steps: where data outgrows a cache, (bytes, the
    fraction from there on). serial: the host is the device, so its work adds to the kernels' (a CPU).
    links: of collectives by name and number of machines, `all_reduce-1`: seconds before the first byte,
    and bytes/s over each device's link. turn: seconds of an engine between two tokens, while no graph runs,
    and more for each sequence.
    """

    name: str
    provenance: str  # measured | borrowed | published | datasheet
    device: str  # key of the device that was measured
    forms: Mapping[str, KernelClass]
    memory: float
    steps: tuple[tuple[float, float], ...]
    launch_s: float  # of each kernel, on the device and on its host
    dispatch: Dispatch
    serial: bool
    low: float  # a 90 % interval's lower end, as a multiple of the predicted time
    high: float
    kernels: tuple[float, float] = (1.0, 1.0)  # the same for a single kernel
    dtypes: tuple[str, ...] = ()  # measured ones; none: any
    source: str = ""
    versions: Mapping[str, str] = {}
    links: Mapping[str, tuple[float, float]] = {}  # see bench/collectives.py
    turn: tuple[float, float] = (0.0, 0.0)

    @property
    def summary(self) -> str:
        """Where the time is from, in one line."""
        if self.provenance == "measured":
            return f"measured on this device ({self.name})"
        if self.provenance == "borrowed":
            return f"borrowed from {self.name} (budget calibrate measures)"
        if self.provenance == "published":
            return f"from published runs of {self.name}"
        return f"from the datasheet, as {self.name} runs elsewhere"


def complete(forms: Mapping[str, KernelClass]) -> dict[str, KernelClass]:
    """All classes of kernels; one that is not given is like the class that LIKE names."""
    full = dict(forms)
    for name in CLASSES:
        like = name
        while like not in full and like in LIKE:
            like = LIKE[like]
        full[name] = full[like]
    return full
