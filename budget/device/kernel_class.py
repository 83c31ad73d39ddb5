"""The time model's numbers: how each class of kernels spends its time on a device, and its host.

profile.py finds, reads and writes them; fold/time.py turns them into seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..named import NamedTuple

# The class whose numbers stand in for another one's, where a profile has none for that.
LIKE = {
    "conv": "matmul",
    "conv_backward": "conv",
    "conv_apart": "conv",  # each group is a product of its own
    "conv_apart_backward": "conv_backward",
    "conv_depthwise": "conv",  # groups of one channel
    "conv_depthwise_backward": "conv_backward",
    "conv_depthwise_weights": "conv_depthwise_backward",  # weight gradients by torch's own kernel
    "grouped": "matmul",  # experts' products
    "weight_only_matmul": "matmul",  # weights in few bits, widened within the product
    "weight_only_grouped": "grouped",
    "attention": "matmul",
    "attention_backward": "attention",
    "recurrent": "matmul",
    "state": "matmul",  # reads a recurrent state and replaces it
    "reduction": "pointwise",
    "gather": "pointwise",
    "optimizer": "pointwise",
}
CLASSES = ("matmul", "pointwise", *LIKE)
BACKWARD = "_backward"  # the ending of a class that has the numbers of a kind's gradients
# The class of a product whose weights are widened, where a device cannot multiply in their few bits.
WIDENED = {"matmul": "weight_only_matmul", "grouped": "weight_only_grouped"}


class KernelClass(NamedTuple):
    """How one class of kernels spends its time; docs/times.md has the equation.

    A rate is a fraction of a peak, 0: not used. The peak is that of the dtype's units, or where a comment
    says so that of the ordinary units, which are no tensor units.
    """

    share: float = 1.0  # the rate of large contractions
    narrow: float = 0.0  # the same of the peak in float8, or int8 for products of int8 by int8; 0: as share
    units: str = ""  # the format in which float32 is multiplied (tf32); `share` is still of float32's peak
    vector: float = 1.0  # the rate of all other arithmetic, of the ordinary units' peak
    # The rate of batched products whose matrices are no multiples of 16 bytes, over the ordinary units' peak;
    # 0:
    # the library has better kernels for them.
    unaligned: float = 0.0
    ordinary: float = 0.0  # of the ordinary units' peak, the rate of products that never use tensor units
    # For attention, the size up to which heads are small, and the rate of small ones on tensor units.
    small: tuple[float, float] = (0.0, 1.0)
    edge: tuple[float, ...] = (0.0, 0.0, 0.0)  # of M, N, K: the rate is times M / (M + edge), ...
    tile: tuple[int, ...] = ()  # rows and columns of an output tile, where whole waves of tiles run (a GPU)
    # The side of an output tile of kernels that do not split K, so that units idle where there are fewer
    # tiles.
    whole: float = 0.0
    tail: float = 0.0  # of attention: the waves of query tiles for which units wait at the end
    heads: int = 0  # of attention: head sizes are padded to a multiple of it
    traffic: float = 1.0  # bytes that are moved for each byte that is counted
    bandwidth: float = 1.0  # the fraction of the profile's bandwidth
    overlap: float = 1.0  # of arithmetic with traffic: 1, the longer of the two counts; 0, their sum
    start_s: float = 0.0  # more seconds of a launch, before anything is computed
    loop_s: float = 0.0  # seconds of a launch by a library's own loop, instead of the profile's launch_s
    host_s: float = 0.0  # seconds of the host around a kernel of the forward pass: reshapes, nested modules
    waits: bool = False  # the host waits for earlier kernels (to count experts' rows): host and device add up
    apart: bool = False  # each expert's product is a kernel of its own
    widens: float = 0.0  # bytes/s of weights in few bits that are widened; 0: as fast as they are read
    # With up to `rows` rows a product is one of vectors: each row after the first takes as long as its FLOPs
    # at `dots` of the ordinary units' peak, and unpacking the weights, where it takes longer than reading
    # them, takes `unpacks` times as long as dtype.UNPACKING's dot products. With more rows, products of
    # weights in some `formats` reach so much of the other formats' rate. Sources: llama-cpp-formats,
    # llama-cpp-mmvq.
    rows: float = 0.0
    dots: float = 1.0
    unpacks: float = 0.0
    formats: tuple[tuple[str, float], ...] = ()
    # Of attention of one query to a cache in few bits, of the ordinary units' peak: 0: it is unpacked as fast
    # as it is read. Source: llama-cpp-cache.
    blocks: float = 0.0


class Dispatch(NamedTuple):
    """Seconds of the host for each operator of a phase, besides its launches, and for a training step."""

    forward: float
    backward: float
    optimizer: float
    step: float = 0.0


class Profile(NamedTuple):
    """A device's efficiencies, relative to its data's peak rates."""

    name: str
    provenance: str  # measured | borrowed | published | datasheet
    device: str  # key of the device that was measured
    forms: Mapping[str, KernelClass]  # by name of the class
    memory: float  # the fraction of the bandwidth, for little data
    steps: tuple[tuple[float, float], ...]  # where data outgrows a cache: (bytes, the fraction from there on)
    launch_s: float  # of each kernel, on the device and on its host
    dispatch: Dispatch
    serial: bool  # the host is the device (a processor), so that its time adds to the kernels'
    low: float  # the ends of a 90 % interval, as multiples of the predicted time
    high: float
    prompt: float = 1.0  # the power to which both are raised for a prompt
    host: float = 1.0  # the same where all of the time is the host's
    kernels: tuple[float, float] = (1.0, 1.0)  # the same for a single kernel
    dtypes: tuple[str, ...] = ()  # those that were measured; none: any
    source: str = ""
    versions: Mapping[str, str] = {}
    # By collective and number of machines (`all_reduce-1`): seconds before the first byte, and bytes/s over
    # each device's link (bench/collectives.py).
    links: Mapping[str, tuple[float, float]] = {}
    fresh: float = 0.0  # what a byte on a new page takes, in times of one from memory (fold/pages.py)
    turn: tuple[float, float] = (0.0, 0.0)  # seconds of an engine between two tokens; more for each sequence
    calls: Mapping[str, float] = {}  # of the host, besides that of a kernel itself; see Stack
    fp4: bool = False  # an engine's products in fp4 are as fast as alone; else as those in fp8

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
    """All classes of kernels; one that is not given takes the numbers of the class that LIKE names."""
    full = dict(forms)
    for name in CLASSES:
        like = name
        while like not in full and like in LIKE:
            like = LIKE[like]
        full[name] = full[like]
    return full
