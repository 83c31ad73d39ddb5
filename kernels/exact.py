"""The exact outputs of sample_launches.py's launches, in float64, by which tune judges settings.

Each launch function has one here with the same arguments, which returns its outputs' exact values in order.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from . import sample_launches
from .attention_reference import reference_backward, reference_forward
from .attention_rules import Packing, Rules
from .cross_entropy import reference_cross_entropy, reference_cross_entropy_backward
from .matmul_reference import reference_epilogue_backward, reference_matmul
from .rms_norm import reference_rms_norm, reference_rms_norm_backward
from .rope import reference_rope
from .softmax import reference_softmax, reference_softmax_backward

HELD = 2**27  # float64 numbers of a tensor at once: a gigabyte
ROUNDINGS = 4  # a kernel's allowed error, in roundings to its output's format: it also rounds probabilities
SUMS = 1e-5  # added to it for sums of thousands of terms in float32

Outputs = list[torch.Tensor | None]


def exact(launch: sample_launches.Launch) -> Outputs:
    """The exact values of the tensors that launch returns; None for one without elements."""
    found: Outputs = []

    def instead(function: Callable[..., Outputs]) -> Callable[..., None]:
        return lambda *args, **kwargs: found.extend(function(*args, **kwargs))

    with contextlib.ExitStack() as stack:
        for name, function in EXACT.items():
            stack.enter_context(mock.patch.object(sample_launches, name, instead(function)))
        launch()
    return found


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The norm of the difference over the norm, of finite values; infinite where others do not agree."""
    finite = theirs.isfinite()
    if not torch.equal(finite, ours.isfinite()):
        return math.inf
    ours, theirs = ours[finite].double(), theirs[finite].double()
    size = torch.linalg.vector_norm(theirs).item()
    difference = torch.linalg.vector_norm(ours - theirs).item()
    return difference / size if size else math.inf * difference if difference else 0.0


def is_right(ours: torch.Tensor, right: torch.Tensor | None) -> bool:
    """Whether an output is as near to its exact value as its format allows."""
    if right is None or right.numel() == 0:
        return True
    return distance(ours, right) <= ROUNDINGS * distance(right.to(ours.dtype), right) + SUMS


def _wide(*tensors: torch.Tensor | None) -> Iterator[torch.Tensor | None]:
    return (None if t is None else t.double() for t in tensors)


