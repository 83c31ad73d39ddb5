"""Mamba and Mamba-2: language models of selective state spaces, without attention."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, divides, setting
from ..errors import wrong
from ..ir import EMBED, Model, Node, block, model, op
from ..size import Size, ceil_div, or_else
from ._heads import vocabulary
from ._layers import norm
from ._loss import cross_entropy
from ._mamba import Mixer, mamba, mamba2

TAKES = ("batch", "seq")
MODES = ("train", "forward", "prefill", "decode")

SEQ = 2048


class Config(Settings):
    """Mamba-130M."""

    version: int = setting(1, "1: Mamba, 2: Mamba-2")
    layers: int = setting(24, "mixers, one after the other")
    d_model: int = setting(768, "width of the residual stream")
    expand: int = setting(2, "inner width, in d_model")
    inner: int = setting(0, "inner width; 0: expand x d_model", least=0)
    state_size: int = setting(16, "width of a channel's state")
    conv_kernel: int = setting(4, "taps of the causal convolution")
    dt_rank: int = setting(0, "Mamba: rank of the step size's projection; 0: d_model / 16", least=0)
    heads: int = setting(0, "Mamba-2: heads, each with one decay; 0: inner width / 64", least=0)
    groups: int = setting(1, "Mamba-2: groups of heads that share B and C")
    chunk: int = setting(256, "Mamba-2: steps that are worked through as an attention")
    vocab: int = setting(50280, "tokens")
    bias: bool = setting(False, "the projections into and out of a mixer have a bias")
    conv_bias: bool = setting(True, "the convolution has a bias")
    tied: bool = setting(True, "the head's weight is the embedding's")
    head: str = setting("lm", "a language model's, or none", choices=("lm", "none"))

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise wrong("version", self.version, "1 or 2")
        if self.version == 2:
            divides("heads", self.decays, "expand x d_model", self.width)
            divides("groups", self.groups, "heads", self.decays)

    @property
    def decays(self) -> Size:
        """Mamba-2's heads, derived where they are not given."""
        return or_else(self.heads, self.width // 64)

    @property
    def width(self) -> Size:
        """The inner width, derived where it is not given."""
        return or_else(self.inner, self.expand * self.d_model)


def build(c: Config, w: Workload) -> Model:
    """Tokens [b, s] to logits [b, s, v]; decode runs one step from the cached states."""
    s = 1 if w.mode == "decode" else or_else(w.seq, SEQ)
    sizes = {"b": w.batch, "s": s, "d": c.d_model, "v": c.vocab}
    return model("mamba", c, w, _nodes(c, w, s), sizes, samples=w.batch, tokens=w.batch * s)


def _nodes(c: Config, w: Workload, s: Size) -> Iterator[Node]:
    yield op("embed", "!ids/int64: b s, *embed: ~v d -> x: b s d", "gather", EMBED)
    yield op("float32", "x: -> x/float32:", "cast")  # the residual stream is float32
    yield block("layers", _layer(c, w.mode, s), c.layers)
    yield norm("norm", "rms_norm")
    yield op("cast", "n: -> n:", "cast")
    if c.head == "none":
        return
    yield from vocabulary(w.mode, tied=c.tied)
    if w.mode == "train":
        yield from cross_entropy("logits", upcast=True)


def _layer(c: Config, mode: str, s: Size) -> Iterator[Node]:
    f = c.width
    yield op("norm.cast", "x: -> n:", "cast")
    yield norm("norm", "rms_norm", "n")
    if c.version == 1:
        rank = or_else(c.dt_rank, ceil_div(c.d_model, 16))
        yield from mamba(Mixer(f, c.state_size, c.conv_kernel, c.bias, c.conv_bias, rank), mode, s)
    else:
        m = Mixer(
            f, c.state_size, c.conv_kernel, c.bias, c.conv_bias, heads=c.decays, groups=c.groups,
            chunk=c.chunk, norms=True, out_bias=c.bias,
        )  # fmt: skip
        yield from mamba2(m, mode, s)
    yield op("residual", "x:, a: -> x/float32:", "add")
