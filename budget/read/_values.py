"""The values of fake tensors, where they are known: of small ones that follow from data.

Lengths, masks, positions, indices and random numbers decide which way a forward pass goes and how large its
tensors are. Where the values of all of a call's operands are known, the call also runs on these, so that
`.item()`, a branch or `nonzero` has an answer. Weights are never known, nor are tensors made of them. Choices
by such tensors (a router's experts) are taken to be even, where a pass asks for that.
"""

from __future__ import annotations

import torch
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
from torch.utils._pytree import tree_leaves, tree_map

from ..named import Any
from ._known import BLANK, LARGEST, Held, as_fake, know, value

BY_DATA = (DataDependentOutputException, DynamicOutputShapeException)
aten = torch.ops.aten
GROUPED = aten._grouped_mm.default
FEW = 2**12  # elements of a product's operands
FILLS = ("aten::copy_", "aten::fill_", "aten::zero_", "aten::index_put_")  # write without reading
CHOICES = {"aten::topk": 1, "aten::argmax": 0}  # and which of their results is the choice
# Real kernels (cuDNN's and the processor's) lay out their result in the format of an input, whose place among
# the arguments is here, or contiguously (None); fake kernels as an operand lies.
NORMS = {
    torch.ops.aten.native_batch_norm.default: 0,
    torch.ops.aten.native_batch_norm_backward.default: 1,
    torch.ops.aten.native_layer_norm_backward.default: None,
}


class Values:
    """Runs calls on fake tensors, and on their values where these are known."""

    def __init__(self, even: bool = False) -> None:
        self.even = even  # whether choices by unknown numbers are taken to be even

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A call's result. Raises BY_DATA where it depends on data that nobody knows."""
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type != "cpu":
            kwargs = {**kwargs, "device": torch.device("cpu")}  # the one that there is
        if func is GROUPED and args[0].dtype != torch.bfloat16:  # which its meta kernel alone knows
            return func(*(t.bfloat16() for t in args[:2]), *args[2:], **kwargs).to(args[0].dtype)
        operands, known = self._operands(func, args, kwargs)
        try:
            result = func(*args, **kwargs)
        except BY_DATA:
            if known:
                return tree_map(as_fake, self._real(func, args, kwargs))
            sized = SIZED.get(func._schema.name)
            if sized is None or (result := sized(*args, **kwargs)) is None:
                raise
            return result
        result = _as_kernels_leave_it(func, args, operands, result)
        if not known and self.even and func._schema.name in CHOICES:
            _spread(func, args, kwargs, result)
        self._keep(func, args, kwargs, operands, result, known)
        return result

    def _keep(
        self, func: Any, args: Any, kwargs: Any, operands: list[torch.Tensor], result: Any, known: bool
    ) -> None:
        """Let a result have its values where its operands have theirs; what is written to otherwise loses
        them.
        """
        if "empty" in func._schema.name:
            _blank(result)
        elif known:
            results = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
            if sum(t.numel() for t in (*operands, *results)) <= LARGEST:
                self._pair(func, args, kwargs, results)
        elif func._schema.is_mutable:
            for t in operands:
                if _is_written(func, args, kwargs, t) and (real := value(t, blank=True)) is not None:
                    real.untyped_storage().lost = True

    def _operands(self, func: Any, args: Any, kwargs: Any) -> tuple[list[torch.Tensor], bool]:
        """A call's tensors, all of them where they are known."""
        operands, known = [], True
        fills = func._schema.name in FILLS
        for x in tree_leaves((args, kwargs)) if func._schema.is_mutable else _flat(args, kwargs):
            if isinstance(x, torch.Tensor):
                operands.append(x)
                known = known and value(x, func.is_view or (fills and x is args[0])) is not None
        if known and torch.Tag.pointwise not in func.tags and sum(t.numel() for t in operands) > FEW:
            known = not any(word in func._schema.name for word in ("mm", "conv", "dot", "linalg", "fft"))
        return operands, known

    def _real(self, func: Any, args: Any, kwargs: Any) -> Any:
        reals = tree_map(lambda x: value(x, blank=True) if isinstance(x, torch.Tensor) else x, (args, kwargs))
        with unset_fake_temporarily():
            return func(*reals[0], **reals[1])

    def _pair(self, func: Any, args: Any, kwargs: Any, results: list[torch.Tensor]) -> None:
        try:
            result = self._real(func, args, kwargs)
        except Exception:  # noqa: BLE001 - then it stays unknown
            return
        reals = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        for fake, real in zip(results, reals, strict=False):
            if isinstance(fake, FakeTensor) and fake.shape == real.shape:
                held = Held(real)
                held.copied = func._schema.name != "aten::lift_fresh"
                vars(fake)["known"] = held


