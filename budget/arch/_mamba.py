"""Selective state spaces as transformers' eager code runs them: the mixers of Mamba, Mamba-2 and LFM2.

The group "scan" is one fused kernel in the authors' CUDA code. Eager transformers loops over Mamba's
states; here the loop is one operator with a stated work per element, and reading the states is the
contraction that torch counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import SSM_IN, SSM_OUT, SSM_PARTS, SSM_STEP, Op, group, op
from ..named import NamedTuple
from ..size import Size, ceil_div, maximum
from ._attention import cache


class Mixer(NamedTuple):
    """Sizes of one mixer, and which biases and norms it has."""

    f: Size  # inner width
    n: Size  # width of a channel's state
    kernel: Size = 4  # taps of the causal convolution
    bias: bool = False
    conv_bias: bool = True
    rank: Size = 0  # Mamba: of the step size's projection
    norms: bool = False  # Mamba: of step size, B and C (Jamba); Mamba-2: behind the gate
    out_bias: bool = False  # Mamba-2
    scaled: bool = False  # Mamba-2: what enters, and what is made of it, is multiplied by constants
    heads: Size = 0  # Mamba-2
    groups: Size = 1  # Mamba-2: heads of one group share B and C
    chunk: Size = 256  # Mamba-2


def mamba(m: Mixer, mode: str, s: Size, *, x: str = "n", out: str = "a") -> Iterator[Op]:
    """Mamba's mixer, from `x: b s d` to `out: b s d`."""
    sizes = {"f": m.f, "n": m.n, "q": m.rank, "z": 2 * m.f, "p": m.rank + 2 * m.n}
    bias, out_bias = (", +*z", ", +*d") if m.bias else ("", "")
    for o in (
        op("ssm.in", f"{x}: b s d, *d z{bias} -> xz: b s z", tag=SSM_IN),
        op("ssm.split", "xz: b s z -> u: b s f, gate: b s f", "split"),
        *convolution(m.kernel, "u", m.f, mode, s, bias=m.conv_bias),
        op("ssm.u_rows", "u: b s f -> rows: b s f", "copy"),  # channels are first until here
        op("ssm.x", "rows: b s f, *f p -> p: b s p", tag=SSM_PARTS),
        op("ssm.parts", "p: b s p -> dt: b s q, B: b s n, C: b s n", "split"),
        *(
            [op(f"ssm.{t}_norm", f"{t}:, *{dim} -> {t}:", "rms_norm") for t, dim in _NORMED]
            if m.norms
            else ()
        ),
        op("ssm.dt", "dt: b s q, *f q -> dt: b s f", tag=SSM_STEP),
        op("ssm.dt_bias", "dt:, *f -> dt:", "add"),
        op("ssm.A", "*f n -> A/float32: f n", "exp"),
        *group("scan", *_selective_scan(s)),
        *cache("ssm", mode, ("hs", "b s f n", "b f n")),
        op("ssm.cast", "y: -> y: b s f", "cast"),
        op("ssm.out", f"y: b s f, *f d{out_bias} -> {out}: b s d", tag=SSM_OUT),
    ):
        yield o._replace(sizes={**sizes, **o.sizes})


_NORMED = (("dt", "q"), ("B", "n"), ("C", "n"))


def _selective_scan(s: Size) -> Iterator[Op]:
    """Discretize, scan the states, read them, add the skip connection, gate."""
    yield op("ssm.softplus", "dt: -> dt:", "softplus")
    yield op("ssm.decay", "dt: b s f, A: f n -> dA/float32: b s f n", "mul")
    yield op("ssm.exp", "dA: -> dA/float32:", "exp")
    yield op("ssm.dB", "dt: b s f, B: b s n -> dB/float32: b s f n", "mul")
    yield op("ssm.u_cast", "u: b s f -> u32/float32:", "cast")
    yield op("ssm.dBu", "dB:, u32: b s f -> dBu/float32:", "mul")
    # A token after the other, each read by a product of its own. Source: transformers.
    yield op("ssm.states", "dA:, dBu: -> hs/float32:", "scan")._replace(beside=(4 * s + 7, 13 * s + 5))
    yield op("ssm.hs_cast", "hs: -> hs16:", "cast")
    yield op("ssm.read", "hs16: b s f n, C: b s n -> y: b s f")
    yield op("ssm.skip", "u: b s f, *f -> skip/float32:", "mul")
    yield op("ssm.add", "y:, skip: -> y/float32:", "add")
    yield op("ssm.silu", "gate: b s f -> gate:", "silu")
    yield op("ssm.gate", "y:, gate: -> y/float32:", "mul")


