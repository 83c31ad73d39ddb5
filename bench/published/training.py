"""Tables of training runs: one row, one configuration (training_throughput.csv)."""

from __future__ import annotations

from collections.abc import Iterator

from .rows import Asked, NotCoveredError, Part, device, measured, network, number, precision, stack, whole
from .table import Row

COLUMNS = ("id", "source", "model", "gpu", "n_gpus", "precision", "micro_batch", "seq")
TELLS = ("micro_batch", "tokens_per_s_per_gpu")
NUMBERS = (
    "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq", "global_batch", "micro_batch",
    "n_gpus", "tp", "pp", "dp", "cp", "ep", "head_dim", "n_experts", "topk", "moe_ffn",
    "tokens_per_s_per_gpu", "iter_time_s", "samples_per_s_total",
)  # fmt: skip
WORDS = ()
NODE = 8
# The READMEs' default batches of images, where a table has none.
IMAGES = {"a100-80gb": 256, "v100-sxm-16gb": 128, "v100-sxm-32gb": 256}


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    on = device(row["gpu"])
    gpus = whole(row, "n_gpus")
    if gpus > NODE or any(whole(row, axis, 1) > 1 for axis in ("tp", "pp", "cp")):
        raise NotCoveredError("several nodes, or a layout other than data parallel")
    software = stack(row, "torch-compile")
    image = row.get("kind", "") == "cnn_train"
    if row.get("kind", "") == "llm_run":
        raise NotCoveredError("a whole run, of which no step is known")
    seq = 0 if image else whole(row, "seq")
    batch = whole(row, "micro_batch", IMAGES.get(on.id, 0) if image else None)
    if not batch:
        raise NotCoveredError("micro_batch is not stated")
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
