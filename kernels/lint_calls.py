"""A launch of every kernel in every shape class of settings.toml, for the lint and for tune.

The lint makes their tensors on the meta device: nothing runs, but the launch code chooses settings,
descriptors and specializations exactly as it would on a GPU. tune makes them there.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from .attention_backward import launch_backward
from .attention_decode import launch_decode
from .attention_forward import launch_forward
from .attention_rules import Packing, Rules, row_numbers
from .cross_entropy_kernel import launch_cross_entropy, launch_cross_entropy_backward
from .matmul_epilogue import launch_epilogue_backward
from .matmul_kernel import launch_matmul
from .rms_norm_kernel import launch_rms_norm, launch_rms_norm_backward
from .rope_kernel import launch_rope
from .softmax_kernel import launch_softmax, launch_softmax_backward

# Launches, and returns what was written.
Launch = Callable[[], tuple[torch.Tensor, ...]]

_device: contextvars.ContextVar[str] = contextvars.ContextVar("device", default="meta")


@contextlib.contextmanager
def tensors_on(device: str) -> Iterator[None]:
    """Make the tensors of a call on device."""
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Normal numbers: zeros would run faster than real data."""
    if dtype.itemsize == 1:
        return torch.randn(shape, device=_device.get()).to(dtype)
    return torch.randn(shape, dtype=dtype, device=_device.get())


def _matmul(
    m: int,
    k: int,
    n: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    activation: str = "gelu",
    gated: bool = False,
    save: bool = False,
    out_dtype: torch.dtype | None = None,
    rows_of_b: bool = False,
) -> Launch:
    """b is a linear layer's weight, transposed, or with rows_of_b a row-major [k, n]."""

    def weight() -> torch.Tensor:
        return random(1, k, n, dtype=dtype) if rows_of_b else random(1, n, k, dtype=dtype).mT

    a, b, gate = random(1, m, k, dtype=dtype), weight(), weight() if gated else None
    is_fp8 = dtype == torch.float8_e4m3fn
    out = random(1, m, n, dtype=out_dtype or (torch.bfloat16 if is_fp8 else dtype))
    scale = random(1, dtype=torch.float32) if is_fp8 else None
    bias = random(n, dtype=out.dtype)
    linear, gate_linear = (torch.empty_like(out) if on else out.new_empty(0) for on in (save, save and gated))

    def launch() -> tuple[torch.Tensor, ...]:
        inputs, outputs = (a, b, bias, gate, None, scale, scale), (out, linear, gate_linear)
        launch_matmul(*inputs, *outputs, activation=activation, tf32=False)
        return outputs

    return launch


def _epilogue_backward() -> Launch:
    grad, linear = random(1, 4096, 4096), random(1, 4096, 4096)
    outputs = (torch.empty_like(grad), linear.new_empty(0), random(4096, dtype=torch.float32))

    def launch() -> tuple[torch.Tensor, ...]:
        launch_epilogue_backward(grad, linear, None, *outputs, activation="gelu")
        return outputs

    return launch


def _softmax(*shape: int, masked: bool = False) -> Launch:
    x = random(*shape)
    out, mask = torch.empty_like(x), random(shape[0], 1, 1, shape[-1]) > 0 if masked else None

    def launch() -> tuple[torch.Tensor, ...]:
        launch_softmax(x, mask, out, scale=0.125, causal=masked, log=False)
        return (out,)

    return launch


def _softmax_backward(*shape: int) -> Launch:
    grad, y = random(*shape), random(*shape)
    out = torch.empty_like(y)

    def launch() -> tuple[torch.Tensor, ...]:
        launch_softmax_backward(grad, y, out, scale=1.0, log=False)
        return (out,)

    return launch


