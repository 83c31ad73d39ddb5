"""The host: the calls that it makes for operators, and its seconds for them and between two tokens."""

from __future__ import annotations

from ..device.kernel_class import KernelClass
from ..ir import Model
from ..size import Size, is_zero, maximum, minimum
from .communication import communications
from .kernels import Work
from .roofline import Rates


def calling(w: Work, form: KernelClass, r: Rates) -> Size:
    """The host's seconds for calling one run of an operator, without its launches."""
    if w.phase == "forward":
        return 0.0 if w.form == "recurrent" else r.dispatch.forward * calls(w, r) + form.host_s
    return r.dispatch.backward * w.calls if w.phase == "backward" else r.dispatch.optimizer * w.launches


def calls(w: Work, r: Rates) -> Size:
    """The calls of the host for one run of an operator forward: its kernel's, and those besides. What widens
    weights, or reads their scales, casts no input.
    """
    cast = r.calls.get("few_bits", 0.0) if w.gemm is not None and w.narrow in r.narrow else 0.0
    return w.calls + r.calls.get(w.form.removeprefix("weight_only_"), 0.0) + cast


def collectives(model: Model, dtype: str, r: Rates) -> Size:
    """Seconds of the host for a forward pass's collectives, besides the kernels' own."""
    each = r.dispatch.forward * r.calls.get("collective", 0.0)
    sent = communications(model.nodes, dtype) if each else ()
    return each * sum([c.times for c in sent if c.phase == "forward"])


def between(r: Rates, sequences: Size) -> Size:
    """Seconds between two tokens of an engine, while no graph runs: it schedules sequences, and for each
    handles its token, its place in the cache and its text. Source: vllm-v1.
    """
    return r.turn[0] * minimum(sequences, 1) + r.turn[1] * sequences


def decoded(model: Model) -> Size:
    """The sequences for which a step generates a token."""
    return 0 if is_zero(model.cached) else model.samples


def last(host: Size, optimizer: Size, started: Size) -> Size:
    """When the last kernel ends if the host is what everything waits for: an optimizer's kernels run as the
    host starts them, and end later by what they take longer than their start.
    """
    return host + maximum(optimizer - started, 0)
