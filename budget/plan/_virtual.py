"""Virtual tokens before a sequence, whose embeddings are learned: what prompt tuning and p-tuning share.

All sequences have the same ones, so they are made once and repeated. In an encoder-decoder the encoder's
sequence has them; peft learns as many for the decoder, which then reads none. Source: peft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
    base = frozen(model, None)
    places = [i for i, node in enumerate(base.nodes) if isinstance(node, Op) and node.tag == EMBED]
    embeds = [node for node in base.nodes if isinstance(node, Op) and node.tag == EMBED]
    rows = {len(o.out.dims) for o in embeds}
    if rows != {3} or any(is_convolution(o) for o, _ in walk(model.nodes)):
        raise InputError(field, f"{model.name} reads no tokens, or has convolutions; allowed: 0")
    first, end = places[0], (*places, len(base.nodes))[1]
    before, stack = (
        rewrite(nodes, lambda o: (longer(o, n, (SEQ, KEY_SEQ)),))
        for nodes in (base.nodes[:first], base.nodes[first + 1 : end])
    )
    given = {t.name for o, _ in walk(stack) for t in o.outs}

    def change(o: Op) -> tuple[Op]:
        """An operator of the decoder; where it runs along the encoder's sequence, this one is longer."""
        along = [t for t in o.ins if t.name in given and KEY_SEQ in t.dims]
        given.update(t.name for t in o.outs if along and KEY_SEQ in t.dims)
        return (longer(o, n, (KEY_SEQ,)) if along else o,)

    decoder = rewrite(base.nodes[end:], change)
    nodes = (*before, *_embedding(embeds, n, dtype, encode), *stack, *decoder)
    return sound(base._replace(nodes=nodes), field)


def _embedding(embeds: Sequence[Op], n: Size, dtype: str, encode: Encode) -> Iterator[Op]:
    """The first embedding's tokens, behind n virtual ones; as many are learned for a second embedding, and
    never read.
    """
    words = embeds[0]
    b, s, d = words.out.dims
    unread = n * (len(embeds) - 1)
    sizes = {**words.sizes, TOKENS: n + unread, "read": n, "unread": unread}
    sizes |= {"words": words.sizes[s], s: words.sizes[s] + n}

    def op(name: str, kind: str, ins: tuple[Tensor, ...], *outs: Tensor) -> Op:
        return Op(f"prompt_encoder.{name}", kind, ins, outs, sizes)

    out = words.out._replace(name=f"{words.out.name}~words")
    yield words._replace(outs=(out,))
    ids = Tensor("virtual_ids", (TOKENS,), INPUT, "int64")
    table = Tensor("prompt_encoder.embedding.weight", (f"~{TOKENS}", d), WEIGHT, dtype)
    embedded = Tensor("embedding~", (TOKENS, d), dtype=dtype)
    yield op("embedding", "gather", (ids, table), embedded)
    ops, encoded = encode(embedded, sizes[d])
    yield from (o._replace(sizes={**sizes, **o.sizes}) for o in ops)
    tokens = Tensor("repeat~", (b, TOKENS, d), dtype=dtype)
    yield op("repeat", "repeat", (encoded,), tokens)
    if dtype:
        cast = tokens._replace(name="cast~", dtype="")
        yield op("cast", "cast", (tokens,), cast)
        tokens = cast
    if len(embeds) > 1:
        read, rest = (Tensor(f"virtual_{part}", (b, part, d)) for part in ("read", "unread"))
        yield op("read", "split", (tokens,), read, rest)
        tokens = read
    yield op("join", "join", (tokens, Tensor(out.name, (b, "words", d))), *words.outs)


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
    """The model, checked: all of its sequences have become longer. Raises InputError where some are as they
    were, as in attention along other axes than a language model's.
    """
    from ..ir.verify import ProgramError, verify

    try:
        verify(model)
    except ProgramError as error:
        where = str(error).partition(": ")[0]
        raise InputError(field, f"{model.name}'s {where} is not modelled with it; allowed: 0") from None
    return model
