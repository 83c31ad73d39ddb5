"""The profile of devices that nobody measured: shares of the datasheet, fitted to published runs.

    python -m budget.bench.fit_published [--write]

Runs on one GPU are fitted to, and data-parallel ones within one machine; those that cross machines are a
check only. None of their communication is in the prediction: it is part of the interval. Which network a
row is follows from its own columns; no row has a constant of its own.
The interval is that of sources predicted from the others: engines and people differ more than sizes do.
Sources: published-training, published-inference.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from budget import device as devices
from budget import estimate
from budget.device.kernel_class import Dispatch, KernelClass, Profile, complete
from budget.device.profile import FOLDER, save, scaled
from budget.fold.kernels import works
from budget.fold.time import total
from budget.measured.calibration import Case, Numbers, Stage, interval, least_squares, left_out
from budget.measured.record import Record
from budget.measured.workload import Program

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "data")
START = {
    "memory": 0.8,
    "matmul": 0.7,
    "conv": 0.4,
    "conv_edge": 8.0,  # of M, N and K: few channels leave tensor units idle, depthwise convolutions most
    "attention": 0.4,
    "vector": 0.7,
    "dispatch": 5e-6,
    "start": 1e-6,
}
DTYPES = {
    "tf32": "tf32",
    "fp32": "fp32",
    "fp16-amp": "fp16",
    "fp16": "fp16",
    "bf16": "bf16",
    "F16": "fp16",
    "bf16-amp(fp32 master)": "bf16",
    "bf16 (MP=PURE)": "bf16",
}
GPUS = {
    "A100-SXM-80GB": "a100-80gb",
    "A100-SXM-40GB": "a100-40gb",
    "A100-SXM-80GB (330W cap)": "a100-80gb",
    "V100-SXM2-16GB": "v100-sxm2-16gb",
    "V100-SXM2-32GB": "v100-sxm2-32gb",
    "H100-SXM-80GB": "h100",
    "RTX 6000 Ada 48GB": "rtx-6000-ada",
    "L40S 48GB": "l40s",
    "A100 PCIe 80GB": "a100-pcie-80gb",
    "H100 PCIe 80GB": "h100-pcie",
}
PRESETS = {
    "BERT-large": "bert-large",
    "BERT-large (TF2)": "bert-large",
    "ResNet-50 v1.5": "resnet50",
    "EfficientNet-B0": "efficientnet-b0",
    "EfficientNet-B4": "efficientnet-b4",
    "GPT-2 124M (nanoGPT)": "gpt2",
    "GPT-J 6B": "gpt-j-6b",
    "LLaMA 7B": "llama-7b",
    "Llama-2-7B": "llama-2-7b",
    "Llama-3-8B": "llama-3-8b",
    "Llama-3.1-8B": "llama-3.1-8b",
    "GPT-2 124M (llm.c)": "gpt2",
    "GPT-2 350M (llm.c)": "gpt2-medium",
    "GPT-2 774M (llm.c)": "gpt2-large",
}
PRESETS |= {
    f"MPT-{n}": f"llm-foundry-{n}" for n in ("125m", "350m", "760m", "1b", "3b", "7b", "13b", "30b", "70b")
}
# The READMEs' default batches of images, where the table has none (its own notes say so).
IMAGES = {"A100-SXM-80GB": 256, "V100-SXM2-16GB": 128, "V100-SXM2-32GB": 256}
# Training code that torch.compile or a hand fuses; the others run one operator after the other.
COMPILED = ("karpathy/nanoGPT", "karpathy/llm.c")
# Nothing is faster than its datasheet. Attention is counted in full, of which a causal kernel does half.
MOST = {"memory": 1.0, "matmul": 1.0, "conv": 1.0, "attention": 2.0, "vector": 1.0}
FIT, CHECK = "fit", "check"
NODE = 8  # GPUs of one machine: what lies within is fitted to, what crosses machines is a check


def cases() -> Iterator[tuple[Case, devices.Device, str]]:
    """(case, device, fit | check) of every row that budget can model."""
    for name, read in (("training_throughput.csv", _training), ("inference.csv", _inference)):
        with open(os.path.join(DATA, name), encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["gpu"] in GPUS and (what := _network(row)):
                    for case, use in read(row, what):
                        yield case, devices.load(GPUS[row["gpu"]]), use


def _network(row: Mapping[str, str]) -> tuple[str, dict] | None:
    """A preset, or a decoder by its own numbers."""
    if row["model"] in PRESETS:
        return PRESETS[row["model"]], {}
    if row.get("engine") == "FasterTransformer" and row["layers"]:
        sizes = {"layers": "layers", "d_model": "hidden", "heads": "heads", "d_ff": "ffn", "vocab": "vocab"}
        return "transformer", {"config": {ours: int(row[theirs]) for ours, theirs in sizes.items()}}
    return None


def _training(row: Mapping[str, str], what: tuple[str, dict]) -> Iterator[tuple[Case, str]]:
    """A step of one micro-batch. The optimizer's share of it follows from the batch, where it is known."""
    gpus, dtype = row["n_gpus"], DTYPES.get(row["precision"])
    alone = gpus == "1"
    if dtype is None or not (alone or (row["core"] == "1" and row["tp"] == row["pp"] == "1")):
        return
    image = row["kind"] == "cnn_train"
    batch = int(row["micro_batch"] or (IMAGES[row["gpu"]] if image else 0))
    if not batch:
        return
    seq = {} if image else {"seq": int(row["seq"])}
    flash = "no flash" not in row["notes"] and row["kind"] == "llm_train"
    settings = {
        "batch": batch,
        "dtype": dtype,
        "optimizer": "none",
        "attention": "flash" if flash else "eager",
        "recompute": "full" if row["recompute"].startswith("full") else "none",
        **seq,
    }
    steps = int(row["global_batch"] or 0) / (batch * int(gpus))
    compiled = row["source"].startswith(COMPILED)
    program = _program(what, settings, compiled)
    stepped = _program(what, {**settings, "optimizer": "adamw_fused"}, compiled)
    update = tuple(
        w._replace(times=w.times / max(steps, 1)) for w in stepped.kernels if w.phase == "optimizer"
    )
    program = program._replace(kernels=program.kernels + update)
    if row["tokens_per_s_per_gpu"]:  # samples/s are cut to whole numbers in some sources
        taken = batch * int(row["seq"]) / float(row["tokens_per_s_per_gpu"])
    elif row["samples_per_s_total"]:
        taken = batch * int(gpus) / float(row["samples_per_s_total"])
    else:
        taken = float(row["iter_time_s"])
    yield _case(row, program, taken), FIT if int(gpus) <= NODE else CHECK


