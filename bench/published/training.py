"""Tables of training runs: one row, one configuration (training_throughput.csv)."""

from __future__ import annotations

from collections.abc import Iterator

from budget.named import Any

from .rows import Asked, NotCoveredError, Part, device, measured, network, number, precision, stack, whole
from .table import Row

COLUMNS = ("id", "source", "model", "gpu", "n_gpus", "precision", "micro_batch", "seq")
TELLS = ("micro_batch", "tokens_per_s_per_gpu")
NUMBERS = (
    "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq", "global_batch", "micro_batch",
    "n_gpus", "tp", "pp", "vpp", "dp", "cp", "ep", "head_dim", "n_experts", "topk", "moe_ffn",
    "tokens_per_s_per_gpu", "iter_time_s", "samples_per_s_total", "tflops_per_gpu",
)  # fmt: skip
WORDS = ()
NODE = 8
# The READMEs' default batches of images, where a table has none.
IMAGES = {"a100-80gb": 256, "v100-sxm-16gb": 128, "v100-sxm-32gb": 256}


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    on = device(row["gpu"])
    gpus = whole(row, "n_gpus")
    software = stack(row, "torch-compile")
    image = row.get("kind", "") == "cnn_train"
    if row.get("kind", "") == "llm_run":
        raise NotCoveredError("a whole run, of which no step is known")
    spread = gpus > NODE or any(whole(row, axis, 1) > 1 for axis in ("tp", "pp", "cp"))
    seq = 0 if image else whole(row, "seq")
    batch = whole(row, "micro_batch", IMAGES.get(on.id, 0) if image else None)
    if not batch:
        raise NotCoveredError("micro_batch is not stated")
    if spread and not image:
        yield from _spread(row, software, on.id, batch, seq, gpus)
        return
    parts = _parts(row, software, on.id, batch, seq, gpus)
    samples = batch * max(round(number(row, "global_batch", 0) / (batch * gpus)), 1)
    rate = measured(row, "tokens_per_s_per_gpu")
    if rate is not None:  # samples/s are cut to whole numbers in some sources
        yield Asked("tokens_per_s", "tokens/s/device", rate, parts, samples * seq)
    elif (rate := measured(row, "samples_per_s_total")) is not None:
        yield Asked("samples_per_s", "samples/s", rate, parts, samples * gpus)
    else:
        yield Asked("step_s", "s", measured(row, "iter_time_s"), parts)


def _parts(row: Row, software: str, on: str, batch: int, seq: int, gpus: int) -> tuple[Part, ...]:
    model, config = network(row, software, seq)
    dtype, kind = precision(row["precision"])
    recompute = row.get("recompute", "")
    if "nanogpt" in row["source"].lower() and "no flash" in row["notes"]:
        software = "torch-compile"
    settings = {
        "device": on,
        "stack": software,
        "batch": batch,
        "dtype": dtype,
        "config": config,
        "recompute": "full" if recompute.startswith("full") else "none",
        **({"seq": seq} if seq else {}),
        **({"precision": "pure"} if kind == "pure" else {"precision": "fp8"} if kind == "fp8" else {}),
    }
    if "no flash" in row.get("notes", "") or row.get("kind") == "bert_train":
        settings["attention"] = "eager"
    if row.get("kind") == "llm_lora":
        settings["lora_rank"] = 16
    again = max(round(number(row, "global_batch", 0) / (batch * gpus)), 1)
    sharded = gpus if row.get("zero_stage", "").startswith(("fsdp", "zero", "dist-opt")) else 1
    optimizer = "adamw_fused"
    return (
        Part(model, {**settings, "optimizer": "none"}, again),
        Part(model, {**settings, "optimizer": optimizer}, 1 / sharded, "optimizer"),
    )


# Published words for what data parallel devices divide, and ZeRO's stage; the first that starts so counts.
ZERO = {
    "none": 0, "zero1": 1, "zero-1": 1, "dist-opt": 1, "zero2": 2, "zero-2": 2, "fsdp (zero2": 2, "zero3": 3,
    "zero-3": 3, "fsdp": 3, "ddp": 0,
}  # fmt: skip
OLD = "megatron-2021"  # its sequence parallelism is new: rows that have it say so
DROPOUT = dict.fromkeys(("dropout", "attention_dropout", "embed_dropout"), 0.1)  # Megatron's default
RECOMPUTED = {"full": "full", "selective": "selective", "none": "none"}


