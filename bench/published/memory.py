"""Tables of memory: peaks, weights, caches (memory.csv).

What a row does not say is what its tool does: _litgpt.py has litgpt's settings. A row of inference has 64
tokens in its cache; one of 4-bit weights is QLoRA's. A pipeline has one stage a device, as all software has
unless told otherwise, and is full: more micro-batches take no more memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from budget.answer import Estimate
from budget.named import Any, NamedTuple

from . import _generation as generation
from . import _korthikanti as korthikanti
from . import _litgpt as litgpt
from . import _versions as versions
from . import _words as words
from . import pipelines, training
from ._plainly import plainly
from .networks import has_sequence, network
from .rows import Asked, NotCoveredError, Part, device, measured, stack, whole
from .software import differs, programs
from .table import Row, text_of

COLUMNS = (
    "id", "source", "scenario", "model", "method", "quant", "metric", "measured_gb", "micro_batch", "seq",
)  # fmt: skip
TELLS = ("scenario", "measured_gb")
NUMBERS = (
    "layers", "hidden", "heads", "kv_heads", "ffn", "vocab", "n_gpus", "micro_batch", "seq", "gpu_mem_gb",
    "input_len", "output_len", "global_batch",
)  # fmt: skip
WORDS = ("OOM",)
GB = words.UNITS["gb"]
VARY, LENGTHS = "samples' lengths vary", 32  # what notes say, and so many samples


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    row = plainly(row)
    parts, of = _parts(row)
    if of is korthikanti.share:
        yield Asked("activation_share", "", measured(row, "measured_gb", 0.01), parts, of=of)
        return
    known = measured(row, "measured_gb", words.unit(row["metric"]))
    size = SIZES.get(getattr(of, "of", of), "")
    yield Asked("peak_bytes", "bytes", known, parts, of=of, size=size)
    # bitsandbytes' products have host code of their own, which is not modelled.
    plain = row["scenario"] == "inference" and litgpt.is_one(row) and row["quant"] == "None"
    if plain and (rate := measured(row, "time_note")):
        token = Part(parts[0].model, {**parts[0].settings, "device": device(row["gpu"])})
        yield Asked("tpot_s", "s", 1 / rate, (token,))


def peak(estimates: Sequence[Estimate]) -> float:
    """The peak of a run, and of all of its passes."""
    return float(max(e.memory.peak for e in estimates))


def last(estimates: Sequence[Estimate]) -> float:
    """The peak on the devices of a pipeline's last stage."""
    return max(
        float([e.memory, *(e.spread.memories().values() if e.spread else ())][-1].peak) for e in estimates
    )


def reserved(estimates: Sequence[Estimate]) -> float:
    """What torch's allocator holds at the peak."""
    return float(max(e.reserved for e in estimates))


def process(estimates: Sequence[Estimate]) -> float:
    """What nvidia-smi shows of a run."""
    return float(max(e.process for e in estimates))


def claimed(share: float) -> Callable[[Sequence[Estimate]], float]:
    """What nvidia-smi shows of an engine that takes a share of the device, whatever it serves."""
    return lambda estimates: max(process(estimates), share * estimates[0].device.usable_bytes)


class InTurn(NamedTuple):
    """What is held at the end of samples of many lengths, beside what the longest needs alone."""

    of: Callable[[Sequence[Estimate]], float]

    def __call__(self, estimates: Sequence[Estimate]) -> float:
        """The larger of the longest length's and that of all lengths in turn."""
        longest = self.of(estimates[:1])
        return max(longest, float(estimates[1].in_turn) + longest - reserved(estimates[:1]))


class InPieces(NamedTuple):
    """Of a token over a whole prompt, and of the prompt's last piece with what the cache then holds."""

    of: Callable[[Sequence[Estimate]], float]

    def __call__(self, estimates: Sequence[Estimate]) -> float:
        """The larger of the two."""
        token, piece = estimates
        earlier = token.memory.kv_cache - piece.memory.kv_cache
        return max(self.of([token]), self.of([piece]) + float(earlier))


SIZES = {peak: "peak", last: "peak", reserved: "reserved", process: "process"}


def weights(estimates: Sequence[Estimate]) -> float:
    """The weights alone."""
    return float(estimates[0].memory.parameters)


