"""Training steps with techniques as transformers, peft and torch.optim do them, on fake tensors.

What a processor does in another way than a GPU is done the GPU's way: dropout is torch.native_dropout, and
autocast has CUDA's list of what runs in float32. Sources: torch-autocast, peft, transformers,
accelerate.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

import peft
import torch
from oracles.autocast import as_cuda
from oracles.flops import _convolution_backward
from oracles.memory import gpus_sdpa, with_gradients
from oracles.networks import Call, built, selective
from oracles.peft import gpus_dropout
from oracles.proposed_changes import Blockwise, chunked_loss
from oracles.technique_families import Family
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import masking_utils

aten = torch.ops.aten
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMIZERS: dict[str, Callable[[list[torch.Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, foreach=True),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p, foreach=True),
    "adamw_loop": lambda p: torch.optim.AdamW(p, foreach=False),
    "adamw_fused": lambda p: torch.optim.AdamW(p, fused=True),
    "adafactor": torch.optim.Adafactor,
    "adamw_8bit": lambda p: Blockwise(p, 8),
    "adamw_32bit": lambda p: Blockwise(p, 32),
}


class Real(NamedTuple):
    """What real code needs: trained parameters, FLOPs of a step's passes, bytes at the peak and the call
    that runs there.
    """

    trainable: int
    forward: int
    backward: int
    peak: int
    at: str


def measured(family: Family, config: Mapping[str, Any], call: Call) -> Real:
    """One combination of techniques. Raises what torch raises."""
    return Real(*counted(family, config, call), *peak_of(family, config, call))


def counted(family: Family, config: Mapping[str, Any], call: Call) -> tuple[int, int, int]:
    """Trained parameters, FLOPs of all forward and of all backward passes, with eager attention."""
    grouped = {aten.convolution_backward: _convolution_backward}
    with as_asked(family, {**call, "attention": "eager"}), FakeTensorMode():
        module, inputs = built(family, config, {**call, "attention": "eager"}, "batched_mm")
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        with FlopCounterMode(display=False, custom_mapping=grouped) as counter:
            with casts(call):
                loss = module(**inputs).loss
            named = counter.get_flop_counts().items()
            rotary = sum(sum(ops.values()) for path, ops in named if path.endswith("rotary_emb"))
            forward = counter.get_total_flops()
            loss.backward()
    micro = call.get("accumulate", 1)
    return trainable, micro * (forward - rotary), micro * (counter.get_total_flops() - forward)


class Walk(TorchDispatchMode):
    """Bytes of all storages that are alive, and their most, at which call. What MemTracker does, without its
    hooks: those on a network's own inputs keep them until Python collects garbage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.at, self.phase = "", "forward"
        self.known: dict[int, weakref.ref[Any]] = {}

    def track(self, *tensors: Any) -> None:
        for t in tensors:
            storage = t.untyped_storage()
            key = storage._cdata
            if key not in self.known:
                size = storage.nbytes()
                self.known[key] = weakref.ref(storage, lambda _, key=key, size=size: self.gone(key, size))
                self.now += size

    def gone(self, key: int, size: int) -> None:
        self.now -= size
        del self.known[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.track(*(t for t in tree_leaves(found) if isinstance(t, torch.Tensor)))
        if self.now > self.most:
            self.most, self.at = self.now, f"{self.phase} {func}"
        return found


def peak_of(family: Family, config: Mapping[str, Any], call: Call) -> tuple[int, str]:
    """Bytes at the peak of the second step, all weights, states and inputs included."""
    once = None if call.get("hold_logits") else _peak_of(family, config, call, 1)  # held from step to step
    return once or _peak_of(family, config, call, 2) or (0, "")


def _peak_of(family: Family, config: Mapping[str, Any], call: Call, steps: int) -> tuple[int, str] | None:
    """The same of so many steps. Of one, the optimizer's states are there, for each weight; None where a
    weight has no gradient, and so no states.
    """
    with as_asked(family, call), torch.backends.mkldnn.flags(enabled=False), FakeTensorMode():
        module, inputs = built(family, config, call)
        trained = [p for p in module.parameters() if p.requires_grad]
        step = Stepped(trained, call)
        tracker = Walk()
        given = [t for t in inputs.values() if isinstance(t, torch.Tensor)]
        tracker.track(*module.parameters(), *module.buffers(), *step.masters, *given)
        with tracker, losses(module, call):
            if steps == 1:
                tracker.phase = "optimizer"
                with_gradients(trained)
                step()
            for _ in range(steps):
                for _ in range(call.get("accumulate", 1)):
                    tracker.phase = "forward"
                    with casts(call):
                        out = module(**inputs)
                    loss = out.loss
                    if not call.get("hold_logits"):
                        del out
                    tracker.phase = "backward"
                    loss.backward()
                    del loss  # Trainer's step returns a detached one
                    gc.collect()  # frames of checkpoints refer to each other
                if steps == 1 and any(p.grad is None for p in trained):
                    return None
                tracker.phase = "optimizer"
                step()
                if call.get("hold_logits") == "step":
                    del out
        return tracker.most, tracker.at


class Stepped:
    """An optimizer's step, of the weights or of their float32 copies."""

    def __init__(self, trained: list[nn.Parameter], call: Call):
        self.trained, self.masters = trained, []
        if call.get("grad_dtype"):
            for p in trained:
                p.grad_dtype = DTYPES[call["grad_dtype"]]
        self.is_master = call["precision"] == "master"
        if self.is_master:
            self.masters = [p.detach().float().requires_grad_() for p in trained]
        named = call.get("optimizer", "adamw")
        owners = self.masters or trained
        if named == "muon":
            self.parts: list[torch.optim.Optimizer] = muon(trained, owners)
        else:
            self.parts = [OPTIMIZERS[named](owners)]
        if call.get("offload"):
            self.parts[0].paged = True
        self.optimizer = self.parts[0] if len(self.parts) == 1 else Several(self.parts)

    def __call__(self) -> None:
        for p, master in zip(self.trained, self.masters, strict=False):
            master.grad = p.grad.float()
        self.optimizer.step()
        with torch.no_grad():
            for p, master in zip(self.trained, self.masters, strict=False):
                p.copy_(master)
        for p in (*self.trained, *self.masters):
            p.grad = None


class Several(torch.optim.Optimizer):
    """More than one optimizer as one, so that the tracker sees all their states."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        super().__init__([p for part in parts for g in part.param_groups for p in g["params"]], {})
        self.parts = parts

    def step(self) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()
            self.state.update(part.state)


def muon(trained: list[nn.Parameter], owners: list[torch.Tensor]) -> list[torch.optim.Optimizer]:
    """torch.optim.Muon for the hidden layers' matrices, AdamW for the others."""
    pairs = list(zip(trained, owners, strict=True))
    hidden = [o for p, o in pairs if p.ndim == 2 and not getattr(p, "embeds", False)]
    others = [o for p, o in pairs if p.ndim != 2 or getattr(p, "embeds", False)]
    parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, foreach=True)] if others else []
    return [*parts, torch.optim.Muon(hidden)] if hidden else parts


