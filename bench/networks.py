"""Whole networks to measure, each by the same settings for budget and for torch.

Networks of Hugging Face are given by their config: budget reads it, transformers builds it. The others are
written out below. `build` makes the function that runs one forward pass or one training step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

HEADS = {
    "gpt2": "GPT2LMHeadModel",
    "bert": "BertForMaskedLM",
    "llama": "LlamaForCausalLM",
    "vit": "ViTForImageClassification",
    "resnet": "ResNetForImageClassification",
}
IMAGES = ("vit", "resnet")


@cache
def import_all() -> None:
    """Import what processes forked from this one need, once."""
    import transformers

    for name in HEADS.values():
        getattr(transformers, name)


def linear_layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers = [m for c, f in pairwise(widths) for m in (nn.Linear(c, f), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class Dlrm(nn.Module):
    """Naumov et al.: dense features and embedding bags, dot products of all pairs. Source: dlrm."""

    def __init__(
        self,
        dense_features: int,
        tables: Sequence[int],
        embedding_dim: int,
        bottom: Sequence[int],
        top: Sequence[int],
    ):
        super().__init__()
        n = len(tables) + 1
        self.bottom = linear_layers((dense_features, *bottom, embedding_dim)).append(nn.ReLU())
        self.tables = nn.ModuleList(nn.EmbeddingBag(rows, embedding_dim, mode="sum") for rows in tables)
        self.top = linear_layers((embedding_dim + n * (n - 1) // 2, *top, 1)).append(nn.Sigmoid())
        self.register_buffer("lower", torch.tril_indices(n, n, -1))

    def forward(self, dense: Tensor, ids: Sequence[Tensor]) -> Tensor:
        """dense [b, c], ids: [b, 1] a table, to a probability [b, 1]."""
        x = self.bottom(dense)
        rows = torch.stack([x, *(table(i) for table, i in zip(self.tables, ids, strict=True))], 1)
        dots = torch.bmm(rows, rows.transpose(1, 2))
        return self.top(torch.cat((x, dots[:, self.lower[0], self.lower[1]]), 1))


def build(
    settings: Mapping[str, Any],
    device: torch.device,
    *,
    attention: str = "sdpa",
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    mark: Callable[[str], None] = lambda phase: None,
) -> Callable[[], Tensor]:
    """One forward pass or training step of a workload (budget/measured/record.py); returns a loss or a mean.

    attention: transformers' attn_implementation. wrap: a function of the network, such as torch.compile,
    whose result is called. mark: called when the network is made, and in each step when a phase is over.
    """
    dtype = getattr(torch, {"fp32": "float32", "bf16": "bfloat16"}.get(settings["dtype"], settings["dtype"]))
    train = settings["mode"] == "train"
    network, loss = _network(settings, device, dtype, attention)
    network = network.to(device, dtype).train(train)
    called = wrap(network)
    mark("built")
    if not train:
        return lambda: _forward(called, loss)
    optimizer = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[settings["optimizer"]](
        network.parameters(), lr=1e-6
    )

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss(called)
        mark("forward")
        value.backward()
        mark("backward")
        optimizer.step()
        mark("optimizer")
        return value.detach()

    return step


def _forward(net: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Tensor:
    with torch.no_grad():
        return loss(net)


def _network(
    s: Mapping[str, Any], device: torch.device, dtype: torch.dtype, attention: str = "sdpa"
) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """A network, and its loss or mean as a function of what is called in its place."""
    model, config, train = s["model"], s.get("config", {}), s["mode"] == "train"
    if isinstance(model, Mapping):
        return _hugging_face(s, device, dtype, attention)
    batch, entropy = s["batch"], nn.functional.cross_entropy
    random = lambda *shape: torch.randn(shape, device=device, dtype=dtype)  # noqa: E731 - a shorter name
    if model == "mlp":
        net, x = linear_layers(config["sizes"]), random(batch, config["sizes"][0])
        target = torch.randint(config["sizes"][-1], (batch,), device=device)
        return net, lambda net: entropy(net(x), target) if train else net(x).mean()
    if model == "rnn":
        cells = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
        net = cells[config["cell"]](
            config["input_size"], config["hidden_size"], config["layers"], batch_first=True
        )
        x = random(batch, s["seq"], config["input_size"])
        return net, lambda net: net(x)[0].sum()
    if model == "dlrm":
        net, dense = Dlrm(**config), random(batch, config["dense_features"])
        ids = [torch.randint(rows, (batch, 1), device=device) for rows in config["tables"]]
        click = torch.rand(batch, 1, device=device, dtype=dtype)
        return (
            net,
            lambda net: (
                nn.functional.binary_cross_entropy(net(dense, ids), click)
                if train
                else net(dense, ids).mean()
            ),
        )
    raise ValueError(f"no network {model!r} here")


def _hugging_face(
    s: Mapping[str, Any], device: torch.device, dtype: torch.dtype, attention: str
) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    import transformers

    fields = {k: v for k, v in s["model"].items() if k not in ("model_type", "architectures")}
    kind = s["model"]["model_type"]
    # Dropout is off: the workloads have none.
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if kind == "gpt2" else {}
    off |= (
        {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if kind in ("bert", "vit") else {}
    )
    by = {} if kind == "resnet" else {"attn_implementation": attention}
    config = transformers.AutoConfig.for_model(kind, **fields, **off, **by)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    with device:  # where there are many parameters, a processor takes seconds to draw them
        net = getattr(transformers, HEADS[kind])(config)
    batch = s["batch"]
    if kind in IMAGES:
        side = s.get("image") or config.image_size
        inputs = {"pixel_values": torch.randn(batch, 3, side, side, device=device, dtype=dtype)}
        labels = torch.randint(config.num_labels, (batch,), device=device)
    else:
        ids = torch.randint(config.vocab_size, (batch, s["seq"]), device=device)
        inputs, labels = {"input_ids": ids}, ids
    if s["mode"] == "train":
        return net, lambda net: net(**inputs, labels=labels).loss
    return net, lambda net: net(**inputs).logits.mean()
