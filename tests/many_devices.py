"""Published rows of many devices and what budget says of them, by source.

    python tests/many_devices.py [--write]     its table of docs/accuracy.md

Errors are of seconds, predicted over measured, for each time that a row states; bias is their mean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from budget.bench.published import predict
from budget.bench.published.table import Row, read
from scipy.stats import spearmanr

from budget.measured.validation import p90

PAGE = Path(__file__).parents[1] / "docs/accuracy.md"
BEGIN, END = "<!-- many devices: tests/many_devices.py --write writes this -->", "<!-- many devices end -->"
TRAINING, INFERENCE = "training_throughput.csv", "inference.csv"
NODE = 8
TIMES = ("step_s", "tokens_per_s", "samples_per_s", "ttft_s", "tpot_s")


class Group(NamedTuple):
    """Rows of one table, by the beginning of their source."""

    name: str
    table: str
    source: str
    above: int = 1  # more devices than these


BLOOM = Group("BLOOM's trials, 320 to 384 A100, Omni-Path", TRAINING, "bigscience-workshop/bigscience")
GROUPS = (
    Group(
        "Megatron-LM on 32 to 3,072 A100 (Narayanan et al. 2021, table 1)", TRAINING, "Narayanan et al. SC21"
    ),
    Group(
        "Megatron-LM on 8 to 512 A100 (Korthikanti et al. 2022, table 5)", TRAINING, "Korthikanti et al. 2022"
    ),
    BLOOM,
    Group(
        "llm-foundry, several nodes of A100 and H100 (stack fitted)", TRAINING, "mosaicml/llm-foundry", NODE
    ),
    Group("FasterTransformer, one batch, tp 2 to 32, A100", INFERENCE, "NVIDIA/FasterTransformer"),
    Group("gpt-fast, one sequence, tp 2 to 8, A100", INFERENCE, "pytorch-labs/gpt-fast"),
    Group("TensorRT-LLM before 0.8, static batches, tp 2 to 8", INFERENCE, "NVIDIA/TensorRT-LLM"),
    Group("torchtitan, several nodes (stack fitted)", TRAINING, "pytorch/torchtitan", NODE),
    Group("Megatron Bridge, several nodes (stack fitted)", TRAINING, "NVIDIA-NeMo/Megatron-Bridge", NODE),
    Group("DGX Cloud, several nodes (stack fitted)", TRAINING, "NVIDIA/dgxc-benchmarking", NODE),
    Group("MaxText on TPUs and GPUs (stack fitted)", TRAINING, "AI-Hypercomputer/", NODE),
    Group("Megatron-LM on 8 to 32 V100, one card a node (DLPerf)", TRAINING, "Oneflow-Inc/DLPerf"),
    Group("KempnerForge, FSDP2 and tp on 2 to 32 H200 (stack fitted)", TRAINING, "KempnerInstitute/"),
    Group("ModelLink, Megatron-LM on 8 to 64 Ascend 910B", TRAINING, "aeeeeeep/ModelLink"),
)


class Found(NamedTuple):
    """A row, the devices that it ran on, and measured and predicted seconds, of each time that it has."""

    row: Row
    devices: float
    seconds: tuple[tuple[float, float], ...]

    @property
    def ratios(self) -> list[float]:
        return [predicted / measured for measured, predicted in self.seconds]


def found(table: str) -> Iterator[Found]:
    """Every row of a table on several devices."""
    kind, rows = read(str(Path(__file__).parent / "data" / table))
    for row in rows:
        devices = float(row["n_gpus"] or 1)
        if devices > 1:
            yield Found(row, devices, tuple(filter(None, map(_seconds, predict.predict(kind, row)))))


def _seconds(p: predict.Predicted) -> tuple[float, float] | None:
    if p.asked is None or not p.asked.measured or p.asked.quantity not in TIMES:
        return None
    if p.asked.quantity in ("tokens_per_s", "samples_per_s"):
        return 1 / p.asked.measured, 1 / p.predicted
    return p.asked.measured, p.predicted


def table(rows: Mapping[str, Sequence[Found]]) -> Iterator[str]:
    """The table's lines. Raises ValueError for a group without a row."""
    yield "| rows | n | mean error | median | 90th percentile | bias | worst |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for g in GROUPS:
        yield _line(g.name, [r for f in _of(g, rows) for r in f.ratios])
    for name, above in (("all training rows of several devices", 1), ("of several nodes", NODE)):
        of = [f for f in rows[TRAINING] if f.devices > above]
        covered = [f for f in of if f.ratios]
        yield _line(
            f"{name} that are covered, {len(covered)} of {len(of)}", [r for f in covered for r in f.ratios]
        )
    measured, predicted = zip(*(times for f in _of(BLOOM, rows) for times in f.seconds), strict=True)
    rank = spearmanr(measured, predicted).statistic
    yield f"\nBLOOM's {len(measured)} layouts are ranked with a correlation (Spearman's) of {rank:.2f}."


def _of(g: Group, rows: Mapping[str, Sequence[Found]]) -> list[Found]:
    return [f for f in rows[g.table] if f.row["source"].startswith(g.source) and f.devices > g.above]


def _line(name: str, ratios: Sequence[float]) -> str:
    errors = [abs(r - 1) for r in ratios]
    cells = (mean(errors), median(errors), p90(errors))
    signed = (mean(ratios) - 1, max((r - 1 for r in ratios), key=abs))
    shown = " | ".join([*(f"{x:.1%}" for x in cells), *(f"{x:+.1%}" for x in signed)])
    return f"| {name} | {len(ratios)} | {shown} |"


def main(argv: Sequence[str]) -> None:
    rows = {name: list(found(name)) for name in (TRAINING, INFERENCE)}
    text = "\n".join(table(rows))
    print(text)
    if "--write" in argv:
        page = PAGE.read_text("utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
