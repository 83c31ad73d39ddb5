"""The attention kernel for the models of transformers 5: `attn_implementation="budget"`.

    from budget.kernels.transformers_attention import register
    register()
    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="budget")

A model asks for its mask once a pass (mask), every layer for its attention (attend). A mask stays a rule
where the kernel has it: causal or not, a window, which keys are padding. Only what it has not (chunks, images
that see both ways, sequences packed into one) is written out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .attention import attention


class Mask(NamedTuple):
    """What a model's layers are told: who sees whom, as the kernel takes it.

    window: the last keys that a query sees, where that is fewer than all.
    padding: additive, [batch, 1, 1, keys], -inf for keys that no query sees; None where there are none.
    written: makes the whole mask, additive, [batch, 1, queries, keys], for a layer of another window.
    """

    causal: bool
    window: int | None
    padding: torch.Tensor | None
    written: Callable[[], torch.Tensor]

    @property
    def ndim(self) -> int:
        """That of a mask written out: generate() makes masks beforehand, and models ask."""
        return 4


def register(name: str = "budget") -> None:
    """Make attn_implementation=name of transformers run budget's attention; again is harmless.

    Causal or not, with grouped heads, sliding windows, soft caps, padding, caches and masks of one's own.
    For what the kernel has not, the model's forward pass raises ValueError: dropout in training, attention
    sinks, a head dimension out of range.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, mask)


def mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int | torch.Tensor = 0,
    kv_offset: int = 0,
    attention_mask: torch.Tensor | Mask | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    dtype: torch.dtype = torch.float32,
    **rest: Any,
) -> Mask | torch.Tensor | None:
    """A model's mask: None where its layers' is_causal says all, a Mask, or one written out, additive.

    The arguments are those of transformers.masking_utils.sdpa_mask. allow_is_causal_skip: it is the causal
    mask, cut to a window or chunks of local_size, and no more; allow_is_bidirectional_skip: all see all.
    """
    from transformers.masking_utils import prepare_padding_mask, sdpa_mask

    if isinstance(attention_mask, Mask):
        return attention_mask

    made: list[torch.Tensor] = []  # for all layers; torch.compile cannot look into functools.cache

    def written() -> torch.Tensor:
        if not made:
            seen = sdpa_mask(
                q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
                attention_mask=attention_mask, local_size=local_size, allow_is_causal_skip=False, **rest,
            )  # fmt: skip
            made.append(_additive(seen, dtype))
        return made[0]

    cut = local_size is not None and kv_length >= local_size
    # The kernel counts positions from the end; a cache that is longer than what it holds is no such case.
    aligned = isinstance(q_offset, int) and q_offset + q_length == kv_offset + kv_length
    causal, both_ways = allow_is_causal_skip and aligned, allow_is_bidirectional_skip and not cut
    if not (causal or both_ways):
        return written()
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        padding = padding[:, kv_offset : kv_offset + kv_length]
        known = not torch.compiler.is_compiling()
        padding = None if known and bool(padding.all()) else _additive(padding[:, None, None], dtype)
    if padding is None and not cut:
        return None
    return Mask(causal, local_size if cut else None, padding, written)


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where seen, else -inf."""
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, float("-inf"))


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Mask | torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """A layer's attention: query [batch, heads, seq, head_dim] to ([batch, seq, heads, head_dim], None).

    The arguments are those of transformers.integrations.sdpa_attention; values may have another head_dim.
    """
    if dropout:
        raise ValueError(f"dropout: {dropout}, but budget's attention has none; set the config's to 0")
    if s_aux is not None:
        raise ValueError("s_aux: budget's attention has no attention sinks; use eager or flash_attention_3")
    causal = getattr(module, "is_causal", True) if is_causal is None else bool(is_causal)
    window, bias = None, None  # a window that cuts comes with a Mask
    if isinstance(attention_mask, Mask):
        causal, window, bias = attention_mask.causal, attention_mask.window, attention_mask.padding
        if window not in (None, sliding_window):  # of chunks, or of a layer that does not say its window
            causal, window, bias = False, None, attention_mask.written()
    elif attention_mask is not None:
        if attention_mask.ndim != 4:
            raise ValueError(f"attention_mask: expected 4 dimensions, got {attention_mask.ndim}")
        causal, window, bias = False, None, attention_mask
        bias = _additive(bias, query.dtype) if bias.dtype == torch.bool else bias
    if position_bias is not None:
        bias = position_bias if bias is None else position_bias + bias
    if bias is not None:
        # A mask may be as long as a cache, of which the layer has used less; and it may have fewer heads.
        bias = bias[..., : key.shape[2]].to(query.device)
        bias = bias if bias.dtype in (torch.float32, query.dtype) else bias.to(query.dtype)
    width = value.shape[-1]
    if width != key.shape[-1]:
        value = torch.nn.functional.pad(value, (0, key.shape[-1] - width))
    out = attention(
        query, key, value, causal=causal, window=window, bias=bias, softcap=softcap, scale=scaling
    )
    return out[..., :width].transpose(1, 2).contiguous(), None
