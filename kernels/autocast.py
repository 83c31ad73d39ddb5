"""torch.autocast as torch applies it: products in its dtype, softmax in float32 on a GPU."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from .checks import FLOATS

P = ParamSpec("P")
R = TypeVar("R")


def autocast(*, to_float32: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function whose first argument is a tensor: under torch.autocast its floats are cast.

    They are cast to the dtype of autocast, as for F.linear and scaled_dot_product_attention; with to_float32
    to float32 on a GPU and not at all on a CPU, as for torch.softmax. The function itself runs without
    autocast, which would round its float32 tensors. Float8 stays float8, and then nothing else is cast.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            first: Any = args[0] if args else next(iter(kwargs.values()), None)
            kind = first.device.type if isinstance(first, torch.Tensor) else "none"
            if kind not in ("cuda", "cpu") or not torch.is_autocast_enabled(kind):
                return function(*args, **kwargs)
            dtype = torch.float32 if to_float32 else torch.get_autocast_dtype(kind)
            if first.dtype in FLOATS and not (to_float32 and kind == "cpu"):
                args = tuple(_cast(value, dtype) for value in args)  # type: ignore[assignment]
                kwargs = {name: _cast(value, dtype) for name, value in kwargs.items()}  # type: ignore[assignment]
            with torch.autocast(kind, enabled=False):
                return function(*args, **kwargs)

        return wrapped

    return decorate


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype in FLOATS else value
