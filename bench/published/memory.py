"""Tables of memory: peaks, weights, caches (memory.csv).

What a row does not say is what its tool does: _litgpt.py has litgpt's settings. A row of inference has 64
tokens in its cache; one of 4-bit weights is QLoRA's. A pipeline has one stage a device, as all software has
unless told otherwise, and is full: more micro-batches take no more memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from budget.answer import Estimate
from budget.named import Any
from budget.plan.gguf import FORMATS

from . import _korthikanti as korthikanti
from . import _litgpt as litgpt
from . import training
from .rows import TORCHTITAN, Asked, NotCoveredError, Part, device, measured, network, stack, whole
from .table import Row

COLUMNS = (
    "id",
    "source",
    "scenario",
    "model",
    "method",
    "quant",
    "metric",
    "measured_gb",
    "micro_batch",
    "seq",
)
TELLS = ("scenario", "measured_gb")
NUMBERS = (
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "ffn",
    "vocab",
    "n_gpus",
    "micro_batch",
    "seq",
    "gpu_mem_gb",
)
WORDS = ("OOM",)
GB, GIB = 1e9, 2**30
STABLELM = {
    "model_type": "gpt_neox", "vocab_size": 50688, "hidden_size": 4096, "num_hidden_layers": 16,
    "num_attention_heads": 32, "intermediate_size": 16384, "max_position_embeddings": 4096,
}  # fmt: skip
# Names that say less than the presets' do, or more.
ALSO = {
    "tiny-llama": "tinyllama-1.1b", "guanaco": "llama", "phi-3-mini-4k-instruct": "phi-3-mini",
    "mistral-7b-v0.2": "mistral-7b",
}  # fmt: skip
QLORA = {  # the defaults of qlora.py in artidoro/qlora, with the longest source and target
    "quantize": "nf4-dq", "lora_rank": 64, "lora_targets": "attn,mlp", "batch": 1, "seq": 1024 + 256,
    "recompute": "full", "offload": "optimizer", "attention": "flash", "stack": "transformers",
    "precision": "pure",
}  # fmt: skip


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    parts, of = _parts(row)
    if of is korthikanti.share:
        yield Asked("activation_share", "", measured(row, "measured_gb", 0.01), parts, of=of)
        return
    known = measured(row, "measured_gb", GIB if "GiB" in row["metric"] else GB)
    yield Asked("peak_bytes", "bytes", known, parts, of=of)
    # bitsandbytes' products have host code of their own, which is not modelled.
    plain = row["scenario"] == "inference" and litgpt.is_one(row) and row["quant"] == "None"
    if plain and (rate := measured(row, "time_note")):
        token = Part(parts[0].model, {**parts[0].settings, "device": device(row["gpu"])})
        yield Asked("tpot_s", "s", 1 / rate, (token,))


def peak(found: Sequence[Estimate]) -> float:
    """The peak of a run."""
    return float(found[0].memory.peak)


def reserved(found: Sequence[Estimate]) -> float:
    """What torch's allocator holds at the peak."""
    return float(found[0].reserved)


def process(found: Sequence[Estimate]) -> float:
    """What nvidia-smi shows of a run."""
    return float(found[0].process)


def weights(found: Sequence[Estimate]) -> float:
    """The weights alone."""
    return float(found[0].memory.parameters)


def a_token(found: Sequence[Estimate]) -> float:
    """What a token more takes in the cache: two lengths, 1,024 apart."""
    one, two = (e.memory.kv_cache for e in found)
    return float(two - one) / 1024


