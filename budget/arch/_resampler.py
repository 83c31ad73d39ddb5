"""A perceiver resampler: learned tokens that attend to a picture's, and replace them (Idefics 2).

Source: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, divides, setting
from ..errors import InputError
from ..ir import Node, block, op
from ..size import Size, exact_div, is_number, is_zero, or_else
from ._attention import Attention, attention
from ._layers import ACTIVATIONS, mlp, norm, sized

NORM = "rms_norm"


class Resampled(Settings):
    """The resampler behind a projector; none by default."""

    resampler_layers: int = setting(
        0, "layers in which learned tokens attend to a picture's, behind the projector (Idefics 2)", least=0
    )
    resampler_tokens: int = setting(64, "those tokens, which stand for a picture")
    resampler_heads: int = setting(16, "their query heads")
    resampler_kv_heads: int = setting(0, "their key-value heads; 0: as many", least=0)
    resampler_head_dim: int = setting(96, "width of such a head")
    resampler_activation: str = setting("silu", "of their MLPs, four times as wide", choices=ACTIVATIONS)


def check(c: Resampled) -> None:
    """Raises InputError for heads that do not share keys evenly."""
    if not is_number(c.resampler_layers):
        raise InputError("resampler_layers", "allowed: one number")
    divides("resampler_kv_heads", _kv_heads(c), "resampler_heads", c.resampler_heads)


def tokens(c: Resampled, n: Size) -> Size:
    """How many tokens replace the n of a picture."""
    return n if is_zero(c.resampler_layers) else c.resampler_tokens


def resampled(c: Resampled, d: Size, n: Size) -> Iterator[Node]:
    """From `pictures: b n d` to the learned tokens; nothing without a resampler."""
    if is_zero(c.resampler_layers):
        return
    kv = _kv_heads(c)
    shape: dict[str, Size] = {
        "n": n, "s": c.resampler_tokens, "t": n + c.resampler_tokens, "f": 4 * d,
        "h": kv, "r": exact_div(c.resampler_heads, kv), "k": c.resampler_head_dim,
    }  # fmt: skip
    yield from sized(
        (
            op("resampler.tokens", "*s d -> latents: b s d", "repeat"),
            block("resampler", _layer(c, shape["r"]), c.resampler_layers),
            norm("resampler.norm", NORM, "latents", "latents"),
        ),
        **shape,
    )
    yield op(
        "resampler.out",
        "latents: b s d -> pictures: b n d",
        "view",
        n=c.resampler_tokens,
        s=c.resampler_tokens,
    )


def _layer(c: Resampled, shared: Size) -> Iterator[Node]:
    yield norm("attn.norm", NORM, "latents")
    yield norm("attn.context_norm", NORM, "pictures", "context")
    yield op("attn.both", "context: b n d, n: b s d -> both: b t d", "cat")
    a = Attention(bias=False, out_bias=False, heads_per_key=shared, causal=False)
    yield from attention("attn", a, "forward", x="n", memory="both")
    yield op("attn.residual", "latents:, a: -> latents:", "add")
    yield norm("mlp.norm", NORM, "latents")
    yield from mlp("mlp", c.resampler_activation, gated=True, bias=False, out="a")
    yield op("mlp.residual", "latents:, a: -> latents:", "add")


def _kv_heads(c: Resampled) -> Size:
    return or_else(c.resampler_kv_heads, c.resampler_heads)
