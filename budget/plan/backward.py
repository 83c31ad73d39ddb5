"""Append the backward pass: for each operand, the output's gradient with the other operands.

The network's input needs no gradient, so "backward = 2 x forward" comes out where it is true
and not where it is false. Where a block's first repetition needs less than the others (a
recurrence whose first state is an input, frozen layers below a trained one), that repetition
is set apart. Derived: reverse-mode differentiation, operator by operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..model import Block, Carry, Model, Node, pieces
from ..op import WEIGHT, WEIGHTS, Op, Tensor

Grads = dict[str, list[Tensor]]
QUANTIZED = ("float8", "int8")


def backward(model: Model) -> Model:
    """The model with its backward operators behind its forward ones."""
    needs: set[str] = set()
    nodes = tuple(_flow(model.nodes, needs))
    grads: Grads = {name: [Tensor(f"d:{name}", ())] for name in model.outputs}
    back = tuple(_reverse(nodes, grads, needs))
    return model._replace(nodes=(*_keep(nodes), *back))


def _flow(nodes: Iterable[Node], needs: set[str]) -> Iterator[Node]:
    """Add to `needs` the activations that need a gradient; set first repetitions apart."""
    for node in nodes:
        if isinstance(node, Op):
            if not node.rule.stops:
                for t in node.ins:
                    if t.role == WEIGHT or t.name in needs:
                        needs.update([out.name for out in node.outs])
                        break
            yield node
            continue
        first = _inside(node, needs)
        nested = any(isinstance(inner, Block) for inner in node.body)
        late = [c for c in node.carry if c.enter and c.leave in first and c.init not in needs]
        if late and not (isinstance(node.count, int) and node.count == 1):
            head, rest = pieces(node, 1)
            first = _inside(head, needs)
            yield head._replace(name=f"{node.name}[0]", body=tuple(_flow(head.body, set(first))))
            needs.update(c.leave for c in head.carry if c.leave in first)
            yield from _flow((rest._replace(name=node.name),), needs)
            continue
        needs.update(c.leave for c in node.carry if c.leave in first)
        yield node._replace(body=tuple(_flow(node.body, set(first)))) if nested else node


def _inside(node: Block, needs: set[str]) -> set[str]:
    """What needs a gradient inside a block, given what does outside."""
    inner = needs | {c.enter for c in node.carry if c.init in needs}
    for _ in _flow(node.body, inner):
        pass
    return inner


def _keep(nodes: Iterable[Node]) -> Iterator[Node]:
    """Let forward operators write what only the backward pass reads."""
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_keep(node.body)))
        else:
            extra = tuple(t for t in node.saved if "#" in t.name)
            yield node._replace(outs=(*node.outs, *extra)) if extra else node


def _reverse(nodes: Sequence[Node], grads: Grads, needs: set[str], shared: bool = False) -> Iterator[Node]:
    for node in reversed(nodes):
        if isinstance(node, Block):
            yield from _reverse_block(node, grads, needs)
        elif node.out.name in needs:
            yield from _reverse_op(node, grads, needs, shared)


def _reverse_op(o: Op, grads: Grads, needs: set[str], shared: bool) -> Iterator[Op]:
    arrived: list[Tensor] = []
    for out in o.outs:
        yield from _sum(o, out, grads)
        arrived += (t._replace(dims=out.dims) for t in grads.pop(out.name, ()))
    if not arrived:
        return
    wanted: list[tuple[Tensor, Tensor]] = []  # (operand, its gradient)
    for i, t in enumerate(o.ins):
        if t.role == WEIGHT and not shared and t.name not in grads:
            wanted.append((t, Tensor(f"d:{t.name}", t.dims, WEIGHT, t.dtype)))
        elif t.role == WEIGHT or t.name in needs:
            # What is quantized for a product has a gradient in the model's own dtype.
            dtype = "" if t.dtype in QUANTIZED else t.dtype
            wanted.append((t, Tensor(f"d:{t.name}<{o.name}.{i}", t.dims, dtype=dtype, on_chip=t.on_chip)))
    made: list[tuple[Tensor, Tensor]] = []
    yield from _gradients(o, arrived, wanted, made)
    for operand, grad in made:
        if operand.role == WEIGHT and grad.role != WEIGHT:
            total = Tensor(f"d:{operand.name}", operand.dims, WEIGHT, operand.dtype)
            yield _op(o, "accumulate", (grad, total), (total,))
            grads[operand.name] = [total]
        else:
            grads.setdefault(operand.name, []).append(grad)


def _gradients(
    o: Op, arrived: list[Tensor], wanted: list[tuple[Tensor, Tensor]], made: list[tuple[Tensor, Tensor]]
) -> Iterator[Op]:
    """The backward operators of one operator; `made` receives each operand's gradient."""
    g = arrived[0]
    fused: list[tuple[Tensor, Tensor]] = []
    for t, grad in wanted:
        if o.kind == "step":
            made.append((t, g))
        elif o.kind == "slice":
            yield _op(o, "pad", (g,), (grad,))
            made.append((t, grad))
        elif o.kind == "reduce":
            yield _op(o, "expand", (g,), (grad,))
            made.append((t, grad))
        elif (o.rule.view and len(o.outs) == 1) or _passes(o, t):
            made.append((t, g._replace(dims=t.dims)))
        elif t.added or o.kind == "add":
            yield _op(o, "reduce", (g,), (grad,))
            made.append((t, grad))
        elif o.kind == "contract":
            others = tuple(u for u in o.ins if u is not t and not u.added)
            yield _op(o, "contract", (g, *others), (grad,))
            made.append((t, grad))
        elif o.rule.view:
            yield _op(o, "copy", tuple(arrived), (grad,))
            made.append((t, grad))
        else:
            fused.append((t, grad))
    if fused:
        alone = fused[0][0].name if o.rule.cross and len(fused) == 1 else ""
        saved = (t for t in o.saved if t.name != alone)
        reads = (*arrived, *saved, *(t for t in o.ins if t.role in WEIGHTS and o.kind != "gather"))
        outs = tuple(_whole(o, t, grad) for t, grad in fused)
        yield _op(o, o.kind.removesuffix("_"), reads, outs)
        for (_, grad), out in zip(fused, outs, strict=True):
            if out is not grad:
                yield _op(o, "reduce", (out,), (grad,))
        made += fused


