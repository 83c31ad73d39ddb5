"""How a training loop makes its loss, and what its variables hold of it. After `backward`.

In chunks: head and loss take some tokens of each sequence at a time. What the backward pass needs is kept for
all chunks. A chunk's gradient takes the place of what the chunk has kept, so float32 gradients of logits
never exist beside it; gradients in the model's dtype do once the head is reached, since autograd first runs
backward through the losses of all chunks. Sources: litgpt, torchtune.
Held: a loop's variables keep the logits until the step ends, or until those of the next step exist; they keep
the graph, with the tensors that operators save in it by themselves, until the next loss exists. These logits
are the float32 ones that the loss reads, as Lightning Fabric returns them. Source: lightning-fabric.
Returned: a network that makes its own loss returns its logits too, in their own dtype, or cast to
`output_dtype`, as accelerate does behind autocast and FSDP2 behind a network. A loop then holds these.
Compiled: one graph of a network and its loss that returns both wants a gradient for both, and autograd gives
it zeros for the logits, which nothing else reads. Sources: accelerate, pytorch-fsdp, torch-aot-autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..config import Task, setting
from ..dtype import full_name
from ..errors import InputError
from ..ir import CHUNK, LOSS, SEQ, SUMMAND, Model, Op, Tensor, elements, rewrite, walk
from ..size import Size, minimum
from ._names import wide

SETTINGS = {
    "loss_chunk": setting(0, "tokens of each sequence whose logits' gradients exist at once", least=0),
    "hold_logits": setting(
        "none",
        "a loop's float32 logits stay until the step ends or the next has its own; compiled: step, and zeros "
        "for their gradient, of a compiled graph that returns them beside its loss",
        choices=("none", "step", "next", "compiled"),
    ),
    "output_dtype": setting(
        "", "dtype of the logits that a network with its own loss returns (accelerate: fp32)"
    ),
}
NEEDS = {"loss_chunk": ("train",), "hold_logits": ("train",), "output_dtype": ("train",)}


def in_chunks(model: Model, tokens: Size) -> Model:
    """The training program whose loss takes a chunk of tokens of each sequence at a time.

    Raises InputError where no logits of a sequence are compared with classes.
    """
    softmax = _softmax(model, "loss_chunk")
    dims = softmax.out.dims
    if SEQ not in dims:
        raise InputError("loss_chunk", f"the loss of {model.name} is of no sequence; allowed: 0")
    sizes = {"chunk": minimum(tokens, softmax.sizes[SEQ])}
    part = tuple("chunk" if d == SEQ else d for d in dims)
    made: set[str] = set()
    after, again = _last_chunk(model, softmax)

    summands = {t.name for o, _ in walk(model.nodes) for t in o.outs if t.part == SUMMAND}

    def passing(o: Op, t: Tensor) -> bool:
        """Gradients that only the loss makes and reads, and what adapters beside the head make on the way."""
        own = o.phase == "backward" and t.dtype == softmax.out.dtype
        return t.dims == dims and (own or not summands.isdisjoint((t.name, t.of)))

    def change(o: Op) -> Iterator[Op]:
        parts = [t for t in o.outs if passing(o, t)]
        reads = (f"{t.name}#chunk" for t in o.ins if t.name in made)
        outs = (t._replace(on_chip=True) if t in parts else t for t in o.outs)
        chunks = (_chunk(t)._replace(dims=part) for t in parts)
        yield o._replace(outs=(*outs, *chunks), holds=(*o.holds, *reads), sizes={**o.sizes, **sizes})
        made.update(t.name for t in parts)
        if o.name == after and o.phase == "forward":
            yield from again

    return model._replace(nodes=rewrite(model.nodes, change))


def _last_chunk(model: Model, softmax: Op) -> tuple[str, list[Op]]:
    """The operators from the logits' product on. A head's weights in few bits are widened for each chunk
    (plan/quantize.py), the last time while all other chunks' logits are in memory.
    """
    makers = {t.name: o for o, _ in walk(model.nodes) if o.phase == "forward" for t in o.outs}
    chain = [makers[softmax.ins[0].name]]
    while chain[-1].kind != "contract" and chain[-1].ins[0].name in makers:
        chain.append(makers[chain[-1].ins[0].name])
    widened = [o for t in chain[-1].ins if (o := makers.get(t.name)) and o.rule.lost]
    again = [
        o._replace(outs=(o.out._replace(name=f"{o.out.name}#chunk", part=CHUNK, of=o.out.name),))
        for o in widened
    ]
    return chain[1 if chain[0].kind == "cast" else 0].name, again


def _chunk(t: Tensor) -> Tensor:
    return t._replace(name=f"{t.name}#chunk", part=CHUNK, of=t.name)


def returned(model: Model, dtype: str, own: str, *, replaced: bool = False) -> tuple[Model, Tensor | None]:
    """The training program whose network returns logits of this dtype beside its loss, and these logits, or
    None where no logits exist (fused losses). own: the model's dtype. replaced: it returns the copy that its
    loss reads.
    """
    loss = [o for o, _ in walk(model.nodes) if o.tag == LOSS and o.phase == "forward"]
    makers = {t.name: o for o, _ in walk(model.nodes) if o.phase == "forward" for t in o.outs}
    copied = replaced and loss and loss[0].kind == "cast"
    logits = loss[0].out if copied else loss[0].ins[0] if loss else None
    while not copied and logits and (maker := makers.get(logits.name)) and maker.kind == "cast":
        logits = maker.ins[0]
    if logits is None or logits.on_chip or all(o.kind != "log_softmax" for o in loss):
        return model, None
    if (logits.dtype or own) == dtype:
        return model, logits
    made = logits._replace(name=f"{logits.name}~returned", dtype=dtype)
    cast = Op("returned", "cast", (logits,), (made,), loss[0].sizes)

    def change(o: Op) -> tuple[Op, ...]:
        return (o, cast) if o.name == loss[-1].name and o.phase == "forward" else (o,)

    return model._replace(nodes=rewrite(model.nodes, change)), made


def hold_logits(model: Model, until: str, logits: Tensor | None = None) -> Model:
    """The training program whose logits are there until the step ends, or the next step's are.

    logits: those that the network returns; None: those that the loss reads. Raises InputError for none.
    """
    softmax = _softmax(model, "hold_logits")
    logits = logits or softmax.ins[0]
    model = model._replace(outputs=(*model.outputs, logits.name))
    if until == "compiled":
        return _beside_loss(model, logits._replace(name=f"{logits.name}@zeros"), softmax.sizes)
    if until == "step":
        return model
    return _beside_last(model, logits._replace(name=f"{logits.name}@last"), softmax.sizes, logits.name)


def hold_inputs(model: Model) -> Model:
    """The training program in which the last step's products keep their inputs until the new loss exists."""
    held = {
        (i, t.name): elements(t, o.sizes) * times
        for i, node in enumerate(model.nodes)  # names are a block's own
        for o, times in walk((node,))
        for t in o.ins
        if o.phase == "forward" and o.kind == "contract" and not o.kernel and t.name in o.holds
    }
    return _beside_last(model, Tensor("inputs@last", ("n",)), {"n": sum(held.values())}, model.outputs[0])


