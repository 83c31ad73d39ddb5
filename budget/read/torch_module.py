"""Any torch module -> Model: its forward and backward pass on fake tensors, call by call.

    capture(module, {"input_ids": ids})

No memory, no GPU: FakeTensorMode gives every tensor a shape and a storage without contents, and
torch's own dispatch does the rest (_capture.py). The module is as it was when this returns.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves, tree_map

from ..config import Workload, at_most
from ..dtype import BYTES
from ..errors import InputError, shown
from ..ir import FROZEN, INPUT, WEIGHT, Model
from ..named import Any
from ._aten import dtype_name
from ._capture import Recorder

MODES = ("train", "forward")
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TORCH = os.path.dirname(os.path.abspath(torch.__file__))
BY_DATA = (DataDependentOutputException, DynamicOutputShapeException)


def capture(module: Any, inputs: Any, mode: str = "train", dtype: str = "") -> Model:
    """A module's program for these inputs: a dict of keywords, a tuple, or one tensor.

    In train mode the loss is the output's `loss`, else the sum of its first tensor. dtype: what
    the module is cast to first. Raises InputError.
    """
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (inputs, {})
    args = args if isinstance(args, tuple | list) else (args,)
    if not any(isinstance(t, torch.Tensor) for t in tree_leaves((args, kwargs))):
        raise InputError("inputs", f"got {shown(inputs)}; allowed: a tensor, or a dict or tuple of tensors")
    recorder = Recorder({id(m): name for name, m in module.named_modules()})
    own = (*module.parameters(), *module.buffers(), *tree_leaves((args, kwargs)))
    mode_of = (t.fake_mode for t in own if isinstance(t, FakeTensor))  # a factory's tensors have theirs
    with next(mode_of, None) or FakeTensorMode(allow_non_fake_inputs=True), _faked(module, dtype) as fake:
        args, kwargs = tree_map(fake, tuple(args)), tree_map(fake, kwargs)
        _declare(module, _flat(module, args, kwargs), recorder)
        gradients, kept = _run(module, args, kwargs, mode, recorder)
        ops, outputs = recorder.program(gradients)  # while what the caller has is alive
        del kept
        kind = f"torch module, {recorder.calls:,} calls"
        config = {"kind": kind, "mode": mode, "dtype": _dtype(module)}
    first = next(t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor))
    samples = first.shape[0] if first.dim() else 1
    tokens = 0 if first.dtype.is_floating_point or first.dim() != 2 else first.numel()
    return Model(type(module).__name__, "module", ops, config, outputs, samples, tokens, recorder.uncounted())


def _declare(module: Any, inputs: Mapping[str, Any], recorder: Recorder) -> None:
    """What is there before anything runs: parameters, buffers and inputs."""
    for path, m in module.named_modules():
        own = dict(m.named_parameters(path, recurse=False))
        recorder.declare(path or "parameters", {n: p for n, p in own.items() if p.requires_grad}, WEIGHT)
        recorder.declare(path or "parameters", {n: p for n, p in own.items() if not p.requires_grad}, FROZEN)
        recorder.declare(path or "buffers", dict(m.named_buffers(path, recurse=False)), INPUT)
    recorder.declare("inputs", inputs, INPUT)


def _run(
    module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], mode: str, recorder: Recorder
) -> tuple[dict[str, Any], Any]:
    """One forward pass, and in training the backward pass.

    Returns the gradients by name, and what the caller holds in the end.
    """
    hooks = (
        register_module_forward_pre_hook(recorder.enter),
        register_module_forward_hook(recorder.leave, always_call=True),
    )
    train = mode == "train"
    tensors = _flat(module, args, kwargs)
    given = ", ".join(f"{name} {list(t.shape)} {str(t.dtype)[6:]}" for name, t in tensors.items())
    log = logging.getLogger("torch._subclasses.fake_tensor")  # prints what is raised as well
    level = log.level
    try:
        log.setLevel(logging.CRITICAL)
        # mkldnn hides a recurrent network in one call; other devices and bf16 do not have it
        with torch.set_grad_enabled(train), _without_mkldnn(), recorder:
            with explained("inputs", f"given {given}"):
                out = module(*args, **kwargs)
            if not train:
                return {}, out
            recorder.stack.append("loss")
            loss = _loss(out)
            del out  # as a training loop does: the outputs die when autograd no longer needs them
            recorder.phase = "backward"
            with explained("module", "in the backward pass"):
                loss.backward()
            return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}, loss
    finally:
        log.setLevel(level)
        for hook in hooks:
            hook.remove()


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    """mkldnn off; torch's own `mkldnn.flags` warns about a switch that it sets besides."""
    before: bool = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _loss(out: Any) -> Any:
    loss = out.get("loss") if isinstance(out, Mapping) else getattr(out, "loss", None)
    if loss is None:
        first = (t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.requires_grad)
        loss = next(first, None)
    if loss is None:
        raise InputError("module", "no output needs a gradient; allowed: trained parameters, or mode forward")
    return loss if loss.dim() == 0 else loss.float().sum()


