"""Any torch module -> Model: its forward and backward pass on fake tensors, call by call.

    capture(module, {"input_ids": ids})

No memory, no GPU: FakeTensorMode gives every tensor a shape and a storage without contents, and
torch's own dispatch does the rest (_capture.py). The module is as it was when this returns or raises
(_stand_ins.py, _reached.py).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from ..errors import InputError, wrong
from ..ir import FROZEN, INPUT, WEIGHT, Model, expert_axis, walk
from ..named import Any
from ._as_gpu import as_a_gpu
from ._aten import dtype_name
from ._caches import SERVES, behind, caches, served
from ._capture import Recorder
from ._module_inputs import flat, own_dtype, tensors_in
from ._program import program
from ._reached import Reached
from ._stand_ins import stand_ins
from ._values import BY_DATA

MODES = ("train", "forward")
MIXED = "which experts a token takes: params.active is all of them"
SPREAD = "how unevenly experts are chosen: tokens are taken as spread evenly over them"
BY_SHAPES = "; allowed: what follows from shapes, or from given data without weights"
FSDP = ("torch.distributed.fsdp", "FullyShardedDataParallel")
DTENSOR = ("torch.distributed.tensor", "DTensor")
NO_DATA = (  # how torch says so
    "its data is not allocated yet", "unsupported device typemeta", "Cannot access storage of",
    "shape_env must",
)  # fmt: skip
PROGRAMS: MutableMapping[Any, dict[Any, Model]] = WeakKeyDictionary()  # of modules, as they were
MOST = 8  # programs of one module
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TORCH = os.path.dirname(os.path.abspath(torch.__file__))


def capture(module: Any, inputs: Any, mode: str = "train", dtype: str = "") -> Model:
    """A module's program for these inputs: a dict of keywords, a tuple, or one tensor.

    In train mode the loss is the output's `loss`, else the sum of its first tensor; in decode the inputs are
    a prompt's, whose last token runs behind a cache of the others. dtype: the module is cast to it first.
    Raises InputError.
    """
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    _check(module)
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (inputs, {})
    args = tuple(args) if isinstance(args, tuple | list) else (args,)
    first = next(tensors_in((args, kwargs)), None)
    if first is None:
        raise wrong("inputs", inputs, "a tensor, or a dict or tuple of tensors")
    if any(t.is_nested and t.layout == torch.strided for t in tensors_in((args, kwargs))):
        raise InputError("inputs", "got a nested tensor of strided layout; allowed: layout=torch.jagged")
    samples = int(first.size(0)) if first.dim() else 1
    if samples == 0:
        raise InputError("inputs", f"got {list(first.shape)}; allowed: a first dimension of 1 or more")
    try:
        return _captured(module, args, kwargs, mode, dtype, samples)
    except NeedsDataError as error:
        with suppress(NeedsDataError):
            return _captured(module, args, kwargs, mode, dtype, samples, even=True)
        raise error from None


class NeedsDataError(InputError):
    """A pass takes a way, or has sizes, that depend on what it computes."""


def _captured(
    module: Any, args: Any, kwargs: Any, mode: str, dtype: str, samples: int, even: bool = False
) -> Model:
    """One capture. even: choices by unknown numbers are spread evenly. Raises InputError."""
    first = next(tensors_in((args, kwargs)))
    recorder = Recorder({id(m): name for name, m in module.named_modules()}, even)
    with as_a_gpu() as left_out:
        reached = Reached(module, args, kwargs)
        known, key = PROGRAMS.setdefault(module, {}), (reached.signature(), mode, dtype)
        if key in known:
            return known[key]
        mode_of = (t.fake_mode for t in reached.tensors if isinstance(t, FakeTensor))  # a factory's
        fakes = next(mode_of, None) or FakeTensorMode(allow_non_fake_inputs=True)
        cast = getattr(torch, dtype) if dtype else None
        try:
            with recorder.progress, fakes, stand_ins(reached.tensors, cast):
                if mode == "decode":
                    kwargs = behind(kwargs, partial(_unrecorded, module, Recorder(recorder.paths, even)))
                _declare(module, flat(module, args, kwargs), recorder)
                gradients, kept = _run(module, args, kwargs, mode, recorder)  # kept while it is alive
                ops, outputs = program(recorder, dict(module.named_parameters()), gradients)
                left = [recorder.storages.of(t).name for t in tensors_in(caches(kept)) if t.dim()]
                del kept, gradients
                kind = f"torch module, {recorder.calls:,} calls"
                config = {"kind": kind, "mode": mode, "dtype": own_dtype(module)}
        finally:
            reached.restore()
    mixed = any(expert_axis(t, o) for o, _ in walk(ops) for t in o.weights)
    uncounted = (*recorder.uncounted(), *left_out, *((MIXED,) if mixed else ()), *((SPREAD,) if even else ()))
    tokens = 0 if first.dtype.is_floating_point or first.dim() != 2 else first.numel()
    made = Model(type(module).__name__, "module", ops, config, outputs, samples, tokens, uncounted)
    if mode in SERVES:
        made = served(made, left, first.size(1))
    if len(known) >= MOST:
        known.clear()
    known[key] = made
    return made


def _check(module: Any) -> None:
    """Raise an InputError for a module that no capture can run."""
    for path, m in module.named_modules():
        where = f"{path or 'the module'} is a {type(m).__name__}"
        if isinstance(m, torch.jit.ScriptModule):
            raise InputError(
                "module", f"{where}: TorchScript hides its calls; allowed: the nn.Module it is of"
            )
        if isinstance(m, torch.nn.parallel.DistributedDataParallel) or _is(m, *FSDP):
            raise InputError("module", f"{where}, which needs other processes; allowed: its .module")
        if any(_is(p, *DTENSOR) for p in m.parameters(recurse=False)):
            text = f"{where} with sharded parameters (DTensor); allowed: the module before it is sharded"
            raise InputError("module", text)
        if isinstance(m, torch.nn.modules.lazy.LazyModuleMixin) and m.has_uninitialized_params():
            text = f"{where} whose parameters have no sizes yet; allowed: after a first call on an input"
            raise InputError("module", text)


def _is(x: Any, name: str, cls: str) -> bool:
    """Whether x is of a class, whose module need not have been imported."""
    return isinstance(x, getattr(sys.modules.get(name), cls, ()))


def _declare(module: Any, inputs: Mapping[str, Any], recorder: Recorder) -> None:
    """Record what exists before anything runs: parameters, buffers and inputs."""
    once = {id(p) for p in module.parameters()}
    for path, m in module.named_modules():
        own = {n: p for n, p in m.named_parameters(path, recurse=False) if id(p) in once}
        once -= set(map(id, own.values()))
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
    train = mode == "train"
    parameters = dict(module.named_parameters())
    given = ", ".join(
        f"{name} {list(t.shape)} {str(t.dtype)[6:]}" for name, t in flat(module, args, kwargs).items()
    )
    with _watched(recorder), torch.set_grad_enabled(train), recorder:
        with explained("inputs", f"given {given}"):
            out = module(*args, **kwargs)
        _check_run(module, parameters, recorder)
        if not train:
            return {}, out
        recorder.stack.append("loss")
        with explained("module", "in the loss"):
            loss = _loss(out)
        del out  # as a training loop does: the outputs die when autograd no longer needs them
        recorder.phase = "backward"
        nodes = [_marks(p, name, recorder.trained) for name, p in parameters.items() if p.requires_grad]
        with explained("module", "in the backward pass"):
            loss.backward()
        del nodes
        return {name: p.grad for name, p in parameters.items() if p.grad is not None}, loss


def _unrecorded(module: Any, recorder: Recorder, kwargs: Mapping[str, Any]) -> Any:
    """The result of a forward pass that is not recorded."""
    with silent(), torch.no_grad(), recorder, explained("inputs", "in the prompt"):
        return module(**kwargs)


def _check_run(module: Any, parameters: Mapping[str, Any], recorder: Recorder) -> None:
    """Raise an InputError where a forward pass did something that the recorder did not see, or saw too
    late.
    """
    if recorder.elsewhere:
        text = f"{recorder.elsewhere} runs in a thread of its own, where its calls are not seen"
        raise InputError("module", f"{text}; allowed: all in one thread")
    for name, p in module.named_parameters():
        if parameters.get(name) is not p:
            text = f"forward makes the parameter {name}; allowed: a module that has all of them"
            raise InputError("module", f"{text}, as after a first call")


def _marks(p: torch.Tensor, name: str, trained: dict[str, str]) -> Any:
    """The node that accumulates a parameter's gradient; as long as it is held, it records that it has run."""
    node = torch.autograd.graph.get_gradient_edge(p).node
    node.register_prehook(lambda _: trained.setdefault(name, dtype_name(p.dtype)) and None)
    return node


