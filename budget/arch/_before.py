"""A tower's output before a decoder: of a picture or of sound, in the place of as many tokens of the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config import Workload, at_most
from ..ir import WEIGHT, Block, Model, Node, Op, Tensor, model, op
from ..named import NamedTuple
from ..size import Size, is_zero, or_else
from . import transformer
from ._heads import ends


class Before(NamedTuple):
    """A picture or sound before a decoder."""

    tokens: Size  # how many of a sequence it takes
    nodes: tuple[Node, ...]  # from the input to `b n d`, or weights alone where there is no picture or sound
    place: tuple[Op, ...]  # run behind the decoder's embedding
    deep: tuple[Op, ...]  # run behind the decoder's first layers, one each
    uncounted: tuple[str, ...]


def before(w: Workload, size: str, nodes: tuple[Node, ...], n: Size, features: str, missing: str) -> Before:
    """The operators from an input to `features: b n d`. Without the input, and where tokens are decoded,
    their weights are only stored.

    size: the workload's size of the input; 0 is none. missing: a note on the part that does not run then.
    """
    given = not is_zero(getattr(w, size))
    if not given or w.mode == "decode":
        left = () if given else (f"{missing}, which no input reaches",)
        return Before(n, tuple(stored(nodes)), (), (), left)
    return Before(n, nodes, (op("place", f"x: b s d, {features}: b n d -> x: b s d", "place", n=n),), (), ())


def stored(nodes: Iterable[Node]) -> Iterator[Node]:
    """The weights of operators that do not run."""
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(stored(node.body)))
            continue
        if own := tuple(t._replace(added=False) for t in node.ins if t.role == WEIGHT):
            yield Op(node.name, "resident", own, (Tensor(f"{node.name}~stored", own[0].dims),), node.sizes)


def transformer_behind(name: str, c: transformer.Config, w: Workload, size: str, before: Before) -> Model:
    """A transformer of the words and of what comes before them. size: the workload's, of the latter."""
    longest = transformer.length(c, w._replace(seq=0))
    if not is_zero(getattr(w, size)):
        at_most(size, before.tokens + 1, "context, in tokens", longest)
    words = or_else(w.seq, longest - before.tokens)
    seq = transformer.length(c, w._replace(seq=words + before.tokens))
    nodes = (
        *before.nodes,
        *transformer.embedding(c, w.mode),
        *before.place,
        *transformer.behind_embedding(c, w.mode, seq, before.deep),
    )
    decodes = w.mode == "decode"
    return model(
        name, c, w, nodes, transformer.shape(c, w, seq), samples=w.batch,
        tokens=w.batch * (1 if decodes else seq), outputs=ends(c, w.mode), uncounted=before.uncounted,
        sound=0 if decodes else w.sound, seq=seq,
    )  # fmt: skip
