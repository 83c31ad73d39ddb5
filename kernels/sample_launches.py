"""A launch of each kernel with random tensors: on the meta device for the lint, on a GPU for tune.

On the meta device nothing runs, but the launch code chooses settings, descriptors and specializations exactly
as it would on a GPU.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator

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


def matmul(
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


def epilogue_backward() -> Launch:
    """The gradient of a GELU and a bias."""
    grad, linear = random(1, 4096, 4096), random(1, 4096, 4096)
    outputs = (torch.empty_like(grad), linear.new_empty(0), random(4096, dtype=torch.float32))

    def launch() -> tuple[torch.Tensor, ...]:
        launch_epilogue_backward(grad, linear, None, *outputs, activation="gelu")
        return outputs

    return launch


def softmax(*shape: int, masked: bool = False) -> Launch:
    """Softmax of the last dimension; masked: by a mask of its rows and causally."""
    x = random(*shape)
    out, mask = torch.empty_like(x), random(shape[0], 1, 1, shape[-1]) > 0 if masked else None

    def launch() -> tuple[torch.Tensor, ...]:
        launch_softmax(x, mask, out, scale=0.125, causal=masked, log=False)
        return (out,)

    return launch


def softmax_backward(*shape: int) -> Launch:
    """The gradient of softmax, from its output."""
    grad, y = random(*shape), random(*shape)
    out = torch.empty_like(y)

    def launch() -> tuple[torch.Tensor, ...]:
        launch_softmax_backward(grad, y, out, scale=1.0, log=False)
        return (out,)

    return launch


def cross_entropy(*, backward: bool, softcap: float = 0.0) -> Launch:
    """The losses of 8,192 rows, or their gradient."""
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


def rms_norm(*shape: int) -> Launch:
    """RMSNorm as a model's layers have it: with a weight and the residual's addition."""
    x, residual, weight = random(*shape), random(*shape), random(shape[-1])
    out, total = torch.empty_like(x), torch.empty_like(x)
    inverse = random(*shape[:-1], dtype=torch.float32)

    def launch() -> tuple[torch.Tensor, ...]:
        launch_rms_norm(x, residual, weight, out, total, inverse, eps=1e-6, offset=0.0)
        return (out, total, inverse)

    return launch


def rms_norm_backward(*shape: int) -> Launch:
    """The gradients of rms_norm()'s inputs."""
    grad, grad_total, x, weight = random(*shape), random(*shape), random(*shape), random(shape[-1])
    inverse, dweight = random(*shape[:-1], dtype=torch.float32), random(shape[-1], dtype=torch.float32)
    dx = torch.empty_like(x)

    def launch() -> tuple[torch.Tensor, ...]:
        launch_rms_norm_backward(grad, grad_total, x, weight, inverse, dx, dweight, offset=0.0)
        return (dx, dweight)

    return launch


def rope(*, interleaved: bool = False, pairs: int = 64, gathered: bool = False) -> Launch:
    """Queries as a projection leaves them, [batch, seq, heads, head_dim] in memory."""
    x = random(4, 4096, 32, 128).transpose(1, 2)
    cos, sin = (random(4096, pairs, dtype=torch.float32) for _ in range(2))
    out = torch.empty_like(x)
    positions = torch.arange(4096, device=x.device).expand(4, -1).contiguous() if gathered else None

    def launch() -> tuple[torch.Tensor, ...]:
        launch_rope(x, cos, sin, positions, out, interleaved=interleaved, back=False)
        return (out,)

    return launch


def attention(
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


def decode(
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
    """Decoding. page: keys of a page, where the cache is pages and lengths are known on the device alone."""
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
