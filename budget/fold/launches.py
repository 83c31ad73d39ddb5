"""Launches: how many kernels are started for an operator, or for operators that are fused into one kernel."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir import WEIGHT, Op
from ..size import Size


def eager(o: Op, dtype: str) -> Size:
    """The kernels that eager code starts for an operator."""
    rule, derived = o.rule, o.derived
    launches = rule.launches
    if derived and o.kind != "contract":
        launches = max(rule.back_launches, len(o.outs) if rule.cross else 1)  # a product's gradients
        if rule.family == "norm" and launches > 1:
            # Written out: its weight's gradient is a product and a sum.
            trained = [t.role == WEIGHT for t in o.outs]
            launches = 2 if all(trained) else launches - 2 * bool(o.weights and not any(trained))
    if derived and o.ins and o.ins[0].dtype != o.out.dtype:
        launches += rule.widens
    return launches - rule.narrow[derived] if is_float32(o, dtype) else launches


def fused(ops: Sequence[Op], first: Op) -> Size:
    """A fused kernel, and those that eager code starts beside it."""
    return 1 + sum([o.rule.apart for o in ops if not o.derived]) if first.kernel else 1


def behind_norms(ops: Sequence[Op]) -> int:
    """The kernels that a host starts for fused neighbours: each norm ends one, with what is before it (a
    residual's sum), and what follows the last norm is one more (rotary embeddings behind norms of heads). In
    a graph they run as one. Source: vllm.
    """
    run = [o for o in ops if not o.rule.view]
    norms = sum(o.rule.family == "norm" for o in run)
    return max(norms + (bool(run) and run[-1].rule.family != "norm"), 1)


def is_float32(o: Op, dtype: str) -> bool:
    """Whether its first input and its output are float32 in memory, so that nothing is cast."""
    return bool(o.ins) and {t.dtype or dtype for t in (o.ins[0], o.out)} <= {"float32", "tf32"}