@contextmanager
def as_asked(family: Family, call: Call) -> Iterator[None]:
    """torch and transformers as the call has them: the dtype, dropout's kernel, masks, autocast's lists."""
    usual = "fp32" if call["precision"] == "autocast" else call.get("dtype", "bf16")
    dtype = DTYPES[call.get("frozen_dtype", usual)]
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(patch.object(nn.functional, "dropout", gpus_dropout))
        stack.enter_context(gpus_sdpa())
        undropped = _undropped(nn.functional.scaled_dot_product_attention)
        stack.enter_context(patch.object(nn.functional, "scaled_dot_product_attention", undropped))
        # What numbers are doesn't matter: whether a layer is dropped, or which step it is.
        stack.enter_context(patch.multiple(FakeTensor, __bool__=lambda _: False, item=lambda _: 1.0))
        stack.enter_context(patch.object(torch.utils, "swap_tensors", _replaced))
        if call["attention"] == "sdpa":
            unpadded = {"find_packed_sequence_indices": None, "is_tracing": False, "fast_all": True}
            found = {name: lambda _, answer=answer: answer for name, answer in unpadded.items()}
            stack.enter_context(patch.multiple(masking_utils, **found))
        if call.get("recompute") == "selective":
            stack.enter_context(selective(family))
        if call["precision"] == "autocast":
            stack.enter_context(as_cuda())
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _undropped(sdpa: Callable[..., Any]) -> Callable[..., Any]:
    """A GPU's kernels draw their mask again; a processor's has none for dropout."""

    def without(*args: Any, dropout_p: float = 0.0, **how: Any) -> Any:
        return sdpa(*args, **how)

    return without


def _replaced(t: Any, new: Any) -> None:
    """A module's `to` gives a parameter another dtype; torch swaps only what nobody else refers to."""
    t.data = new.data


def casts(call: Call) -> Any:
    """The context of a forward pass."""
    low = DTYPES[call.get("dtype", "bf16")]
    return torch.autocast("cpu", low) if call["precision"] == "autocast" else nullcontext()


def losses(module: Any, call: Call) -> Any:
    """The context of a step whose loss is not the network's own."""
    base = module.get_base_model() if isinstance(module, peft.PeftModel) else module
    return chunked_loss(base) if "chunked" in call.get("fuse", "") else nullcontext()
