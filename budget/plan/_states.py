"""The tensors that every optimizer reads: gradients, and states by the dtype of their weights."""

from __future__ import annotations

from ..ir import GIVEN, Tensor


def state(name: str, dtype: str) -> str:
    """A state's name: weights of another dtype have others."""
    return f"{name}/{dtype}" if dtype else name


def all_gradients(dtype: str, *dims: str) -> Tensor:
    """The gradients that a step reads, of all weights that it takes at once."""
    return Tensor("grads", dims or ("p",), GIVEN, dtype)