def _parts(row: Row) -> tuple[tuple[Part, ...], Any]:
    scenario, quant = row["scenario"], row["quant"].lower()
    if scenario in korthikanti.SCENARIOS:
        return korthikanti.parts(row)
    if scenario not in ("finetune", "pretrain", "inference", *ALONE):
        raise NotCoveredError(f"{scenario}: no measurement of a run")
    devices = litgpt.devices(row) if litgpt.is_one(row) else whole(row, "n_gpus", 1)
    if devices > 1 and scenario == "pretrain":
        return _of_several(row, devices)
    model, config = _model(row)
    if scenario in ALONE:
        return _alone(model, config, row, quant)
    if litgpt.is_one(row):
        return _of_litgpt(model, config, row, devices)
    if devices > 1:
        raise NotCoveredError("several devices")
    if row["method"] == "QLoRA":
        return (Part(model, {**QLORA, "config": config}),), peak
    software = stack(row, "transformers")
    if scenario == "inference":
        how = {"mode": "decode", "batch": whole(row, "micro_batch", 1), "seq": whole(row, "seq", 64)}
        return (Part(model, {"stack": "transformers", "config": config, **how}),), peak
    how = {"batch": whole(row, "micro_batch"), "seq": whole(row, "seq"), "stack": software, "config": config}
    again = "full" if row.get("recompute", "").startswith(("full", "gradient", "yes")) else "none"
    few = {"lora_rank": 8} if row["method"].lower() in ("lora", "qlora") else {}
    few |= {"quantize": "nf4"} if row["method"].lower() == "qlora" else {}
    return (Part(model, {**how, "recompute": again, **few}),), peak


ALONE = ("weight file size", "inference weights", "kv cache per token")


def _alone(model: Any, config: Mapping[str, Any], row: Row, quant: str) -> tuple[tuple[Part, ...], Any]:
    """Weights, or a cache, without a run."""
    how: dict[str, Any] = {"mode": "decode", "batch": 1, "config": config}
    if row["scenario"] == "kv cache per token":
        return tuple(Part(model, {**how, "seq": n}) for n in (1024, 2048)), a_token
    form = {"f16": {"dtype": "fp16"}, "nf4": {"quantize": "nf4-dq"}}.get(quant)
    if form is None:
        if quant not in FORMATS:
            raise NotCoveredError(f"weights in {quant or 'no format'}")
        form = {"quantize": quant}
    return (Part(model, {**how, "seq": 1, **form}),), weights


def _of_several(row: Row, devices: int) -> tuple[tuple[Part, ...], Any]:
    """A step by its layout. Its software's mixed precision is meant by a bare dtype, and by float8, whose
    products keep what they read in 16 bits.
    """
    word = row["precision"]
    local = re.search(r"local batch (\d+)", row.get("notes", ""))
    if local and stack(row, "") in TORCHTITAN:  # its default: as many micro-batches as stages
        row = {**row, "micro_batch": str(max(int(local[1]) // whole(row, "pp", 1), 1))}
    batch, full = whole(row, "micro_batch"), whole(row, "dp", devices) * whole(row, "pp", 1)
    told = {"vpp": row.get("vpp") or "1", "global_batch": str(batch * full)}
    how = {**row, **told, "precision": re.sub("^fp8", "bf16", word) + " amp"}
    kind = next((of for word, of in METRICS.items() if word in row["metric"]), peak)
    part = training.step(how, device(row["gpu"]), batch, whole(row, "seq"), devices)
    if "bf16optimizer" in word.lower():  # DeepSpeed's: sums of gradients in float32
        part = Part(part.model, {**part.settings, "grad_dtype": "fp32"})
    return (part,), kind


METRICS = {
    "nvidia-smi": process,
    "reserved/active": reserved,
}  # words of a metric; others are allocated bytes


def _of_litgpt(model: Any, config: Mapping[str, Any], row: Row, devices: int) -> tuple[tuple[Part, ...], Any]:
    how = litgpt.settings(row, model, config)
    if devices > 1:  # Fabric's FSDP
        how |= {"layout": {"dp": devices, "zero": 3}, "device": device(row["gpu"])}
    if row["scenario"] == "inference":
        return (Part(model, {"mode": "decode", "batch": 1, "seq": 64, **how}),), peak
    if row["method"] not in litgpt.METHODS:
        raise NotCoveredError(f"method {row['method'][:20]!r}")
    return (Part(model, how),), peak


def _model(row: Row) -> tuple[Any, dict[str, Any]]:
    name = row["model"].lower()
    if name.startswith("stablelm"):
        return STABLELM, {}
    for also, preset in ALSO.items():
        name = re.sub(rf"^{re.escape(also)}", preset, name)
    return network({**row, "model": re.sub(r" 1\.3 b$", "", name)}, "", 0)
