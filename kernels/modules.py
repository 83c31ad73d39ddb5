"""The kernels as nn.Modules, and swap(), which puts them into an existing model."""

import copy

import torch
from torch import nn

from .attention import attention
from .attention_checks import MAX_HEAD_DIM, MIN_HEAD_DIM
from .matmul import matmul
from .rms_norm import reference_rms_norm, rms_norm

__all__ = ["FlashAttention", "FusedLinear", "FusedRMSNorm", "swap"]


class FusedLinear(nn.Linear):  # type: ignore[misc] # torch has no types here
    """nn.Linear with an activation in the product's epilogue; parameters and names as there.

    activation: None, "relu", "gelu", "gelu_tanh" or "silu".
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        **factory,
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in_features] to [..., out_features]."""
        rows = x.unsqueeze(0) if x.ndim == 1 else x
        out = matmul(rows, self.weight.mT, self.bias, activation=self.activation)
        return out.squeeze(0) if x.ndim == 1 else out

    def extra_repr(self) -> str:
        """nn.Linear's, with the activation."""
        return f"{super().extra_repr()}, activation={self.activation}"


class FlashAttention(nn.MultiheadAttention):  # type: ignore[misc]
    """nn.MultiheadAttention on the attention kernel; constructor, parameters and names as there.

    Never returns attention weights (they are never in memory): the second output is None,
    whatever need_weights. Dropout inside the attention must be 0 in training.
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,  # noqa: ARG002 - nn.MultiheadAttention's signature
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: ARG002
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """As nn.MultiheadAttention: [seq, batch, dim], [batch, seq, dim] with batch_first, or [seq, dim].

        is_causal is a hint that attn_mask is the causal mask, as there; without attn_mask it is the mask.
        """
        if self.training and self.dropout:
            raise ValueError("dropout: FlashAttention trains without dropout inside the attention")
        batched = query.ndim == 3
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = (self._heads(t, *p) for t, p in zip((query, key, value), self._projections(), strict=True))
        bias = None
        if attn_mask is not None and not is_causal:
            bias = self._additive(attn_mask, q)
            bias = bias.unflatten(0, (-1, self.num_heads)) if bias.ndim == 3 else bias
        if key_padding_mask is not None:
            padding = self._additive(key_padding_mask, q)[:, None, None, :]
            bias = padding if bias is None else bias + padding
        out = attention(q, k, v, causal=is_causal, bias=bias)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if not batched:
            return out.squeeze(0), None
        return (out if self.batch_first else out.transpose(0, 1)), None

    def _projections(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """(weight, bias) of q, k and v."""
        weights = (
            self.in_proj_weight.chunk(3)
            if self._qkv_same_embed_dim
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return list(zip(weights, biases, strict=True))

    def _heads(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x [batch, seq, dim] projected, as [batch, heads, seq, head_dim]."""
        return matmul(x, weight.mT, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    @staticmethod
    def _additive(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A mask of torch's two kinds (True is hidden, or additive) as an additive one."""
        if mask.dtype != torch.bool:
            return mask.to(like.dtype)
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


class FusedRMSNorm(nn.RMSNorm):  # type: ignore[misc]
    """nn.RMSNorm over the last dimension on the kernel; constructor, parameters and names as there.

    offset: 1 where the weight holds the distance from 1 (Gemma), else 0.
    """

    def __init__(
        self,
        normalized_shape: int,
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        offset: float = 0.0,
        **factory,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, **factory)
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., normalized_shape], normalized; shape and dtype of x."""
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        return rms_norm(x, self.weight, eps=eps, offset=self.offset)

    def extra_repr(self) -> str:
        """nn.RMSNorm's, with the offset."""
        return f"{super().extra_repr()}, offset={self.offset}"


ACTIVATIONS = {nn.ReLU: "relu", nn.SiLU: "silu"}


def swap(model: nn.Module) -> nn.Module:
    """Put the kernels into model, in place; returns model, or its replacement if it is a layer itself.

    nn.Linear becomes FusedLinear, and takes in the activation that follows it in an nn.Sequential
    (which leaves an nn.Identity there, so that names stay); nn.MultiheadAttention becomes
    FlashAttention where the kernel can take its place: no dropout, no added bias rows, a head
    dimension in range. A layer that computes RMSNorm, whatever its class, becomes FusedRMSNorm: it
    has one vector as its weight and an eps, and returns what RMSNorm does. Parameters are shared,
    not copied: optimizers and checkpoints go on working. Subclasses of torch's layers are left
    alone, and so is what reads a layer's weight without calling it (nn.TransformerEncoderLayer's
    inference fast path).
    """
    replacement = _replacement(model)
    if replacement is not model:
        return replacement
    for parent in list(model.modules()):
        if isinstance(parent, nn.MultiheadAttention):
            continue  # its out_proj is a part of it
        for name, child in list(parent.named_children()):
            new = _replacement(child)
            if new is not child:
                setattr(parent, name, new)
        if isinstance(parent, nn.Sequential):
            _fuse_activations(parent)
    return model


def _replacement(module: nn.Module) -> nn.Module:
    if type(module) is nn.Linear:
        return _shared(module, FusedLinear, activation=None)
    if type(module) is nn.MultiheadAttention:
        simple = module.bias_k is None and not module.add_zero_attn and not module.dropout
        if simple and MIN_HEAD_DIM <= module.head_dim <= MAX_HEAD_DIM:
            return _shared(module, FlashAttention)
    norm = _rms_norm_settings(module)
    return module if norm is None else _shared(module, FusedRMSNorm, **norm)


def _rms_norm_settings(module: nn.Module) -> dict[str, object] | None:
    """FusedRMSNorm's settings that compute the same as module; None where there are none.

    Libraries write the layer anew for each model, so it is recognized by its output: for a random weight, and
    an input so small that eps matters.
    """
    state, eps = dict(module.named_parameters()), getattr(module, "variance_epsilon", None)
    eps = getattr(module, "eps", eps)
    alone = not [*module.children(), *module.buffers()]
    if not (alone and list(state) == ["weight"] and state["weight"].ndim == 1 and isinstance(eps, float)):
        return None
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(rows, state["weight"].numel(), generator=generator) for rows in (1, 4))
    x, twin = x * eps**0.5, copy.copy(module)
    twin._parameters = {**module._parameters, "weight": nn.Parameter(weight[0])}  # noqa: SLF001 - a copy
    try:
        with torch.no_grad():
            found, half = type(module).forward(twin, x), type(module).forward(twin.bfloat16(), x.bfloat16())
    except Exception:  # noqa: BLE001 - another layer's code, which may want other arguments
        return None
    if not isinstance(found, torch.Tensor) or half.dtype != torch.bfloat16:
        return None
    for offset in (0.0, 1.0):
        expected = reference_rms_norm(x, weight[0], eps, offset)[0]
        if found.shape == x.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
            shape = tuple(state["weight"].shape)
            return {"eps": eps, "offset": offset, "normalized_shape": shape, "elementwise_affine": True}
    return None


def _shared(module: nn.Module, cls: type, **attributes: object) -> nn.Module:
    """A cls with module's parameters, hooks and attributes."""
    new = copy.copy(module)
    new.__class__ = cls
    new.__dict__.update(attributes)
    return new


def _fuse_activations(sequential: nn.Sequential) -> None:
    for i in range(len(sequential) - 1):
        linear, activation = sequential[i], sequential[i + 1]
        name = ACTIVATIONS.get(type(activation))
        if type(activation) is nn.GELU:
            name = "gelu_tanh" if activation.approximate == "tanh" else "gelu"
        if type(linear) is FusedLinear and linear.activation is None and name:
            linear.activation = name
            sequential[i + 1] = nn.Identity()