def a_token(estimates: Sequence[Estimate]) -> float:
    """What a token more takes in the cache: two lengths, within any window."""
    one, two = (e.memory.kv_cache for e in estimates)
    return float(two - one) / SHORT


def _parts(row: Row) -> tuple[tuple[Part, ...], Any]:
    scenario, quant = row["scenario"], row["quant"].lower()
    if scenario in korthikanti.SCENARIOS:
        return korthikanti.parts(row)
    if scenario not in ("finetune", "pretrain", "inference", *ALONE):
        raise NotCoveredError(f"{scenario}: no measurement of a run")
    devices = litgpt.devices(row) if litgpt.is_one(row) else whole(row, "n_gpus", 1)
    if scenario in ALONE:
        return _alone(*_model(row), row, quant)
    if litgpt.is_one(row):
        return _of_litgpt(*_model(row), row, devices)
    if scenario == "inference":
        return _generating(row, devices)
    return _training(row, devices)


SHORT = 64  # tokens: engines count all layers, also those that see a window alone
ALONE = ("weight file size", "inference weights", "kv cache per token")
FILES = {"f32": {"dtype": "fp32"}, "f16": {"dtype": "fp16"}, "nf4": {"quantize": "nf4-dq"}}


def _alone(model: Any, config: Mapping[str, Any], row: Row, quant: str) -> tuple[tuple[Part, ...], Any]:
    """Weights, or a cache, without a run."""
    how: dict[str, Any] = {"mode": "decode", "batch": 1, "config": config}
    if row["scenario"] == "kv cache per token":
        how |= words.cache(row)
        return tuple(Part(model, {**how, "seq": n}) for n in (SHORT, 2 * SHORT)), a_token
    form = FILES.get(quant) or generation.numbers(row)
    return (Part(model, {**how, "seq": 1, **form}),), weights