@contextmanager
def _watched(recorder: Recorder) -> Iterator[None]:
    """Within, the recorder knows which module runs, and nothing is printed."""
    hooks = (
        register_module_forward_pre_hook(recorder.enter),
        register_module_forward_hook(recorder.leave, always_call=True),
    )
    try:
        with silent():
            yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def silent() -> Iterator[None]:
    """Within, torch prints no errors that it also raises, and a module nothing to standard output."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
            warnings.filterwarnings("ignore", "Using `torch.compile")
            yield
    finally:
        log.setLevel(level)


def _loss(out: Any) -> Any:
    """The start of the backward pass: the output's `loss`, or the sum of several, or of its first tensor."""
    named = out.get("loss") if isinstance(out, Mapping) else getattr(out, "loss", None)
    trained = [t for t in tensors_in(named) if t.requires_grad]
    if not trained:
        trained = [t for t in tensors_in(out) if t.requires_grad]
        losses = isinstance(out, Mapping) and all(t.dim() == 0 for t in trained)
        trained = trained if losses else trained[:1]
    if not trained:
        raise InputError("module", "no output needs a gradient; allowed: trained parameters, or mode forward")
    first, *others = map(_scalar, trained)
    for loss in others:
        first = first + loss
    return first


def _scalar(t: torch.Tensor) -> torch.Tensor:
    if t.is_nested:
        t = t.values()
    elif t.layout != torch.strided:
        t = t.to_dense()
    if t.is_complex():
        t = torch.view_as_real(t)
    return t if t.dim() == 0 else t.float().sum()


