"""Translation with LSTMs and additive attention: GNMT as MLPerf trains it.

The first decoder layer's states are the queries; the context that attention finds goes to every layer
above. So attention runs once for the whole sequence, between two recurrences.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, setting
from ..ir import EMBED, HEAD, Model, Node, block, group, model, op
from ..size import Size, or_else
from ._layers import sized
from ._loss import cross_entropy
from ._recurrent import Cell, recurrent

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

SEQ = 50


class Config(Settings):
    """MLPerf's model: 4 + 4 layers of 1024, one embedding for both languages."""

    d_model: int = setting(1024, "width of states, embeddings and attention")
    encoder_layers: int = setting(4, "LSTM layers of the encoder, the first in both directions", least=2)
    decoder_layers: int = setting(4, "LSTM layers of the decoder, the first below the attention", least=2)
    vocab: int = setting(32320, "tokens")


def build(c: Config, w: Workload) -> Model:
    """Source tokens [b, t] and target tokens [b, s], equally many, to logits [b, s, v].

    Decode mode makes one token per sequence; the encoder's output is kept.
    """
    t = or_else(w.seq, SEQ)
    s = 1 if w.mode == "decode" else t
    sizes = {"b": w.batch, "t": t, "s": s, "d": c.d_model, "v": c.vocab}
    return model("seq2seq", c, w, _nodes(c, w, t, s), sizes, samples=w.batch, tokens=w.batch * s, seq=t)


def _nodes(c: Config, w: Workload, t: Size, s: Size) -> Iterator[Node]:
    # Decode mode does not run the encoder, but its weights are in memory.
    b = 0 if w.mode == "decode" else w.batch
    yield from sized(_encoder(c, t), b=b)
    yield op("attn.k", "context: b t d, *d k -> k: b t k", k=c.d_model, b=b)
    if w.mode == "decode":
        yield op("attn.kept", "!keys: b t k, !states: b t d -> k: b t k, context: b t d", "view", k=c.d_model)
    yield from _decoder(c, s)
    if w.mode == "train":
        yield from cross_entropy("logits")


def _encoder(c: Config, t: Size) -> Iterator[Node]:
    cell = Cell("lstm", c.d_model)
    yield op("encoder.embed", "!source/int64: b t, *embed: ~v d -> context: b t d", "gather", EMBED)
    yield from recurrent("encoder.both", cell, "context", "context", c=c.d_model, steps=t, bidirectional=True)
    yield from recurrent("encoder.second", cell, "context", "context", c=2 * c.d_model, steps=t)
    layer = (
        *recurrent("lstm", cell, "context", "up", c=c.d_model, steps=t),
        op("residual", "context: b t d, up: b t d -> context:", "add"),
    )
    yield block("encoder.layers", layer, c.encoder_layers - 2)


def _decoder(c: Config, s: Size) -> Iterator[Node]:
    cell = Cell("lstm", c.d_model)
    beside = op("attend", "x: b s d, found: b s d -> xc: b s c", "cat", c=2 * c.d_model)
    yield op("decoder.embed", "!target/int64: b s, *embed: ~v d -> x: b s d", "gather", EMBED)
    yield from recurrent("decoder.first", cell, "x", "x", c=c.d_model, steps=s, t="s")
    yield from _attention(c)
    yield beside._replace(name="decoder.attend")
    yield from recurrent("decoder.second", cell, "xc", "x", c=2 * c.d_model, steps=s, t="s")
    layer = (
        beside,
        *recurrent("lstm", cell, "xc", "up", c=2 * c.d_model, steps=s, t="s"),
        op("residual", "x: b s d, up: b s d -> x:", "add"),
    )
    yield block("decoder.layers", layer, c.decoder_layers - 2)
    yield op("head", "x: b s d, *v d, +*v -> logits: b s v", tag=HEAD)


def _attention(c: Config) -> Iterator[Node]:
    """Bahdanau's scores v.tanh(q + k + bias), v of a learned length: an activation of b s t k."""
    yield op("attn.q", "x: b s d, *d k -> q: b s k", k=c.d_model)
    yield op("attn.v", "*k, *1 -> direction: k", "mul", k=c.d_model)
    yield from group(
        "additive_attention",
        op("attn.pair", "q: b s k, k: b t k -> e: b s t k", "add", k=c.d_model),
        op("attn.bias", "e: b s t k, *k -> e: b s t k", "add", k=c.d_model),
        op("attn.tanh", "e: -> e:", "tanh"),
        op("attn.scores", "e: b s t k, direction: k -> w: b s t", k=c.d_model),
        op("attn.softmax", "w: -> p:", "softmax"),
        op("attn.mix", "p:, context: b t d -> found: b s d"),
    )