def convolution(
    kernel: Size, x: str, width: Size, mode: str, s: Size, *, bias: bool, activated: bool = True
) -> Iterator[Op]:
    """A causal depthwise convolution; eager code pads both ends, then cuts.

    When a cache is filled, the input is padded to the kernel's length first. In decode mode the convolution
    runs over the cached last inputs and the new one.
    """
    padded = s if mode == "train" else maximum(s, kernel)
    slid, out = (kernel + 1, 2) if mode == "decode" else (padded, padded + kernel - 1)
    sizes = {"f": width, "l": kernel, "y": out, "y+l": slid}
    if mode == "decode":
        yield op(f"ssm.{x}_cache", f"{x}: b s f -> %last: b l f", "cache", **sizes)
        yield op("ssm.window", f"last: b l f, {x}: b s f -> {x}: b y+l f", "cat", **sizes)
    else:
        yield from (o._replace(sizes=sizes) for o in cache("ssm", mode, (x, "b s f", "b l f")))
    yield op("ssm.conv", f"{x}: b y+l f, *f l{', +*f' if bias else ''} -> {x}: b y f", **sizes)
    yield op("ssm.cut", f"{x}: b y f -> {x}: b s f", "slice", **sizes)
    if activated:
        yield op("ssm.conv_silu", f"{x}: -> {x}:", "silu", **sizes)


def gated_convolution(m: Mixer, mode: str, s: Size, *, x: str = "n", out: str = "a") -> Iterator[Op]:
    """LFM2's mixer, from `x: b s d` to `out: b s d`: a convolution between two gates, as wide as its input.

    Source: transformers.
    """
    sizes = {"f": m.f, "z": 3 * m.f}
    bias, out_bias = (", +*z", ", +*d") if m.bias else ("", "")
    for o in (
        op("ssm.in", f"{x}: b s d, *d z{bias} -> xz: b s z", tag=SSM_IN),
        op("ssm.split", "xz: b s z -> B: b s f, C: b s f, u: b s f", "split"),
        op("ssm.gate_in", "B:, u: -> u: b s f", "mul"),
        *convolution(m.kernel, "u", m.f, mode, s, bias=m.conv_bias, activated=False),
        op("ssm.gate_out", "C: b s f, u: b s f -> y: b s f", "mul"),
        op("ssm.out", f"y: b s f, *f d{out_bias} -> {out}: b s d", tag=SSM_OUT),
    ):
        yield o._replace(sizes={**sizes, **o.sizes})


def mamba2(m: Mixer, mode: str, s: Size, *, x: str = "n", out: str = "a") -> Iterator[Op]:
    """Mamba-2's mixer, from `x: b s d` to `out: b s d`."""
    inner = m.f + 2 * m.groups * m.n
    sizes = {
        "f": m.f, "n": m.n, "h": m.heads, "k": m.f // m.heads, "g": m.groups, "c": inner,
        "z": m.f + inner + m.heads, "w": ceil_div(s, m.chunk), "t": ceil_div(s, m.chunk),
        "i": m.chunk, "j": m.chunk,
    }  # fmt: skip
    bias, out_bias = ", +*z" if m.bias else "", ", +*d" if m.out_bias else ""
    for o in (
        *([op("ssm.scale", f"{x}: b s d -> xs:", "scale")] if m.scaled else ()),
        op("ssm.in", f"{'xs' if m.scaled else x}: b s d, *d z{bias} -> xz: b s z", tag=SSM_IN),
        *([op("ssm.in_scale", "xz: -> xz:", "scale")] if m.scaled else ()),
        op("ssm.split", "xz: b s z -> gate: b s f, xBC: b s c, dt: b s h", "split"),
        *convolution(m.kernel, "xBC", inner, mode, s, bias=m.conv_bias),
        op("ssm.parts", "xBC: b s c -> u: b s h k, B: b s g n, C: b s g n", "split", c=inner),
        op("ssm.dt_bias", "dt: b s h, *h -> dt:", "add"),
        op("ssm.A", "*h -> A/float32: h", "exp"),
        *group("scan", *(_state_update() if mode == "decode" else _chunk_scan())),
        *cache("ssm", mode, ("states", "b s h k n" if mode == "decode" else "b w h k n", "b h k n")),
        op("ssm.gate_silu", f"gate: b s f -> gate{'/float32' if m.norms else ''}:", "silu"),
        op("ssm.gate", "y: b s f, gate: b s f -> y/float32:", "mul"),
        *([op("ssm.norm", "y: b s f, *f -> y/float32:", "rms_norm")] if m.norms else ()),
        op("ssm.cast", "y: -> y:", "cast"),
        op("ssm.out", f"y: b s f, *f d{out_bias} -> {out}: b s d", tag=SSM_OUT),
    ):
        yield o._replace(sizes={**sizes, **o.sizes})


