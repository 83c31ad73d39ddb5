"""Tables of serving under load (serving.csv): the time of a token while other requests' prompts run.

A token takes a decoding step of all places, and its share of the prompts that places run as they fall free:
budget/serving.py's closed form, with as many places as users. The first token's time is not predicted: it
depends on how a benchmark's requests start, all at once or spread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .rows import Asked, NotCoveredError, Part, device, measured, network, number, stack, whole

if TYPE_CHECKING:
    from budget.named import Any

    from .table import Row

COLUMNS = ("id", "source", "model", "device", "engine", "concurrency", "ttft_ms", "tpot_ms")
TELLS = ("concurrency", "attention_dp")
NUMBERS = ("input_len", "output_len", "concurrency", "tp", "pp", "ttft_ms", "tpot_ms", "output_tok_s_per_gpu")
WORDS = ("saturated",)
# Published words for what linear layers are in. The cache of those in eight bits is taken to be so, too: no
# row says it, NVIDIA's checkpoints do.
WEIGHTS = {
    "": {"dtype": "bf16"}, "bf16": {"dtype": "bf16"}, "fp8": {"quantize": "fp8", "kv_dtype": "fp8"},
}  # fmt: skip
# Lengths are drawn evenly from 80 to 100 % of those given, where a source says so: their mean.
DRAWN = "uniform in 80 to 100 %"


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    if row["concurrency"] in WORDS:
        raise NotCoveredError("users without end: how many run at once is not stated")
    if row["mode"] != "agg":
        raise NotCoveredError("prompts on devices of their own")
    if row["precision"] not in WEIGHTS:
        raise NotCoveredError(f"products in {row['precision'][:20]} are not timed")
    if whole(row, "attention_dp", 1) > 1:
        raise NotCoveredError("attention divided by requests")
    mean = 0.9 if DRAWN in row["source"] else 1.0
    prompt, answer = (round(mean * number(row, name)) for name in ("input_len", "output_len"))
    users = whole(row, "concurrency")
    model, settings = _settings(row)
    decode = Part(model, {**settings, "mode": "decode", "batch": users, "seq": prompt + answer // 2})
    others = Part(model, {**settings, "mode": "prefill", "batch": 1, "seq": prompt}, (users - 1) / answer)
    parts = (decode, others) if users > 1 else (decode,)
    yield Asked("tpot_s", "s", measured(row, "tpot_ms", 1e-3), parts)


def _settings(row: Row) -> tuple[Any, dict[str, Any]]:
    """The network, and its settings but for what it runs."""
    software = stack(row, "vllm")
    model, config = network(row, software, 0)
    axes = {"tp": whole(row, "tp", 1), "pp": whole(row, "pp", 1), "ep": max(whole(row, "moe_ep", 1), 1)}
    apart = {"etp": whole(row, "moe_tp", 1)} if axes["ep"] > 1 else {}
    settings = {"device": device(row["device"]).id, "stack": software, "layout": {**axes, **apart, "sp": 0}}
    return model, {**settings, "config": config, **WEIGHTS[row["precision"]]}
