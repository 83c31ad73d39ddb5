"""The attention kernel for the models of transformers 5: `attn_implementation="budget"`.

    from budget.kernels.transformers_attention import register
    register()
    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="budget")

A model asks for its mask once a pass (mask), and each layer for its attention (attend). A mask stays a rule
where the kernel has that rule: causal or not, a window, padded keys, the used part of a static cache. Only
other masks (chunks, images that see both ways, sequences packed into one) are written out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .attention import attention
from .attention_cached import attention_cached
from .attention_decode import MAX_ROWS


class Mask(NamedTuple):
    """The mask that a model's layers get, in the kernel's terms.

    window: how many of the last keys a query sees, where that is fewer than all.
    padding: additive, [batch, 1, 1, keys], -inf for keys that no query sees; None where there are none.
    used: how many keys of a static cache are there, if not all: int32 [batch] where only the device knows.
    written: makes the whole mask, additive, [batch, 1, queries, keys], for a layer of another window.
    """

    causal: bool
    window: int | None
    padding: torch.Tensor | None
    written: Callable[[], torch.Tensor]
    used: int | torch.Tensor | None = None

    @property
    def ndim(self) -> int:
        """The number of dimensions of a written mask: models ask for it where generate() made the mask."""
        return 4


def register(name: str = "budget") -> None:
    """Make attn_implementation=name of transformers run budget's attention; again is harmless.

    Causal or not, with grouped heads, sliding windows, soft caps, sinks, padding, caches and the user's own
    masks. The model's forward pass raises ValueError where the kernel lacks something: dropout in training, a
    head dimension out of range.
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
    """A model's mask: None where the layers' is_causal is enough, a Mask, or one written out, additive.

    The arguments are those of transformers.masking_utils.sdpa_mask. allow_is_causal_skip: the mask is just
    the causal one, cut to a window or chunks of local_size; allow_is_bidirectional_skip: every query sees
    every key.
    """
    from transformers.masking_utils import causal_mask_function, prepare_padding_mask, sdpa_mask

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
    end, used = q_offset + q_length, None
    # Generation with a static cache asks for a mask even where it is the causal one.
    causal = allow_is_causal_skip or (rest.get("mask_function") is causal_mask_function and not cut)
    both_ways = allow_is_bidirectional_skip and not cut
    if isinstance(end, torch.Tensor):  # a static cache counts on the device, in a tensor of its own
        causal &= kv_offset == 0 and not cut
        used = end.reshape(-1).to(torch.int32).expand(rest["batch_size"]).contiguous()
    elif end != kv_offset + kv_length:  # the kernel counts positions from the last key that is there
        causal &= kv_offset == 0 and end < kv_length
        used = end
    if not (causal or both_ways):
        return written()
    used = used if causal else None
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        padding = padding[:, kv_offset : kv_offset + kv_length]
        known = not torch.compiler.is_compiling()
        padding = None if known and _all(padding, used) else _additive(padding[:, None, None], dtype)
    if padding is None and not cut and used is None:
        return None
    return Mask(causal, local_size if cut else None, padding, written, used)


def _all(there: torch.Tensor, used: int | torch.Tensor | None) -> bool:
    """Whether no key, or none of the first ones that are used, is padding."""
    if isinstance(used, torch.Tensor):
        there = there | (torch.arange(there.shape[1], device=there.device) >= used[:, None])
    return bool(there[:, : used if isinstance(used, int) else None].all())


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
    causal = getattr(module, "is_causal", True) if is_causal is None else bool(is_causal)
    window, bias, used = None, None, None  # a window that cuts comes with a Mask
    if isinstance(attention_mask, Mask):
        causal, window, bias, used = *attention_mask[:3], attention_mask.used
        unsaid = window not in (None, sliding_window)  # of chunks, or of a layer that does not say its window
        if unsaid or (isinstance(used, torch.Tensor) and not _steps(query, key, value)):
            causal, window, bias, used = False, None, attention_mask.written(), None
        if isinstance(used, int):
            key, value = key[:, :, :used], value[:, :, :used]
    elif attention_mask is not None:
        if attention_mask.ndim != 4:
            raise ValueError(f"attention_mask: expected 4 dimensions, got {attention_mask.ndim}")
        causal, window, bias = False, None, attention_mask
        bias = _additive(bias, query.dtype) if bias.dtype == torch.bool else bias
    if position_bias is not None:
        bias = position_bias if bias is None else position_bias + bias
    if bias is not None:
        # A mask may be as long as the cache, of which the layer uses less; and it may have fewer heads.
        bias = bias[..., : key.shape[2]].to(query.device)
        bias = bias if bias.dtype in (torch.float32, query.dtype) else bias.to(query.dtype)
    width = value.shape[-1]
    if width != key.shape[-1]:
        value = torch.nn.functional.pad(value, (0, key.shape[-1] - width))
    more = {"bias": bias, "sinks": s_aux, "softcap": softcap, "scale": scaling}
    if isinstance(used, torch.Tensor):
        out = attention_cached(query, key, value, used, causal=causal, **more)
    else:
        out = attention(query, key, value, causal=causal, window=window, **more)
    return out[..., :width].transpose(1, 2).contiguous(), None


def _steps(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether attention_cached can take these: few queries, no gradient."""
    rows = query.shape[2] * (query.shape[1] // key.shape[1])
    trained = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    return rows <= MAX_ROWS and value.shape[-1] == key.shape[-1] and not trained
