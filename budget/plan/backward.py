"""Append the backward pass: each operand's gradient is the output's, contracted with the other operands.

The network's input needs no gradient, so "backward = 2 x forward" follows where it is true and does not
where it is false (plan/_needs.py). Derived: reverse-mode differentiation, operator by operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir import (
    ACTIVATION,
    GRADIENT,
    LEAF,
    SHAPED,
    SUMMAND,
    WEIGHT,
    Block,
    Carry,
    Model,
    Node,
    Op,
    Tensor,
    is_convolution,
    read_by,
    walk,
)
from ..ir.kinds.rule import SAME
from ..size import is_zero
from ._needs import flow, inside, kept, last_apart

Grads = dict[str, list[Tensor]]
Pair = tuple[Tensor, Tensor]  # an operand and its gradient
Handed = tuple[list[Op], list[Carry]]  # what sums a repetition's gradients, and those that it hands on
QUANTIZED = ("float8", "nvfp4", "int8")


def backward(model: Model) -> Model:
    """The model with its backward operators behind its forward ones."""
    needs: set[str] = set()
    reads = {*model.outputs, *read_by(model.nodes)}
    nodes = tuple(last_apart(flow(model.nodes, needs), reads, needs))
    grads: Grads = {name: [_gradient(Tensor(name, ()), f"d:{name}")] for name in model.outputs}
    back = tuple(_reverse(nodes, grads, needs))
    return model._replace(nodes=(*kept(nodes, needs), *back))


def _gradient(t: Tensor, name: str) -> Tensor:
    """A tensor's gradient: of the tensor's shape, and on the chip where the tensor is; of the model's own
    dtype where the tensor was quantized for a product.
    """
    dtype = "" if t.dtype in QUANTIZED else t.dtype
    return Tensor(name, t.dims, ACTIVATION, dtype, False, t.on_chip, GRADIENT, t.name)


def _reverse(nodes: Sequence[Node], grads: Grads, needs: set[str], shared: bool = False) -> Iterator[Node]:
    casts = {o.ins[0].name: o.out.name for o in nodes if isinstance(o, Op) and o.rule.casts}
    for node in reversed(nodes):
        if isinstance(node, Block):
            yield from _reverse_block(node, grads, needs)
        elif node.out.name in needs:
            if node.rule.in_order and node.out.name in casts:
                # A loop's backward pass runs step by step: what was made of its steps is kept until it ends.
                node = node._replace(holds=(*node.holds, casts[node.out.name]))  # noqa: PLW2901 - the same one
            yield from _reverse_op(node, grads, needs, shared)


def _reverse_op(o: Op, grads: Grads, needs: set[str], shared: bool) -> Iterator[Op]:
    arrived: list[Tensor] = []
    for out in o.outs:
        yield from _sum(o, out, grads)
        arrived += [t if t.dims == out.dims else t._replace(dims=out.dims) for t in grads.pop(out.name, ())]
    if not arrived:
        return
    if o.tag == LEAF and not any(t.role == WEIGHT or t.name in needs for t in o.ins):
        # The graph holds a leaf to the end, and the leaf its gradient.
        end = (_gradient(o.out, f"d:{o.out.name}@leaf"),)
        last = Op(f"d:{o.name}", "view", (arrived[0],), end, o.sizes, "backward", o.name, o.group)
        yield last._replace(holds=(o.out.name,))
        return
    wanted: list[Pair] = []
    for i, t in enumerate(o.ins):
        if t.role == WEIGHT and not shared and t.name not in grads:
            wanted.append((t, _of_weight(t)))
        elif t.role == WEIGHT or t.name in needs:
            wanted.append((t, _gradient(t, f"d:{t.name}<{o.name}.{i}")))
    ops, made = _gradients(o, arrived, wanted, needs)
    # A convolution's gradients are one call.
    others = -1 if o.kind == "contract" and is_convolution(o) else 0
    beside, copies = o.beside[1], o.copies[1]
    for back in ops:
        plain = is_zero(beside) and not copies
        yield back if plain else back._replace(beside=(beside, 0), copies=(copies, ()))
        beside, copies = others, ()
    for operand, grad in made:
        if operand.role == WEIGHT and grad.role != WEIGHT:
            total = _of_weight(operand)
            yield _op(o, "accumulate", (grad, total), (total,))
            grads[operand.name] = [total]
        else:
            grads.setdefault(operand.name, []).append(grad)
            yield from _sum(o, operand, grads)  # as soon as there are two


def _of_weight(t: Tensor) -> Tensor:
    return Tensor(f"d:{t.name}", t.dims, WEIGHT, t.dtype, part=GRADIENT, of=t.name)


def _gradients(
    o: Op, arrived: Sequence[Tensor], wanted: Sequence[Pair], needs: set[str]
) -> tuple[list[Op], list[Pair]]:
    """The backward operators of one operator, and each operand with its gradient."""
    if o.rule.solves:
        return _solved(o, arrived[0], wanted), [*wanted]
    ops: list[Op] = []
    made: list[Pair] = []
    together: list[Pair] = []
    for t, grad in wanted:
        if (one := _apart(o, t, grad, arrived)) is None:
            together.append((t, grad))
        else:
            ops += one[0]
            made.append((t, one[1]))
    if together:
        ops += _together(o, together, arrived, needs)
    return ops, made + together


def _apart(o: Op, t: Tensor, grad: Tensor, arrived: Sequence[Tensor]) -> tuple[list[Op], Tensor] | None:
    """The operators that make one operand's gradient, and this gradient: the output's own, where it passes
    unchanged. None where one kernel makes the gradients of several operands.
    """
    g, rule, how = arrived[0], o.rule, o.rule.gradient
    passes = t.role != WEIGHT and (t.added or rule.linear) and t.dims == o.out.dims
    if how == SAME:
        return [], g
    if passes and t.dtype != g.dtype and not (rule.casts or o.kernel):
        return [_op(o, "cast", (g,), (grad,))], grad  # of a narrower summand
    if passes or (rule.view and len(o.outs) == 1 and not how):
        return [], g if g.dims == t.dims else g._replace(dims=t.dims)
    if how and (t.added or how != o.kind):
        return [_op(o, "reduce" if t.added else how, (g,), (grad,))], grad
    if how == o.kind:  # a contraction
        back = _op(o, how, (g, *[u for u in o.ins if u is not t and not u.added]), (grad,))
        # A convolution's backward pass is one call, which keeps what either gradient needs.
        kept = t.role == ACTIVATION and is_convolution(o)
        return [back._replace(holds=(*o.holds, t.name)) if kept else back], grad
    return ([_op(o, "copy", tuple(arrived), (grad,))], grad) if rule.view else None


def _together(o: Op, wanted: Sequence[Pair], arrived: Sequence[Tensor], needs: set[str]) -> Iterator[Op]:
    """One kernel that makes several operands' gradients; then sums and casts to their shapes and dtypes."""
    alone = wanted[0][0].name if o.rule.cross and len(wanted) == 1 else ""
    saved = [t for t in o.saved(needs) if t.name != alone]
    reads = (*arrived, *saved, *(() if o.rule.looks_up else o.weights))
    outs = tuple([_whole(o, t, grad) for t, grad in wanted])
    yield _op(o, o.rule.plain or o.kind, reads, outs)
    # A product's are shaped before autograd frees what they were made from.
    held = [t.name for t in reads] if o.rule.cross else ()
    for (_, grad), out in zip(wanted, outs, strict=True):
        if out is not grad:
            shaped = _op(o, "cast" if out.dims == grad.dims else "reduce", (out,), (grad,))
            yield shaped._replace(holds=(*o.holds, *held), tag=SHAPED)


