"""Deep Speech 2: two convolutions over a spectrogram, recurrent layers in both directions, CTC.

Source: deepspeech2 (Amodei et al. 2016), in the sizes of MLPerf v0.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, setting
from ..ir import HEAD, LOSS, Model, Node, Op, block, model, op
from ..size import Size, floor_div, or_else
from ._recurrent import GATES, Cell, recurrent

TAKES = ("batch", "seq")

SEQ = 800  # frames: eight seconds
FRAME_S = 0.01  # seconds from one frame to the next. Source: deepspeech2-mlperf


class Config(Settings):
    """MLPerf's: five layers of bidirectional GRUs of 800."""

    cell: str = setting("gru", "of the recurrent layers", choices=tuple(GATES))
    layers: int = setting(5, "recurrent layers")
    hidden_size: int = setting(800, "width of a state; both directions are added up")
    frequencies: int = setting(161, "channels of the spectrogram")
    channels: int = setting(32, "channels of the convolutions")
    vocab: int = setting(29, "letters, with CTC's blank")


def build(c: Config, w: Workload) -> Model:
    """Spectrograms [b, frequencies, frames] to logits [b, t, v], t half the frames."""
    frames = or_else(w.seq, SEQ)
    t = _strided(frames, 11, 5, 2)
    sizes = {"b": w.batch, "t": t, "v": c.vocab, "c": c.hidden_size}
    nodes, sound = _nodes(c, w, frames, t), frames * FRAME_S
    return model("deepspeech2", c, w, nodes, sizes, samples=w.batch, tokens=w.batch * t, sound=sound)


def _strided(extent: Size, kernel: int, padding: int, stride: int) -> Size:
    return floor_div(extent + 2 * padding - kernel, stride) + 1


def _nodes(c: Config, w: Workload, frames: Size, t: Size) -> Iterator[Node]:
    y1 = _strided(c.frequencies, 41, 20, 2)
    y2 = _strided(y1, 21, 10, 2)
    n, width = c.hidden_size, c.channels * y2
    yield from _convolution(1, "!spectrogram", 1, c.channels, (c.frequencies, frames), (y1, t), (41, 11))
    yield from _convolution(2, "x", c.channels, c.channels, (y1, t), (y2, t), (21, 11))
    yield op("conv.flatten", "x: b f y x -> x: b t c", "copy", f=c.channels, y=y2, x=t, c=width)
    cell = Cell(c.cell, n)
    yield from recurrent("rnn0", cell, "x", "x", c=width, steps=t, bidirectional=True)
    yield op("rnn0.sum", "x: b t f -> x: b t c", "reduce", f=2 * n)
    layer = (
        op("norm", "x: b t c, *c, +*c -> x:", "batch_norm"),
        *recurrent("rnn", cell, "x", "x", c=n, steps=t, bidirectional=True),
        op("rnn.sum", "x: b t f -> x: b t c", "reduce", f=2 * n),
    )
    yield block("layers", layer, c.layers - 1)
    yield op("head.norm", "x: b t c, *c, +*c -> x:", "batch_norm")
    yield op("head", "x: b t c, *v c -> logits: b t v", tag=HEAD)
    if w.mode == "train":
        yield op("loss.log_softmax", "logits: -> logp/float32:", "log_softmax", LOSS)
        yield op("loss", "logp: -> loss: 1", "ctc", LOSS)


def _convolution(
    i: int,
    x: str,
    c: Size,
    f: Size,
    before: tuple[Size, Size],
    after: tuple[Size, Size],
    taps: tuple[int, int],
) -> Iterator[Op]:
    """Over frequencies y and time x."""
    sizes: dict[str, Size] = {"c": c, "f": f, "i": taps[0], "j": taps[1], "y": after[0], "x": after[1]}
    sizes |= {"y+i": before[0], "x+j": before[1]}
    yield op(f"conv.{i}", f"{x}: b c y+i x+j, *f c i j, +*f -> x: b f y x", **sizes)
    yield op(f"conv.norm{i}", "x: b f y x, *f, +*f -> x:", "batch_norm", **sizes)
    yield op(f"conv.clip{i}", "x: b f y x -> x:", "hardtanh_", **sizes)
