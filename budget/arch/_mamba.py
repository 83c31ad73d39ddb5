"""Selective state spaces as transformers' eager code runs them: the mixers of Mamba, Mamba-2 and LFM2.

The group "scan" is one fused kernel in the authors' CUDA code. Eager transformers loops over Mamba's
states; here the loop is one operator with a stated work per element, and reading the states is the
contraction that torch counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import SSM_IN, SSM_MIXER, SSM_OUT, SSM_PARTS, SSM_STEP, Node, Op, group, op
from ..named import NamedTuple
from ..size import Size, ceil_div, exact_div, maximum
from ._attention import cache


class Mixer(NamedTuple):
    """Sizes of one mixer, and which biases and norms it has."""

    f: Size  # inner width
    n: Size  # width of a channel's state
    kernel: Size = 4  # taps of the causal convolution
    bias: bool = False
    conv_bias: bool = True
    rank: Size = 0  # Mamba: rank of the step size's projection
    norms: bool = False  # Mamba: of step size, B and C (Jamba); Mamba-2: behind the gate
    out_bias: bool = False  # Mamba-2
    grouped: bool = False  # Mamba-2: that norm's rows are groups
    scaled: bool = False  # Mamba-2: the input and its projections are multiplied by constants
    heads: Size = 0  # Mamba-2
    groups: Size = 1  # Mamba-2: heads of one group share B and C
    chunk: Size = 256  # Mamba-2


def mamba(m: Mixer, mode: str, s: Size, *, x: str = "n", out: str = "a") -> Iterator[Op]:
    """Mamba's mixer, from `x: b s d` to `out: b s d`."""
    sizes = {"f": m.f, "n": m.n, "q": m.rank}
    bias, out_bias = (", +*f|f", ", +*d") if m.bias else ("", "")
    for o in (
        op("ssm.in", f"{x}: b s d, *d f|f{bias} -> xz: b s f|f", tag=SSM_IN),
        op("ssm.split", "xz: b s f|f -> u: b s f, gate: b s f", "split"),
        *convolution(m.kernel, "u", "f", mode, s, bias=m.conv_bias),
        op("ssm.u_rows", "u: b s f -> rows: b s f", "copy"),  # channels are first until here
        op("ssm.x", "rows: b s f, *f q|n|n -> p: b s q|n|n", tag=SSM_PARTS),
        op("ssm.parts", "p: b s q|n|n -> dt: b s q, B: b s n, C: b s n", "split"),
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
    kernel: Size, x: str, c: str, mode: str, s: Size, *, bias: bool, activated: bool = True
) -> Iterator[Op]:
    """A causal depthwise convolution of channels c; eager code pads both ends, then cuts.

    When a cache is filled, the input is padded to the kernel's length first. In decode mode the convolution
    runs over the cached last inputs and the new one.
    """
    padded = s if mode == "train" else maximum(s, kernel)
    slid, out = (kernel + 1, 2) if mode == "decode" else (padded, padded + kernel - 1)
    sizes = {"l": kernel, "y": out, "y+l": slid}
    if mode == "decode":
        yield op(f"ssm.{x}_cache", f"{x}: b s {c} -> %last: b l {c}", "cache", **sizes)
        yield op("ssm.window", f"last: b l {c}, {x}: b s {c} -> {x}: b y+l {c}", "cat", **sizes)
    else:
        yield from (o._replace(sizes=sizes) for o in cache("ssm", mode, (x, f"b s {c}", f"b l {c}")))
    added = f", +*{c}" if bias else ""
    yield op("ssm.conv", f"{x}: b y+l {c}, *{c} l{added} -> {x}: b y {c}", **sizes)
    yield op("ssm.cut", f"{x}: b y {c} -> {x}: b s {c}", "slice", **sizes)
    if activated:
        yield op("ssm.conv_silu", f"{x}: -> {x}:", "silu", **sizes)


