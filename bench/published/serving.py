"""Tables of serving under load (serving.csv): no one batch is known, which budget serve is for."""

from __future__ import annotations

from collections.abc import Iterator

from .rows import Asked, NotCoveredError
from .table import Row

COLUMNS = ("id", "source", "model", "device", "engine", "concurrency", "ttft_ms", "tpot_ms")
TELLS = ("concurrency", "attention_dp")
NUMBERS = ("input_len", "output_len", "concurrency", "tp", "pp", "ttft_ms", "tpot_ms", "output_tok_s_per_gpu")
WORDS = ()


def asked(row: Row) -> Iterator[Asked]:
    """Raises NotCoveredError."""
    raise NotCoveredError("requests that come and go, on an engine's schedule")
    yield Asked("", "", None, ())
