"""What a row of a training table says of its layout, its cluster and its recomputation.

A setting that matters and is not published is no guess: the row is not covered, and says what is missing.
"""

from __future__ import annotations

import re

from budget.launch.megatron import CORE
from budget.named import Any
from budget.plan.recompute_modules import NAMES

from .rows import NotCoveredError, measured, number, whole
from .software import differs
from .table import Row, text_of

# Published words for what data parallel devices divide, and ZeRO's stage; the first that starts so counts.
ZERO = {
    "none": 0, "ddp": 0, "zero1": 1, "zero-1": 1, "dist-opt": 1, "zero2": 2, "zero-2": 2, "fsdp2 (zero2": 2,
    "distributed optimizer": 1, "megatron-fsdp": 3, "megatron fsdp": 3, "full_shard": 3,
    "optim_grads_params": 3, "fsdp (zero2": 2, "zero3": 3, "zero-3": 3, "fsdp": 3, "hsdp": 3,
}  # fmt: skip
DROPOUT = ("dropout", "attention_dropout", "embed_dropout")  # one rate for all
# What the device's column and the notes call the machines.
CLUSTERS = {
    "jean-zay": "jean-zay-a100", "a3 mega": "gcp-a3-megagpu", "a3 ultra": "gcp-a3-ultragpu",
    "a3 high": "gcp-a3-highgpu", "(a4)": "gcp-a4-highgpu", "p4d": "aws-p4d", "p5en": "aws-p5en",
    "p5.": "aws-p5", "perlmutter": "perlmutter-a100", "leonardo": "leonardo-booster",
    "nodes of 4 h200": "kempner-h200", "one 100 gb/s infiniband card": "v100-edr",
    "nvlink bridge": "nvlink-bridge", "jupiter": "jupiter", "slingshot-11": "alps",
}  # fmt: skip
RECOMPUTED = ("full", "selective", "none")
NOTHING = ("no", "off", "false", "disabled")
# Words for recomputation of whole layers.
WHOLE = re.compile(r"(yes|on|true|enabled|gradient|activation|checkpoint\w*|ac|gc|unsloth)\b")
MODULES = (CORE, *NAMES)
# MaxText's words for what is kept of a layer, the first that starts so. Source: maxtext-defaults.
REMAT = {
    "minimal_offloaded": {},  # what crosses the host's link in which order is not known
    "minimal": {"recompute": "keep_products"},
    "save_dot_except_mlp": {"recompute": "none", "recompute_modules": "layernorm,mlp"},
    "save_dot_with_context_except_mlp": {"recompute": "none", "recompute_modules": "layernorm,mlp"},
}
NODE = 8  # devices; up to here a row without degrees is data parallel, as every source of the tables has it;
# and so is one whose `dp` are all of its devices


def layout(row: Row, gpus: int, software: str) -> dict[str, Any]:
    """A row's degrees and what they divide; what is left of its devices is data parallel. Raises
    NotCoveredError.
    """
    degrees, own = _degrees(row, gpus), differs(software)
    tp, pp, dp = (degrees[axis] for axis in ("tp", "pp", "dp"))
    word = row.get("zero_stage", "").lower()
    if "offload" in word:
        raise NotCoveredError("FSDP's offload of parameters is not modelled")
    zero = _zero(word)
    if zero is None and dp > (1 if word else NODE):
        raise NotCoveredError(f"zero_stage {word[:30]!r}" if word else "zero_stage is not stated")
    if pp > 1 and zero == 3:
        zero = own.get("zero_of_stages", zero)
    shared = dp * (degrees["cp"] if zero == 3 else 1) > 1  # FSDP's parts are of both. Source: torchtitan
    sp = int(tp > 1 and (words(row)[1] == 1 or not own.get("sp_is_said")))
    apart = _experts(row, degrees["ep"])
    if word.startswith("hsdp") and dp > NODE:
        apart["shard"] = _shard(row, dp)
    if sp and row.get("tp_overlap"):
        apart["tp_overlap"] = whole(row, "tp_overlap")
    vpp = whole(row, "vpp", None if pp > 1 and own.get("interleaves") else 1)
    return {**degrees, **apart, "vpp": vpp, "zero": (zero or 0) if shared else 0, "sp": sp}


def _degrees(row: Row, gpus: int) -> dict[str, int]:
    """On how many devices each axis lies, those of data parallelism the rest. Raises NotCoveredError."""
    plain = gpus <= NODE or row.get("kind") == "cnn_train" or whole(row, "dp", 0) == gpus
    usual = {"tp": 1 if plain else None, "pp": 1 if plain else None, "cp": 1, "ep": 1}
    degrees = {axis: whole(row, axis, one) for axis, one in usual.items()}
    dp, left = divmod(gpus, degrees["tp"] * degrees["pp"] * degrees["cp"])
    if left or whole(row, "dp", dp) != dp:
        raise NotCoveredError(f"{gpus} devices are not tp x pp x cp x dp")
    return {**degrees, "dp": dp}


