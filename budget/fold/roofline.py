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

QUERIES = 128  # in a tile of an attention kernel. Source: flash-attention-2


class Rates(NamedTuple):
    """A device and a profile as a kernel's time needs them: seconds for one of each."""

    forms: Mapping[str, KernelClass]
    flop: float  # of a contraction at the device's peak
    narrow: Mapping[str, float]  # of one in fp8, int8, and fp4 where the device has it, in training's nvfp4
    link: float  # of a byte to or from the host's memory
    vector: float  # of pointwise arithmetic at the peak
    byte: float  # moved, of little data
    steps: tuple[tuple[float, float], ...]  # (square of a cache's size, seconds more a byte beyond it)
    launch: float
    dispatch: Dispatch
    serial: bool
    sms: int
    aligned: int  # elements in 16 bytes
    copies: bool = True  # its convolutions' units want pictures as eager code has them not
    resident: Size = 0  # bytes of the weights that are read between two uses of one
    turn: tuple[float, float] = (0.0, 0.0)  # see Profile


def arithmetic(w: Work, form: KernelClass, r: Rates) -> Size:
    """Seconds in which a kernel computes, beside nothing that it moves."""
    seconds = _contraction(w, form, r) + w.pointwise * (r.vector / form.vector)
    if r.sms > 1:
        seconds = maximum(seconds, w.unit_s / r.sms)
    if form.widens:
        seconds = maximum(seconds, w.weights / form.widens)
    return seconds


def _contraction(w: Work, form: KernelClass, r: Rates) -> Size:
    """Those of its products, which small sizes and other units make longer."""
    if form.ordinary:
        heads, rate = form.small
        few = minimum(maximum(heads + 1 - w.gemm.k, 0), 1) if heads and w.gemm is not None else 0.0
        return w.contraction * r.vector * (few / rate + (1 - few) / form.ordinary)
    narrow = r.narrow.get(w.narrow)
    flop = narrow / (form.narrow or form.share) if narrow else r.flop / form.share
    seconds = (w.contraction if r.serial or form.units else w.contraction - w.spared) * flop
    if w.gemm is None:
        return seconds
    seconds = seconds * _loss(w.gemm, form, r.sms)
    if form.unaligned:
        odd = _odd(w.gemm, r.aligned)
        seconds = (1 - odd) * seconds + odd * w.contraction * r.vector / form.unaligned
    if form.formats and w.formats:
        seconds = seconds * _slower(w.formats, dict(form.formats))
    if form.rows:
        few, others = maximum(minimum(form.rows + 1 - w.gemm.m, 1), 0), 1 - 1 / maximum(w.gemm.m, 1)
        seconds = few * others * w.contraction * r.vector / form.dots + (1 - few) * seconds
    return seconds


def _slower(flops: Sequence[tuple[str, Size]], shares: Mapping[str, float]) -> Size:
    """How many times longer products take by the formats of their weights."""
    return sum([of / shares.get(name, 1.0) for name, of in flops]) / sum([of for _, of in flops])


def traffic(w: Work, form: KernelClass, r: Rates) -> Size:
    """Seconds in which a kernel moves what it reads and writes.

    Weights come from where all of a network's have room, once, and an optimizer has one after the other in a
    cache then; what else a launch moves, comes from where that has room.
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
    return seconds


def _byte(x: Size, r: Rates) -> Size:
    """Seconds of a byte where x go round: more where they outgrow a cache, halfway at its size c, by the
    fraction x^2 / (x^2 + c^2).
    """
    return sum([more * (x * x) / (x * x + size) for size, more in r.steps], r.byte)


def _packing(g: Gemm, form: KernelClass) -> Size:
    """How often a product moves its operands: libraries rearrange them first, unless one is a vector."""
    if form.traffic == 1:
        return 1.0
    return 1 + (form.traffic - 1) * (1 - 1 / g.m) * (1 - 1 / g.n)


def _odd(g: Gemm, aligned: int) -> Size:
    """1 for several products of matrices of which some begin between multiples of 16 bytes, else 0."""
    return minimum(g.m % aligned + g.n % aligned + g.k % aligned, 1) * minimum(g.batch - 1, 1)


def _loss(g: Gemm, form: KernelClass, sms: int) -> Size:
    """How many times longer than at its peak a product takes: small sizes, and the last wave's idle
    units. Where there are fewer tiles than units, K is taken to be split among them, but not an attention's.
    """
    m, n, k = form.edge
    # An expert of no width has a product of nothing.
    loss = (1 + m / maximum(g.m, 1)) * (1 + n / maximum(g.n, 1)) * (1 + k / maximum(g.k, 1))
    if form.tile:
        rows, columns = form.tile
        tiles = maximum(g.batch * ceil_div(g.m, rows) * ceil_div(g.n, columns), sms)
        loss = loss * ceil_div(tiles, sms) * sms / tiles
    if form.whole:
        tiles = g.batch * ceil_div(g.m, form.whole) * ceil_div(g.n, form.whole)
        loss = loss * maximum(sms / maximum(tiles, 1), 1)
    if form.heads:
        loss = loss * maximum(ceil_div(g.k, form.heads) * form.heads / maximum(g.k, 1), 1)
    if form.tail:
        # Of few queries behind many others each tile's keys are split among units.
        tiles = g.batch * ceil_div(g.m, QUERIES) * maximum(g.n / maximum(g.m, 1), 1)
        loss = loss * (1 + form.tail * sms / maximum(tiles, 1))
    return loss
