"""Programs' measurements as tables that `python -m budget.bench.published` predicts."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Answer = Mapping[str, Any]  # a line of programs.jsonl
SHARED = ("id", "source", "model", "gpu", "n_gpus", "precision", "micro_batch", "seq", "recompute", "notes")
TABLES = {  # name: what its programs do, its columns
    "training": (("train", "loop"), (*SHARED, "global_batch", "iter_time_s", "kind")),
    "inference": (
        ("generate", "forward"),
        ("id", "source", "model", "gpu", "n_gpus", "engine", "weight_precision", "batch", "input_len",
         "output_len", "ttft_ms", "tpot_ms", "e2e_latency_ms", "notes"),
    ),
    "memory": (
        ("train",), (*SHARED, "scenario", "method", "quant", "optimizer", "measured_gb", "metric"),
    ),
}  # fmt: skip


def write(folder: str, answers: Sequence[Answer], configs: Mapping[str, Any], gpu: str) -> list[str]:
    """Write a table of each kind into the folder, measured or not; their paths.

    gpu: a row's device where nothing was measured.
    """
    paths = []
    for name, (kinds, columns) in TABLES.items():
        path = os.path.join(folder, f"{name}.csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            out.writeheader()
            out.writerows(rows(kinds, answers, configs, gpu))
        paths.append(path)
    return paths


def rows(
    kinds: Iterable[str], answers: Sequence[Answer], configs: Mapping[str, Any], gpu: str
) -> Iterable[dict[str, Any]]:
    """A row of each program of these kinds."""
    for number, answer in enumerate(answers, 1):
        p = answer["program"]
        if p["does"] in kinds:
            yield {"id": f"program-{number:02d}", **row(answer, configs.get(p["of"], {}), gpu)}


def row(answer: Answer, config: Mapping[str, Any], gpu: str) -> dict[str, Any]:
    """A program and what it measured, in all the columns that one of the tables has."""
    p, versions = answer["program"], answer.get("versions", {})
    library = "" if config else p["of"].split()[0]
    torch, transformers = (f"{name} {versions.get(name, '')}".strip() for name in ("torch", "transformers"))
    software = f"PyTorch eager {torch[6:]}, {library}" if library else f"{transformers}, {torch}"
    found = {
        "source": f"bench/programs ({software})",
        "model": config.get("named") or p["of"].split()[1],
        "gpu": answer.get("gpu", gpu), "n_gpus": 1, "notes": ", ".join(_notes(p, config)),
    }  # fmt: skip
    if p["does"] in ("train", "loop"):
        return found | _trained(answer, config)
    return found | {
        "engine": library or transformers + (", torch.compile" if p.get("compile") else ""),
        "weight_precision": p["dtype"], "batch": p["batch"],
        "input_len": p.get("input_len", p.get("seq", "")), "output_len": p.get("output_len", ""),
        "ttft_ms": _ms(answer.get("ttft_s")), "tpot_ms": _ms(answer.get("tpot_s")),
        "e2e_latency_ms": _ms(min(answer.get("seconds", ()), default=None)),
    }  # fmt: skip


def _trained(answer: Answer, config: Mapping[str, Any]) -> dict[str, Any]:
    p, text = answer["program"], bool(config)
    adapted, recomputed = bool(p.get("lora_rank")), bool(p.get("recompute"))
    kind = "bert_train" if config.get("model_type") == "bert" else "llm_lora" if adapted else "llm_train"
    allocated = answer.get("allocated")
    return {
        "precision": p["precision"], "micro_batch": p["micro_batch"], "global_batch": p["micro_batch"],
        "seq": p.get("seq", ""), "recompute": "full (gradient checkpointing)" if recomputed else "none",
        "iter_time_s": min(answer.get("seconds", ()), default=""), "kind": kind if text else "cnn_train",
        "scenario": "finetune" if text else "pretrain", "method": "LoRA" if adapted else "full",
        "quant": "None", "optimizer": "AdamW (fused)", "metric": "GiB, torch.cuda.max_memory_allocated",
        "measured_gb": "" if allocated is None else round(allocated / 2**30, 3),
    }  # fmt: skip


def _notes(p: Mapping[str, Any], config: Mapping[str, Any]) -> Iterable[str]:
    """The facts of a row for which there is no column."""
    if p.get("compile"):
        yield "torch.compile"
    if p["does"] == "train":
        yield "transformers' Trainer, fused AdamW"
    if p.get("precision") == "bf16":
        yield "weights in bf16"
    if p.get("lora_rank"):
        yield f"LoRA, rank {p['lora_rank']} on q_proj and v_proj"
    if p["does"] == "train" and config.get("model_type") == "bert":
        yield "masked language model"
    if "target_seq" in p:
        yield f"targets of {p['target_seq']}"
    if not config:
        yield "channels last"
    if p["does"] == "loop":
        yield f"{'SGD with momentum' if 'resnet' in p['of'] else 'AdamW'}, pictures on the device"
    if config.get("model_type") == "gpt2" and p["does"] == "train":
        yield "dropout 0.1"


def _ms(seconds: float | None) -> float | str:
    return "" if seconds is None else round(seconds * 1e3, 4)
