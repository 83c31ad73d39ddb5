"""Pipeline schedules: how many micro-batches wait in a stage, and how long the devices do.

With F, B and W the seconds of a stage's forward pass, its backward pass and the part of that which makes the
weights' gradients, T = F + B, p stages, v of them on each device, m micro-batches:

    schedule      waiting in stage r                       idle
    gpipe         m                                        (p - 1) T
    1f1b          p - r                                    (p - 1) T
    interleaved   (2 (p - r - 1) + (v - 1) p + 1) / v      (p - 1) T / v
    zb_h1         p                                        (p - 1) (T - 2 W)
    dualpipe      p - r, and r + 1 of stage p - 1 - r      (p / 2 - 1) (T + B - 3 W), both stages' weights

Where stages differ, the slowest one sets the pace, and every other one is passed through once.
Sources: gpipe, megatron-lm-2021, zero-bubble, dualpipe. The tests walk these schedules, written out as
programs (memory) and as events (seconds).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..config import divides
from ..errors import InputError, wrong
from ..layout import Layout
from ..named import NamedTuple
from ..size import Size, any_of, largest, maximum, minimum, shared


class Pass(NamedTuple):
    """Seconds of a stage for one micro-batch."""

    forward: Size
    backward: Size
    weights: Size  # of `backward`: what makes weights' gradients

    @property
    def both(self) -> Size:
        """Seconds of both passes."""
        return self.forward + self.backward


def schedule(layout: Layout) -> str:
    """The schedule of a layout: the requested one, or the usual one."""
    return layout.schedule or ("interleaved" if any_of(layout.vpp > 1) else "1f1b")


def in_flight(layout: Layout, stage: int, micro: Size) -> Size:
    """Micro-batches whose activations a stage keeps at most, the one that runs counted; a fraction where a
    device's stages are interleaved.
    """
    p, v = layout.pp, layout.vpp
    how = schedule(layout)
    most = {
        "gpipe": micro,
        "1f1b": p - stage,
        "interleaved": (2 * (p - stage - 1) + (v - 1) * p + 1) / v,
        "zb_h1": p,
        "dualpipe": p - stage,
    }[how]
    return minimum(most, micro)


def check(layout: Layout, micro: Size, trains: bool) -> None:
    """Raise an InputError for a schedule that stages, or micro-batches, do not allow."""
    p, v, how = layout.pp, layout.vpp, schedule(layout)
    if not trains:
        if layout.schedule or any_of(v > 1):
            field = "vpp" if any_of(v > 1) else "schedule"
            raise wrong(f"layout.{field}", getattr(layout, field), "in training")
        return
    if not any_of(p > 1):
        return
    if any_of(v > 1) != (how == "interleaved"):
        raise InputError(
            "layout.vpp", f"got {v} with schedule {how}; allowed: more than 1 with interleaved only"
        )
    if how == "interleaved":
        divides("layout.pp", p, "micro-batches", micro)
    if how == "dualpipe" and any_of(p % 2 != 0):
        raise InputError("layout.pp", f"got {p} with schedule {how}; allowed: even numbers: {p - 1}, {p + 1}")


def slowest(passes: Sequence[Pass]) -> Pass:
    """The passes of the stage that sets the pace; of arrays, each element's own."""
    slow = largest(passes, [p.both for p in passes])
    return Pass(*(shared((p[i], share) for p, share in slow) for i in range(len(Pass._fields))))


def bubble(layout: Layout, passes: Sequence[Pass]) -> Size:
    """Seconds that the slowest stage waits for the others."""
    slow = slowest(passes)
    others = sum(p.both for p in passes) - slow.both
    how = schedule(layout)
    if how == "interleaved":
        return others / layout.vpp
    if how == "zb_h1":
        return maximum(others - 2 * (sum(p.weights for p in passes) - slow.weights), 0)
    if how == "dualpipe":
        idle = slow.both + slow.backward - 3 * slow.weights
        return maximum((layout.pp / 2 - 1) * idle, 0)
    return others
