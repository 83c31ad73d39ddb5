"""Kernels: what a device runs of a program, and what each of them computes and moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter

from ..config import FUSED
from ..ir import (
    EXPERT_SEND,
    FIRST,
    NOTHING,
    SCORES,
    WEIGHT,
    Block,
    Gemm,
    Node,
    Op,
    Rule,
    Tensor,
    base,
    contraction_flops,
    elements,
    gemm,
    is_convolution,
    pointwise_flops,
)
from ..named import NamedTuple
from ..size import Size, ceil_div, is_number, is_zero, maximum, minimum
from . import launches
from .forms import NARROW, PRODUCTS, WHOLE, computed, depthwise, experts, form, kind_of, spared
from .neighbours import ordered
from .pages import anew
from .traffic import NOBODY, Reads, again, by_format, in_between, moved, moved_bytes, of_cache, unpacked


class Work(NamedTuple):
    """What one kernel does, and how often it runs."""

    op: str  # the operator's name, with the path of the blocks around it
    phase: str
    kind: str  # what it is called in a breakdown: matmul, conv, attention, pointwise
    contraction: Size  # FLOPs of contractions
    pointwise: Size  # FLOPs of everything else
    bytes: Size
    launches: Size
    times: Size
    form: str  # class of the time model: a key of Profile.forms
    own: str = ""  # the operator's kind, for which a profile may have numbers of its own
    gemm: Gemm | None = None
    narrow: str = ""  # the format of a product in fewer than 16 bits: fp8, fp4, int8
    host: Size = 0  # bytes that cross the host's link
    weights: Size = 0  # those of its bytes that are a product's weights; all of an optimizer's
    groups: Size = 1  # of experts' products, the experts that have rows
    again: Size = 0  # bytes that an accelerator reads a second time
    made: tuple[Size, ...] = ()  # bytes of the tensors that an eager kernel makes
    calls: int = 1  # operators that the host calls for it
    unit_s: Size = 0  # seconds in which one unit of an accelerator widens its weights in few bits
    unpacked: Size = 0  # the dot products that take as long as unpacking its weights in few bits
    formats: tuple[tuple[str, Size], ...] = ()  # FLOPs of its products by the format of what is in few bits
    spared: Size = 0  # FLOPs of float32 convolutions that an accelerator spares (Winograd)
    beside: bool = False  # a copy, or a bias, that only an accelerator's convolutions need
    summed: bool = False  # one step's part of the gradient of a recurrent cell's weight


def works(
    nodes: Iterable[Node],
    dtype: str,
    execution: str = "eager",
    times: Size = 1,
    read: Reads = NOBODY,
    *,
    inside: bool = False,
    once: Size = 1,
) -> Iterator[Work]:
    """Every kernel of a program: an operator, or neighbours fused into one. Views cost nothing, and
    collectives are no kernels.

    execution: eager, one kernel for each operator. compiled: neighbours that are no contractions are fused,
    and a loop within a layer is one kernel that keeps its state on chip. graph, as in engines: besides that,
    neighbouring products of one input are fused, weights in few bits are widened within the product, and
    experts' kernels read rows where they lie. fused: the same kernels, but the host starts them one by one.
    inside: the nodes are those of a block; a recurrent cell's are then started by the framework's own loop.
    once: how often operators run that only a step's first micro-batch has. Sources: vllm-fused-moe,
    flash-linear-attention.
    """
    graph = execution in FUSED
    run = [n for n in nodes if isinstance(n, Block) or (n.outs and not n.axis and not _idle(n, graph))]
    ops = [n for n in run if isinstance(n, Op)]
    of_cell = inside and any(o.rule.family == "cell" for o in ops)
    kernel = partial(_cell, _summed(ops)) if of_cell else _work
    for (name, _), group in groupby(ordered(run, execution), key=itemgetter(1)):
        neighbours = [node for node, _ in group]
        fused = [node for node in neighbours if name and isinstance(node, Op)]
        if not all(o.rule.view for o in fused):
            yield kernel(fused, dtype, execution, times, read)
        for node in () if name else neighbours:
            if isinstance(node, Block) and execution != "eager" and node.inline and node.shared:
                yield _looped(node, dtype, times, read)
            elif isinstance(node, Block):
                first = once if node.keeps == NOTHING else once * node.count
                yield from works(
                    node.body, dtype, execution, times * node.count, read, inside=True, once=first
                )
            elif not (node.rule.view or (node.kind == "cast" and launches.is_float32(node, dtype))):
                often = once if node.tag == FIRST else times
                yield kernel([node], dtype, execution, often, read)
                if execution == "eager" and not of_cell:
                    yield from _around(node, dtype, often)


def _biased(o: Op) -> tuple[Tensor, ...]:
    """A convolution's output where another kernel adds the bias to it: cuDNN's convolutions add none; torch's
    own kernel for depthwise ones, and a processor's, do. Source: aten-convolution.
    """
    biased = o.kind == "contract" and is_convolution(o) and any(t.added for t in o.ins)
    return (o.out,) if biased and not depthwise(o) else ()


def _around(o: Op, dtype: str, times: Size) -> Iterator[Work]:
    """The kernels that eager code runs around an operator, in one call of the host: copies of operands
    (`relaid` for a convolution), and a bias that is added afterwards.
    """
    calls = 0 if o.phase == "forward" and o.group == "attention" else 1  # its products copy for themselves
    for own, more in (("relaid" if is_convolution(o) else "copy", o.copies[0]), ("bias", _biased(o))):
        if more:
            yield Work(
                op=o.of or o.name,
                phase=o.phase,
                kind="pointwise",
                contraction=0,
                pointwise=0,
                bytes=sum([2 * moved_bytes(t, o, dtype) for t in more]),
                launches=len(more),
                times=times,
                form="pointwise",
                own=own,
                beside=True,
                calls=calls,
            )
            calls = 0


def _within(o: Op) -> bool:
    """Whether eager code's host has an operator with another's call: attention, written out or not, is one
    function of its module. Source: sdpa-for-bert.
    """
    return o.phase == "forward" and o.group == "attention" and not o.kernel and o.tag != SCORES


def _idle(o: Op, graph: bool) -> bool:
    """Whether no kernel runs for an operator: it only declares weights (an encoder's, while a decoder runs),
    makes a mask that kernels make for themselves, or, in a graph, copies rows for experts.
    """
    if (o.kind == "table" and o.out.on_chip) or (graph and o.tag == EXPERT_SEND):
        return True
    n = elements(o.outs[0], o.sizes)
    return n == 0 if is_number(n) else any(is_zero(o.sizes[base(d)]) for d in o.out.dims)


def _looped(node: Block, dtype: str, times: Size, read: Reads) -> Work:
    """A loop as one kernel: it moves what each repetition reads and writes, but not the state between them.
    The gradient of a slice is written in place, without zeros around it.
    """
    among = {o.out.name for o in node.body if isinstance(o, Op) and o.kind == "pad"}
    kept = (o for o in node.body if isinstance(o, Op) and o.out.name not in among)
    body = [o for o in kept if not (o.kind == "accumulate" and among & {t.name for t in o.ins})]
    parts = {o.out.name for o in body if o.rule.part}  # of what is put together, not handed on
    state = {name for c in node.carry for name in (c.enter, c.leave)} - parts

    def within(t: Tensor) -> Tensor:
        return t._replace(on_chip=True) if t.name in state else t

    ops = [o._replace(ins=tuple(map(within, o.ins)), outs=tuple(map(within, o.outs))) for o in body]
    one = _work(ops, dtype, "graph", times, read)
    many = {f: getattr(one, f) * node.count for f in ("contraction", "pointwise", "bytes", "again", "spared")}
    return one._replace(**many)


def _summed(ops: Iterable[Op]) -> set[str]:
    """The weights whose gradients a loop sums up, step by step."""
    return {o.out.of for o in ops if o.kind == "accumulate" and o.out.role == WEIGHT}


def _cell(summed: set[str], ops: list[Op], dtype: str, execution: str, times: Size, read: Reads) -> Work:
    """One kernel of a recurrent cell's loop, in which the weights stay in a cache. summed: see `_summed`."""
    work = _work(ops, dtype, execution, times, read, alone=True)
    sums = any(o.out.of in summed for o in ops)
    return work._replace(form="recurrent", own="", weights=0, summed=sums)


def _work(
    ops: list[Op], dtype: str, execution: str, times: Size, read: Reads, *, alone: bool = False
) -> Work:
    """One kernel of some operators. alone: no kernel is started beside it."""
    first = ops[0] if len(ops) == 1 else next((o for o in ops if o.rule.family != "dequantize"), ops[0])
    fused = len(ops) > 1 or (execution != "eager" and first.phase != "optimizer")
    started = 1 if alone else launches.fused(ops, first) if fused else launches.eager(first, dtype)
    apart = launches.behind_norms(ops) if execution == "fused" and not first.kernel else 1
    tensors = first.sizes.get("tensors", 1) if first.phase == "optimizer" else 1  # updated one by one
    traffic, host, weights = moved(ops, first, dtype, read)
    if first.phase == "optimizer":
        weights = traffic
    if started > 1 and not fused:
        traffic = maximum(traffic, in_between(first, dtype))
    products = [o for o in ops if o.kind == "contract"]
    eager = execution == "eager" and products  # weights in few bits are widened by kernels of their own
    widening = [o.rule for o in ops if o.rule.family == "dequantize"] if eager else []
    beside = [o.rule.apart for o in ops if o.rule.family == "dequantize" and (eager or o.rule.tile)]
    contraction, pointwise = _flops(ops, products, widening)
    single = products if dtype == "float32" else ()
    kind = first.kernel or kind_of(first)
    main = products[0] if products else first  # a fused kernel's products are of one size
    return Work(
        op=first.of or first.name,
        phase=first.phase,
        kind=kind,
        contraction=contraction,
        pointwise=pointwise,
        bytes=traffic,
        launches=(started + apart - 1 + sum(beside)) * tensors + (0 if alone or fused else first.beside[0]),
        times=times,
        form=form(ops, kind, fused=bool(products)),
        own=first.kind if kind == "pointwise" and not fused else "",
        gemm=_gemm(products, main, kind) if products else None,
        narrow=_narrow(main),
        host=host,
        weights=weights,
        groups=_groups(main) if products else 1,
        again=again(ops, dtype),
        made=anew(ops, dtype, 1 if fused else started) if execution == "eager" else (),
        calls=0
        if execution == "eager" and _within(first)
        else max([first.rule.calls * apart, *(rule.calls for rule in widening)]),
        unit_s=sum([_widened(o, main) for o in ops if o.rule.tile]) if products else 0,
        unpacked=unpacked(products, dtype) if kind == "matmul" else 0,
        formats=by_format(products) if kind == "matmul" else of_cache(ops) if kind == "attention" else (),
        spared=sum([contraction_flops(o) * spared(o) for o in single]),
    )


def _flops(ops: Sequence[Op], products: Sequence[Op], widening: Sequence[Rule]) -> tuple[Size, Size]:
    """FLOPs of contractions, and of everything else: products included that ordinary units compute, as
    kernels do that widen weights in few bits.
    """
    contraction = sum([contraction_flops(o) * computed(o) for o in products])
    pointwise = sum([pointwise_flops(o) for o in ops])
    ordinary = next((rule.ordinary for rule in widening if rule.ordinary), 0)
    return (0, pointwise + contraction / ordinary) if ordinary else (contraction, pointwise)


def _widened(o: Op, product: Op) -> Size:
    """Seconds in which one unit widens a weight, again for each tile of the product's rows."""
    g = gemm(product)
    return elements(o.outs[0], o.sizes) / o.rule.widened * ceil_div(g.m if g else 1, o.rule.tile)


def _narrow(o: Op) -> str:
    """The format of a product in fewer than 16 bits; "" for others."""
    few = NARROW | WHOLE
    return next((few[t.dtype] for t in o.ins if t.dtype in few), "")


def _gemm(ops: Sequence[Op], main: Op, kind: str) -> Gemm | None:
    """The matrix product that a kernel computes: several products of one input are one with a wider N; of an
    expert's, M is its share of the rows; of attention, N is the average number of keys that a query sees, and
    K the size of a head (0 where no product shows it).
    """
    g = gemm(main)
    if g is None or kind not in PRODUCTS:
        return g
    if kind == "attention":
        keys = maximum(maximum(g.m, g.n), g.k)  # the longest axis: the sequence
        scores = gemm(next((o for o in ops if o.tag == SCORES), main))
        head = scores.k if scores and main.phase == "forward" else 0
        return Gemm(g.m, keys * computed(main), head, g.batch)
    for o in ops if len(ops) > 1 else ():
        other = gemm(o) if o is not main else None
        g = g if other is None else g._replace(n=g.n + other.n)
    axis = experts(main)
    return g._replace(m=g.m / main.sizes[axis]) if axis else g


def _groups(o: Op) -> Size:
    """The experts that compute in a product: all, or as many as there are rows; 1 where there are none."""
    axis, g = experts(o), gemm(o)
    return minimum(o.sizes[axis], g.m) if axis and g is not None else 1
