"""Operators of torch, torch.ops.budget.*: as torch.library.custom_op makes them, at a tenth of its cost."""

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("budget", "FRAGMENT")


class Operator:
    """An operator that a function implements; the function's annotations are its schema.

    custom_op checks at every call that no output shares memory with an input, which takes longer than a small
    kernel. Here nothing checks it: the function must not return its inputs or views of them.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = f"budget::{name}"
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        self.overload = getattr(torch.ops.budget, name).default

    def __call__(self, *args: Any) -> Any:
        """Call the operator through torch's dispatcher."""
        return self.overload(*args)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What the operator returns for tensors without data."""
        torch.library.register_fake(self.name, function, lib=_LIBRARY)
        return function

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., Any]) -> None:
        """The operator's gradient, as of a custom_op."""
        torch.library.register_autograd(self.name, backward, setup_context=setup_context, lib=_LIBRARY)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make a function the operator torch.ops.budget.<name>."""
    return lambda function: Operator(name, function)