def gated_convolution(m: Mixer, mode: str, s: Size) -> Iterator[Op]:
    """LFM2's mixer, from `n: b s d` to `a: b s d`: a convolution between two gates, as wide as its input.

    Source: transformers.
    """
    sizes = {"f": m.f}
    bias, out_bias = (", +*f|f|f", ", +*d") if m.bias else ("", "")
    for o in (
        op("ssm.in", f"n: b s d, *d f|f|f{bias} -> xz: b s f|f|f", tag=SSM_IN),
        op("ssm.split", "xz: b s f|f|f -> B: b s f, C: b s f, u: b s f", "split"),
        op("ssm.gate_in", "B:, u: -> u: b s f", "mul"),
        *convolution(m.kernel, "u", "f", mode, s, bias=m.conv_bias, activated=False),
        op("ssm.gate_out", "C: b s f, u: b s f -> y: b s f", "mul"),
        op("ssm.out", f"y: b s f, *f d{out_bias} -> a: b s d", tag=SSM_OUT),
    ):
        yield o._replace(sizes={**sizes, **o.sizes})


MIXED = "G.H.k|G.n|G.n"  # the channels of Mamba-2's convolution: each group's heads, B and C
PROJECTED = f"G.H.k|{MIXED}|G.H"  # these with a gate and a step size for each head


def mixed(*nodes: Node) -> Iterator[Node]:
    """The operators between a state space's projections, which see all of the sequence."""
    for node in nodes:
        if isinstance(node, Op):
            yield node._replace(module=SSM_MIXER)
        else:
            yield node._replace(body=tuple(mixed(*node.body)))


def mamba2(m: Mixer, mode: str, s: Size, *, x: str = "n", out: str = "a") -> Iterator[Op]:
    """Mamba-2's mixer, from `x: b s d` to `out: b s d`."""
    chunks = ceil_div(s, m.chunk)
    sizes = {
        "G": m.groups, "H": exact_div(m.heads, m.groups), "k": m.f // m.heads, "n": m.n,
        "w": chunks, "t": chunks, "i": m.chunk, "j": m.chunk,
    }  # fmt: skip
    bias, out_bias = f", +*{PROJECTED}" if m.bias else "", ", +*d" if m.out_bias else ""
    inner = f"{'xs' if m.scaled else x}: b s d, *d {PROJECTED}{bias} -> xz: b s {PROJECTED}"
    row = "G H.k" if m.grouped else "G.H.k"
    for o in (
        *([op("ssm.scale", f"{x}: b s d -> xs:", "scale")] if m.scaled else ()),
        op("ssm.in", inner, tag=SSM_IN),
        *([op("ssm.in_scale", "xz: -> xz:", "scale")] if m.scaled else ()),
        op("ssm.split", f"xz: b s {PROJECTED} -> gate: b s G.H.k, xBC: b s {MIXED}, dt: b s G.H", "split"),
        *mixed(
            op("ssm.enter", "xBC: -> xBC:", "view"),
            *convolution(m.kernel, "xBC", MIXED, mode, s, bias=m.conv_bias),
            op("ssm.parts", f"xBC: b s {MIXED} -> u: b s G.H k, B: b s G n, C: b s G n", "split"),
            op("ssm.dt_bias", "dt: b s G.H, *G.H -> dt:", "add"),
            op("ssm.A", "*G.H -> A/float32: G.H", "exp"),
            *group("scan", *(_state_update() if mode == "decode" else _chunk_scan())),
            *cache(
                "ssm", mode, ("states", "b s G.H k n" if mode == "decode" else "b w G.H k n", "b G.H k n")
            ),
            op("ssm.gate_silu", f"gate: b s G.H.k -> gate{'/float32' if m.norms else ''}:", "silu"),
            op("ssm.gate", "y: b s G.H.k, gate: b s G.H.k -> y/float32:", "mul"),
        ),
        *([op("ssm.norm", f"y: b s {row}, *G.H.k -> y/float32:", "rms_norm")] if m.norms else ()),
        op("ssm.cast", "y: -> y:", "cast"),
        op("ssm.out", f"y: b s G.H.k, *G.H.k d{out_bias} -> {out}: b s d", tag=SSM_OUT),
    ):
        yield o._replace(sizes={**sizes, **o.sizes})


def _state_update() -> Iterator[Op]:
    """One step from the state in the cache; s is 1."""
    yield op("ssm.softplus", "dt: -> dt:", "softplus")
    yield op("ssm.decay", "dt: b s G.H, A: G.H -> dA/float32: b s G.H k n", "mul")
    yield op("ssm.exp", "dA: -> dA/float32:", "exp")
    yield op("ssm.B", "B: b s G n -> B: b s G.H n", "repeat")
    yield op("ssm.dB", "dt: b s G.H, B: b s G.H n -> dB: b s G.H k n", "mul")
    yield op("ssm.dBu", "dB:, u: b s G.H k -> dBu:", "mul")
    yield op("ssm.states", "dA:, dBu: -> states/float32:", "scan")
    yield op("ssm.C", "C: b s G n -> C: b s G.H n", "repeat")
    yield op("ssm.read", "states: b s G.H k n, C: b s G.H n -> y: b s G.H k")
    yield op("ssm.skip", "u: b s G.H k, *G.H -> skip:", "mul")
    yield op("ssm.add", "y:, skip: -> y:", "add")


