"""Multi-layer perceptron: linear layers with an activation between them."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, Workload, setting
from ..errors import wrong
from ..ir import HEAD, Model, Node, model, op
from ._loss import cross_entropy

TAKES = ("batch",)


class Config(Settings):
    """The worked example: 10 features, hidden layers of 20 and 10, two classes."""

    sizes: tuple[int, ...] = setting((10, 20, 10, 2), "widths from the input to the output, by commas")
    activation: str = setting(
        "relu", "between the layers", choices=("relu", "gelu", "tanh", "sigmoid", "silu")
    )
    bias: bool = setting(True, "linear layers have a bias")

    def __post_init__(self) -> None:
        if len(self.sizes) < 2:
            raise wrong("sizes", self.sizes, "at least an input and an output width")


def build(c: Config, w: Workload) -> Model:
    """Input [b, sizes[0]] to logits [b, sizes[-1]], with a cross-entropy loss in training."""
    return model("mlp", c, w, _nodes(c, w), {"b": w.batch}, samples=w.batch)


def _nodes(c: Config, w: Workload) -> Iterator[Node]:
    bias = ", +*f" if c.bias else ""
    last = len(c.sizes) - 2
    for i, (fan_in, fan_out) in enumerate(zip(c.sizes, c.sizes[1:], strict=False)):
        x = "b c" if i else "!x: b c"
        yield op(f"linear{i}", f"{x}, *c f{bias} -> b f", tag="" if i < last else HEAD, c=fan_in, f=fan_out)
        if i < last:
            yield op(f"{c.activation}{i}", "->", c.activation)
    if w.mode == "train":
        yield from cross_entropy()