def _cross_entropy(*, backward: bool, softcap: float = 0.0) -> Launch:
    logits = random(8192, 128_256)
    target = random(8192).to(torch.int64).abs()
    row = random(8192, dtype=torch.float32)
    rows, out = tuple(torch.empty_like(row) for _ in range(3)), torch.empty_like(logits)
    numbers = {"scale": 1.0, "ignore_index": -100, "smoothing": 0.0, "softcap": softcap}

    def launch() -> tuple[torch.Tensor, ...]:
        if not backward:
            launch_cross_entropy(logits, target, *rows, **numbers)
            return rows
        launch_cross_entropy_backward(row, logits, target, row, row, out, **numbers)
        return (out,)

    return launch


def _rms_norm(*shape: int) -> Launch:
    """With all that the model's layers ask for: a weight and the residual's addition."""
    x, residual, weight = random(*shape), random(*shape), random(shape[-1])
    out, total = torch.empty_like(x), torch.empty_like(x)
    inverse = random(*shape[:-1], dtype=torch.float32)

    def launch() -> tuple[torch.Tensor, ...]:
        launch_rms_norm(x, residual, weight, out, total, inverse, eps=1e-6, offset=0.0)
        return (out, total, inverse)

    return launch


def _rms_norm_backward(*shape: int) -> Launch:
    grad, grad_total, x, weight = random(*shape), random(*shape), random(*shape), random(shape[-1])
    inverse, dweight = random(*shape[:-1], dtype=torch.float32), random(shape[-1], dtype=torch.float32)
    dx = torch.empty_like(x)

    def launch() -> tuple[torch.Tensor, ...]:
        launch_rms_norm_backward(grad, grad_total, x, weight, inverse, dx, dweight, offset=0.0)
        return (dx, dweight)

    return launch


def _rope(*, interleaved: bool = False, pairs: int = 64, gathered: bool = False) -> Launch:
    """Queries as a projection leaves them, [batch, seq, heads, head_dim] in memory."""
    x = random(4, 4096, 32, 128).transpose(1, 2)
    cos, sin = (random(4096, pairs, dtype=torch.float32) for _ in range(2))
    out = torch.empty_like(x)
    positions = torch.arange(4096, device=x.device).expand(4, -1).contiguous() if gathered else None

    def launch() -> tuple[torch.Tensor, ...]:
        launch_rope(x, cos, sin, positions, out, interleaved=interleaved, back=False)
        return (out,)

    return launch


def _attention(
    head_dim: int,
    *,
    backward: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    causal: bool = True,
    window: int = 0,
    softcap: float = 0.0,
    has_bias: bool = False,
    packed: bool = False,
    length: int = 4096,
    repeated: bool = False,
    has_sinks: bool = False,
) -> Launch:
    """Grouped heads; packed is sequences of one length, repeated one key head seen as eight."""
    shape = (1, 16384) if packed else (4, length)
    q, dout = (random(shape[0], 32, shape[1], head_dim, dtype=dtype) for _ in range(2))
    k, v = (random(shape[0], 1 if repeated else 8, shape[1], head_dim, dtype=dtype) for _ in range(2))
    k, v = (t.expand(-1, 8, -1, -1) for t in (k, v))
    rules = Rules(causal, window, softcap, 1 / math.sqrt(head_dim))
    own = random(1, 32, length, length, dtype=dtype) if has_bias else None
    bias = None if own is None else own.expand(4, -1, -1, -1)
    dbias = None if own is None else torch.empty_like(own, dtype=torch.float32)
    sinks = random(32, dtype=dtype) if has_sinks else None
    bounds = torch.arange(0, 16385, 2048, dtype=torch.int32, device=q.device)
    packing = Packing(bounds, bounds, 2048, 2048) if packed else None
    out, log_sum = torch.empty_like(q), row_numbers(q).normal_()
    gradients = tuple(t.new_empty(t.shape) for t in (q, k, v))

    def launch() -> tuple[torch.Tensor, ...]:
        if not backward:
            launch_forward(q, k, v, bias, sinks, packing, out, log_sum, rules)
            return (out, log_sum)
        launch_backward(dout, q, k, v, out, log_sum, bias, None, packing, *gradients, dbias, None, rules)
        return gradients if dbias is None else (*gradients, dbias)

    if backward and q.device.type != "meta":
        launch_forward(q, k, v, bias, sinks, packing, out, log_sum, rules)
    return launch