def _chunk_scan() -> Iterator[Op]:
    """Attention within each chunk, and states passed from chunk to chunk.

    Eager code writes every contraction as an elementwise product and a sum, for which torch counts no FLOPs.
    So they are pointwise operators here, too, and count among the pointwise FLOPs.
    """
    yield op("ssm.softplus", "dt: -> dt:", "softplus")
    yield op("ssm.clamp", "dt: -> dt:", "clamp")
    yield op("ssm.u32", "u: b s G.H k -> u/float32:", "cast")
    yield op("ssm.B", "B: b s G n -> B/float32: b s G.H n", "repeat")
    yield op("ssm.C", "C: b s G n -> C/float32: b s G.H n", "repeat")
    yield op("ssm.skip", "u: b s G.H k, *G.H -> skip/float32: b w i G.H k", "mul")
    yield op("ssm.udt", "u: b s G.H k, dt: b s G.H -> u/float32:", "mul")
    yield op("ssm.Adt", "dt: b s G.H, A: G.H -> Adt/float32:", "mul")
    for name, axes, dims in (
        ("u", "G.H k", "k"),
        ("Adt", "G.H", ""),
        ("B", "G.H n", "n"),
        ("C", "G.H n", "n"),
    ):
        yield op(f"ssm.{name}_chunks", f"{name}: b s {axes} -> {name}/float32: b w i G.H {dims}", "pad")
    yield op("ssm.cumsum", "Adt: b w i G.H -> sums/float32:", "cumsum")
    segments = op("ssm.segments", "Adt: b w i G.H -> L/float32: b G.H w i j", "segment_sum")
    yield segments._replace(beside=(24, 36))  # sums between chunks, casts to float32, cuts and signs
    yield op("ssm.L", "L: -> L/float32:", "exp")
    yield from sum_of_products("CB", "C: b w i G.H n", "B: b w j G.H n", "b w i j G.H n", "b w i j G.H")
    yield op("ssm.M", "CB: b w i j G.H, L: b G.H w i j -> M/float32: b w i j G.H", "mul")
    yield from sum_of_products("diagonal", "M: b w i j G.H", "u: b w j G.H k", "b w i j G.H k", "b w i G.H k")
    yield op("ssm.to_end", "sums: b w i G.H -> ends/float32:", "exp")
    yield op("ssm.B_decay", "B: b w i G.H n, ends: b w i G.H -> Bd/float32:", "mul")
    yield from sum_of_products("states", "Bd: b w i G.H n", "u: b w i G.H k", "b w i G.H k n", "b w G.H k n")
    yield op("ssm.chunk_decay", "sums: b w i G.H -> decay/float32: b w t G.H", "exp")
    yield from sum_of_products(
        "states", "states: b w G.H k n", "decay: b w t G.H", "b w t G.H k n", "b w G.H k n"
    )
    yield op("ssm.from_start", "sums: b w i G.H -> starts/float32:", "exp")
    yield from sum_of_products("off", "C: b w i G.H n", "states: b w G.H k n", "b w i G.H k n", "b w i G.H k")
    yield op("ssm.off_decay", "off: b w i G.H k, starts: b w i G.H -> off/float32:", "mul")
    yield op("ssm.join", "diagonal: b w i G.H k, off: b w i G.H k -> y/float32:", "add")
    yield op("ssm.add", "y:, skip: -> y/float32:", "add")
    yield op("ssm.cut_chunks", "y: b w i G.H k -> y/float32: b s G.H k", "slice")


def sum_of_products(out: str, a: str, b: str, product: str, dims: str) -> Iterator[Op]:
    yield op(f"ssm.{out}_product.{a[0]}", f"{a}, {b} -> product/float32: {product}", "mul")
    yield op(f"ssm.{out}_sum.{a[0]}", f"product: {product} -> {out}/float32: {dims}", "reduce")