def _inference(row: Mapping[str, str], what: tuple[str, dict]) -> Iterator[tuple[Case, str]]:
    """A request's prefill and its tokens, or one token, whichever the source printed."""
    dtype = DTYPES.get(row["weight_precision"])
    if row["n_gpus"] != "1" or dtype is None or row["gpu"].startswith("M"):
        return
    batch, new = int(row["batch"]), int(row["output_len"])
    start, base = int(row["input_len"]), {"batch": batch, "dtype": dtype, "attention": "flash"}
    # llama.cpp generates from an empty context: halfway there are half of the new tokens.
    middle = new // 2 if row["engine"].startswith("llama.cpp") else start + new // 2
    token = _program(what, {**base, "mode": "decode", "seq": middle}, True)
    if row["tpot_ms"]:
        yield _case(row, token, float(row["tpot_ms"]) * 1e-3), FIT
        return
    # FasterTransformer's prompts use one kernel an operator unless asked not to. Source: fastertransformer
    fused = "eager" if row["engine"] == "FasterTransformer" else "flash"
    prefill = _program(what, {**base, "mode": "prefill", "seq": start, "attention": fused}, True)
    many = tuple(w._replace(times=w.times * new) for w in token.kernels)
    whole = prefill._replace(kernels=prefill.kernels + many)
    if row["e2e_latency_ms"]:
        yield _case(row, whole, float(row["e2e_latency_ms"]) * 1e-3), FIT
    elif row["output_tok_s_total"]:
        yield _case(row, whole, batch * new / float(row["output_tok_s_total"])), FIT


