"""Networks of other oracles whose memory is measured on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dit import Dit
from .recommenders import Dlrm
from .speech import Conformer
from .unet import UNet

Build = Callable[[int, int], tuple[nn.Module, dict[str, Any]]]


class Case(NamedTuple):
    """A network at some (batch, size) pairs; `size` is its sequence, or its image."""

    name: str
    build: Build
    settings: Mapping[str, Any]  # of budget.estimate: the model, and what else it needs
    shapes: tuple[tuple[int, int], ...]
    size: str = "seq"


class Trained(nn.Module):
    """A network with a loss behind it, in the form of transformers' outputs."""

    def __init__(self, network: nn.Module, loss: Callable[..., Tensor]):
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, *, target: Tensor | None = None, **inputs: Any) -> SimpleNamespace:
        out = self.network(*inputs.values())
        return SimpleNamespace(loss=self.loss(out) if target is None else self.loss(out, target))


class Recurrent(nn.Module):
    """A language model of LSTM layers."""

    def __init__(self, vocab: int, width: int, layers: int):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(vocab, width), nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids))[0]).flatten(0, 1)


def lstm(*shapes: tuple[int, int], layers: int = 2, width: int = 512, vocab: int = 10_000) -> Case:
    """A language model of LSTM layers, as --arch rnn has it."""

    def build(batch: int, seq: int) -> tuple[nn.Module, dict[str, Any]]:
        ids = torch.zeros(batch, seq, dtype=torch.int64)
        module = Trained(Recurrent(vocab, width, layers), F.cross_entropy)
        return module, {"ids": ids, "target": ids.flatten()}

    config = {"cell": "lstm", "input_size": width, "hidden_size": width, "layers": layers, "vocab": vocab}
    return Case("lstm", build, {"model": "rnn", "config": config}, shapes)


def dlrm(*shapes: tuple[int, int]) -> Case:
    """The defaults of --arch dlrm."""
    from budget.arch.dlrm import Config

    c = Config()

    def build(batch: int, size: int) -> tuple[nn.Module, dict[str, Any]]:
        module = Trained(Recommender(c), F.binary_cross_entropy)
        ids = {f"ids{i}": torch.zeros(batch, c.lookups, dtype=torch.int64) for i in range(len(c.tables))}
        return module, {"dense": torch.zeros(batch, c.dense_features), **ids, "target": torch.zeros(batch, 1)}

    return Case("dlrm", build, {"model": "dlrm"}, shapes, "")


class Recommender(Dlrm):
    """DLRM with its tables' rows as further inputs."""

    def __init__(self, c: Any):
        super().__init__(c.dense_features, c.tables, c.embedding_dim, c.bottom, c.top)

    def forward(self, dense: Tensor, *ids: Tensor) -> Tensor:
        return super().forward(dense, ids)


def unet(*shapes: tuple[int, int]) -> Case:
    """The defaults of --arch unet."""

    def build(batch: int, side: int) -> tuple[nn.Module, dict[str, Any]]:
        target = torch.zeros(batch, side, side, dtype=torch.int64)
        return Trained(UNet(), F.cross_entropy), {"x": torch.zeros(batch, 1, side, side), "target": target}

    return Case("unet", build, {"model": "unet"}, shapes, "image")


def dit(*shapes: tuple[int, int], layers: int = 4, d: int = 1152, heads: int = 16) -> Case:
    """DiT-XL/2's layers."""

    def build(batch: int, side: int) -> tuple[nn.Module, dict[str, Any]]:
        latents = torch.zeros(batch, 4, side // 8, side // 8)
        label = torch.zeros(batch, dtype=torch.int64)
        noise = torch.zeros(batch, (side // 16) ** 2, 2 * 2 * 4 * 2)
        inputs = {"latents": latents, "frequencies": torch.zeros(batch, 256), "label": label, "target": noise}
        return Trained(Dit(layers, d, heads, 2, side // 8, 4, 1000), F.mse_loss), inputs

    config = {"layers": layers, "d_model": d, "heads": heads}
    return Case("dit", build, {"model": "dit", "config": config, "attention": "eager"}, shapes, "image")


def own_images(name: str, make: Callable[[int], nn.Module], *shapes: tuple[int, int], **config: Any) -> Case:
    """An image network of our own oracles; `make` takes the image's side."""

    def build(batch: int, side: int) -> tuple[nn.Module, dict[str, Any]]:
        target = torch.zeros(batch, dtype=torch.int64)
        return Trained(make(side), classes_loss), {"x": torch.zeros(batch, 3, side, side), "target": target}

    return Case(name, build, {"model": name, "config": config, "attention": "eager"}, shapes, "image")


def classes_loss(out: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the answer; a network that adds its heads' answers up has its loss already."""
    return out if out.dim() == 0 else F.cross_entropy(out, target)


def conformer(*shapes: tuple[int, int], layers: int = 3) -> Case:
    """The defaults of --arch conformer, without its loss, which torch has in float32 only."""
    from budget.arch.conformer import Config, build
    from budget.config import Workload

    c = Config(layers=layers)

    def real(batch: int, seq: int) -> tuple[nn.Module, dict[str, Any]]:
        module = Conformer(c.layers, c.d_model, c.heads, c.kernel, c.mels, c.vocab)
        return Trained(module, Tensor.sum), {"mel": torch.zeros(batch, seq, c.mels)}

    table = {"model": lambda batch, seq: build(c, Workload("forward", batch, seq)), "attention": "eager"}
    return Case("conformer", real, table, shapes)
