"""Attention that no SDPA kernel covers, and what torch runs instead: materialized scores, in float32.

A kernel requires one key head per query head, and a mask without a gradient. Where values are narrower than
keys, a GPU takes the memory-efficient kernel; a processor has none and materializes the scores.
Source: torch-sdpa-cuda.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby

from ..ir import INPUT, WEIGHT, Model, Node, Op, Tensor, walk

FUSABLE, MATERIALIZED = "attention", "attention, materialized"  # groups of operators
ATTENTION = (FUSABLE, MATERIALIZED)


def trained(model: Model, *, checkpointed: bool = False) -> frozenset[str]:
    """Activations that depend on a trained weight and so need a gradient.

    checkpointed: a bias of scores from outside needs one too, as in transformers' checkpointed layers.
    """
    needs: set[str] = set()
    for o, _ in walk(model.nodes):
        if checkpointed and o.group == FUSABLE and o.kind == "add":
            needs.update(t.name for t in o.ins[1:] if t.role == INPUT)
        if not o.rule.stops and any(t.role == WEIGHT or t.name in needs for t in o.ins):
            needs.update([t.name for t in o.outs])
    return frozenset(needs)


def without_kernels(nodes: Iterable[Node], trained: Collection[str]) -> Iterator[Node]:
    """The nodes, with each attention that no SDPA kernel covers replaced by its materialized form."""
    for _, run in groupby(nodes, _attention):
        part = tuple(run)
        ops = [o for o in part if isinstance(o, Op)]
        if not _attention(part[0]) or has_kernel(ops, trained):
            yield from part
        else:
            yield from (o._replace(group=MATERIALIZED) for o in materialized(ops))


def laid_out(nodes: Iterable[Node]) -> Iterator[str]:
    """Kernel outputs that are copied, since their layout is the queries' and not the next reader's."""
    for _, run in groupby(nodes, _attention):
        part = [o for o in run if isinstance(o, Op) and _attention(o)]
        queries = next((o.ins[0].dims for o in part if o.kind == "contract"), ())
        if part and part[-1].kind == "copy" and part[-1].out.dims[:-1] != queries[:-1]:
            yield part[-1].ins[0].name


def _attention(node: Node) -> bool:
    """Whether an operator is part of one attention; tables are made for all layers."""
    return isinstance(node, Op) and node.group == FUSABLE and node.kind != "table"


def has_kernel(ops: Sequence[Op], trained: Collection[str]) -> bool:
    """Whether SDPA has a kernel for one attention's operators; `trained` tensors need a gradient."""
    added = (t for o in ops if o.kind in ("add", "mask") for t in o.ins[1:])
    return all(o.kind != "broadcast" for o in ops) and all(t.name not in trained for t in added)


def materialized(ops: Sequence[Op]) -> Iterator[Op]:
    """The same attention without a kernel: the operands of both products are kept in float32.

    Queries and keys are scaled instead of the scores; there is no softcap. The weights are cast back as well,
    though nothing reads them.
    """
    wide: dict[str, Tensor] = {}
    variables: list[str] = []  # of torch's function, until it returns
    scores, *_, mix = (o for o in ops if o.kind == "contract")
    broadcast = {o.out.name for o in ops if o.kind == "broadcast"}
    for o in ops:
        if o.kind in ("scale", "softcap", "cast"):
            wide[o.out.name] = wide[o.ins[0].name]
        elif o.kind == "repeat":
            yield o
        elif o.kind == "copy":
            down = o._replace(name=f"{o.name}.downcast", kind="cast", ins=(wide[o.ins[0].name],), outs=o.ins)
            yield down._replace(callers=tuple(variables))
            yield o
        else:
            if o.kind == "contract":
                for t in (*o.ins, mix.ins[1]) if o is scores else o.ins:
                    name = f"{t.name}~single"
                    if name not in variables and t.name not in (*wide, *broadcast):
                        yield _single(o, t)
                        variables.append(name)
                new = [t for t in o.ins if t.name not in wide]
                wide |= {t.name: t._replace(name=f"{t.name}~float32", dtype="float32") for t in new}
                copies = [made for t in new for made in _copied(o, t, wide[t.name], scaled=o is scores)]
                yield from (made._replace(callers=tuple(variables)) for made in copies)
                if o is scores:  # the scaled keys are only this product's
                    queries, *keys = (made.out.name for made in copies if made.kind == "scale")
                    variables.append(queries)
                    o = o._replace(callers=tuple(keys))  # noqa: PLW2901 - the same operator
            wide[o.out.name] = o.out._replace(name=f"{o.out.name}~float32", dtype="float32")
            ins = tuple(wide.get(t.name, t)._replace(dims=t.dims) for t in o.ins)
            kind, callers = "mask_made" if o.kind == "mask" else o.kind, (*o.callers, *variables)
            yield o._replace(kind=kind, ins=ins, outs=(wide[o.out.name],), callers=callers)
            if o.kind == "softmax":
                unread = o.out._replace(name=f"{o.out.name}~unread", dtype="")
                yield o._replace(
                    name=f"{o.name}.unread", kind="cast", ins=(wide[o.out.name],), outs=(unread,)
                )
                variables.append(unread.name)


def _single(o: Op, t: Tensor) -> Op:
    """An operand's cast to float32."""
    single = t._replace(name=f"{t.name}~single", dtype="float32")
    return o._replace(name=f"{o.name}.{t.label}_cast", kind="cast", ins=(t,), outs=(single,))


def _copied(o: Op, t: Tensor, copy: Tensor, *, scaled: bool) -> Iterator[Op]:
    """The contiguous float32 copy of an operand, scaled or not, that a batched product needs."""
    name, given = f"{o.name}.{t.label}", copy._replace(name=f"{t.name}~single")
    if scaled:
        scale = o._replace(name=f"{name}_scale", kind="scale", ins=(given,))
        given = copy._replace(name=f"{t.name}~scaled")
        yield scale._replace(outs=(given,))
    yield o._replace(name=name, kind="contiguous", ins=(given,), outs=(copy,))