@contextmanager
def explained(field: str, context: str) -> Iterator[None]:
    """Within, an error in the user's code becomes one line that says where it is."""
    try:
        yield
    except InputError:
        raise
    except BY_DATA as error:
        what = str(getattr(error, "func", error)).removeprefix("aten.").partition(".")[0]
        call = {"_local_scalar_dense": ".item(), or a branch on a tensor,"}.get(what, what)
        problem = (
            f"{call} needs the data of a tensor, which a capture does not have{_where(error)}{BY_SHAPES}"
        )
        raise NeedsDataError("module", problem) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's code raises
        text = " ".join(str(error).split()) or type(error).__name__
        if any(sign in text for sign in NO_DATA):
            text = "a call of torch's needs the data of a tensor, which a capture does not have"
            raise NeedsDataError(field, f"{text}; {context}{_where(error)}{BY_SHAPES}") from None
        if "UninitializedParameter" in text:
            text = "a lazy module's parameters have no sizes yet; allowed: the module that has its sizes"
        raise InputError(field, f"{text[:300].rstrip('.')}; {context}{_where(error)}") from None


def _where(error: BaseException) -> str:
    """The innermost line of a traceback that is neither torch's nor ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((TORCH, HERE, "<"))]
    return f"; at {own[-1].filename}:{own[-1].lineno}" if own else ""