def _beside_last(model: Model, last: Tensor, sizes: Mapping[str, Size], until: str) -> Model:
    """The program, with a tensor of the last step that is kept until the new one is made."""

    def change(o: Op) -> tuple[Op]:
        makes = o.phase == "forward" and o.out.name == until
        return (o._replace(holds=(*o.holds, last.name)) if makes else o,)

    start = Op(f"last_step.{last.name}", "table", (), (last,), sizes)
    return model._replace(nodes=(start, *rewrite(model.nodes, change)))


def _beside_loss(model: Model, zeros: Tensor, sizes: Mapping[str, Size]) -> Model:
    """The program, with a tensor that is made before the loss's backward pass and read by it."""
    losses = {o.name for o, _ in walk(model.nodes) if o.tag == LOSS and o.phase == "forward"}

    def reads(o: Op) -> bool:
        return o.phase == "backward" and (o.tag == LOSS or o.of in losses)

    start = [Op("logits.zeros", "table", (), (zeros,), sizes, phase="backward")]

    def change(o: Op) -> Iterator[Op]:
        if reads(o):
            yield from start
            start.clear()
        yield o._replace(holds=(*o.holds, zeros.name)) if reads(o) else o

    return model._replace(nodes=rewrite(model.nodes, change))


def _softmax(model: Model, field: str) -> Op:
    for o, _ in walk(model.nodes):
        if o.kind == "log_softmax" and o.phase == "forward":
            return o
    raise InputError(field, f"{model.name} has no logits that a loss reads; allowed: with a language model")


def check(task: Task, device: object) -> None:
    """Raise an InputError where there are no logits that could be made in chunks."""
    t = task.techniques
    if t.loss_chunk and "cross_entropy" in t.fuse:
        raise InputError("loss_chunk", f"got fuse {t.fuse}, which has no logits; allowed: one of them")
    wide("output_dtype", t.output_dtype)


def apply(model: Model, task: Task) -> Model:
    """The training program with its loss in chunks, and with the logits that its loop holds."""
    t, logits = task.techniques, None
    if t.loss_chunk:
        model = in_chunks(model, t.loss_chunk)
    elif t.output_dtype or t.hold_logits == "compiled":
        copy, dtype = t.loss_logits == "replaced", full_name(t.output_dtype or task.dtype)
        model, logits = returned(model, dtype, task.dtype, replaced=copy)
    return model if t.hold_logits == "none" else hold_logits(model, t.hold_logits, logits)


STAGES = {"loop": apply}
