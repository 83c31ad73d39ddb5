"""Virtual tokens before a sequence, whose embeddings are learned: what prompt tuning and p-tuning share.

All sequences have the same ones, so they are made once and repeated. Of two stacks the encoder's sequence
has them; peft learns as many for the decoder, which then reads none. Source: peft.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import InputError
from ..ir import EMBED, INPUT, KEY_SEQ, SEQ, WEIGHT, Model, Op, Tensor, is_convolution, rewrite, walk
from ..size import Size, is_number
from ._names import untrained
from .freeze import frozen

Encode = Callable[[Tensor, Size], tuple[list[Op], Tensor]]
TOKENS = "virtual"  # their letter


def virtual_tokens(model: Model, field: str, n: Size, dtype: str, encode: Encode) -> Model:
    """The model with n more tokens in each sequence, everything else frozen.

    encode: what is made of the table's rows [virtual, d], of that width. Raises InputError.
    """
    untrained(model, field)
    embeds = [node for node in model.nodes if isinstance(node, Op) and node.tag == EMBED]
    rows = {len(o.out.dims) for o in embeds}
    if rows != {3} or any(is_convolution(o) for o, _ in walk(model.nodes)):
        raise InputError(field, f"{model.name} reads no tokens, or has convolutions; allowed: 0")
    b, s, d = embeds[0].out.dims
    learned = n * len(embeds)
    sizes = {**embeds[0].sizes, TOKENS: learned, "words": embeds[0].sizes[s], s: embeds[0].sizes[s] + n}
    made: list[Op] = []

    def make(name: str, kind: str, ins: tuple[Tensor, ...], dims: tuple[str, ...], own: str) -> Tensor:
        out = Tensor(f"{name}~", dims, dtype=own)
        made.append(Op(f"prompt_encoder.{name}", kind, ins, (out,), sizes))
        return out

    ids = Tensor("virtual_ids", (TOKENS,), INPUT, "int64")
    table = Tensor("prompt_encoder.embedding.weight", (f"~{TOKENS}", d), WEIGHT, dtype)
    ops, tokens = encode(make("embedding", "gather", (ids, table), (TOKENS, d), dtype), sizes[d])
    made += (o._replace(sizes={**sizes, **o.sizes}) for o in ops)
    tokens = make("repeat", "repeat", (tokens,), (b, TOKENS, d), dtype)
    if dtype:
        tokens = make("cast", "cast", (tokens,), tokens.dims, "")
    if len(embeds) > 1:
        rest = Tensor("virtual_unread", (b, "unread", d))
        read = Tensor("virtual_read", (b, "read", d))
        made.append(
            Op("prompt_encoder.read", "split", (tokens,), (read, rest), {**sizes, "read": n, "unread": n})
        )
        tokens, sizes = read, {**sizes, "read": n}
    words = Tensor(f"{embeds[0].out.name}~words", (b, "words", d))
    join = Op("prompt_encoder.join", "join", (tokens, words), embeds[0].outs, sizes)
    base = frozen(model, None)
    where = [i for i, node in enumerate(base.nodes) if isinstance(node, Op) and node.tag == EMBED]
    end = where[1] if len(where) > 1 else len(base.nodes)
    before, stack = base.nodes[: where[0]], base.nodes[where[0] + 1 : end]
    before, whole = (rewrite(nodes, lambda o: (longer(o, n, (SEQ, KEY_SEQ)),)) for nodes in (before, stack))
    given = {t.name for o, _ in walk(stack) for t in o.outs}

    def change(o: Op) -> tuple[Op]:
        """Of the decoder's operators, those along the encoder's sequence."""
        along = [t for t in o.ins if t.name in given and KEY_SEQ in t.dims]
        given.update(t.name for t in o.outs if along and KEY_SEQ in t.dims)
        return (longer(o, n, (KEY_SEQ,)) if along else o,)

    own = next(o for o in base.nodes if isinstance(o, Op) and o.tag == EMBED)
    embed = own._replace(outs=(words._replace(dims=(b, s, d)),))
    nodes = (*before, embed, *made, join, *whole, *rewrite(base.nodes[end:], change))
    return sound(base._replace(nodes=nodes), field)


def longer(o: Op, n: Size, dims: tuple[str, ...]) -> Op:
    """An operator of longer sequences, along these dimensions."""
    return o._replace(sizes={**o.sizes, **{dim: o.sizes[dim] + n for dim in dims if dim in o.sizes}})


def fits(model: Model, field: str, n: Size) -> None:
    """Raise an InputError where a table of positions is too short for n more tokens."""
    context: Size = model.config.get("context", 0)
    learned = model.config.get("positions") == "learned"
    longest: Size = next((o.sizes[SEQ] for o, _ in walk(model.nodes) if SEQ in o.sizes), 0)
    if learned and all(map(is_number, (context, longest, n))) and longest + n > context:
        left = context - longest
        raise InputError(field, f"got {n} beside {longest:,} tokens; allowed: at most {left}, the context")


def sound(model: Model, field: str) -> Model:
    """The model, whose sequences a technique has made longer. Raises InputError where some are as they were,
    as in attention along other axes than a language model's.
    """
    from ..ir.verify import ProgramError, verify

    try:
        verify(model)
    except ProgramError as error:
        where = str(error).partition(": ")[0]
        raise InputError(field, f"{model.name}'s {where} is not modelled with it; allowed: 0") from None
    return model