def _program(what: tuple[str, dict], settings: Mapping, compiled: bool) -> Program:
    name, more = what
    config = dict(more.get("config", {}))
    if name == "transformer" or name.startswith("llm-foundry"):  # positions are learned, as many as needed
        config["context"] = max(4096, settings["seq"])
    e = estimate(name, device="h200", **{**settings, "config": config})
    kernels = tuple(works(e.program.nodes, e.task.dtype, compiled=compiled))
    return Program(kernels, 0, e.flops.forward + e.flops.backward, e.task.dtype, bare=False)


def _case(row: Mapping[str, str], program: Program, taken: float) -> Case:
    source = (
        row["source"].split(" ")[0].split("@")[0] + " " + (row.get("engine") or row["model"].split("-")[0])
    )
    record = Record(
        row["id"],
        "published",
        f"{row['model']} on {row['gpu']}",
        "torch",
        "fit",
        program.dtype,
        {"model": ""},
        taken,
        {},
    )
    return Case(record, program, math.log(taken), source)


def make(numbers: Numbers) -> Profile:
    """A profile of shares of the datasheet."""
    vector = numbers["vector"]
    forms = {
        name: KernelClass(share=numbers[name], vector=vector) for name in ("matmul", "conv", "attention")
    }
    forms["conv"] = forms["conv"]._replace(edge=(numbers["conv_edge"],) * 3)
    forms["pointwise"] = KernelClass(vector=vector)
    forms = {name: form._replace(start_s=numbers["start"]) for name, form in forms.items()}
    return Profile(
        name="datasheet",
        provenance="datasheet",
        device="datasheet",
        forms=MappingProxyType(complete(forms)),
        memory=numbers["memory"],
        steps=(),
        launch_s=devices.LAUNCH_S,
        dispatch=Dispatch(*[numbers["dispatch"]] * 3),
        serial=False,
        low=1.0,
        high=1.0,
        source="published-training",
    )


def main(argv: list[str]) -> int:
    """Fit, print the errors, and write the profile if asked to."""
    found = list(cases())
    where = {c.record.name: d for c, d, _ in found}

    def predict(case: Case, profile: Profile) -> float:
        p = case.program
        on = where[case.record.name]
        return float(total(p.kernels, 0, on, scaled(profile, on.reached(p.dtype)), p.dtype))

    chosen = tuple(c for c, _, use in found if use == FIT)
    numbers = least_squares(START, tuple(START), chosen, make, predict, MOST)
    errors = list(left_out(numbers, Stage(tuple(START), chosen), make, predict, MOST))
    width = interval([e for _, e in errors])
    profile = make(numbers)._replace(low=1 / width, high=width, kernels=(1 / width, width))
    for use in (FIT, CHECK):
        rows = [(c, predict(c, profile) / c.record.seconds) for c, _, u in found if u == use]
        for c, ratio in sorted(rows, key=lambda r: (r[0].fold, r[1])):
            print(
                f"{use:6}{c.record.name:16}{c.record.case[:44]:46}{c.record.seconds:10.4g} s  x {ratio:.2f}"
            )
        sizes = [abs(ratio - 1) for _, ratio in rows]
        inside = sum(profile.low <= 1 / ratio <= profile.high for _, ratio in rows)
        median = statistics.median(sizes)
        print(f"{use}: {len(rows)} runs, median error {median:.1%}, {inside} inside the interval\n")
    print({k: float(f"{v:.3g}") for k, v in numbers.items()}, f"interval x {1 / width:.2f} to {width:.2f}")
    if "--write" in argv:
        notes = (
            "Shares of the datasheet, fitted to published runs within one machine by bench/fit_published.py.",
        )
        print(save(profile, FOLDER, notes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