def _experts(row: Row, ep: int) -> dict[str, Any]:
    """How experts on several devices are divided and reached, as a row says."""
    if ep == 1:
        return {}
    kind = row.get("ep_kind")
    return {"etp": 1, **({"ep_kind": kind, "ep_overlap": whole(row, "ep_overlap", 0)} if kind else {})}


def _zero(word: str) -> int | None:
    """ZeRO's stage by a published word, None where it is none that is known."""
    for start, stage in ZERO.items():
        if word.startswith(start):
            return stage
    if match := re.search(r"(?:zero|stage|^deepspeed)\W*(?:stage)?[\W_]*([0-3])\b|^([0-3])$", word):
        return int(match[1] or match[2])
    if "shard_grad_op" in word:
        return 2
    if re.search("fsdp|fully_shard|full_shard", word):
        return 3
    return 0 if re.fullmatch(r"-+|no|n/?a|dp", word) else None


def _shard(row: Row, dp: int) -> int:
    """Of HSDP, the devices that divide a copy: as the notes say (`FSDP=128`, `4x v5e-256`), or a node."""
    notes = text_of(row, "notes")
    if match := re.search(r"\bfsdp ?= ?(\d+)", notes):
        return int(match[1])
    slices = re.search(r"\b(\d+) ?x (?:tpu )?v\d\w*-\d+", notes)
    return dp // int(slices[1]) if slices else NODE


def words(row: Row) -> tuple[str, int]:
    """What a row's words say of recomputation: `none`, `selective` or `full`, and whether of sequence
    parallelism (1).
    """
    text = row.get("recompute", "").lower()
    again = next((w for w in ("full", "selective") if w in text), "none")
    return again, int("sequence" in text or "sp" in text.split("+"))


def recomputed(row: Row, gpus: int) -> dict[str, Any]:
    """What is computed again. Raises NotCoveredError where that is not published and there are many
    devices, or published in words that are not known.
    """
    text = row.get("recompute", "").lower()
    text = "none" if text in NOTHING else "full" if WHOLE.match(text) else text
    found = next((ours for ours in RECOMPUTED if text.startswith(ours)), None)
    modules = [w for w in re.findall(r"\w+", text) if w in MODULES] if found in (None, "selective") else []
    if modules:
        others = ",".join(w for w in modules if w != CORE)
        again = {"recompute": "selective" if CORE in modules else "none"}
        return again | ({"recompute_modules": others} if others else {})
    if kept := next((ours for word, ours in REMAT.items() if text.startswith(word)), None):
        return kept
    if "every 2nd layer" in text:
        return {"recompute": "full", "recompute_layers": round(number(row, "layers") / 2)}
    if several := re.match(r"full, (\d+) layers", text):
        return {"recompute": "full", "recompute_layers": int(several[1])}
    unsure = found is None or text.endswith("?") or "differ" in text
    if (found is None and text) or (unsure and gpus > NODE):
        raise NotCoveredError(f"recompute {text[:30]!r}" if text else "recompute is not stated")
    if "per-op" in text:
        return {"recompute": "keep_second_products"}
    return {"recompute": found or "none"}


def cluster(row: Row) -> str | None:
    """The cluster that a row names, or None: the device's usual one."""
    text = text_of(row, "gpu", "notes")
    return next((name for word, name in CLUSTERS.items() if word in text), None)


def dropout(row: Row) -> dict[str, float]:
    """What a network drops, as its row or its notes say."""
    match = re.search(r"\bdropout (0\.\d+)", text_of(row, "notes"))
    rate = number(row, "dropout", float(match[1]) if match else 0)
    return dict.fromkeys(DROPOUT, rate) if rate else {}


def seconds(row: Row, samples: int, seq: int, gpus: int) -> float | None:
    """The measured seconds of a step; of a rate in FLOPs by the formula of its paper where that is stated."""
    taken, rate = measured(row, "iter_time_s"), measured(row, "tflops_per_gpu", 1e12)
    if taken is not None or rate is None or "96*B*s*l*h^2" not in row.get("flop_convention", ""):
        return taken
    layers, hidden, vocab = (number(row, name) for name in ("layers", "hidden", "vocab"))
    work = 96 * samples * seq * layers * hidden**2
    return work * (1 + seq / (6 * hidden) + vocab / (16 * layers * hidden)) / (rate * gpus)