def _spread(row: Row, software: str, on: str, batch: int, seq: int, gpus: int) -> Iterator[Asked]:
    """A step over many devices. Raises NotCoveredError for a setting that is not published."""
    model, config = network(row, software, seq)
    dtype, kind = precision(row["precision"])
    layout = _layout(row, gpus, software)
    if software == OLD and "bloom" not in row["model"].lower():  # whose config says 0
        config = {**config, **DROPOUT}
    each = batch * layout["dp"]
    samples = whole(row, "global_batch")
    if samples % each:
        raise NotCoveredError(f"global_batch {samples} is no multiple of dp x micro_batch, {each}")
    settings = {
        "device": on,
        "stack": software,
        "batch": batch,
        "seq": seq,
        "global_batch": samples,
        "layout": layout,
        "dtype": dtype,
        "config": config,
        **_recomputed(row),
        **({"precision": "pure"} if kind == "pure" and software == "llm-foundry" else {}),
        **({"precision": "fp8"} if kind == "fp8" else {}),
    }
    part = (Part(model, settings),)
    rate = measured(row, "tokens_per_s_per_gpu")
    if rate is not None:
        yield Asked("tokens_per_s", "tokens/s/device", rate, part, samples * seq / gpus)
    else:
        yield Asked("step_s", "s", _seconds(row, samples, seq, gpus), part)


def _layout(row: Row, gpus: int, software: str) -> dict[str, Any]:
    """A row's degrees. Raises NotCoveredError for one that is not stated and matters."""
    several = {
        axis: whole(row, axis, 1 if axis in ("cp", "ep") else None) for axis in ("tp", "pp", "cp", "ep")
    }
    model = several["tp"] * several["pp"] * several["cp"]
    dp, left = divmod(gpus, model)
    if left or whole(row, "dp", dp) != dp:
        raise NotCoveredError(f"{gpus} devices are not tp x pp x cp x dp")
    word = row.get("zero_stage", "").lower()
    zero = next((stage for start, stage in ZERO.items() if word.startswith(start)), None)
    if zero is None and dp > 1:
        raise NotCoveredError(f"zero_stage {word[:30]!r}" if word else "zero_stage is not stated")
    told = "sp" in row.get("recompute", "").lower().split("+")
    vpp = whole(row, "vpp", None if several["pp"] > 1 else 1)
    apart = {"etp": 1} if several["ep"] > 1 else {}
    sp = 1 if several["tp"] > 1 and (told or software != OLD) else 0
    return {**several, **apart, "vpp": vpp, "dp": dp, "zero": (zero or 0) if dp > 1 else 0, "sp": sp}


def _recomputed(row: Row) -> dict[str, Any]:
    """What is computed again. Raises NotCoveredError where that is not published."""
    words = row.get("recompute", "").lower()
    if "every 2nd layer" in words:
        return {"recompute": "full", "recompute_layers": round(number(row, "layers") / 2)}
    found = next((ours for theirs, ours in RECOMPUTED.items() if words.startswith(theirs)), None)
    if found is None or words.endswith("?") or "differ" in words:
        raise NotCoveredError(f"recompute {words[:30]!r}" if words else "recompute is not stated")
    return {"recompute": "none" if "per-op" in words else found}


def _seconds(row: Row, samples: int, seq: int, gpus: int) -> float | None:
    """The measured seconds of a step; of a rate in FLOPs by the formula of its paper where that is stated."""
    taken, rate = measured(row, "iter_time_s"), measured(row, "tflops_per_gpu", 1e12)
    if taken is not None or rate is None or "96*B*s*l*h^2" not in row.get("flop_convention", ""):
        return taken
    layers, hidden, vocab = (number(row, name) for name in ("layers", "hidden", "vocab"))
    work = 96 * samples * seq * layers * hidden**2
    return work * (1 + seq / (6 * hidden) + vocab / (16 * layers * hidden)) / (rate * gpus)
