"""The launches that the lint compiles: every kernel, in every shape class of settings.toml.

Tensors are on the meta device: nothing runs, but the launch code chooses settings, descriptors
and specializations exactly as it would for tensors of these shapes on a GPU.
"""

import math
from collections.abc import Callable

import torch

from .attention_backward import launch_backward
from .attention_decode import launch_decode
from .attention_forward import launch_forward
from .attention_rules import Packing, Rules
from .cross_entropy import launch_cross_entropy, launch_cross_entropy_backward
from .matmul_kernel import launch_epilogue_backward, launch_matmul
from .softmax_kernel import launch_softmax, launch_softmax_backward

Call = Callable[[], None]


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """A tensor without data."""
    return torch.empty(shape, dtype=dtype, device="meta")


def _matmul(
    m: int,
    k: int,
    n: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    activation: str = "gelu",
    gated: bool = False,
    save: bool = False,
) -> Call:
    a, b = meta(1, m, k, dtype=dtype), meta(1, n, k, dtype=dtype).mT
    gate = meta(1, n, k, dtype=dtype).mT if gated else None
    is_fp8 = dtype == torch.float8_e4m3fn
    out = meta(1, m, n, dtype=torch.bfloat16 if is_fp8 else dtype)
    scale = meta(1, dtype=torch.float32) if is_fp8 else None
    bias, saved, nothing = meta(n, dtype=out.dtype), meta(1, m, n, dtype=out.dtype), meta(0)
    targets = (out, saved if save else nothing, saved if save and gated else nothing)
    return lambda: launch_matmul(
        a, b, bias, gate, None, scale, scale, *targets, activation=activation, tf32=False
    )


def _epilogue_backward() -> None:
    x = meta(1, 4096, 4096)
    bias = meta(4096, dtype=torch.float32)
    launch_epilogue_backward(x, x, x, x, x, bias, activation="gelu")


def _softmax(columns: int) -> Call:
    x = meta(8192, columns)
    return lambda: launch_softmax(x, None, x, scale=1.0, causal=False, log=False)


def _softmax_masked() -> None:
    x, mask = meta(16, 16, 1024, 1024), meta(16, 1, 1, 1024, dtype=torch.bool)
    launch_softmax(x, mask, x, scale=0.125, causal=True, log=False)


def _softmax_backward(columns: int) -> Call:
    x = meta(8192, columns)
    return lambda: launch_softmax_backward(x, x, x, scale=1.0, log=False)


def _cross_entropy() -> None:
    logits, row = meta(8192, 128_256), meta(8192, dtype=torch.float32)
    numbers = {"scale": 1.0, "ignore_index": -100, "smoothing": 0.0}
    target = meta(8192, dtype=torch.int64)
    launch_cross_entropy(logits, target, row, row, row, **numbers)
    launch_cross_entropy_backward(row, logits, target, row, row, logits, **numbers)


def _rules(head_dim: int, *, causal: bool, window: int = 0, softcap: float = 0.0) -> Rules:
    return Rules(causal, window, softcap, 1 / math.sqrt(head_dim))


def _attention(head_dim: int, *, causal: bool, backward: bool, dtype: torch.dtype = torch.bfloat16) -> Call:
    q, k = meta(4, 32, 4096, head_dim, dtype=dtype), meta(4, 8, 4096, head_dim, dtype=dtype)
    log_sum, rules = meta(4, 32, 4096, dtype=torch.float32), _rules(head_dim, causal=causal)
    if backward:
        return lambda: launch_backward(q, q, k, k, q, log_sum, None, None, q, k, k, None, rules)
    return lambda: launch_forward(q, k, k, None, None, q, log_sum, rules)


