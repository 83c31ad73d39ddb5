"""Checks of arguments, made before any launch; every message starts with the argument's name."""

import math

import torch

HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32)


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless condition holds; for messages that are cheap to make."""
    if not condition:
        raise ValueError(message)


def require_tensor(name: str, value: object, dtypes: tuple[torch.dtype, ...] = FLOATS) -> None:
    """Raise TypeError unless value is a strided tensor of one of dtypes."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {value.layout}")
    if value.dtype not in dtypes:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name}: dtype {value.dtype} is not one of {allowed}")


def require_like(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raise unless value has the dtype and the device of other."""
    if value.dtype != other.dtype:
        raise TypeError(f"{name}: dtype {value.dtype} differs from {other_name}'s {other.dtype}")
    require_device(name, value, other_name, other)


def require_device(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raise ValueError unless value is on the device of other."""
    if value.device != other.device:
        raise ValueError(f"{name}: device {value.device} differs from {other_name}'s {other.device}")


def require_number(name: str, value: object) -> float:
    """value as a float; raise unless it is a finite real number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    return float(value)


def require_bool(name: str, value: object) -> None:
    """Raise TypeError unless value is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")


def require_int(name: str, value: object, at_least: int) -> None:
    """Raise TypeError unless value is an int, ValueError if it is below at_least."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if value < at_least:
        raise ValueError(f"{name}: expected at least {at_least}, got {value}")


def require_broadcast(name: str, value: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless value can be expanded to shape."""
    missing = len(shape) - value.ndim
    fits = missing >= 0 and all(
        size in (1, wanted) for size, wanted in zip(value.shape, shape[missing:], strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: shape {tuple(value.shape)} does not broadcast to {tuple(shape)}")