@contextmanager
def _faked(module: Any, dtype: str) -> Iterator[Any]:
    """The module with fake parameters and buffers, and its own again afterwards."""
    made: dict[int, Any] = {}
    cast = getattr(torch, dtype) if dtype else None

    def fake(t: Any) -> Any:
        if not isinstance(t, torch.Tensor):
            return t
        if id(t) not in made:
            floating = t.dtype.is_floating_point and cast is not None
            new = torch.empty_strided(t.size(), t.stride(), dtype=cast if floating else t.dtype, device="cpu")
            is_parameter = isinstance(t, torch.nn.Parameter)
            made[id(t)] = torch.nn.Parameter(new, t.requires_grad) if is_parameter else new
        return made[id(t)]

    own: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for m in module.modules():
            plain = {k: v for k, v in vars(m).items() if isinstance(v, torch.Tensor)}
            for home, tensors in ((m._parameters, m._parameters), (m._buffers, m._buffers), (vars(m), plain)):
                own.append((home, dict(tensors)))
                home.update({k: fake(v) for k, v in tensors.items()})
        yield fake
    finally:
        for home, tensors in own:
            home.update(tensors)


def _dtype(module: Any) -> str:
    """The dtype of most of the parameters."""
    sums: dict[str, int] = {}
    for p in module.parameters():
        sums[dtype_name(p.dtype)] = sums.get(dtype_name(p.dtype), 0) + p.numel()
    most = max(sums, key=lambda name: sums[name], default="")
    return most if most in BYTES else "float32"


def _flat(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors of the inputs by the names that forward gives them."""
    takes = [*signature(module.forward).parameters, *(f"input {i}" for i in range(len(args)))]
    named = [*zip(takes, args, strict=False), *kwargs.items()]
    leaves = [(name, [t for t in tree_leaves(v) if isinstance(t, torch.Tensor)]) for name, v in named]
    return {f"{name}.{i}" if i else name: t for name, tensors in leaves for i, t in enumerate(tensors)}


@contextmanager
def explained(field: str, context: str) -> Iterator[None]:
    """What goes wrong in the user's code as one line that says where."""
    try:
        yield
    except InputError:
        raise
    except BY_DATA as error:
        what = str(getattr(error, "func", error)).removeprefix("aten.").partition(".")[0]
        call = {"_local_scalar_dense": ".item(), or a branch on a tensor,"}.get(what, what)
        problem = f"{call} needs the data of a tensor, which a capture does not have{_where(error)}"
        raise InputError("module", problem) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's code raises
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError(field, f"{text[:300].rstrip('.')}; {context}{_where(error)}") from None


def _where(error: BaseException) -> str:
    """The innermost line that is neither torch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((TORCH, HERE, "<"))]
    return f"; at {own[-1].filename}:{own[-1].lineno}" if own else ""


def default_inputs(module: Any, workload: Workload) -> dict[str, Any]:
    """Inputs of a workload's size where forward takes input_ids or pixel_values. Raises InputError."""
    takes = signature(module.forward).parameters
    config = getattr(module, "config", None)
    with torch.device("meta"):
        if "input_ids" in takes:
            _no_size("image", workload.image, "input_ids; allowed: batch, seq")
            limit = getattr(config, "max_position_embeddings", None)
            if limit:
                at_most("seq", workload.seq, "max_position_embeddings", limit)
            ids = torch.zeros(workload.batch, workload.seq or min(1024, limit or 1024), dtype=torch.int64)
            head = getattr(module, "get_output_embeddings", lambda: None)() is not None
            return {"input_ids": ids, "labels": ids} if head and "labels" in takes else {"input_ids": ids}
        if "pixel_values" in takes:
            _no_size("seq", workload.seq, "pixel_values; allowed: batch, image")
            side = workload.image or getattr(config, "image_size", None) or 224
            channels = getattr(config, "num_channels", None) or 3
            return {"pixel_values": torch.zeros(workload.batch, channels, side, side)}
    allowed = "inputs, which a file's factory returns as (module, inputs)"
    raise InputError("inputs", f"forward takes no input_ids or pixel_values; allowed: {allowed}")


def _no_size(name: str, size: int, takes: str) -> None:
    """Raise an InputError for a size that no input has."""
    if size:
        raise InputError(name, f"forward takes {takes}")
