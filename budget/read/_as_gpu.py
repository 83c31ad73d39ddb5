"""torch as a GPU would run it, where its code for processors goes another way. For fake tensors only.

- Dropout is one kernel that keeps a mask of booleans; with p in attention the fused kernel stays, and
  draws its own mask again in the backward pass.
- `torch.autocast("cuda")` casts by CUDA's lists (_autocast.py).
- Kernels that hide several products in one call (mkldnn's recurrent networks, the fast path of
  nn.TransformerEncoder) are off, so that each product is seen.
Source: torch-sdpa.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import torch
from torch._higher_order_ops import utils as hops
from torch._higher_order_ops.cond import CondOp
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..named import Any
from ._autocast import autocasts, kernels
from ._known import value

aten = torch.ops.aten
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd  # torch's own kernels, made of other calls

ONE = Lock()


@contextmanager
def as_a_gpu() -> Iterator[list[str]]:
    """Within, torch takes the ways above, in all threads that run fake tensors, one capture at a time.

    Gives what the capture leaves out: as the branch that a torch.cond of unknown data did not take.
    """
    with ONE, ExitStack() as stack:
        stack.enter_context(_switched(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled))
        stack.enter_context(
            _switched(torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled)
        )
        stack.enter_context(one_device())
        stack.enter_context(kernels("AutogradCPU", KERNELS))
        stack.enter_context(autocasts())
        if "torch._dynamo" in sys.modules:  # what it has compiled runs as written, and stays compiled
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        left_out: list[str] = []
        stack.enter_context(_attributes([*_compiled(left_out), *_finite(), *UNCHECKED]))
        yield left_out


def _finite() -> list[tuple[Any, str, Any]]:
    """Whether all of a fake tensor is finite, or any of it is not, as code for float16 asks before it clamps:
    everything counts as finite. The kernels that find out run all the same.
    """

    def asks(own: Any, answer: bool) -> Any:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            found = own(x, *args, **kwargs)
            if isinstance(found, FakeTensor):
                found.uniform = answer
            return found

        return call

    def answers(own: Any) -> Any:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            found, known = own(x, *args, **kwargs), getattr(x, "uniform", None)
            return found if known is None or args or kwargs else torch.tensor(known)

        return call

    asked = {"isfinite": True, "isinf": False, "isnan": False}
    return [
        *((place, name, asks(getattr(place, name), answer)) for name, answer in asked.items()
          for place in (torch, torch.Tensor)),
        *((place, name, answers(getattr(place, name))) for name in ("all", "any")
          for place in (torch, torch.Tensor)),
    ]  # fmt: skip


def _unchecked(loss: Any) -> Any:
    """A loss that raises an error where a number is below 0: none is."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with _attributes([(torch, "any", lambda _: False)]):
            return loss(*args, **kwargs)

    return call


@contextmanager
def _switched(get: Callable[[], bool], put: Callable[[bool], None]) -> Iterator[None]:
    """One of torch's switches, off; `torch.backends.mkldnn.flags` sets another one too, and warns about
    it.
    """
    before = get()
    put(False)
    try:
        yield
    finally:
        put(before)


def _dropout(x: Any, p: float, train: bool) -> Any:
    if train and 0 < p < 1 and isinstance(x, FakeTensor) and x.numel():
        return torch.native_dropout(x, p, True)[0]
    return aten.dropout.default._op_dk(COMPOSITE, x, p, train)


