"""A fake tensor's values, where they are known: a real tensor beside it."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from ..named import Any

LARGEST = 2**22  # elements of a call's tensors: a mask of 2,048 x 2,048
PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
BLANK = -(2**62) - 1  # an element of a tensor of whole numbers that has not been written yet


class Held:
    """A real tensor: copied when it is asked for, since calls may write to it."""

    def __init__(self, real: torch.Tensor):
        self.real, self.copied = real, False

    def get(self) -> torch.Tensor:
        """The copy."""
        if not self.copied:
            with unset_fake_temporarily(), torch.no_grad():
                self.real, self.copied = self.real.clone(), True
        return self.real


def most_known(t: torch.Tensor) -> int:
    """The most elements of a tensor whose values are known; for a weight, one."""
    return 1 if isinstance(t, torch.nn.Parameter) else LARGEST


def know(fake: torch.Tensor, real: torch.Tensor) -> None:
    """Let a fake tensor have a real one's values, where they can be known."""
    if isinstance(real, FakeTensor):
        if held := vars(real).get("known"):
            vars(fake)["known"] = held
        return
    there = real.device.type == "cpu" and real.layout == torch.strided and not real.is_quantized
    if there and type(real) in PLAIN and real.numel() <= most_known(real):
        with unset_fake_temporarily(), torch.no_grad():
            vars(fake)["known"] = Held(real.detach())  # the object itself may be swapped


def value(t: Any, blank: bool = False) -> torch.Tensor | None:
    """A tensor's values, if they are known; blank: even where not all of them have been written yet."""
    if not isinstance(t, FakeTensor):
        return t if type(t) is torch.Tensor and t.device.type == "cpu" and t.numel() <= LARGEST else None
    held = vars(t).get("known")
    if held is None:
        return None
    real = held.get()
    storage = real.untyped_storage()
    if getattr(storage, "lost", False):
        return None
    if not blank and getattr(storage, "blank", False):
        with unset_fake_temporarily():
            return None if bool((real == BLANK).any()) else real
    return real


def as_fake(x: Any) -> Any:
    """A fake tensor with a real one's values, where they can be known; anything else as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    fake = torch.empty_strided(x.size(), x.stride(), dtype=x.dtype)
    know(fake, x)
    return fake