def _solved(o: Op, g: Tensor, wanted: Sequence[Pair]) -> list[Op]:
    """Gradients for X = A^-1 B: B's is another solve, A's is the product of that and X."""
    system, right = o.ins
    grads = {t.name: grad for t, grad in wanted}
    solved = grads.get(right.name, _gradient(right, f"d:{right.name}<{o.name}.1"))
    first = _op(o, o.kind, (system, g), (solved,))
    if system.name not in grads:
        return [first]
    rows, columns = solved._replace(dims=o.out.dims), o.out._replace(dims=right.dims)
    return [first, _op(o, "contract", (rows, columns), (grads[system.name],))]


def _whole(o: Op, t: Tensor, grad: Tensor) -> Tensor:
    """The gradient as the operator makes it: before it is summed to the shape of a broadcast operand, or cast
    back to the dtype of an operand that was cast for it.
    """
    rule, out = o.rule, o.out
    if o.kernel or t.on_chip:
        return grad
    reduced = rule.cross and set(t.dims) != set(out.dims)
    if reduced or ((rule.upcasts or rule.cross) and t.dtype != out.dtype):
        dims = out.dims if reduced else grad.dims
        return Tensor(f"{grad.name}~", dims, ACTIVATION, out.dtype, part=grad.part, of=grad.of)
    return grad


def _sum(o: Op, out: Tensor, grads: Grads) -> Iterator[Op]:
    """Accumulate the gradients that a tensor receives from its readers."""
    parts = grads.get(out.name, ())
    if len(parts) < 2:
        return
    here = o._replace(axis="")  # what is received is added up here
    total = parts[0]
    for i, part in enumerate(parts[1:]):
        pair = (total._replace(dims=out.dims), part._replace(dims=out.dims))
        total = _gradient(out, f"d:{out.name}+{o.name}.{i}")
        yield _op(here, "accumulate", pair, (total,))
    grads[out.name] = [total]