def _sdpa(
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    p = 0.0 if isinstance(q, FakeTensor) else dropout_p
    return aten.scaled_dot_product_attention.default._op_dk(
        COMPOSITE, q, k, v, attn_mask, p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


@contextmanager
def one_device() -> Iterator[None]:
    """`to` and `cuda` of a fake tensor leave it where it is: there is one device, whatever it is called."""
    own = [
        (torch.Tensor, "to", _to(torch.Tensor.to)),
        (torch.Tensor, "cuda", _cuda(torch.Tensor.cuda)),
        (torch.utils, "swap_tensors", _replaced),
    ]
    with _attributes(own):
        yield


def _replaced(t: Any, new: Any) -> None:
    """A module's `to` gives a parameter another dtype; torch swaps only what nobody else refers to."""
    t.data = new.data


def _cuda(own: Any) -> Callable[..., Any]:
    return lambda x, *args, **kwargs: x if isinstance(x, FakeTensor) else own(x, *args, **kwargs)


def _to(own: Any) -> Callable[..., Any]:
    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, FakeTensor):
            if args and isinstance(args[0], str | int | torch.device):
                args = ("cpu", *args[1:])
            if kwargs.get("device") is not None:
                kwargs["device"] = "cpu"
        return own(x, *args, **kwargs)

    return call


def _ctc(log_probs: Any, targets: Any, *lengths: Any) -> Any:
    """The loss with its lengths as tensors where they are lists: only tensors have a fake kernel."""
    given, wanted, *rest = lengths
    return torch.ctc_loss(log_probs, targets, torch.tensor(given), torch.tensor(wanted), *rest)


def _counts(sizes: Any) -> Any:
    """How many of the packed sequences are left at each step. Raises InputError where that is not known."""
    known = value(sizes)
    if known is None:
        raise InputError("inputs", "packed sequences of unknown lengths; allowed: lengths that are data")
    return known


def _packed(call: Any) -> Callable[..., Any]:
    return lambda data, sizes, *rest: call._op_dk(COMPOSITE, data, _counts(sizes), *rest)


def _padded(data: Any, sizes: Any, batch_first: bool, padding: float, total: int) -> Any:
    """Packed sequences as one tensor, with their lengths, as torch's own kernel makes it."""
    known = _counts(sizes)
    with unset_fake_temporarily():
        left = known.tolist()
    out = data.new_full((max(total, len(left)), left[0], *data.shape[1:]), padding)
    row = 0
    for step, count in enumerate(left):
        out[step, :count].copy_(data[row : row + count])
        row += count
    lengths = torch.tensor([sum(count > i for count in left) for i in range(left[0])])
    return out.transpose(0, 1) if batch_first else out, lengths


def _packed_back(grad: Any, size: Any, sizes: Any, batch_first: bool) -> Any:
    """The gradient of what was packed."""
    steps = size[1 if batch_first else 0]
    return _padded(grad, sizes, batch_first, 0.0, steps)[0]


KERNELS: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "scaled_dot_product_attention": _sdpa,
    "ctc_loss.IntList": _ctc,
    **{f"{name}.data": _packed(getattr(aten, name).data) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    "_pad_packed_sequence": _padded,
    "_pack_padded_sequence_backward": _packed_back,
}


@contextmanager
def _attributes(changes: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes of torch's own modules and classes, replaced."""
    before = [(where, name, vars(where).get(name)) for where, name, _ in changes]
    try:
        for where, name, new in changes:
            setattr(where, name, new)
        yield
    finally:
        for where, name, old in before:
            if old is None:  # it is a base class's
                delattr(where, name)
            else:
                setattr(where, name, old)


def _compiled(left_out: list[str]) -> list[tuple[Any, str, Any]]:
    """Calls that torch compiles to run, but cannot while calls are recorded: flex_attention, torch.cond."""

    def branch(_: Any, condition: Any, first: Any, second: Any, operands: Any = ()) -> Any:
        known = value(condition) if isinstance(condition, torch.Tensor) else condition
        if known is None:
            left_out[:] = sorted({*left_out, "FLOPs of torch.cond's other branch (the first is counted)"})
        return (first if known is None or known else second)(*operands)

    def normed(m: Any, x: Any) -> Any:
        left_out[:] = sorted({*left_out, "what SyncBatchNorm sends (it is counted as a BatchNorm)"})
        return _BatchNorm.forward(m, x)

    calls: list[tuple[Any, str, Any]] = [
        (torch.nn.SyncBatchNorm, "forward", normed),  # which refuses a processor
        (CondOp, "__call__", branch),
        (hops, "_hop_compile_and_call", lambda call, args: call(*args)),
    ]
    flex = sys.modules.get("torch.nn.attention.flex_attention")
    if flex is not None:  # it also trains, though what it is given seems to be on a processor
        calls.append((flex, "_validate_device", lambda *_: None))
        calls.append((flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True))
    return calls


def _checked(check: Any) -> Any:
    """A check of unknown numbers passes if its failure would only raise an error."""

    def call(error: Any, condition: Any, message: Any) -> None:
        if not isinstance(condition, FakeTensor) or value(condition) is not None:
            check(error, condition, message)

    return call


# Where torch itself looks at numbers to refuse bad ones; one object each, since captures are compared by
# them.
UNCHECKED: list[tuple[Any, str, Any]] = [
    (F, "gaussian_nll_loss", _unchecked(F.gaussian_nll_loss)),
    (torch.distributions.Distribution, "_validate_args", False),
    (torch, "_check_tensor_all_with", _checked(torch._check_tensor_all_with)),
]