def _by_rows(function: Callable[..., Any], *tensors: torch.Tensor | None) -> Outputs:
    """function of float64 tensors, some of the first dimension at a time; its outputs in one piece."""
    first = next(t for t in tensors if t is not None)
    step = max(1, HELD // first[0].numel())
    pieces = []
    for i in range(0, len(first), step):
        parts = (None if t is None else t[i : i + step] for t in tensors)
        found = function(*(t if t is None or not t.is_floating_point() else t.double() for t in parts))
        pieces.append((found,) if isinstance(found, torch.Tensor) else found)
    return [torch.cat(outputs) for outputs in zip(*pieces, strict=True)]


def _matmul(a, b, bias, gate, residual, scale_a, scale_b, _out, linear, gate_linear, *, activation, tf32):
    inputs = _wide(a, b, bias, gate, residual, scale_a, scale_b)
    out, exact_linear, exact_gate = reference_matmul(*inputs, activation)
    return [out, exact_linear if linear.numel() else None, exact_gate if gate_linear.numel() else None]


def _epilogue_backward(grad, linear, gate_linear, *_, activation):
    dlinear, dgate = reference_epilogue_backward(*_wide(grad, linear, gate_linear), activation)
    return [dlinear, dgate, dlinear.flatten(0, -2).sum(0)]


def _softmax(x, mask, _out, *, scale, causal, log):
    return _by_rows(lambda x, mask: reference_softmax(x, mask, scale, causal, log), x, mask)


def _softmax_backward(grad, y, _out, *, scale, log):
    return _by_rows(lambda grad, y: reference_softmax_backward(grad, y, scale, log), grad, y)


def _cross_entropy(logits, target, *_, **numbers):
    return _by_rows(lambda z, t: reference_cross_entropy(z, t, **numbers), logits, target)


def _cross_entropy_backward(grad, logits, target, maximum, total, _out, **numbers):
    def gradient(*tensors):
        return reference_cross_entropy_backward(*tensors, **numbers)

    return _by_rows(gradient, grad, logits, target, maximum, total)


def _rms_norm(x, residual, weight, *_, eps, offset):
    total = x if residual is None else x + residual
    out, inverse = reference_rms_norm(*_wide(total, weight), eps, offset)
    return [out, total.double(), inverse]


def _rms_norm_backward(grad, grad_total, x, weight, inverse, *_, offset):
    return list(reference_rms_norm_backward(*_wide(grad, grad_total, x, weight, inverse), offset))


def _rope(x, cos, sin, positions, _out, *, interleaved, back):
    return [reference_rope(*_wide(x, cos, sin), positions, interleaved, back)]


def _heads(q, k, packing: Packing | None) -> Iterator[tuple[Any, Any, slice]]:
    """(slices of the queries, slices of the keys, their rows) by key head and sequence."""
    group = q.shape[1] // k.shape[1]
    bounds = [(0, q.shape[2], 0, k.shape[2])]
    if packing is not None:
        ends = [t.tolist() for t in (packing.cu_seqlens_q, packing.cu_seqlens_k)]
        bounds = [(*a, *b) for a, b in zip(*map(itertools.pairwise, ends), strict=True)]
    for batch in range(q.shape[0]):
        for head in range(k.shape[1]):
            heads = slice(head * group, (head + 1) * group)
            for q0, q1, k0, k1 in bounds:
                of_q = (slice(batch, batch + 1), heads, slice(q0, q1))
                yield of_q, (slice(batch, batch + 1), slice(head, head + 1), slice(k0, k1)), heads


def _attention(q, k, v, bias, sinks, packing, out, log_sum, rules: Rules):
    found = [torch.zeros_like(t, dtype=torch.float64) for t in (out, log_sum)]
    for of_q, of_k, heads in _heads(q, k, packing):
        tensors = _wide(q[of_q], k[of_k], v[of_k], None if bias is None else bias[of_q[:2]])
        own = None if sinks is None else sinks[heads].double()
        for into, part in zip(found, reference_forward(*tensors, rules, own), strict=True):
            into[of_q] = part
    return found


def _attention_backward(
    dout, q, k, v, out, log_sum, bias, _sinks, packing, _dq, _dk, _dv, dbias, _dsinks, rules
):
    found = [torch.zeros(t.shape, dtype=torch.float64, device=t.device) for t in (q, k, v)]
    if dbias is not None:
        found.append(torch.zeros_like(dbias, dtype=torch.float64))
    for of_q, of_k, heads in _heads(q, k, packing):
        tensors = _wide(dout[of_q], q[of_q], k[of_k], v[of_k], out[of_q], log_sum[of_q])
        own = None if bias is None else bias[of_q[:2]].double()
        *gradients, dz, _ = reference_backward(*tensors, own, rules)
        for into, place, part in zip(found, (of_q, of_k, of_k), gradients, strict=False):
            into[place] = part
        if dbias is not None:
            found[3][:, heads] += dz
    return found


def _decode(q, k, v, bias, sinks, out, log_sum, rules, _lengths=None, table=None):
    """Decoding with a full cache: the calls' lengths are its capacity."""
    if table is not None:
        k, v = (
            t[table.flatten().long()].unflatten(0, table.shape).transpose(1, 2).flatten(2, 3) for t in (k, v)
        )
    return _attention(q, k, v, bias, sinks, None, out, log_sum, rules)


EXACT: dict[str, Callable[..., Outputs]] = {
    "launch_matmul": _matmul,
    "launch_epilogue_backward": _epilogue_backward,
    "launch_softmax": _softmax,
    "launch_softmax_backward": _softmax_backward,
    "launch_cross_entropy": _cross_entropy,
    "launch_cross_entropy_backward": _cross_entropy_backward,
    "launch_rms_norm": _rms_norm,
    "launch_rms_norm_backward": _rms_norm_backward,
    "launch_rope": _rope,
    "launch_forward": _attention,
    "launch_backward": _attention_backward,
    "launch_decode": _decode,
}