def _training(row: Row, devices: int) -> tuple[tuple[Part, ...], Any]:
    """A step by its layout, and what its software does besides."""
    software = stack(row, training.usual_stack(row), "train")
    usual = row.get("recompute") or words.again(row)
    row = {**row, "precision": words.unwrapped(row, row["precision"]), "recompute": usual}
    local = re.search(r"local batch (\d+)", row.get("notes", ""))
    if local and differs(software).get("micro_batches") == "stages":
        row = {**row, "micro_batch": str(max(int(local[1]) // whole(row, "pp", 1), 1))}
    left_out = _untold(row, software, devices)
    words.checked(row)
    kind = _metric(row)
    if not row["gpu"] and kind is process:
        raise NotCoveredError("gpu is not stated")
    on, batch = device(row["gpu"] or ANY), whole(row, "micro_batch")
    part = training.step({**row, **left_out}, on, batch, _length(row), devices)
    part = Part(part.model, {**part.settings, **_besides(row, software, part)})
    if kind in (reserved, process) and VARY in row.get("notes", ""):
        return (part, Part(part.model, {**part.settings, "seq": _varied(_length(row))})), InTurn(kind)
    return (part,), kind


def _varied(longest: int) -> list[int]:
    """Lengths of samples, spread evenly below the longest, in no order: multiples of the golden ratio."""
    return [max(int(longest * (i * (5**0.5 - 1) / 2 % 1)), 1) for i in range(1, LENGTHS + 1)]


def _untold(row: Row, software: str, devices: int) -> dict[str, str]:
    """What a row of training leaves out. Before training its software's mixed precision is meant by a bare
    dtype, and by float8, whose products keep what they read in 16 bits; fine-tuned it is, where the software
    has a Trainer.
    """
    word, batch = row["precision"], whole(row, "micro_batch")
    full = whole(row, "dp", devices) * whole(row, "pp", 1)
    experts = re.search(r"\b(?:ep|expert parallelism) ?=? ?(\d+)", row.get("notes", "").lower())
    left_out = {"vpp": row.get("vpp") or "1", "ep": row.get("ep") or (experts[1] if experts else "1")}
    left_out |= {"global_batch": row.get("global_batch") or str(batch * full)}
    mixed = row["scenario"] == "pretrain" and not re.search("^fp32|pure", word)
    if mixed or (_autocast(row, software) and not words.in_16_bits(row)):
        left_out["precision"] = re.sub("^(mxfp8|fp8)", "bf16", word) + " amp"
    return left_out


def _autocast(row: Row, software: str) -> bool:
    """Whether a row's dtype is a flag of its software, which means mixed precision."""
    return bool(differs(software).get("autocast") and re.fullmatch("bf16|fp16", row["precision"]))


def _besides(row: Row, software: str, part: Part) -> dict[str, Any]:
    """Settings of a step's memory that those of its time leave out."""
    word = row["precision"]
    own = {
        **words.beside(row, software),
        **versions.ungrouped(row, software, part.settings, part.model),
        **versions.older(row, software, "train", part.model),
        **versions.held(row, software, part.settings),
        **words.loss(row, software),
        **words.looped(row, part.settings),
        **words.chunked(row),
        **words.away(row, part.settings),
        **words.stepped(row, software, part.settings),
        **words.left(row, software, part.settings),
    }
    if _autocast(row, software) and "lora_rank" in part.settings:
        own |= {"precision": "autocast"}
        # peft's way to prepare weights of few bits makes all others float32. Source: peft.
        own |= {} if words.prepared(row) else {"frozen_dtype": word}
    if words.around(row, part.settings):
        own |= {"precision": "autocast"}
    if words.fused_loss(row, {**part.settings, **own}):
        own.pop("loss_logits", None)
    own |= litgpt.beside(software, part.model, {**part.settings, **own}, trains=True)
    if "bf16optimizer" in word.lower():  # DeepSpeed's: sums of gradients in float32
        own["grad_dtype"] = "fp32"
    if "no sequence parallelism" in row.get("notes", ""):
        own["layout"] = {**part.settings["layout"], "sp": 0}
    return own


ANY = "A100-SXM-80GB"  # what is allocated depends on no device


def _length(row: Row) -> int:
    """A row's sequences; 0 for a network of pictures."""
    return whole(row, "seq", None if has_sequence(row) else 0)


def _generating(row: Row, devices: int) -> tuple[tuple[Part, ...], Any]:
    if devices > 1:
        raise NotCoveredError("inference on several devices")
    model, config = _model(row)
    parts = generation.parts(row, model, config)
    how = parts[0].settings
    kind = process if _shown(row, how["stack"]) else _metric(row)
    if pieces := generation.in_pieces(row, parts):
        return pieces, InPieces(kind)
    if kind is process and (share := words.share(row, how["stack"])):
        kind, on = claimed(share), device(row["gpu"])
        parts = tuple(part._replace(settings={**part.settings, "device": on}) for part in parts)
    return pipelines.parts(row, model, how, kind) if pipelines.is_one(row, model) else (parts, kind)


def _shown(row: Row, software: str) -> bool:
    """Whether a page can know what the device shows alone, and names no part of it."""
    part = re.search("alloc|active|weight|buffer|cache", row["metric"].lower())
    return bool(differs(software).get("shown")) and not part


def _metric(row: Row) -> Any:
    """Which of the three sizes a row's words mean. Who counts in GiB has asked torch, which says most of what
    it allocates; a bare GB of training, or of a device, is what nvidia-smi shows, and so is a bare MiB. Pages
    of inference call a GB so that their scripts ask torch for.
    """
    metric, trains = row["metric"].lower(), row["scenario"] in ("finetune", "pretrain")
    meant = {**METRICS, **(USED if trains and row["gpu"] else {})}
    logs = programs("logs", text_of(row, "source"))
    logged = next((size_of for size_of, name in SIZES.items() if name in logs), peak)
    return next((size_of for word, size_of in meant.items() if re.search(word, metric)), logged)


# Words of a metric, the first that fits; others are allocated bytes.
METRICS = {
    "last (rank|stage)": last,
    "-smi|nvtop|consum|cuda context": process,
    "reserved/active|max reserved|^(?!.*alloc).*reserved": reserved,
    "alloc|active|peak|max": peak,
    "^(?!.*(gib|torch)).*vram": process,
    "^mib(,? (gpu|device) memory)?$": process,  # the unit of nvidia-smi, and of few scripts
}
USED = {r"memory usage|gpu memory|^((gb|mb|mib)\b|$)": process}


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
    return network(row, "", 0)
