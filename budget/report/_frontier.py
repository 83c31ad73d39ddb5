"""A plan as a picture: loss over compute, the same loss from smaller networks, what other laws say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ..law import Law
from ..scaling import alternatives
from ..scaling.chain import Plan
from ._axes import BLUE, GREEN, RED, STEPS, Axis, curve, dot, frame, path, powers
from ._draw import WIDTH, drawing, legend, line, text
from ._units import count, seconds, usd

EDGE, GAP, TOP, HIGH = 56, 84, 92, 210  # pixels: left of the plots, between the two, above them, their height
ROW, NAMES = 22, 160  # pixels of a law: its row's height, its name's width
BELOW, ABOVE = 1e4, 30.0  # how far the line goes on, from the plan's compute
GREY = 'fill="#888" fill-opacity=".13"'


def picture(plan: Plan) -> str:
    """The SVG element of a plan."""
    others = list(alternatives.others(plan))
    heading = f"{count(plan.params)} parameters on {count(plan.tokens)} tokens: {plan.compute:.3g} FLOPs"
    body, y = [text(EDGE, 24, heading, "head"), text(EDGE, 43, _said(plan))], TOP - 20.0
    if plan.loss is not None:
        half = (WIDTH - EDGE - GAP - 20) / 2
        body += [*_losses(plan, EDGE, EDGE + half), *_smaller(plan, EDGE + half + GAP, WIDTH - 20)]
        y = TOP + HIGH + 82
    body += _laws(plan, others, y)
    return drawing(body, y + ROW * len(others) + 52, f"A plan: {heading}")


def _said(plan: Plan) -> str:
    money = f", {usd(plan.bill.usd)}" if plan.bill.usd is not None else ""
    days = f"{seconds(plan.days * 86400)} on {plan.devices:,} x {plan.ask.device.name}"
    return f"{days} at MFU {plan.mfu.value:.0%}{money}; law: {plan.ask.law.id}"


def _losses(plan: Plan, left: float, right: float) -> Iterator[str]:
    """Loss over compute, with its 90 % interval; grey where the law has no runs."""
    chosen = plan.ask.law
    x = Axis(plan.compute / BELOW, plan.compute * ABOVE, left, right)
    best = [(c, _best(plan, chosen, c)) for c in x.between()]
    ends = [chosen.interval(partial(_best, plan, flops=c)) or (loss, loss) for c, loss in best]
    every = [*(loss for _, loss in best), *(e for pair in ends for e in pair), plan.loss or 0.0]
    y = Axis(min(every), max(every), TOP + HIGH, TOP, log=False)
    yield text(left, TOP - 12, "loss of the best network for a compute; 90 % interval")
    runs = (chosen.about.get("range") or {}).get("compute")
    if runs:
        first, last = (min(max(x.at(flops), left), right) for flops in runs)
        for start, end in ((left, first), (last, right)):
            yield f'<rect x="{start:.1f}" y="{TOP}" width="{end - start:.1f}" height="{HIGH}" {GREY}/>'
        yield text(right - 4, TOP + 14, "grey: beyond the law's own runs", "end")
    yield from frame(x, y, [10.0**n for n in powers(x)], "{:.0e}".format, "{:.2f}".format)
    band = [(x.at(c), y.at(high)) for (c, _), (_, high) in zip(best, ends, strict=True)]
    band += reversed([(x.at(c), y.at(low)) for (c, _), (low, _) in zip(best, ends, strict=True)])
    yield f'<path d="{path(band)}Z" fill="{BLUE}" fill-opacity=".2"/>'
    yield curve([(x.at(c), y.at(loss)) for c, loss in best])
    yield dot(x.at(plan.compute), y.at(plan.loss or 0.0), RED)
    yield text((left + right) / 2, TOP + HIGH + 36, "FLOPs of training", "middle")


def _best(plan: Plan, law: Law, flops: float) -> float:
    return law.loss(*law.optimum(flops, **plan.ask.more), **plan.ask.more)


def _smaller(plan: Plan, left: float, right: float) -> Iterator[str]:
    """What the same loss costs with fewer parameters: compute over the plan's, tokens at the points."""
    points = list(alternatives.smaller(plan))
    x = Axis(points[-1].params * 0.9, plan.params * 1.15, left, right)
    y = Axis(0.0, points[-1].more * 1.08, TOP + HIGH, TOP, log=False)
    yield text(left, TOP - 12, "the same loss with fewer parameters: compute")
    yield from frame(x, y, [s.params for s in points], count, "{:.2g} x".format)
    shares = [
        points[-1].params / plan.params * (plan.params / points[-1].params) ** (i / STEPS)
        for i in range(STEPS)
    ]
    every = alternatives.smaller(plan, [*reversed(shares)])
    yield curve([(x.at(s.params), y.at(s.more)) for s in (points[0], *every)])
    for s in points:
        yield dot(x.at(s.params), y.at(s.more), RED if s is points[0] else BLUE)
        yield text(x.at(s.params), TOP + HIGH + 32, count(s.tokens), "middle")
    yield text((left + right) / 2, TOP + HIGH + 50, "parameters, and the tokens that they take", "middle")


def _laws(plan: Plan, others: Sequence[alternatives.Other], top: float) -> Iterator[str]:
    """A row a law: the parameters and the tokens that it gives the same compute."""
    sizes = [v for o in others for v in (o.params, o.tokens)]
    x = Axis(min(sizes) / 1.5, max(sizes) * 1.5, EDGE + NAMES, WIDTH - 20)
    yield text(EDGE, top, "what other laws give the same compute")
    yield from legend([("parameters", f'fill="{BLUE}"'), ("tokens", f'fill="{GREEN}"')], top, x.start + 150)
    floor = top + 16 + ROW * len(others)
    for power in powers(x):
        yield line(x.at(10.0**power), top + 12, x.at(10.0**power), floor, "grid")
        yield text(x.at(10.0**power), floor + 16, count(10.0**power), "middle")
    for i, o in enumerate(others):
        y = top + 24 + ROW * i
        yield text(x.start - 10, y + 4, o.law + " (this plan's law)" * (o.law == plan.ask.law.id), "end")
        yield line(x.at(o.params), y, x.at(o.tokens), y, "axis")
        yield dot(x.at(o.params), y, BLUE)
        yield dot(x.at(o.tokens), y, GREEN)
