"""Networks whose code is on the Hugging Face hub alone, written in torch after that code (source: hub-code).

Fields have their names in config.json. What is no contraction and no parameter is left out: rotations and
ALiBi, masks, constants that multiply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Fields = Mapping[str, Any]


class Attention(nn.Module):
    """Attention with grouped heads, from one projection or three."""

    def __init__(
        self, width: int, heads: int, groups: int = 0, head: int = 0, *,
        fused: bool = False, bias: bool = False, out_bias: bool = False, normed: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.groups, self.head = heads, groups or heads, head or width // heads
        parts = [self.heads * self.head, self.groups * self.head, self.groups * self.head]
        self.parts = parts
        widths = [sum(parts)] if fused else parts
        self.inward = nn.ModuleList(nn.Linear(width, part, bias=bias) for part in widths)
        self.outward = nn.Linear(parts[0], width, bias=out_bias)
        self.norms = nn.ModuleList(nn.RMSNorm(self.head) for _ in range(2 if normed else 0))

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] to the same."""
        made = torch.cat([project(x) for project in self.inward], -1).split(self.parts, -1)
        q, k, v = (part.unflatten(-1, (-1, self.head)).transpose(1, 2) for part in made)
        if self.norms:
            q, k = self.norms[0](q), self.norms[1](k)
        k, v = (part.repeat_interleave(self.heads // self.groups, 1) for part in (k, v))
        weights = F.softmax(q @ k.transpose(2, 3) / math.sqrt(self.head), -1)
        return self.outward((weights @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Gated, with a projection for each factor or one for both; or GPT's."""

    def __init__(
        self, width: int, inner: int, *, bias: bool = False, fused: bool = False, gated: bool = True
    ) -> None:
        super().__init__()
        self.gated = gated
        widths = [2 * inner] if fused else [inner] * (1 + gated)
        self.inward = nn.ModuleList(nn.Linear(width, one, bias=bias) for one in widths)
        self.outward = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same."""
        made = torch.cat([project(x) for project in self.inward], -1)
        if not self.gated:
            return self.outward(F.gelu(made))
        gate, up = made.chunk(2, -1)
        return self.outward(F.silu(gate) * up)


class Mixture(nn.Module):
    """A mixture of gated MLPs: a token goes to some of them, and to the shared ones, which are one wide
    MLP.
    """

    def __init__(self, width: int, inner: int, experts: int, active: int, shared: int = 0) -> None:
        super().__init__()
        self.active = active
        self.router = nn.Linear(width, experts, bias=False)
        self.inward = nn.Parameter(torch.empty(experts, 2 * inner, width))
        self.outward = nn.Parameter(torch.empty(experts, width, inner))
        self.shared = MLP(width, shared) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        """[b, s, width] to the same."""
        flat = x.flatten(0, 1)
        weight, chosen = self.router(flat).softmax(-1).topk(self.active)
        tokens = flat.repeat_interleave(self.active, 0).unsqueeze(-1)
        gate, up = (self.inward[chosen.flatten()] @ tokens).chunk(2, 1)
        made = (self.outward[chosen.flatten()] @ (F.silu(gate) * up)).view(*chosen.shape, -1)
        out = (made * weight.unsqueeze(-1)).sum(1).view_as(x)
        return out if self.shared is None else out + self.shared(x)


class Decoder(nn.Module):
    """Layers behind an embedding, and a head for tokens."""

    def __init__(
        self, vocab: int, width: int, layers: list[tuple[nn.Module, nn.Module]], *, tied: bool = False,
        norm: type[nn.Module] = nn.RMSNorm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab, width), nn.Linear(width, vocab, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        self.parts = nn.ModuleList(part for layer in layers for part in layer)
        self.norms = nn.ModuleList(norm(width) for _ in range(len(self.parts) + 1))

    def forward(self, input_ids: Tensor, labels: Tensor) -> SimpleNamespace:
        """Tokens [b, s] to the loss of each from those before."""
        x = self.embed(input_ids)
        for norm, part in zip(self.norms, self.parts, strict=False):
            x = x + part(norm(x))
        logits = self.head(self.norms[-1](x)).float()
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(loss=loss)


def build(kind: str, fields: Fields) -> nn.Module:
    """The network of a config, without weights."""
    with torch.device("meta"):
        return CODE[kind](fields)


def _plain(c: Fields, mlp: Fields | None = None, **attention: Any) -> nn.Module:
    """LLaMA's layers, with the given attention and MLP."""
    width, heads = c["hidden_size"], c["num_attention_heads"]
    groups, inner = c.get("num_key_value_heads", 0), c["intermediate_size"]
    layers = [
        (Attention(width, heads, groups, **attention), MLP(width, inner, **(mlp or {})))
        for _ in range(c["num_hidden_layers"])
    ]
    return Decoder(c["vocab_size"], width, layers, tied=c["tie_word_embeddings"])


def internlm(c: Fields) -> nn.Module:
    """Attention's four projections have a bias."""
    return _plain(c, bias=c["bias"], out_bias=c["bias"])


def internlm2(c: Fields) -> nn.Module:
    """wqkv and wo."""
    return _plain(c, bias=c["bias"], out_bias=c["bias"], fused=True)


def internlm3(c: Fields) -> nn.Module:
    """A bias of queries, keys and values, and another one of everything else."""
    return _plain(c, {"bias": c["bias"]}, bias=c["qkv_bias"], out_bias=c["bias"], head=c["head_dim"])


def baichuan(c: Fields) -> nn.Module:
    """W_pack."""
    return _plain(c, fused=True)


def mimo(c: Fields) -> nn.Module:
    """Qwen 2's, without the layers that guess further tokens."""
    return _plain(c, bias=True)


def exaone(c: Fields) -> nn.Module:
    """c_fc_0 and c_fc_1, in layers that have another name."""
    return _plain({**c, "num_hidden_layers": c["num_layers"]}, head=c["head_dim"])


def qwen(c: Fields) -> nn.Module:
    """c_attn with a bias whatever no_bias says, w1 and w2 of half the width each."""
    bias, half = not c["no_bias"], c["intermediate_size"] // 2
    attention = {"head": c["kv_channels"], "fused": True, "bias": True, "out_bias": bias}
    return _plain({**c, "intermediate_size": half}, {"bias": bias}, **attention)


def minicpm(c: Fields) -> nn.Module:
    """A mixture has no shared experts, and none that are narrower than the MLP."""
    if "num_experts" not in c:
        return _plain(c)
    return _mixed(c, c["num_experts"], 0, c["intermediate_size"], 0)


def deepseek(c: Fields) -> nn.Module:
    """The first layers have an MLP."""
    inner = c["moe_intermediate_size"]
    return _mixed(c, c["n_routed_experts"], c["first_k_dense_replace"], inner, c["n_shared_experts"])


def bailing_moe(c: Fields) -> nn.Module:
    """query_key_value, whose heads may have norms."""
    inner, first = c["moe_intermediate_size"], c["first_k_dense_replace"]
    attention = {"head": c["head_dim"], "fused": True, "bias": c["use_qkv_bias"], "normed": c["use_qk_norm"]}
    return _mixed(c, c["num_experts"], first, inner, c["num_shared_experts"], **attention)


def _mixed(
    c: Fields, experts: int, first: int, inner: int, shared: int | None, **attention: Any
) -> nn.Module:
    """Layers of experts behind some that have none."""
    width, heads, groups = c["hidden_size"], c["num_attention_heads"], c.get("num_key_value_heads", 0)
    layers = [
        (
            Attention(width, heads, groups, **attention),
            MLP(width, c["intermediate_size"])
            if i < first
            else Mixture(width, inner, experts, c["num_experts_per_tok"], (shared or 0) * inner),
        )
        for i in range(c["num_hidden_layers"])
    ]
    return Decoder(c["vocab_size"], width, layers, tied=c["tie_word_embeddings"])


def chatglm(c: Fields) -> nn.Module:
    """The first generation is GPT, its head its embedding; the later ones are LLaMA, with dense_h_to_4h."""
    width, heads = c["hidden_size"], c["num_attention_heads"]
    if "inner_hidden_size" in c:
        first = [
            (
                Attention(width, heads, fused=True, bias=True, out_bias=True),
                MLP(width, c["inner_hidden_size"], bias=True, gated=False),
            )
            for _ in range(c["num_layers"])
        ]
        return Decoder(c["vocab_size"], width, first, tied=True, norm=nn.LayerNorm)
    groups = c["multi_query_group_num"] if c["multi_query_attention"] else heads
    bias = c["add_bias_linear"]
    qkv = {"fused": True, "bias": bias or c["add_qkv_bias"], "out_bias": bias}
    layers = [
        (
            Attention(width, heads, groups, c["kv_channels"], **qkv),
            MLP(width, c["ffn_hidden_size"], fused=True, bias=bias),
        )
        for _ in range(c["num_layers"])
    ]
    return Decoder(c["padded_vocab_size"], width, layers)


CODE = {
    "baichuan": baichuan,
    "bailing_moe": bailing_moe,
    "bailing_moe_v2": bailing_moe,
    "chatglm": chatglm,
    "deepseek": deepseek,
    "exaone": exaone,
    "internlm": internlm,
    "internlm2": internlm2,
    "internlm3": internlm3,
    "mimo": mimo,
    "minicpm": minicpm,
    "qwen": qwen,
}