def _state_update() -> Iterator[Op]:
    """One step from the state in the cache; s is 1."""
    yield op("ssm.softplus", "dt: -> dt:", "softplus")
    yield op("ssm.decay", "dt: b s h, A: h -> dA/float32: b s h k n", "mul")
    yield op("ssm.exp", "dA: -> dA/float32:", "exp")
    yield op("ssm.B", "B: b s g n -> B: b s h n", "repeat")
    yield op("ssm.dB", "dt: b s h, B: b s h n -> dB: b s h k n", "mul")
    yield op("ssm.dBu", "dB:, u: b s h k -> dBu:", "mul")
    yield op("ssm.states", "dA:, dBu: -> states/float32:", "scan")
    yield op("ssm.C", "C: b s g n -> C: b s h n", "repeat")
    yield op("ssm.read", "states: b s h k n, C: b s h n -> y: b s h k")
    yield op("ssm.skip", "u: b s h k, *h -> skip:", "mul")
    yield op("ssm.add", "y:, skip: -> y:", "add")


def _chunk_scan() -> Iterator[Op]:
    """Attention within each chunk, and states passed from chunk to chunk.

    Eager code writes every contraction as an elementwise product and a sum, for which torch counts no FLOPs.
    So they are pointwise operators here, too, and count among the pointwise FLOPs.
    """
    yield op("ssm.softplus", "dt: -> dt:", "softplus")
    yield op("ssm.clamp", "dt: -> dt:", "clamp")
    yield op("ssm.u32", "u: b s h k -> u/float32:", "cast")
    yield op("ssm.B", "B: b s g n -> B/float32: b s h n", "repeat")
    yield op("ssm.C", "C: b s g n -> C/float32: b s h n", "repeat")
    yield op("ssm.skip", "u: b s h k, *h -> skip/float32: b w i h k", "mul")
    yield op("ssm.udt", "u: b s h k, dt: b s h -> u/float32:", "mul")
    yield op("ssm.Adt", "dt: b s h, A: h -> Adt/float32:", "mul")
    for name, of, dims in (("u", "h k", "k"), ("Adt", "h", ""), ("B", "h n", "n"), ("C", "h n", "n")):
        yield op(f"ssm.{name}_chunks", f"{name}: b s {of} -> {name}/float32: b w i h {dims}", "pad")
    yield op("ssm.cumsum", "Adt: b w i h -> sums/float32:", "cumsum")
    segments = op("ssm.segments", "Adt: b w i h -> L/float32: b h w i j", "segment_sum")
    yield segments._replace(beside=(24, 36))  # sums between chunks, casts to float32, cuts and signs
    yield op("ssm.L", "L: -> L/float32:", "exp")
    yield from sum_of_products("CB", "C: b w i h n", "B: b w j h n", "b w i j h n", "b w i j h")
    yield op("ssm.M", "CB: b w i j h, L: b h w i j -> M/float32: b w i j h", "mul")
    yield from sum_of_products("diagonal", "M: b w i j h", "u: b w j h k", "b w i j h k", "b w i h k")
    yield op("ssm.to_end", "sums: b w i h -> ends/float32:", "exp")
    yield op("ssm.B_decay", "B: b w i h n, ends: b w i h -> Bd/float32:", "mul")
    yield from sum_of_products("states", "Bd: b w i h n", "u: b w i h k", "b w i h k n", "b w h k n")
    yield op("ssm.chunk_decay", "sums: b w i h -> decay/float32: b w t h", "exp")
    yield from sum_of_products("states", "states: b w h k n", "decay: b w t h", "b w t h k n", "b w h k n")
    yield op("ssm.from_start", "sums: b w i h -> starts/float32:", "exp")
    yield from sum_of_products("off", "C: b w i h n", "states: b w h k n", "b w i h k n", "b w i h k")
    yield op("ssm.off_decay", "off: b w i h k, starts: b w i h -> off/float32:", "mul")
    yield op("ssm.join", "diagonal: b w i h k, off: b w i h k -> y/float32:", "add")
    yield op("ssm.add", "y:, skip: -> y/float32:", "add")
    yield op("ssm.cut_chunks", "y: b w i h k -> y/float32: b s h k", "slice")


def sum_of_products(out: str, a: str, b: str, product: str, dims: str) -> Iterator[Op]:
    yield op(f"ssm.{out}_product.{a[0]}", f"{a}, {b} -> product/float32: {product}", "mul")
    yield op(f"ssm.{out}_sum.{a[0]}", f"product: {product} -> {out}/float32: {dims}", "reduce")
