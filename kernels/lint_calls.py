"""Which launches the lint compiles and tune measures: every kernel in every shape class of settings.toml."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from . import sample_launches as make
from .sample_launches import Launch

# Functions that make a call's tensors and return its launch, for all architectures.
CALLS: dict[str, Callable[[], Launch]] = {
    "matmul large": partial(make.matmul, 4096, 4096, 4096),
    "matmul medium": partial(make.matmul, 512, 4096, 4096, activation="silu", save=True),
    "matmul small": partial(make.matmul, 256, 512, 1024),
    "matmul skinny": partial(make.matmul, 16, 4096, 65536, activation="none"),
    "matmul skinny split": partial(make.matmul, 16, 4096, 4096, activation="silu", gated=True),
    "matmul gated": partial(make.matmul, 4096, 4096, 4096, activation="silu", gated=True, save=True),
    "matmul fp8": partial(make.matmul, 4096, 4096, 4096, activation="none", dtype=torch.float8_e4m3fn),
    "matmul to fp32": partial(make.matmul, 4096, 4096, 4096, activation="none", out_dtype=torch.float32),
    "matmul fp32": partial(make.matmul, 4096, 4096, 4096, activation="none", dtype=torch.float32),
    "epilogue backward": make.epilogue_backward,
    "softmax 1024 masked": partial(make.softmax, 16, 16, 1024, 1024, masked=True),
    **{f"softmax {n}": partial(make.softmax, 8192, n) for n in (1024, 8192, 32768, 262_144)},
    **{
        f"softmax {n} backward": partial(make.softmax_backward, 8192, n) for n in (1024, 8192, 32768, 262_144)
    },
    "cross entropy": partial(make.cross_entropy, backward=False),
    "cross entropy backward": partial(make.cross_entropy, backward=True),
    **{f"rms norm {n}": partial(make.rms_norm, 8192, n) for n in (128, 4096, 32768)},
    **{f"rms norm {n} backward": partial(make.rms_norm_backward, 8192, n) for n in (128, 4096, 32768)},
    "rope": make.rope,
    **{f"attention {d}": partial(make.attention, d) for d in (64, 128, 256)},
    **{f"attention {d} backward": partial(make.attention, d, backward=True) for d in (64, 128, 256)},
    **{f"attention {d} fp32": partial(make.attention, d, dtype=torch.float32) for d in (64, 128, 256)},
    **{
        f"attention {d} fp32 backward": partial(make.attention, d, dtype=torch.float32, backward=True)
        for d in (64, 128, 256)
    },
    **{
        f"attention {d} bias backward": partial(make.attention, d, backward=True, has_bias=True, causal=False)
        for d in (64, 128, 256)
    },
    "attention 256 fp32 bias backward": partial(
        make.attention, 256, backward=True, has_bias=True, causal=False, dtype=torch.float32
    ),
    **{f"decode {d}": partial(make.decode, d) for d in (64, 128, 256)},
    "decode 64 fp32": partial(make.decode, 64, torch.float32),
}


def _both(what: str, head_dims: tuple[int, ...], **options: Any) -> dict[str, Callable[[], Launch]]:
    """Both passes of attention for some head dimensions."""
    return {
        f"attention {d} {what}{' backward' * backward}": partial(
            make.attention, d, backward=backward, **options
        )
        for backward in (False, True)
        for d in head_dims
    }


# On Hopper, for which the settings are made, the variants as well. Attention above is causal.
_RICH = {"window": 1024, "softcap": 50.0, "has_bias": True}
HOPPER_CALLS: dict[str, Callable[[], Launch]] = {
    **{f"decode {d} paged": partial(make.decode, d, page=16) for d in (64, 128)},
    "cross entropy softcap": partial(make.cross_entropy, backward=False, softcap=30.0),
    "cross entropy softcap backward": partial(make.cross_entropy, backward=True, softcap=30.0),
    "rope interleaved, partial, gathered": partial(make.rope, interleaved=True, pairs=32, gathered=True),
    "matmul large saving": partial(make.matmul, 4096, 4096, 4096, save=True),
    "matmul large split": partial(make.matmul, 1024, 8192, 1024, activation="none"),
    "matmul medium split": partial(make.matmul, 256, 4096, 1024, activation="silu", save=True),
    "matmul small split": partial(make.matmul, 128, 4096, 512, activation="silu"),
    "matmul gated split": partial(make.matmul, 256, 4096, 1024, activation="silu", gated=True, save=True),
    "matmul large N = 50257": partial(make.matmul, 4096, 768, 50257, activation="none"),
    "matmul large odd K": partial(make.matmul, 4096, 4097, 4096),
    "matmul large row-major b": partial(make.matmul, 4096, 4096, 4096, rows_of_b=True),
    "matmul skinny odd K": partial(make.matmul, 16, 4097, 65536, activation="none"),
    "matmul gated gelu": partial(make.matmul, 4096, 4096, 4096, gated=True, save=True),
    "matmul fp8 odd K": partial(make.matmul, 4096, 4100, 4096, activation="none", dtype=torch.float8_e4m3fn),
    "matmul fp8 row-major b": partial(
        make.matmul, 4096, 4096, 4096, activation="none", dtype=torch.float8_e4m3fn, rows_of_b=True
    ),
    "matmul fp8 skinny": partial(make.matmul, 16, 4096, 65536, activation="none", dtype=torch.float8_e4m3fn),
    "matmul fp32 split": partial(make.matmul, 256, 4096, 256, activation="none", dtype=torch.float32),
    "matmul fp32 gated": partial(
        make.matmul, 4096, 4096, 4096, activation="silu", gated=True, save=True, dtype=torch.float32
    ),
    **_both("full", (64, 128, 256), causal=False),
    **_both("packed", (64, 80, 256), packed=True),
    **{
        f"attention {d} bias": partial(make.attention, d, has_bias=True, causal=False) for d in (64, 128, 256)
    },
    **{f"attention {d} sinks": partial(make.attention, d, has_sinks=True, window=128) for d in (64, 128)},
    **_both("window bias softcap", (64, 128, 256), **_RICH),
    **_both("window", (128,), window=1024),
    **_both("repeated keys", (128,), repeated=True),
    **_both("odd length", (64, 128), length=4001),
    **_both("fp16", (128,), dtype=torch.float16),
    **_both("fp32 window bias softcap", (256,), **_RICH, dtype=torch.float32),
    "attention 128 softcap": partial(make.attention, 128, softcap=30.0),
    "attention 16": partial(make.attention, 16),
    "decode 128 bias": partial(make.decode, 128, has_bias=True),
    "decode 64 sinks": partial(make.decode, 64, has_sinks=True),
    "decode 256 64 rows bias softcap": partial(
        make.decode, 256, heads=64, queries=8, has_bias=True, window=4096, softcap=30.0
    ),
    "decode 256 64 rows fp32": partial(make.decode, 256, torch.float32, heads=64, queries=8),
    "decode 128 64 rows": partial(make.decode, 128, heads=64, queries=8),
}
