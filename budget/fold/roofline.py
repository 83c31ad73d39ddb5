"""The roofline's two sides: a kernel's seconds of arithmetic, and those of what it moves.

Source: williams-2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..device.kernel_class import Dispatch, KernelClass
from ..ir import Gemm
from ..named import NamedTuple
from ..size import Size, ceil_div, maximum, minimum
from .kernels import Work
from .pages import mapped

QUERIES = 128  # in a tile of an attention kernel. Source: flash-attention-2


class Rates(NamedTuple):
    """The rates of a device with a profile, as seconds: of a FLOP, of a byte, of a launch."""

    forms: Mapping[str, KernelClass]
    flop: float  # of a contraction, at the peak
    narrow: Mapping[str, float]  # the same in fp8, int8, training's nvfp4, and fp4 where the device has it
    link: float  # of a byte to or from the host's memory
    vector: float  # of a FLOP of pointwise arithmetic, at the peak
    byte: float  # of a byte that is moved, of little data
    steps: tuple[tuple[float, float], ...]  # (square of a cache's size, more seconds of a byte beyond it)
    launch: float
    dispatch: Dispatch
    serial: bool  # as in a Profile
    sms: int
    widens: float  # units of an A100 that widen weights as fast as all of its own, anew for a tile of rows
    aligned: int  # elements in 16 bytes
    copies: bool = True  # its convolutions use tensor units, for which eager code's pictures are copied
    resident: Size = 0  # bytes of all weights: as many are read before the same one is read again
    fresh: float = 0.0  # seconds of a byte on a new page
    turn: tuple[float, float] = (0.0, 0.0)  # as in a Profile
    calls: Mapping[str, float] = {}  # as in a Profile


def arithmetic(w: Work, form: KernelClass, r: Rates) -> Size:
    """Seconds of a kernel's arithmetic alone."""
    seconds = _contraction(w, form, r) + w.pointwise * (r.vector / form.vector)
    if r.sms > 1:
        seconds = maximum(seconds, w.unit_s / r.widens)
    if form.widens:
        seconds = maximum(seconds, w.weights / form.widens)
    if form.blocks and w.formats and w.gemm is not None:
        one = maximum(minimum(2 - w.gemm.m, 1), 0)  # several rows share what is unpacked
        seconds = maximum(seconds, one * w.contraction * r.vector / form.blocks)
    return seconds


def _contraction(w: Work, form: KernelClass, r: Rates) -> Size:
    """Seconds of its products: longer for small sizes, and on other units than tensor units."""
    if form.ordinary:
        heads, rate = form.small
        few = minimum(maximum(heads + 1 - w.gemm.k, 0), 1) if heads and w.gemm is not None else 0.0
        return w.contraction * r.vector * (few / rate + (1 - few) / form.ordinary)
    narrow = r.narrow.get(w.narrow)
    flop = narrow / (form.narrow or form.share) if narrow else r.flop / form.share
    seconds = (w.contraction if r.serial or form.units else w.contraction - w.spared) * flop
    if w.gemm is None:
        return seconds
    seconds = seconds * _slowdown(w.gemm, form, r.sms)
    if form.unaligned:
        odd = _unaligned(w.gemm, r.aligned)
        seconds = (1 - odd) * seconds + odd * w.contraction * r.vector / form.unaligned
    if form.formats and w.formats:
        seconds = seconds * _slower(w.formats, dict(form.formats))
    if form.rows:
        few, others = maximum(minimum(form.rows + 1 - w.gemm.m, 1), 0), 1 - 1 / maximum(w.gemm.m, 1)
        seconds = few * others * w.contraction * r.vector / form.dots + (1 - few) * seconds
    return seconds


def _slower(flops: Sequence[tuple[str, Size]], shares: Mapping[str, float]) -> Size:
    """How many times longer products take by the formats of their weights."""
    return sum([flop / shares.get(name, 1.0) for name, flop in flops]) / sum([flop for _, flop in flops])


def traffic(w: Work, form: KernelClass, r: Rates) -> Size:
    """Seconds of a kernel's traffic alone.

    Weights come from the memory that is large enough for all weights of the network, once; an optimizer then
    finds each one in a cache. Everything else comes from the memory that is large enough for what one launch
    moves.
    """
    byte = r.byte if w.phase == "optimizer" else _byte(w.bytes / maximum(w.launches, 1), r)
    once = w.weights * (_byte(maximum(r.resident, w.weights), r) - byte) if r.steps else 0.0
    moved = w.bytes if r.serial else w.bytes + w.again
    if w.gemm is None:
        seconds = moved * byte * form.traffic + once
    else:
        seconds = (moved * byte + once) * _packing(w.gemm, form)
    seconds = seconds / form.bandwidth
    if form.unpacks:  # a dot product of a weight is two FLOPs
        seconds = maximum(seconds, w.unpacked * form.unpacks * 2 * r.vector / form.dots)
    return seconds + r.fresh * sum([mapped(size) for size in w.made]) if r.fresh else seconds


def _byte(x: Size, r: Rates) -> Size:
    """Seconds of a byte where x bytes are used again and again: those of a cache of size c, and beyond it the
    fraction x^2 / (x^2 + c^2) of what memory takes longer.
    """
    return sum([more * (x * x) / (x * x + size) for size, more in r.steps], r.byte)


def _packing(g: Gemm, form: KernelClass) -> Size:
    """How often a product moves its operands: libraries rearrange them first, unless one is a vector, or they
    are the small ones of a batch.
    """
    if form.traffic == 1:
        return 1.0
    return 1 + (form.traffic - 1) * (1 - 1 / g.m) * (1 - 1 / g.n) / g.batch


def _unaligned(g: Gemm, aligned: int) -> Size:
    """1 for batched products of which some matrix does not begin at a multiple of 16 bytes, else 0."""
    return minimum(g.m % aligned + g.n % aligned + g.k % aligned, 1) * minimum(g.batch - 1, 1)


def _slowdown(g: Gemm, form: KernelClass, sms: int) -> Size:
    """How many times longer than large products this one takes: for small sizes, and for units that idle.

    Where there are fewer tiles than units, K is taken to be split among them, unless a class says otherwise.
    """
    m, n, k = form.edge
    # The sizes of an expert's product may be 0.
    factor = (1 + m / maximum(g.m, 1)) * (1 + n / maximum(g.n, 1)) * (1 + k / maximum(g.k, 1))
    if form.tile:
        rows, columns = form.tile
        tiles = maximum(g.batch * ceil_div(g.m, rows) * ceil_div(g.n, columns), sms)
        factor = factor * ceil_div(tiles, sms) * sms / tiles
    if form.whole:
        tiles = g.batch * ceil_div(g.m, form.whole) * ceil_div(g.n, form.whole)
        factor = factor * maximum(sms / maximum(tiles, 1), 1)
    if form.heads:
        factor = factor * maximum(ceil_div(g.k, form.heads) * form.heads / maximum(g.k, 1), 1)
    if form.tail:
        # Where few queries see many keys, the keys of a tile of queries are split among units.
        tiles = g.batch * ceil_div(g.m, QUERIES) * maximum(g.n / maximum(g.m, 1), 1)
        factor = factor * (1 + form.tail * sms / maximum(tiles, 1))
    return factor
