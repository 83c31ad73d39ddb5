"""Serving: how long a request takes, and how many an engine answers, by continuous batching in steady state.

An engine with B places decodes B sequences at a time. A place that becomes free takes the next prompt, whose
prefill runs in a step for which the other B - 1 wait. Over an answer of O tokens one token takes, on average,

    tpot = decode(B, context + O/2) + (B - 1)/O x prefill(context),    B = min(users, places)

and the first one takes the prompt's own prefill, half a step that is under way, the software's fixed time for
a request, one step more where the engine's host lags behind (budget/stack/), and, with more users than
places, the time until one is free. Derived. Not counted: a burst of requests at once, the network, and cached
prefixes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import ceil

from ..answer import Estimate
from ..cluster import joining
from ..config import size, without_none
from ..device import Device, several
from ..errors import InputError, wrong
from ..estimate import estimate, usual_device
from ..fitting.largest import largest
from ..layout import layout as parse
from ..named import TYPE_CHECKING, Any
from ..quantity import PER_SECOND, SECONDS, read
from .room import Requests
from .served import Asked, Point, Serving

if TYPE_CHECKING:
    from typing import Unpack

    from ..keywords import Settings

PROMPT = 4096  # tokens, where none are given and the network's own length has room for them
MOST = 4096  # users of the last point, where the cache has room for so many


def serve(
    model: object,
    *,
    context: int | None = None,
    output_tokens: int | None = 256,
    users: int | Sequence[int] | None = (),
    ttft: float | str | None = None,
    tpot: float | str | None = None,
    rate: float | str | None = None,
    length: int | None = None,
    places: int | None = None,
    share: float | None = None,
    cache_share: float | None = None,
    shared_tokens: int | None = None,
    step_tokens: int | None = None,
    price: float | str | None = None,
    **settings: Unpack[Settings],
) -> Serving:
    """The time of a request and the rate of requests, for several numbers of users.

    budget.serve("llama-3-8b", context=8192, device="h100")

    context: tokens of a prompt (4,096, or as many as the network's own length leaves). output_tokens: of an
    answer. users: a number of them or several (1, 2, 4, ...), each with one request at a time.
    ttft, tpot: limits, in seconds or as `200ms`; the answer has the most users within them. rate: requests a
    second, or `500/min`; the answer has the replicas that are needed within these limits, of as many devices
    each (1, 2, 4 or 8 of one node, where neither devices nor a layout are given) as needs the fewest in all.
    length: the most tokens of a request with its answer that the engine accepts. places: the most requests
    that a replica runs at once. share: the part of a device's memory that the engine takes (its software's
    default), unless a reserve is given. cache_share: the part of what weights and activations leave that its
    cache takes (its software's default). shared_tokens: what the cache of a replica holds at most, of all its
    requests. step_tokens: of prompts in one step, at most, for which the cache leaves room (2,048; on devices
    of 70 GiB and more 8,192). price: dollars an hour and device, or reserved, spot (on-demand). settings:
    those of budget.estimate; a layout's dp are replicas, and several devices without a layout are divided
    into the replicas that answer most within the limits.
    Raises InputError, also where not even one user fits.
    """
    answer = size("--output-tokens", 256 if output_tokens is None else output_tokens)
    users = () if users is None else tuple(users) if isinstance(users, Iterable) else (users,)
    given = without_none(settings)
    for field in ("mode", "batch", "seq"):
        if given.pop(field, None) not in (None, "train", "decode"):
            raise InputError(
                f"--{field}", "serving has its own; allowed: --context, --output-tokens, --users"
            )
    usual = usual_device(given.get("cluster"))
    given["device"], devices = several(given.get("device", usual), given.pop("devices", None))
    spread = given.pop("layout", None)
    context = _context(context, answer, length, model, given)
    limits = (("--ttft", ttft, SECONDS), ("--tpot", tpot, SECONDS), ("--rate", rate, PER_SECOND))
    asked = Asked(*(x if x is None else read(flag, x, kind) for flag, x, kind in limits))
    places = None if places is None else size("places", places)
    if shared_tokens is not None:
        fitting = _fitting(size("shared_tokens", shared_tokens), context, answer)
        places = fitting if places is None else min(places, fitting)
    step_tokens = None if step_tokens is None else size("--step-tokens", step_tokens)
    requests = Requests(model, given, context, answer, places, step_tokens, price)
    requests = requests.within(share).caching(cache_share)
    if spread is None and devices is not None:
        parts = [n for n in range(1, size("devices", devices) + 1) if devices % n == 0]
        return _best(requests, parts, devices, users, asked)
    if spread is None and asked.requests_per_s is not None:
        return _best(
            requests, _within_a_node(requests.decode(1).device, given.get("cluster")), None, users, asked
        )
    layout = None if spread is None else parse(spread, train=False, devices=devices)
    if layout is not None and devices not in (None, layout.devices):
        raise wrong("devices", devices, f"the layout's {layout.devices}, or no layout")
    one_of = None if layout is None else {**vars(layout), "dp": 1}
    return _served(requests.on(one_of), 1 if layout is None else int(layout.dp), users, asked)


def _context(
    asked: int | None, answer: int, length: int | None, model: object, settings: Mapping[str, Any]
) -> int:
    """The tokens of a prompt: as asked, or as many as the network's own length has room for. length: the most
    that the engine takes. Raises InputError.
    """
    if asked is None:
        longest = max(estimate(model, **settings, mode=m, batch=1).length for m in ("decode", "prefill"))
        longest = longest if length is None else min(length, longest)
        asked = min(PROMPT, longest - answer) if longest > answer else PROMPT
    context: int = size("--context", asked)
    if length is not None:
        _fitting(size("length", length), context, answer)
    return context


def _fitting(tokens: int, context: int, answer: int) -> int:
    """The requests that so many tokens of the engine have room for. Raises InputError where not one has."""
    if context + answer > tokens:
        both = f"{context:,} tokens and {answer:,} back are more than the {tokens:,} that the engine takes"
        raise InputError("--context", f"{both}; allowed: less of --context and --output-tokens")
    return tokens // (context + answer)


def _within_a_node(device: Device, cluster: object) -> list[int]:
    """How many devices a replica may have, where nobody says: powers of two that the innermost links join."""
    if device.intra is None and cluster is None:
        return [1]
    return [n for n in (1, 2, 4, 8) if n <= joining(device, cluster).node]


def _best(
    requests: Requests, sizes: Sequence[int], devices: int | None, users: Sequence[int], asked: Asked
) -> Serving:
    """The best of replicas of so many devices each, which share all devices; None: one of each size."""
    axis = "pp" if requests.decode(1).stack.by_layers else "tp"
    divisions, why = [], InputError("devices", f"got {devices}; no layout divides the network")
    for n in sizes:
        try:
            replicas = 1 if devices is None else devices // n
            divisions.append(_served(requests.on({axis: n, "sp": 0}), replicas, users, asked))
        except InputError as error:
            why = error
    if not divisions:
        raise why
    return max(divisions, key=_merit)


def _merit(division: Serving) -> tuple[float, ...]:
    """What the better division has more of: tokens a second of most users, or of those within the limits;
    for a rate, fewer devices. Where no user keeps within, the nearer one is better.
    """
    asked, best = division.asked, division.within
    if asked == Asked():
        return (division.points[-1].output_tokens_per_s,)
    if best is None:
        return (-1.0, -asked.over(division.fewest))
    if asked.requests_per_s is None or division.at_rate is None:
        return (1.0, best.output_tokens_per_s)
    return (1.0, -division.devices_needed, -division.at_rate.tpot_s)


def _served(requests: Requests, replicas: int, users: Sequence[int], asked: Asked) -> Serving:
    """The answer for users divided among replicas. Raises InputError where not even one user fits."""
    longest = requests.context + requests.answer
    most, full = largest(requests.model, "batch", **requests.settings, mode="decode", seq=longest)
    if full is None:
        raise _too_much(requests.decode(1, seq=longest))
    if not (room := min(requests.cached(full), requests.places or most)):
        raise _no_room(requests.cache_share)
    if room < most:
        most, full = room, requests.decode(room, seq=longest)
    full, prefill = requests.priced(full), requests.prefill(requests.context)

    @cache
    def point(users: int, replicas: int) -> Point:
        return _point(requests, users, replicas, most, prefill)

    counts = [size("--users", n) for n in users] or _doubled(min(most * replicas, MOST))
    points = tuple(point(n, replicas) for n in counts)
    serving = Serving(
        requests.context, requests.answer, most * replicas, prefill, full, points, replicas, asked
    )
    serving = serving._replace(share=requests.share, cache_share=requests.cache_share)
    return serving if asked == Asked() else _within(serving, most, point)


def _too_much(one: Estimate) -> InputError:
    """The error for one user who does not fit."""
    lacks = (one.needed - one.device.usable_bytes) / 2**30
    preset = "quantize" not in one.task.techniques.used and one.task.published
    named = f"{preset} as it is published, " if preset else ""
    ways = f"allowed: {named}a shorter one, more --devices, or --quantize"
    many = f"{one.devices} x " if one.devices > 1 else ""
    lack = f"{lacks:,.1f} GiB too much" + (" for each" if many else "")
    return InputError("--context", f"not even one user fits {many}{one.device.name}: {lack}; {ways}")


def _no_room(cache_share: float) -> InputError:
    """The error for one user who fits alone, but not with a step of prompts in the cache's share."""
    if cache_share < 1:
        return InputError("--cache-share", f"got {cache_share:g}, too little for one; allowed: more")
    ways = "allowed: a shorter one, fewer --step-tokens, more --devices, or --quantize"
    return InputError("--context", f"no room for one user beside a step of prompts; {ways}")


def _within(serving: Serving, most: int, point: Callable[[int, int], Point]) -> Serving:
    """The answer with the most users within its limits, and the replicas for its rate. point: by users and
    replicas.

    More users on a replica make each request longer, and more are answered: both are found by bisection.
    """
    asked, each = serving.asked, range(1, most + 1)
    users = bisect_left(each, True, key=lambda n: not asked.allow(point(n, 1)))  # as many are allowed
    if not users:
        return serving
    serving = serving._replace(within=point(users * serving.replicas, serving.replicas))
    if asked.requests_per_s is None:
        return serving
    needed = ceil(asked.requests_per_s / point(users, 1).requests_per_s)
    share = asked.requests_per_s / needed
    busy = bisect_left(each, share, hi=users - 1, key=lambda n: point(n, 1).requests_per_s)
    return serving._replace(needed=needed, at_rate=point(each[busy] * needed, needed))


def _doubled(most: int) -> list[int]:
    """1, 2, 4, ... up to a number, which is the last."""
    return [*(2**i for i in range(most.bit_length()) if 2**i < most), most]


def _point(requests: Requests, users: int, replicas: int, most: int, prefill: Estimate) -> Point:
    """What all replicas answer together; times are those of the fullest one."""
    each, answer = -(-users // replicas), requests.answer
    batch = min(each, most)
    decode = requests.decode(batch, seq=requests.context + answer // 2)
    step, prompt = decode.times.step, prefill.times.step
    tpot = step + (batch - 1) / answer * prompt
    alone = prompt + step / 2
    request_s = alone + answer * tpot  # seconds of one request, once it has its place
    late = decode.stack.behind * step + decode.stack.request_ms / 1e3  # while others have its place
    ttft = alone + late + (each - batch) / batch * request_s
    rate = batch / request_s * (users / each)  # of all replicas: so many as full as the fullest
    prompts = batch * prompt / (batch * prompt + answer * step)
    price = decode.cost()["usd_per_hour"]
    usd_per_s = price and price * replicas * decode.devices / 3600
    return Point(
        users=users,
        batch=batch,
        ttft_s=ttft,
        tpot_s=tpot,
        output_tokens_per_s=rate * answer,
        requests_per_s=rate,
        usd_per_million_output_tokens=usd_per_s and usd_per_s / (rate * answer) * 1e6,
        kv_cache_bytes=decode.memory.kv_cache,
        bound=(prefill if prompts > 0.5 else decode).seconds()["bound"],
        low=tpot * decode.interval[0],
        high=tpot * decode.interval[1],
        prompts=prompts,
    )