def _attention_packed(*, backward: bool) -> Call:
    """Packed sequences of 80 dimensions: pointers, and a padded head dimension."""
    q, k = meta(1, 32, 16384, 80), meta(1, 8, 16384, 80)
    log_sum, bounds = meta(1, 32, 16384, dtype=torch.float32), meta(17, dtype=torch.int32)
    packing, rules = Packing(bounds, bounds, 2048, 2048), _rules(80, causal=True)
    if backward:
        return lambda: launch_backward(q, q, k, k, q, log_sum, None, packing, q, k, k, None, rules)
    return lambda: launch_forward(q, k, k, None, packing, q, log_sum, rules)


def _attention_rich(*, backward: bool) -> Call:
    """Window, bias (with its gradient) and soft cap at once."""
    q, k = meta(4, 32, 4096, 128), meta(4, 8, 4096, 128)
    log_sum, bias = meta(4, 32, 4096, dtype=torch.float32), meta(1, 32, 4096, 4096).expand(4, -1, -1, -1)
    rules = _rules(128, causal=True, window=1024, softcap=50.0)
    dbias = meta(4, 32, 4096, 4096, dtype=torch.float32)
    if backward:
        return lambda: launch_backward(q, q, k, k, q, log_sum, bias, None, q, k, k, dbias, rules)
    return lambda: launch_forward(q, k, k, bias, None, q, log_sum, rules)


def _decode(head_dim: int, dtype: torch.dtype = torch.bfloat16) -> Call:
    q, k = meta(4, 32, 1, head_dim, dtype=dtype), meta(4, 8, 32768, head_dim, dtype=dtype)
    log_sum = meta(4, 32, 1, dtype=torch.float32)
    return lambda: launch_decode(q, k, k, None, q, log_sum, _rules(head_dim, causal=True))


# On every architecture.
CALLS: dict[str, Call] = {
    "matmul large": _matmul(4096, 4096, 4096),
    "matmul medium": _matmul(512, 4096, 512, activation="silu", save=True),
    "matmul skinny": _matmul(16, 4096, 4096, activation="none"),
    "matmul gated": _matmul(4096, 4096, 4096, activation="silu", gated=True, save=True),
    "matmul fp8": _matmul(4096, 4096, 4096, activation="none", dtype=torch.float8_e4m3fn),
    "matmul fp32": _matmul(4096, 4096, 4096, activation="none", dtype=torch.float32),
    "matmul backward epilogue": _epilogue_backward,
    "softmax 1024": _softmax(1024),
    "softmax 1024 masked": _softmax_masked,
    "softmax 8192": _softmax(8192),
    "softmax 32768": _softmax(32768),
    "softmax 262144": _softmax(262_144),
    "softmax backward 1024": _softmax_backward(1024),
    "softmax backward 8192": _softmax_backward(8192),
    "softmax backward 32768": _softmax_backward(32768),
    "softmax backward 262144": _softmax_backward(262_144),
    "cross entropy": _cross_entropy,
    **{
        f"attention {head_dim} causal{' backward' * backward}": _attention(
            head_dim, causal=True, backward=backward
        )
        for head_dim in (64, 128, 256)
        for backward in (False, True)
    },
    "attention 64 fp32": _attention(64, causal=True, backward=False, dtype=torch.float32),
    "attention 64 fp32 backward": _attention(64, causal=True, backward=True, dtype=torch.float32),
    "decode 64": _decode(64),
    "decode 128": _decode(128),
    "decode 256": _decode(256),
    "decode 64 fp32": _decode(64, dtype=torch.float32),
}

# On Hopper, which the settings are made for, also the variants.
HOPPER_CALLS: dict[str, Call] = {
    "matmul large saving": _matmul(4096, 4096, 4096, save=True),
    **{
        f"attention {head_dim} full{' backward' * backward}": _attention(
            head_dim, causal=False, backward=backward
        )
        for head_dim in (64, 128, 256)
        for backward in (False, True)
    },
    "attention 80 packed": _attention_packed(backward=False),
    "attention 80 packed backward": _attention_packed(backward=True),
    "attention 128 window bias softcap": _attention_rich(backward=False),
    "attention 128 window bias softcap backward": _attention_rich(backward=True),
}
