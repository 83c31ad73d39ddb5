"""A clock for pytest-benchmark that only moves by times that were measured elsewhere.

A device's time is not the host's: a kernel is measured with the device's own events, or a processor's
own clock, and the benchmarked function then advances this clock by that time. So everything in
pytest-benchmark (statistics, --benchmark-save, -compare, -compare-fail) works on device seconds.
"""


class Clock:
    """Seconds that pass only by advance(); callable, as pytest-benchmark's `timer` must be."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds so far."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let seconds pass."""
        self.now += seconds


CLOCK = Clock()


def replay(benchmark, seconds: list[float]) -> None:
    """Hand measured seconds to a pytest-benchmark fixture, one round each."""
    left = iter(seconds)
    benchmark.pedantic(lambda: CLOCK.advance(next(left)), rounds=len(seconds), iterations=1, warmup_rounds=0)
