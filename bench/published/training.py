"""Tables of training runs: one row, one configuration (training_throughput.csv)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from budget.device import Device
from budget.named import Any

from .rows import Asked, NotCoveredError, Part, device, measured, network, number, precision, stack, whole
from .table import Row

COLUMNS = ("id", "source", "model", "gpu", "n_gpus", "precision", "micro_batch", "seq")
TELLS = ("micro_batch", "tokens_per_s_per_gpu")
NUMBERS = (
    "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq", "global_batch", "micro_batch",
    "n_gpus", "tp", "pp", "vpp", "dp", "cp", "ep", "head_dim", "n_experts", "topk", "moe_ffn",
    "tokens_per_s_per_gpu", "iter_time_s", "samples_per_s_total",
)  # fmt: skip
WORDS = ()
# The READMEs' default batches of images, where a table has none.
IMAGES = {"a100-80gb": 256, "v100-sxm-16gb": 128, "v100-sxm-32gb": 256}
# What of weights, gradients and states is divided, by the words of the tables.
ZERO = {
    "fsdp3": 3,
    "fsdp2": 2,
    "zero1": 1,
    "zero2": 2,
    "zero3": 3,
    "dist-opt": 1,
    "none": 0,
    "fsdp": 3,
    "ddp": 0,
}


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    if row.get("kind", "") == "llm_run":
        raise NotCoveredError("a whole run, of which no step is known")
    on, gpus = device(row["gpu"]), whole(row, "n_gpus")
    image = row.get("kind", "") == "cnn_train"
    seq = 0 if image else whole(row, "seq")
    batch = whole(row, "micro_batch", IMAGES.get(on.id) if image else None)
    part = _part(row, on, batch, seq, gpus)
    samples = part.settings.get("global_batch") or batch * part.settings["layout"]["dp"]
    rate = measured(row, "tokens_per_s_per_gpu")
    if rate is not None:  # samples/s are cut to whole numbers in some sources
        yield Asked("tokens_per_s", "tokens/s/device", rate, (part,), samples * seq / gpus)
    elif (rate := measured(row, "samples_per_s_total")) is not None:
        yield Asked("samples_per_s", "samples/s", rate, (part,), samples)
    else:
        yield Asked("step_s", "s", measured(row, "iter_time_s"), (part,))


def _part(row: Row, on: Device, batch: int, seq: int, gpus: int) -> Part:
    software = stack(row, "torch-compile")
    model, config = network(row, software, seq)
    dtype, kind = precision(row["precision"])
    spread = _layout(row, gpus, software)
    copies = spread["dp"]
    steps = max(round(number(row, "global_batch", batch * copies) / (batch * copies)), 1)
    settings: dict[str, Any] = {
        "device": on,
        "stack": software,
        "batch": batch,
        "dtype": dtype,
        "config": config,
        "recompute": "full" if row.get("recompute", "").startswith("full") else "none",
        "optimizer": "adamw_fused",
        "layout": spread,
        "global_batch": batch * copies * steps,
        **({"seq": seq} if seq else {}),
        **({} if kind == "master" else {"precision": kind}),
    }
    if kind in ("pure", "fp8"):
        settings["grad_dtype"] = ""
    if "no flash" in row.get("notes", "") or row.get("kind") == "bert_train":
        settings["attention"] = "eager"
    if row.get("recompute", "").startswith("selective") and software == "megatron":
        settings |= {"attention": "eager", "recompute": "selective"}
    if row.get("kind") == "llm_lora":
        settings["lora_rank"] = 16
    return Part(model, settings)


def _layout(row: Row, gpus: int, software: str) -> dict[str, int]:
    """The degrees of a row; data parallel is what is left of its devices. Raises NotCoveredError."""
    degrees = {axis: whole(row, axis, 1) for axis in ("tp", "pp", "cp", "ep", "vpp")}
    others = degrees["tp"] * degrees["pp"] * degrees["cp"]
    if gpus % others:
        raise NotCoveredError(f"{gpus} devices are no multiple of tp x pp x cp, {others}")
    if gpus > 1 and not row.get("dp", "") and not row.get("tp", "") and gpus > 8:
        raise NotCoveredError("the layout is not stated")
    words = re.findall(r"[a-z0-9-]+", row.get("zero_stage", "").lower())
    zero = next((ZERO[w] for w in words if w in ZERO), 0)
    # Before sequence parallelism there was full recomputation (Korthikanti et al.), in Megatron.
    divided = {"sp": 0} if software == "megatron" and row.get("recompute", "").startswith("full") else {}
    return {**degrees, **divided, "dp": gpus // others, "zero": zero if gpus > others else 0}
