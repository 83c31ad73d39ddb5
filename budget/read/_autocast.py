"""`torch.autocast("cuda")` as CUDA casts: norms, softmax and losses run in float32. For fake tensors only.

Fakes are on a processor, whose lists of calls differ; CUDA's are added. Source: torch-autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.amp.autocast_mode import autocast

from ..named import Any

aten = torch.ops.aten

# What CUDA runs in float32 within autocast, in addition to the lists for processors.
FLOAT32 = """
    acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar
    pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm group_norm cosine_similarity
    poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss
    smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
    triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d upsample_bicubic2d upsample_nearest1d.vec upsample_nearest2d.vec
    upsample_nearest3d.vec upsample_linear1d.vec upsample_bilinear2d.vec upsample_trilinear3d.vec
    upsample_bicubic2d.vec
""".split()  # noqa: SIM905
FLOAT32_OUT = """
    softmax.int log_softmax.int sum sum.dim_IntList prod prod.dim_int cumsum cumprod linalg_vector_norm
""".split()  # noqa: SIM905


@contextmanager
def kernels(key: str, own: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Replace the kernels of some of torch's calls."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for name, kernel in own.items():
            library.impl(name, kernel, key)
        yield
    finally:
        library._destroy()


@contextmanager
def autocasts() -> Iterator[None]:
    """`autocast("cuda")` is the processor's, with CUDA's lists added."""
    init, enter, leave = autocast.__init__, autocast.__enter__, autocast.__exit__
    within: dict[int, Any] = {}

    def made(self: Any, device_type: str, dtype: Any = None, *args: Any, **kwargs: Any) -> None:
        cuda = device_type == "cuda"
        dtype = torch.get_autocast_dtype("cuda") if cuda and dtype is None else dtype
        init(self, "cpu" if cuda else device_type, dtype, *args, **kwargs)
        self.as_cuda = cuda and self._enabled

    def entered(self: Any) -> Any:
        if getattr(self, "as_cuda", False) and not within:
            within[id(self)] = kernels("AutocastCPU", _policies())
            within[id(self)].__enter__()
        return enter(self)

    def left(self: Any, *error: Any) -> Any:
        if id(self) in within:
            within.pop(id(self)).__exit__(None, None, None)
        return leave(self, *error)

    autocast.__init__, autocast.__enter__, autocast.__exit__ = made, entered, left
    try:
        yield
    finally:
        for one in within.values():
            one.__exit__(None, None, None)
        autocast.__init__, autocast.__enter__, autocast.__exit__ = init, enter, leave


def _policies() -> dict[str, Callable[..., Any]]:
    """A kernel for each call that CUDA's lists have and the processor's do not."""
    found = {}
    for names, policy in ((FLOAT32, _widened), (FLOAT32_OUT, _summed)):
        for name in names:
            base, _, overload = name.partition(".")
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "AutocastCPU"):
                found[name] = policy(getattr(getattr(aten, base), overload or "default"))
    return found


def _widened(call: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)):
            return call(*map(_wide, args), **{k: _wide(v) for k, v in kwargs.items()})

    return kernel


def _summed(call: Any) -> Callable[..., Any]:
    def kernel(x: Any, *args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)):
            narrow = x.dtype in (torch.bfloat16, torch.float16) and kwargs.get("dtype") is None
            return (
                call(x, *args, **{**kwargs, "dtype": torch.float32}) if narrow else call(x, *args, **kwargs)
            )

    return kernel


def _wide(x: Any) -> Any:
    narrow = isinstance(x, torch.Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if narrow else x
