"""torch.autocast on a processor with CUDA's list of what runs in float32. Source: torch-autocast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

aten = torch.ops.aten
LOW = (torch.bfloat16, torch.float16)
# Of what CUDA's autocast runs in float32 and a processor's does not, what these networks call.
WIDENED = ("layer_norm", "pow.Tensor_Scalar", "rsqrt", "exp", "softplus", "nll_loss_nd", "group_norm")
ANSWERED_WIDE = ("softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumsum")


@contextmanager
def as_cuda() -> Iterator[None]:
    """Within, a processor's autocast has CUDA's list."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for name in (*WIDENED, *ANSWERED_WIDE):
            base, _, overload = name.partition(".")
            own = getattr(getattr(aten, base), overload or "default")
            library.impl(name, _policy(own, name in ANSWERED_WIDE), "AutocastCPU")
        yield
    finally:
        library._destroy()


def _policy(call: Any, answers: bool) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)):
            if not answers:
                return call(*(x.float() if _narrow(x) else x for x in args), **kwargs)
            if _narrow(args[0]) and not any(isinstance(x, torch.dtype) for x in (*args, *kwargs.values())):
                args, kwargs = [x for x in args if x is not None], {**kwargs, "dtype": torch.float32}
            return call(*args, **kwargs)

    return kernel


def _narrow(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype in LOW
