"""What torch's own MemTracker finds: peak memory of a training step, on fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker


class Tracker(MemTracker):
    """MemTracker without the peaks of each module, which take nine tenths of its time."""

    def _update_peak_stats(self, _: Any) -> None:
        for device, now in self._curr_mem_snap.items():
            if now["Total"] > self._peak_mem.get(device, 0):
                self._peak_mem[device], self._peak_mem_snap[device] = now["Total"], dict(now)


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, foreach=True)


def gpus_sdpa() -> AbstractContextManager[Any]:
    """SDPA as on a GPU: values narrower than keys have the memory-efficient kernel; a processor has none."""
    own = nn.functional.scaled_dot_product_attention

    def sdpa(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, **how: Any,
    ) -> torch.Tensor:  # fmt: skip
        if q.shape[-1] == v.shape[-1]:
            return own(q, k, v, attn_mask, dropout_p, is_causal, scale=scale, **how)
        mask = attn_mask
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, float("-inf"))
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        return kernel(q, k, v, mask, q.requires_grad, dropout_p, is_causal, scale=scale)[0]

    return patch.object(nn.functional, "scaled_dot_product_attention", sdpa)


def peak(
    build: Callable[[], tuple[nn.Module, dict[str, Any]]],
    dtype: torch.dtype = torch.bfloat16,
    micro: int = 1,
    *,
    training: bool = False,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = adamw,
) -> dict[str, int]:
    """Bytes by kind at the peak of the second step, each after `micro` passes; `build` makes the
    module and its inputs. training: dropout and checkpoints are on. around: of each forward pass.

    Beside what the tracker finds: all weights, the trained ones, and AdamW's numbers of steps.
    """
    run = partial(_peak, build, dtype, micro, training=training, around=around, optimizer=optimizer)
    return run(1) or run(2)


def _peak(
    build: Callable[[], tuple[nn.Module, dict[str, Any]]], dtype: torch.dtype, micro: int, steps: int, *,
    training: bool, around: Callable[[], AbstractContextManager[Any]],
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
) -> dict[str, int]:  # fmt: skip
    """The peak of so many steps. With a single one, the optimizer's states exist before it, but not for
    weights without a gradient.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # mkldnn computes a whole LSTM in one call, on processors that have its kernels for the dtype, and
        # saves other tensors than torch's own code: without it the answer is the same on every machine.
        with torch.backends.mkldnn.flags(enabled=False), gpus_sdpa(), FakeTensorMode():
            module, inputs = build()
            module.train() if training else module.eval()
            trained = [p for p in module.parameters() if p.requires_grad]
            own = {
                "Weights": sum(p.nbytes for p in module.parameters()),
                "Trained": sum(p.nbytes for p in trained),
                "Steps": 4 * len(trained),
            }
            _frozen_to_buffers(module)
            step = optimizer(module.parameters())
            if steps == 1:
                with_gradients(trained)
                step.step()
                step.zero_grad()
            tracker = Tracker()
            given = [t for t in inputs.values() if isinstance(t, torch.Tensor)]
            tracker.track_external(module, step, *given)
            with tracker:
                for _ in range(steps):
                    for _ in range(micro):
                        tracker.reset_mod_stats()
                        with around():
                            out = module(**inputs)
                        loss = out.loss if getattr(out, "loss", None) is not None else out[0].float().sum()
                        del out
                        loss.backward()
                    if any(p.grad is None for p in trained) and steps == 1:
                        return {}
                    step.step()
                    step.zero_grad()
            snapshot = tracker.get_tracker_snapshot("peak")
    finally:
        torch.set_default_dtype(before)
    (kinds,) = (v for k, v in snapshot.items() if k.type == "cpu")
    return {**{str(getattr(k, "value", k)): int(v) for k, v in kinds.items()}, **own}


def with_gradients(trained: Iterable[nn.Parameter]) -> None:
    """Gradients without a pass: an optimizer makes its states of them, as in a whole first step."""
    for p in trained:
        p.grad = torch.empty_like(p, dtype=getattr(p, "grad_dtype", None) or p.dtype)


def _frozen_to_buffers(module: nn.Module) -> None:
    """MemTracker hangs a hook on each parameter, which one without a gradient does not take."""
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            if not p.requires_grad:
                delattr(part, name)
                part.register_buffer(name, p.data)
