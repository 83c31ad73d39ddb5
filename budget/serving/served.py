"""What serving takes: for some numbers of users the time of a request and how many are answered."""

from __future__ import annotations

from ..answer import Estimate
from ..answer.face import Shown
from ..named import Any, NamedTuple

SCHEMA = "budget.serve/1"
SHARES = "numbers above 0, up to 1"  # shares of a device's memory that an engine takes


class Point(NamedTuple):
    """One number of users; seconds, with the ends of the 90 % interval of `tpot_s`; dollars; bytes."""

    users: int
    batch: int  # sequences that are decoded at once
    ttft_s: float
    tpot_s: float
    output_tokens_per_s: float  # of all users
    requests_per_s: float
    usd_per_million_output_tokens: float | None
    kv_cache_bytes: float
    bound: str  # what bounds the greater part of the time, be it of prompts or of decoding
    low: float
    high: float
    prompts: float  # the part of the engine's time that prompts take


class Asked(NamedTuple):
    """Limits: seconds to a request's first token, seconds a token after it; and requests a second. None:
    any.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    requests_per_s: float | None = None

    def allow(self, point: Point) -> bool:
        """Whether no request takes longer."""
        return self.over(point) <= 1

    def over(self, point: Point) -> float:
        """How many times a limit's seconds a request takes, at the limit that it is furthest beyond."""
        pairs = (point.ttft_s, self.ttft_s), (point.tpot_s, self.tpot_s)
        return max((took / most for took, most in pairs if most is not None), default=0.0)


class _Serving(NamedTuple):
    context: int
    output_tokens: int
    places: int  # of all replicas
    prefill: Estimate  # of one prompt
    full: Estimate  # the decode with most sequences
    points: tuple[Point, ...]
    replicas: int = 1  # of the network, among which users are divided evenly
    asked: Asked = Asked()
    within: Point | None = None  # the most users within the limits that are asked for
    needed: int = 0  # replicas for the requests a second that are asked for, within the limits; 0: none is
    at_rate: Point | None = None  # the point of so many replicas at that rate
    share: float = 1  # of a device's memory, that the engine's process takes
    cache_share: float = 1  # of what weights and activations leave, that its cache takes


class Serving(Shown, _Serving):
    """The answer of `budget serve`, for several numbers of users."""

    report = "_serving"

    @property
    def devices(self) -> int:
        """The devices of all replicas."""
        return self.replicas * int(self.full.devices)

    @property
    def devices_needed(self) -> int:
        """The devices of the replicas that a rate needs; 0: no number of them keeps within the limits."""
        return self.needed * int(self.full.devices)

    @property
    def cache_tokens(self) -> int:
        """The tokens of all requests that there is room for at once, prompts and answers."""
        return self.places * (self.context + self.output_tokens)

    @property
    def fewest(self) -> Point:
        """The point of the fewest users."""
        return min(self.points, key=lambda p: p.users)

    def __repr__(self) -> str:
        return f"Serving({self.prefill.model.name}, {self.places} places, {len(self.points)} points)"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `budget serve`."""
        e = self.full
        return {
            "schema": SCHEMA,
            "stack": e.stack.name,
            "device": e.device.name,
            "devices": self.devices,
            "replicas": self.replicas,
            "layout": e.to_dict().get("layout"),
            "context": self.context,
            "output_tokens": self.output_tokens,
            "places": self.places,
            "cache_tokens": self.cache_tokens,
            "share": self.share,
            "cache_share": self.cache_share,
            "points": [p._asdict() for p in self.points],
            **self._asked(),
            "answer": e.to_dict(),
        }

    def _asked(self) -> dict[str, Any]:
        """The keys of limits and of a rate, where there are any."""
        if self.asked == Asked():
            return {}
        answer: dict[str, Any] = {
            "asked": self.asked._asdict(),
            "within": self.within and self.within._asdict(),
        }
        if self.asked.requests_per_s is not None:
            answer |= {
                "replicas_needed": self.needed or None,
                "devices_needed": self.devices_needed or None,
            }
            answer["at_rate"] = self.at_rate and self.at_rate._asdict()
        return answer