def _whole(o: Op, t: Tensor, grad: Tensor) -> Tensor:
    """The gradient of an operand that a product repeats: of all its copies, before they are added up."""
    if o.kind != "mul" or o.kernel or t.dims == o.out.dims:
        return grad
    return Tensor(f"{grad.name}~", o.out.dims, dtype=o.out.dtype)


def _passes(o: Op, t: Tensor) -> bool:
    """Whether an operand's gradient is the output's, unchanged."""
    return (t.added or o.rule.linear) and t.dims == o.out.dims and t.role != WEIGHT


def _sum(o: Op, out: Tensor, grads: Grads) -> Iterator[Op]:
    """Add up the gradients that reach one tensor from several readers."""
    parts = grads.get(out.name, [])
    for i, part in enumerate(parts[1:]):
        total = Tensor(f"d:{out.name}+{i}", out.dims, dtype=out.dtype, on_chip=out.on_chip)
        yield _op(o, "accumulate", (parts[0]._replace(dims=out.dims), part._replace(dims=out.dims)), (total,))
        parts = [total]
    if parts:
        grads[out.name] = parts[:1]


def _op(o: Op, kind: str, ins: tuple[Tensor, ...], outs: tuple[Tensor, ...]) -> Op:
    ins = tuple(t._replace(added=False) if t.added else t for t in ins)
    outs = tuple(t._replace(added=False) if t.added else t for t in outs)
    return Op(f"d:{o.name}", kind, ins, outs, o.sizes, "backward", o.name, o.group, o.kernel, o.holds)


def _reverse_block(node: Block, grads: Grads, needs: set[str]) -> Iterator[Node]:
    inner = _inside(node, needs)
    last = next(o for o in _ops_backward(node.body))
    made = {t.name: t for o in _ops_backward(node.body) for t in o.outs}
    local: Grads = {}
    seeds: dict[str, str] = {}
    for c in node.carry:
        out = made.get(c.leave) or Tensor(c.leave, ())
        yield from _sum(last, out, grads)
        arrived = grads.pop(c.leave, [])
        if arrived or (c.enter in inner and c.leave in inner):
            # What only the next repetition reads has no gradient yet in the last one.
            seeds[c.leave] = arrived[0].name if arrived else ""
            local[c.leave] = [Tensor(f"d:{c.leave}@", out.dims)]
    body = list(_reverse(node.body, local, inner, node.shared))
    carry = []
    for c in node.carry:
        body += _sum(last, (made.get(c.leave) or Tensor(c.leave, ()))._replace(name=c.enter), local)
        for g in local.pop(c.enter, ()):
            carry.append(Carry(seeds.get(c.leave, ""), f"d:{c.leave}@" if c.leave in seeds else "", g.name))
            if c.init in needs:
                grads.setdefault(c.init, []).append(g)
        if c.leave in seeds and not any(x.enter == f"d:{c.leave}@" for x in carry):
            carry.append(Carry(seeds[c.leave], f"d:{c.leave}@", ""))
    for name, parts in list(local.items()):
        body += _outside(node, last, name, parts, local)
        known = grads.setdefault(name, [])
        known += [g for g in local[name] if g not in known]
    if body:
        yield Block(f"d:{node.name}", tuple(body), node.count, node.shared, tuple(carry), node.name)


def _outside(node: Block, last: Op, name: str, parts: list[Tensor], local: Grads) -> Iterator[Op]:
    """Gradients of what a block reads from outside, summed over its repetitions: an encoder's
    output, the sequence that a recurrence walks along. Weights have theirs already.
    """
    if parts[0].role == WEIGHT:
        return
    yield from _sum(last, parts[0]._replace(name=name), local)
    (g,) = local[name]
    whole = next(t for o in _ops_backward(node.body) for t in o.ins if t.name == name)
    total = whole._replace(name=f"d:{name}@{node.name}")
    yield _op(last, "accumulate" if g.dims == whole.dims else "store", (g, total), (total,))
    local[name] = [total]


def _ops_backward(nodes: Sequence[Node]) -> Iterator[Op]:
    for node in reversed(nodes):
        if isinstance(node, Block):
            yield from _ops_backward(node.body)
        else:
            yield node