def _op(o: Op, kind: str, ins: tuple[Tensor, ...], outs: tuple[Tensor, ...]) -> Op:
    ins = tuple([t._replace(added=False) if t.added else t for t in ins])
    same = (o.name, o.group, o.kernel, o.holds)
    made = Op(f"d:{o.name}", kind, ins, outs, o.sizes, "backward", *same, axis=o.axis, module=o.module)
    return made._replace(window=o.window, causal=o.causal) if o.kernel else made


def _reverse_block(node: Block, grads: Grads, needs: set[str]) -> Iterator[Node]:
    """A block's backward pass: one that repeats as often, from the last repetition to the first."""
    inner = inside(node, needs)
    makers = {t.name: (o, t) for o, _ in reversed([*walk(node.body)]) for t in o.outs}
    if not any(grads.get(name) for name in makers):
        return  # nothing reads its output
    local: Grads = {}
    seeds: dict[str, str] = {}  # the gradient of what the last repetition leaves, by its name
    repeats = not (isinstance(node.count, int) and node.count == 1)
    for c in node.carry:
        yield from _sum(*makers[c.leave], grads)
        arrived = grads.pop(c.leave, [])
        if c.leave in inner and (arrived or (repeats and c.enter in inner)):
            # What only the next repetition reads has no gradient yet in the last one.
            seeds[c.leave] = arrived[0].name if arrived else ""
            local[c.leave] = [_gradient(makers[c.leave][1], f"d:{c.leave}@")]
    body = [*_reverse(node.body, local, inner, node.shared)]
    sums, carry = _entered(node, seeds, local, grads, needs)
    shared, totals = _read_outside(node, local, grads, repeats)
    body += [*sums, *shared]
    if body:
        carry += totals
        back = Block(f"d:{node.name}", tuple(body), node.count, node.shared, tuple(carry), node.name)
        yield back._replace(inline=node.inline)


def _entered(node: Block, seeds: dict[str, str], local: Grads, grads: Grads, needs: set[str]) -> Handed:
    """The gradients of what a repetition is handed, which it hands to the one before it."""
    sums: list[Op] = []
    carry: list[Carry] = []
    for c in node.carry:
        if c.enter in local:
            sums += _sum(*_reader(node, c.enter), local)
        seed, left = (seeds[c.leave], f"d:{c.leave}@") if c.leave in seeds else ("", "")
        for g in local.pop(c.enter, ()):
            carry.append(Carry(seed, left, g.name))
            if c.init in needs:
                grads.setdefault(c.init, []).append(g)
        if left and not any(x.enter == left for x in carry):
            carry.append(Carry(seed, left, ""))
    return sums, carry


def _read_outside(node: Block, local: Grads, grads: Grads, repeats: bool) -> Handed:
    """The gradients of what all repetitions read from outside, summed over them; a weight's stay apart."""
    sums: list[Op] = []
    carry: list[Carry] = []
    for name, parts in [*local.items()]:
        known = grads.setdefault(name, [])
        if parts[0].role == WEIGHT:
            known += [g for g in parts if g not in known]
            continue
        before = next((g for g in known if g.part == SUMMAND), None)  # of another piece of the same block
        sums += _outside(node, name, local, alone=not (repeats or before))
        (total,) = local[name]
        carry.append(Carry(before.name if before else "", total.name, total.name))
        grads[name] = [*(g for g in known if g is not before), total]
    return sums, carry


def _outside(node: Block, name: str, local: Grads, *, alone: bool) -> Iterator[Op]:
    """The gradient, summed over its repetitions, of a tensor that a block reads from outside: an encoder's
    output, the input sequence of a recurrence. alone: there is no other gradient yet to add it to.
    """
    reader, whole = _reader(node, name)
    yield from _sum(reader, local[name][0]._replace(name=name, part="", of=""), local)
    (g,) = local[name]
    total = _gradient(whole, f"d:{name}@{node.name}")._replace(part=SUMMAND, on_chip=False)
    if g.dims != whole.dims:
        yield _op(reader, "store", (g, total), (total,))
    elif alone:
        yield _op(reader, "view", (g,), (total,))
    else:
        yield _op(reader, "accumulate", (g, total), (total,))
    local[name] = [total]


def _reader(node: Block, *names: str) -> tuple[Op, Tensor]:
    """The last operator of a block that reads a tensor, under one of these names, and what it reads."""
    for inner in reversed(node.body):
        if isinstance(inner, Op):
            found = next(((inner, t) for t in inner.ins if t.name in names), None)
        else:
            within = (*names, *(c.enter for c in inner.carry if c.init in names))
            found = _reader(inner, *within) if {*within} & {*read_by(inner.body)} else None
        if found:
            return found
    raise KeyError(names[0])
