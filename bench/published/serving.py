"""Tables of serving under load (serving.csv): the time of a token while other requests' prompts run.

A token takes a decoding step of all places, and its share of the prompts that places run as they fall free:
budget/serving/'s closed form, with as many places as users. The first token's time is not predicted: it
depends on how a benchmark's requests start, all at once or spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from budget import stack as stacks
from budget.read import preset

from .networks import network
from .rows import Asked, NotCoveredError, Part, device, measured, number, stack, whole

if TYPE_CHECKING:
    from budget.named import Any

    from .table import Row

COLUMNS = ("id", "source", "model", "device", "engine", "concurrency", "ttft_ms", "tpot_ms")
TELLS = ("concurrency", "attention_dp")
NUMBERS = ("input_len", "output_len", "concurrency", "tp", "pp", "ttft_ms", "tpot_ms", "output_tok_s_per_gpu")
WORDS = ("saturated",)
# Published words for what linear layers are in. The cache of those in eight bits, and of NVIDIA's in four, is
# taken to be in eight, too: no row says it, NVIDIA's checkpoints do.
WEIGHTS = {
    "": {"dtype": "bf16"}, "bf16": {"dtype": "bf16"}, "fp8": {"quantize": "fp8", "kv_dtype": "fp8"},
    "fp4": {"quantize": "nvfp4", "kv_dtype": "fp8"}, "int4": {"quantize": "w4a16"},
}  # fmt: skip
OWN = {"fp4": "mxfp4", "int4": "int4"}  # what they are of a network that has a preset as it is published
PIECE = 8192  # tokens of prompts that SGLang runs at once (--chunked-prefill-size). Source: sglang-scheduler.
# Lengths are drawn evenly from 80 to 100 % of those given, where a source says so: their mean. Or they are
# drawn from one token on, and their means are the row's.
DRAWN, VARY = "uniform in 80 to 100 %", "lengths vary"


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    if row["concurrency"] in WORDS:
        raise NotCoveredError("users without end: how many run at once is not stated")
    if row.get("mode", "agg") not in ("", "agg"):
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
    waits = _prompts(row, settings["stack"], prompt, users) / answer
    others = Part(model, {**settings, "mode": "prefill", "batch": 1, "seq": prompt}, waits)
    parts = (decode, others) if waits else (decode,)
    yield Asked("tpot_s", "s", measured(row, "tpot_ms", 1e-3), parts)


def _prompts(row: Row, software: str, prompt: int, users: int) -> float:
    """The prompts of others that run while a request is answered.

    Where running requests go on beside prompts, users are soon spread evenly: each sees all others'. An
    engine that runs all prompts before it decodes, of users that all ask as many tokens, keeps them
    together: each waits for the pieces behind its own, half of all on average. Source: sglang-scheduler.
    """
    if DRAWN in row["source"] or VARY in row["source"] or not stacks.load(software).prompts_first:
        return users - 1.0
    return max(users - max(PIECE / prompt, 1), 0) / 2


def _settings(row: Row) -> tuple[Any, dict[str, Any]]:
    """The network, and its settings but for what it runs."""
    software = stack(row)
    model, config = network(row, software, 0)
    tp, experts = whole(row, "tp", 1), [max(whole(row, f"moe_{axis}", 1), 1) for axis in ("tp", "ep")]
    # Engines divide experts over tp's devices, whole ones or a part of each: as many bytes and FLOPs on each.
    shares = math.prod(experts)
    # For n devices with whole experts (tp n, ep n) the source has tp n^2, and experts n by n: counted twice.
    if experts[0] == experts[1] and shares == tp:
        tp = shares = experts[0]
    if shares not in (1, tp):
        raise NotCoveredError("experts on more devices than attention, or fewer")
    axes = {"tp": tp, "pp": whole(row, "pp", 1), "sp": 0}
    settings = {"device": device(row["device"]).id, "stack": software, "layout": axes}
    own = f"{model}-{OWN.get(row['precision'])}"
    if own in preset.names():
        return own, {**settings, "config": config}
    return model, {**settings, "config": config, **WEIGHTS[row["precision"]]}
