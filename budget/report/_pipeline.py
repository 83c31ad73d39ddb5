"""A pipeline drawn: what each rank runs from the first forward to the last backward pass."""

from __future__ import annotations

from collections.abc import Iterator

from ..answer import Estimate
from ..fold.pipeline import Pass as Seconds
from ..fold.pipeline import schedule
from ..fold.timeline import BACKWARD, FORWARD, INPUTS, WEIGHTS, Pass, Ran, order, timeline
from ._draw import COLOURS, LEFT, RIGHT, SECONDS, WIDTH, drawing, legend, line, text, ticks
from ._summary import degrees, describe, shorten, workload

ROW, TOP = 22, 84  # pixels: of a rank, and above the first
FILL = {FORWARD: COLOURS[0], BACKWARD: COLOURS[1], INPUTS: COLOURS[1], WEIGHTS: COLOURS[4]}
LABELLED = 14  # pixels of a pass that has room for its micro-batch's number


def has_pipeline(e: Estimate) -> bool:
    """Whether there are stages that wait for each other."""
    return e.spread is not None and e.task.workload.mode == "train" and bool(e.spread.layout.pp > 1)


def passes(e: Estimate) -> list[Ran]:
    """When each rank runs what. Raises InputError for a step too long to write out."""
    assert e.spread is not None  # has_pipeline says so
    layout, micro = e.spread.layout, int(e.spread.micro)
    taken = {stage: r.passes(micro) for r in e.ran for stage in r.rank.stages}
    return timeline(
        order(schedule(layout), int(layout.pp), micro, int(layout.vpp)),
        lambda rank, p: _seconds(taken[rank], p) / layout.vpp,
    )


def _seconds(stage: Seconds, p: Pass) -> float:
    """The seconds of one pass through all of a rank's layers."""
    parts = {
        FORWARD: stage.forward,
        BACKWARD: stage.backward,
        INPUTS: stage.backward - stage.weights,
        WEIGHTS: stage.weights,
    }
    return float(parts[p.what])


def picture(e: Estimate) -> str:
    """The pipeline as an SVG element: a row a rank, a box a pass, with its micro-batch's number."""
    ran = passes(e)
    end, ranks = max(r.end for r in ran), 1 + ran[-1].rank
    body = [*_title(e), *_rows(ran, end), *_axis(end, TOP + ROW * ranks)]
    kinds = sorted({r.run.what for r in ran}, key=list(FILL).index)
    named = {FILL[kind]: kind for kind in reversed(kinds)}  # the whole before a part
    items = [(named[FILL[kind]], f'fill="{FILL[kind]}"') for kind in kinds if kind in named.values()]
    body += legend(items, TOP + ROW * ranks + 40)
    return drawing(body, TOP + ROW * ranks + 56, f"{e.model.name}: its pipeline's schedule")


def _title(e: Estimate) -> Iterator[str]:
    assert e.spread is not None
    idle = float(e.times.bubble / e.times.step)
    yield text(LEFT, 24, shorten(f"{e.model.name}: {describe(e)}", 84), "head")
    yield text(LEFT, 43, workload(e))
    line = f"{degrees(e.spread.layout)}; {e.spread.micro:,} micro-batches, {schedule(e.spread.layout)}"
    yield text(LEFT, 60, f"{line}; bubble {idle:.1%} of the step")


def _rows(ran: list[Ran], end: float) -> Iterator[str]:
    across = (WIDTH - LEFT - RIGHT) / end
    ranks = 1 + ran[-1].rank  # they come one after the other
    for rank in range(ranks):
        yield text(LEFT - 6, TOP + ROW * rank + 15, f"rank {rank}", "end")
    for before, r in zip((None, *ran), ran, strict=False):
        x, width = LEFT + r.start * across, (r.end - r.start) * across
        under = before is not None and before.run.beside  # two at once share the row's height
        high = (ROW - 2) / 2 if under or r.run.beside else ROW - 2
        y = TOP + ROW * r.rank + (ROW - 2 - high if under else 0)
        title = f"{r.run.what}, micro-batch {r.run.micro}, stage {r.run.stage}"
        # The forward passes of later chunks of a rank are paler.
        look = f'fill="{FILL[r.run.what]}" fill-opacity="{0.9 ** (r.run.stage // ranks):.2f}"'
        box = f'x="{x:.2f}" y="{y + 1:g}" width="{max(width - 0.5, 0.2):.2f}" height="{high:g}" {look}'
        yield f"<rect {box}><title>{title}</title></rect>"
        if width >= LABELLED and high > ROW / 2:
            yield text(x + width / 2, y + 15, str(r.run.micro), "middle")


def _axis(end: float, floor: float) -> Iterator[str]:
    for at, label in ticks(end, SECONDS):
        x = LEFT + at / end * (WIDTH - LEFT - RIGHT)
        yield line(x, floor, x, floor + 5, "axis")
        yield text(x, floor + 18, label, "middle")
