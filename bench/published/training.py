"""Tables of training runs: one row, one configuration (training_throughput.csv)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from budget import stack as stacks
from budget.device import Device
from budget.dtype import IN_FEW_BITS
from budget.named import Any
from budget.read.source import resolve

from ._attention import KERNEL, LOCAL, by_package, written_out
from .layouts import cluster, dropout, layout, recomputed, seconds
from .networks import has_sequence, network, pictures, side
from .rows import (
    Asked,
    NotCoveredError,
    Part,
    device,
    measured,
    number,
    precision,
    stack,
    whole,
)
from .software import differs, facts
from .table import Row, text_of
from .techniques import adapters, documents, fused, optimizer
from .usual import EMPTY, filled

COLUMNS = ("id", "source", "model", "gpu", "n_gpus", "precision", "micro_batch", "seq")
TELLS = ("micro_batch", "n_gpus")
NUMBERS = (
    "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "seq", "global_batch", "micro_batch",
    "n_gpus", "tp", "pp", "vpp", "dp", "cp", "ep", "head_dim", "n_experts", "topk", "moe_ffn", "dropout",
    "tokens_per_s_per_gpu", "iter_time_s", "samples_per_s_total", "tflops_per_gpu",
)  # fmt: skip
WORDS = EMPTY  # of a number that does not apply
PICTURES = ("cnn_", "diffusion_")  # kinds of networks that have no sequence
ANSWERS = "bert_qa_train"  # fine-tuned to find answers in a text
# Encoders, whose scores are written unless a row names a kernel: most are older than those of their software.
HEADS = {
    "bert_train": {},
    ANSWERS: {"head": "tokens", "labels": 2, "pooler": False, "head_bias": True},
    "bert_cls_train": {"head": "pooled", "labels": 2, "pooler": True},
}
MASKED = {"head": "mlm", "head_bias": True, "pooler": False}  # where notes say `masked language model`
# Where notes have the length of what a decoder writes, the column has that of what its encoder reads.
TARGETS = re.compile(r"\btargets of (\d+)")
# The READMEs' default batches of images, where a table has none.
IMAGES = {"a100-80gb": 256, "v100-sxm-16gb": 128, "v100-sxm-32gb": 256}


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    if row.get("kind", "") == "llm_run":
        raise NotCoveredError("a whole run, of which no step is known")
    on, gpus = device(row["gpu"]), whole(row, "n_gpus")
    image = row.get("kind", "").startswith(PICTURES) or not (row.get("seq") or has_sequence(row))
    seq = 0 if image else whole(row, "seq")
    batch = whole(row, "micro_batch", IMAGES.get(on.id) if image else None)
    part = step(row, on, batch, seq, gpus)
    samples = part.settings["global_batch"]
    rate = measured(row, "tokens_per_s_per_gpu")
    if rate is not None:  # samples/s are cut to whole numbers in some sources
        yield Asked("tokens_per_s", "tokens/s/device", rate, (part,), samples * seq / gpus)
    elif (rate := measured(row, "samples_per_s_total")) is not None:
        yield Asked("samples_per_s", "samples/s", rate, (part,), samples)
    else:
        yield Asked("step_s", "s", seconds(row, samples, seq, gpus), (part,))


def usual_stack(row: Row) -> str:
    """The stack of a run whose software has none: torch as it is, where a row names it and no compiler."""
    named = re.search(r"\b(py)?torch\b", text_of(row, "engine", "source"))
    return facts()["training"]["as_it_is" if named and "compil" not in text_of(row) else "compiled"]


def step(row: Row, on: Device, batch: int, seq: int, gpus: int) -> Part:
    """A training step of a row, in micro-batches of `batch`. Raises NotCoveredError."""
    software = stack(row, usual_stack(row), "train")
    if row.get("kind") in differs(software).get("bins", ()) and "no bins" not in text_of(row, "notes"):
        raise NotCoveredError("how long its sequences are: they are put into bins by their length")
    row = filled(row, software, on.id)
    model, config = network(row, software, seq)
    if match := TARGETS.search(text_of(row, "notes")):
        seq, config = int(match[1]), {**config, "source_seq": seq}
    dtype, kind = precision(row["precision"])
    spread, adapted = layout(row, gpus, software), adapters(row)
    each = batch * spread["dp"]
    steps, left = divmod(number(row, "global_batch", each), each)
    if left:
        raise NotCoveredError(f"global_batch is no multiple of dp x micro_batch, {each}")
    settings: dict[str, Any] = {
        "device": on.id,
        "stack": software,
        "batch": batch,
        "global_batch": each * max(int(steps), 1),
        "layout": spread,
        "cluster": cluster(row),
        "dtype": dtype,
        "config": {**config, **({} if adapted else dropout(row)), **_gelu(row, model, config, software)},
        **optimizer(row, software),
        **recomputed(row, gpus),
        **({"seq": seq} if seq else {}),
        **_precision(kind, software, row),
        **pictures(row),
        **({"image": pixels} if not seq and (pixels := side(row)) else {}),
        **adapted,
        **fused(row, software),
        **documents(row),
    }
    if (row.get("kind") in HEADS and not KERNEL.search(text_of(row))) or written_out(row, software, "train"):
        settings["attention"] = "eager"
    elif by_package(row, software, model):
        settings["attention"] = "flash"
    if differs(software).get("trainer") and COMPILES.search(text_of(row, "notes")):
        settings["execution"] = "compiled"
    if re.search(LOCAL, text_of(row)):
        settings |= {"execution": "eager", "fuse": "gate"}
    settings["config"] |= HEADS.get(row.get("kind", ""), {}) | masked(row)
    return Part(model, settings)


def masked(row: Row) -> dict[str, Any]:
    """The head of a masked language model, where notes say that it is one."""
    return {**MASKED} if "masked language model" in text_of(row, "notes") else {}


COMPILES = re.compile(r"(?<!without )(?<!no )torch\.compile")  # a Trainer or a loop of transformers' networks


def _gelu(row: Row, model: str, config: dict[str, Any], software: str) -> dict[str, str]:
    """GELU's tanh form as one kernel, but where notes or a stack's own operators write it out."""
    written_out = getattr(resolve(model, config)[2], "activation", "") == "gelu_new"
    if "gelu written out" in text_of(row, "notes"):
        return {"activation": "gelu_new"}
    return {} if differs(software).get("own_operators") or not written_out else {"activation": "gelu_tanh"}


def _precision(kind: str, software: str, row: Row) -> dict[str, str]:
    """What a row's word says where the stack says something else; float32 copies of weights are its own.

    DeepSpeed casts the weights of what it trains, whatever its users call that. Source: deepspeed-config.
    """
    if row.get("kind") in differs(software).get("copies", ()) and kind == "master":
        return {"precision": "master"}
    if kind in IN_FEW_BITS:
        return {"precision": kind}
    own = (stacks.load(software).train or {}).get("precision")
    if own == "autocast" and kind == "master":  # with adapters, `estimate` takes what is frozen for 16 bits
        by_fsdp = row.get("zero_stage", "").lower().startswith("fsdp")
        held = "master" in row["precision"] or ("deepspeed" in text_of(row) and not by_fsdp)
        return {"precision": "master" if held else own}
    return {} if kind == "master" or own in ("master", "fsdp") else {"precision": "pure"}