def _decode(
    head_dim: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    heads: int = 32,
    queries: int = 1,
    has_bias: bool = False,
    window: int = 0,
    softcap: float = 0.0,
    page: int | None = None,
    has_sinks: bool = False,
) -> Launch:
    """page: of a cache in pages, of which the lengths are known on the device alone."""
    q = random(4, heads, queries, head_dim, dtype=dtype)
    shape = (4, 8, 32768, head_dim) if page is None else (4 * 32768 // page, 8, page, head_dim)
    k, v = (random(*shape, dtype=dtype) for _ in range(2))
    lengths = table = None
    if page is not None:
        lengths = torch.full((4,), 32768, dtype=torch.int32, device=q.device)
        table = torch.arange(shape[0], dtype=torch.int32, device=q.device).view(4, -1)
    bias = random(4, heads, queries, 32768, dtype=dtype) if has_bias else None
    out, log_sum = torch.empty_like(q), random(*q.shape[:3], dtype=torch.float32)
    rules = Rules(True, window, softcap, 1 / math.sqrt(head_dim))
    sinks = random(heads, dtype=dtype) if has_sinks else None

    def launch() -> tuple[torch.Tensor, ...]:
        launch_decode(q, k, v, bias, sinks, out, log_sum, rules, lengths, table)
        return (out, log_sum)

    return launch


# What makes a call's tensors and returns its launch, on every architecture.
CALLS: dict[str, Callable[[], Launch]] = {
    "matmul large": partial(_matmul, 4096, 4096, 4096),
    "matmul medium": partial(_matmul, 512, 4096, 4096, activation="silu", save=True),
    "matmul small": partial(_matmul, 256, 512, 1024),
    "matmul skinny": partial(_matmul, 16, 4096, 65536, activation="none"),
    "matmul skinny split": partial(_matmul, 16, 4096, 4096, activation="silu", gated=True),
    "matmul gated": partial(_matmul, 4096, 4096, 4096, activation="silu", gated=True, save=True),
    "matmul fp8": partial(_matmul, 4096, 4096, 4096, activation="none", dtype=torch.float8_e4m3fn),
    "matmul to fp32": partial(_matmul, 4096, 4096, 4096, activation="none", out_dtype=torch.float32),
    "matmul fp32": partial(_matmul, 4096, 4096, 4096, activation="none", dtype=torch.float32),
    "epilogue backward": _epilogue_backward,
    "softmax 1024 masked": partial(_softmax, 16, 16, 1024, 1024, masked=True),
    **{f"softmax {n}": partial(_softmax, 8192, n) for n in (1024, 8192, 32768, 262_144)},
    **{f"softmax {n} backward": partial(_softmax_backward, 8192, n) for n in (1024, 8192, 32768, 262_144)},
    "cross entropy": partial(_cross_entropy, backward=False),
    "cross entropy backward": partial(_cross_entropy, backward=True),
    **{f"rms norm {n}": partial(_rms_norm, 8192, n) for n in (128, 4096, 32768)},
    **{f"rms norm {n} backward": partial(_rms_norm_backward, 8192, n) for n in (128, 4096, 32768)},
    "rope": _rope,
    **{f"attention {d}": partial(_attention, d) for d in (64, 128, 256)},
    **{f"attention {d} backward": partial(_attention, d, backward=True) for d in (64, 128, 256)},
    **{f"attention {d} fp32": partial(_attention, d, dtype=torch.float32) for d in (64, 128, 256)},
    **{
        f"attention {d} fp32 backward": partial(_attention, d, dtype=torch.float32, backward=True)
        for d in (64, 128, 256)
    },
    **{
        f"attention {d} bias backward": partial(_attention, d, backward=True, has_bias=True, causal=False)
        for d in (64, 128, 256)
    },
    "attention 256 fp32 bias backward": partial(
        _attention, 256, backward=True, has_bias=True, causal=False, dtype=torch.float32
    ),
    **{f"decode {d}": partial(_decode, d) for d in (64, 128, 256)},
    "decode 64 fp32": partial(_decode, 64, torch.float32),
}


def _both(what: str, head_dims: tuple[int, ...], **options: Any) -> dict[str, Callable[[], Launch]]:
    """Both passes of attention for some head dimensions."""
    return {
        f"attention {d} {what}{' backward' * backward}": partial(_attention, d, backward=backward, **options)
        for backward in (False, True)
        for d in head_dims
    }


# On Hopper, which the settings are made for, also the variants. Attention above is causal.
_RICH = {"window": 1024, "softcap": 50.0, "has_bias": True}
HOPPER_CALLS: dict[str, Callable[[], Launch]] = {
    **{f"decode {d} paged": partial(_decode, d, page=16) for d in (64, 128)},
    "cross entropy softcap": partial(_cross_entropy, backward=False, softcap=30.0),
    "cross entropy softcap backward": partial(_cross_entropy, backward=True, softcap=30.0),
    "rope interleaved, partial, gathered": partial(_rope, interleaved=True, pairs=32, gathered=True),
    "matmul large saving": partial(_matmul, 4096, 4096, 4096, save=True),
    "matmul large split": partial(_matmul, 1024, 8192, 1024, activation="none"),
    "matmul medium split": partial(_matmul, 256, 4096, 1024, activation="silu", save=True),
    "matmul small split": partial(_matmul, 128, 4096, 512, activation="silu"),
    "matmul gated split": partial(_matmul, 256, 4096, 1024, activation="silu", gated=True, save=True),
    "matmul large N = 50257": partial(_matmul, 4096, 768, 50257, activation="none"),
    "matmul large odd K": partial(_matmul, 4096, 4097, 4096),
    "matmul large row-major b": partial(_matmul, 4096, 4096, 4096, rows_of_b=True),
    "matmul skinny odd K": partial(_matmul, 16, 4097, 65536, activation="none"),
    "matmul gated gelu": partial(_matmul, 4096, 4096, 4096, gated=True, save=True),
    "matmul fp8 odd K": partial(_matmul, 4096, 4100, 4096, activation="none", dtype=torch.float8_e4m3fn),
    "matmul fp8 row-major b": partial(
        _matmul, 4096, 4096, 4096, activation="none", dtype=torch.float8_e4m3fn, rows_of_b=True
    ),
    "matmul fp8 skinny": partial(_matmul, 16, 4096, 65536, activation="none", dtype=torch.float8_e4m3fn),
    "matmul fp32 split": partial(_matmul, 256, 4096, 256, activation="none", dtype=torch.float32),
    "matmul fp32 gated": partial(
        _matmul, 4096, 4096, 4096, activation="silu", gated=True, save=True, dtype=torch.float32
    ),
    **_both("full", (64, 128, 256), causal=False),
    **_both("packed", (64, 80, 256), packed=True),
    **{f"attention {d} bias": partial(_attention, d, has_bias=True, causal=False) for d in (64, 128, 256)},
    **{f"attention {d} sinks": partial(_attention, d, has_sinks=True, window=128) for d in (64, 128)},
    **_both("window bias softcap", (64, 128, 256), **_RICH),
    **_both("window", (128,), window=1024),
    **_both("repeated keys", (128,), repeated=True),
    **_both("odd length", (64, 128), length=4001),
    **_both("fp16", (128,), dtype=torch.float16),
    **_both("fp32 window bias softcap", (256,), **_RICH, dtype=torch.float32),
    "attention 128 softcap": partial(_attention, 128, softcap=30.0),
    "attention 16": partial(_attention, 16),
    "decode 128 bias": partial(_decode, 128, has_bias=True),
    "decode 64 sinks": partial(_decode, 64, has_sinks=True),
    "decode 256 64 rows bias softcap": partial(
        _decode, 256, heads=64, queries=8, has_bias=True, window=4096, softcap=30.0
    ),
    "decode 256 64 rows fp32": partial(_decode, 256, torch.float32, heads=64, queries=8),
    "decode 128 64 rows": partial(_decode, 128, heads=64, queries=8),
}