def _as_kernels_leave_it(func: Any, args: Any, operands: list[torch.Tensor], result: Any) -> Any:
    """The result of a fake kernel with the layout, and as many stored values, as the real one's."""
    if getattr(result, "layout", None) is torch.sparse_coo and not result._nnz():
        result = _stored(result, operands)
    if func not in NORMS or result[0] is None:
        return result
    place = NORMS[func]
    laid_out = torch.contiguous_format if place is None else suggest_memory_format(args[place])
    return (torch.empty_like(result[0], memory_format=laid_out), *result[1:])


def _stored(result: torch.Tensor, operands: list[torch.Tensor]) -> torch.Tensor:
    """A sparse result with as many stored values as the one sparse operand of its size: fake kernels (a
    transposition, a scaling) forget how many there are.
    """
    given = [t for t in operands if t.layout is torch.sparse_coo and t.numel() == result.numel()]
    if len(given) != 1 or given[0].sparse_dim() != result.sparse_dim():
        return result
    indices, values = given[0]._indices(), given[0]._values()
    parts = torch.empty_like(indices), torch.empty_like(values, dtype=result.dtype)
    return torch.sparse_coo_tensor(
        *parts, result.size(), is_coalesced=result.is_coalesced(), check_invariants=False
    )


def _blank(result: Any) -> None:
    """A few whole numbers that are still to be written, one by one: the sizes of a pyramid's levels."""
    if isinstance(result, FakeTensor) and result.dtype == torch.int64 and result.numel() <= FEW:
        with unset_fake_temporarily():
            real = torch.full(result.shape, BLANK)
            real.untyped_storage().blank = True
        vars(result)["known"] = Held(real)
        vars(result)["known"].copied = True


def _spread(func: Any, args: Any, kwargs: Any, result: Any) -> None:
    """Choices along a dimension, each as often as any other: n, n + 1, n + 2 ..."""
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    chosen, dim = result[1] if isinstance(result, tuple | list) else result, given.get("dim", -1)
    if dim is None or not chosen.dim() or chosen.numel() > LARGEST:
        return
    count, rest = given.get("k", 1), list(given["self"].shape)
    with unset_fake_temporarily():
        rows = torch.arange(chosen.numel()) % rest.pop(dim)
        real = rows.reshape(*rest, count).movedim(-1, dim).reshape(chosen.shape)
    know(chosen, real)


def _ctc(log_probs: Any, targets: Any, _: Any, lengths: Any, *_rest: Any) -> Any:
    """A loss for each sample, and all alignments: as long as the longest target, else as all may be."""
    known = value(lengths) if isinstance(lengths, torch.Tensor) else lengths
    with unset_fake_temporarily():
        longest = targets.shape[-1] if known is None else max(map(int, known))
    samples = log_probs.shape[1]
    loss = log_probs.new_empty((samples,))
    return loss, log_probs.new_empty((samples, log_probs.shape[0], 2 * longest + 1))


def _packed(data: Any, lengths: Any, batch_first: bool) -> Any:
    """The rows of sequences of known lengths, and how many are left at each step."""
    if (known := value(lengths)) is None:
        return None
    with unset_fake_temporarily():
        longest = known.tolist()
        left = torch.tensor([sum(n > step for n in longest) for step in range(max(longest))])
    rows = data.transpose(0, 1) if batch_first else data
    return data.new_empty((sum(longest), *rows.shape[2:])), as_fake(left)


def _selected(data: Any, mask: Any) -> Any:
    known = value(mask)
    with unset_fake_temporarily():
        count = (
            None if known is None else int(known.expand(torch.broadcast_shapes(data.shape, mask.shape)).sum())
        )
    return None if count is None else data.new_empty((count,))


def _indexed(data: Any, indices: Any) -> Any:
    """Rows where a known mask is true."""
    found: list[Any] = []
    for index in indices:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            found.append(index)
        elif (known := value(index)) is None:
            return None
        else:
            with unset_fake_temporarily():
                rows = known.nonzero(as_tuple=True)
            found += map(as_fake, rows)
    return aten.index.Tensor(data, found)


# Calls whose sizes follow from one operand alone; None where its values are not known.
SIZED: dict[str, Any] = {
    "aten::_ctc_loss": _ctc,
    "aten::_pack_padded_sequence": _packed,
    "aten::masked_select": _selected,
    "aten::index": _indexed,
}


def _flat(args: Any, kwargs: Any) -> Any:
    """The arguments, and those in lists."""
    for x in (*args, *kwargs.values()):
        if isinstance(x, list | tuple):
            yield from x
        else:
            yield x


def _is_written(func: Any, args: Any, kwargs: Any, t: torch.Tensor) -> bool:
    for i, a in enumerate(func._schema.arguments):
        if a.alias_info is not None and a.alias_info.is_write:
            given = args[i] if i < len(args) else kwargs.get(a.name)
            if given is t or (isinstance(given, list | tuple) and any(x is t for x in given)):
                return True
    return False


class Knowing(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed here
    """Within, tensors that are made keep their values."""

    def __init__(self) -> None:
        super().__init__()
        self.values = Values()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a call."""
        if any(is_traceable_wrapper_subclass_type(t) for t in types):
            return NotImplemented
        return self.values.run(func, args, kwargs or {})
