"""Serving as an Answer: a line for each number of users, and the most within limits."""

from __future__ import annotations

from ..serving.served import Asked, Point, Serving
from ._answer import Answer, Column, Table
from ._axes import BLUE, Axis, curve, dot, frame
from ._draw import WIDTH, apart, drawing, text, ticks
from ._summary import degrees, taken_for, techniques
from ._units import count, decimal, memory, seconds

EDGE, LEFT, RIGHT, TOP, HIGH = 20, 70, 150, 92, 260  # pixels

COLUMNS = (
    Column("users", "users", "{:,}".format),
    Column("batch", "batch", "{:,}".format),
    Column("ttft_s", "first", seconds),
    Column("tpot_s", "a token", seconds),
    Column("output_tokens_per_s", "tokens/s", decimal),
    Column("requests_per_s", "req./s", decimal),
    Column("usd_per_million_output_tokens", "$/M", lambda usd: "-" if usd is None else f"{usd:,.3g}"),
    Column("kv_cache_bytes", "cache", memory),
    Column("bound", "bound by"),
)


def answer(serving: Serving) -> Answer:
    """The points, and what keeps within what was asked for."""
    rows = [[getattr(p, c.key) for c in COLUMNS] for p in serving.points]
    return Answer(
        data=serving.to_dict,
        records=lambda: Table([Column(f, f) for f in Point._fields], [list(p) for p in serving.points]),
        text=lambda: _head(serving),
        tables=lambda: (Table(COLUMNS, rows),),
        foot=_foot(serving),
        pictures=lambda: (picture(serving),) if len(serving.points) > 1 else (),
    )


def picture(serving: Serving) -> str:
    """What all users get over what one of them gets, in tokens a second: a point for a number of users."""
    each, all_ = [1 / p.tpot_s for p in serving.points], [p.output_tokens_per_s for p in serving.points]
    x = Axis(0.0, max(each), LEFT, WIDTH - RIGHT, log=False)
    y = Axis(0.0, max(all_) * 1.1, TOP + HIGH, TOP, log=False)
    points = [(x.at(a), y.at(b)) for a, b in zip(each, all_, strict=True)]
    names = [f"{p.users:,} user{'s' * (p.users > 1)}, first {seconds(p.ttft_s)}" for p in serving.points]
    labels = [(right + 8, down - 8, name) for (right, down), name in zip(points, names, strict=True)]
    head, said = _head(serving).split("\n")[:2]
    return drawing(
        [
            text(EDGE, 24, head, "head"),
            text(EDGE, 43, said),
            text(
                EDGE,
                TOP - 12,
                f"tokens a second of all users, on {serving.devices:,} x {serving.full.device.name}",
            ),
            *frame(x, y, [v for v, _ in ticks(x.high, ((1.0, ""),))], "{:,.3g}".format, decimal),
            curve(points),
            *(dot(*at, BLUE) for at in points),
            *apart((*labels[:1], *labels[-1:], *labels)),  # those of the ends for sure
            text((x.start + x.end) / 2, TOP + HIGH + 36, "tokens a second of one user", "middle"),
        ],
        TOP + HIGH + 52,
        f"{serving.full.model.name}: tokens a second of all users over those of one",
    )


def _head(serving: Serving) -> str:
    e, first = serving.full, serving.points[0]
    alone = first.users == 1
    begins = serving.prefill.times.step if alone else first.ttft_s
    whole = seconds(begins + (serving.output_tokens - 1) * first.tpot_s)
    beside = "alone" if alone else f"beside {first.users - 1:,} other{'s' if first.users > 2 else ''}"
    size, on = count(e.params.total), f"{serving.devices:,} x {e.device.name}{_replicas(serving)}"
    request = f"a prompt of {serving.context:,} tokens and {serving.output_tokens:,} back"
    share = f" in {serving.share:.0%} of the memory" if serving.share < 1 else ""
    share += f", the cache in {serving.cache_share:.0%} of what is free" if serving.cache_share < 1 else ""
    room = f", {serving.cache_tokens:,} tokens{share}" if serving.full.memory.kv_cache else share
    lines = (
        f"{e.model.name}: {size} parameters, {e.task.dtype}, {e.stack.name}, on {on}",
        f"{request}: {whole} {beside}; room for {serving.places:,} at once{room}",
        *([f"with        {used}"] if (used := techniques(e)) else []),
        *taken_for(e),
        *([f"mode        {e.device.modes}"] if e.device.modes else []),
    )
    return "\n".join(lines)


def _replicas(serving: Serving) -> str:
    """How the devices are divided, where there are several."""
    return _of(serving.replicas, serving) if serving.devices > 1 else ""


def _of(replicas: int, serving: Serving) -> str:
    """So many replicas, and the layout of each."""
    each = degrees(serving.full.task.layout, trains=False) if serving.full.task.layout else ""
    several = f"{replicas:,} replica{'s' * (replicas > 1)}"
    return f" ({several}{f' of {each}' * bool(each)})"


def _foot(serving: Serving) -> str:
    beside = f"{_longer(serving)}{_of_prompts(serving)}"
    source = f"{beside}in steady state, without bursts; {serving.full.profile.summary}"
    asked, best = serving.asked, serving.within
    if asked == Asked():
        return source
    if best is None:
        alone = serving.fewest
        users = f"{alone.users:,} user{'s' * (alone.users > 1)}"
        return f"no number of users keeps within the limits: {_takes(alone)} with {users}; {source}"
    if asked.requests_per_s is not None:
        return f"{_at_rate(serving, serving.at_rate or best)}; {source}"
    tokens = decimal(best.output_tokens_per_s)
    return f"{best.users:,} users keep within the limits: {tokens} tokens/s; {source}"


def _longer(serving: Serving) -> str:
    """Where requests are longer than the network says that it reads: its positions may have no end (RoPE)."""
    length, asked = serving.full.model.config.get("context"), serving.context + serving.output_tokens
    return (
        f"{asked:,} tokens are more than the network's own {length:,}; " if length and asked > length else ""
    )


def _of_prompts(serving: Serving) -> str:
    """From which number of users on prompts take more of the time than what they are answered with."""
    users = next((p.users for p in serving.points if p.prompts > 0.5), 0)
    return f"prompts take most of the time from {users:,} user{'s' * (users > 1)} on; " if users else ""


def _at_rate(serving: Serving, point: Point) -> str:
    """How many devices answer so many requests a second, and how fast then."""
    e, usd, needed = serving.full, point.usd_per_million_output_tokens, serving.devices_needed
    hour = (e.cost()["usd_per_hour"] or 0) * needed
    dollars = "" if usd is None else f", ${usd:,.3g} a million tokens, ${hour:,.4g} an hour"
    on = f"{needed:,} x {e.device.name}{_of(serving.needed, serving) if e.devices > 1 else ''}"
    rate = f"{serving.asked.requests_per_s:,.4g} requests/s need {on}"
    return f"{rate}: {point.users:,} users at a time, {_takes(point)}{dollars}"


def _takes(point: Point) -> str:
    return f"first token {seconds(point.ttft_s)}, then {seconds(point.tpot_s)} each"
