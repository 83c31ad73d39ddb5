"""A campaign's summary: predictions beside outcomes, the gate, ratios to torch, tasks that were not
reached.
"""

from __future__ import annotations

import os
import statistics
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tabulate import tabulate

PREDICTIONS = os.path.join(os.path.dirname(__file__), "predictions.toml")
GB = 1e9
Lines = Sequence[dict[str, Any]]


def summary(lines: Lines) -> str:
    """The text of summary.txt."""
    parts = [*_environment(lines), *_predictions(lines), *_gate(lines), *_headline(lines), *_again(lines)]
    parts += [*_networks(lines), *_calibration(lines), *_settings(lines), *_counts(lines)]
    return "\n".join(parts).rstrip() + "\n"


def _environment(lines: Lines) -> Iterator[str]:
    for line in lines:
        if "environment" in line:
            yield ", ".join(f"{k} {v}" for k, v in line["environment"].items()) + "\n"


def _predictions(lines: Lines) -> Iterator[str]:
    ceilings = {k: v for line in lines for k, v in line.get("ceiling", {}).items()}
    with open(PREDICTIONS, "rb") as file:
        wanted = tomllib.load(file)["prediction"]
    rows = []
    for p in wanted:
        found = _outcome(p, ceilings, lines)
        rows.append([p["what"], p["expected"], found, p["unit"], found and f"{found / p['expected']:.2f}"])
    yield "Predicted for an H100, and the outcome\n"
    yield tabulate(rows, ["what", "predicted", "outcome", "", "ratio"], floatfmt=".4g") + "\n"


def _outcome(p: dict[str, Any], ceilings: dict[str, float], lines: Lines) -> float | None:
    if "ceiling" in p:
        ceiling = ceilings.get(p["ceiling"])
        return ceiling / 1000 if ceiling and p["unit"] == "TB/s" else ceiling
    for line in lines:
        if line.get("key") == p["case"] and p["implementation"] in line.get("group", {}):
            info = line["group"][p["implementation"]]["extra_info"]
            rate = info["gb_s"] / 1000 if p["unit"] == "TB/s" else info["tflops"]
            return rate * p.get("share", 1.0)
    return None


def gate(lines: Lines) -> str:
    """The text of gate.txt: every check."""
    rows = [
        [
            line["task"].partition("/")[2], line["status"], c.get("error"), c.get("allowed"), c.get("output"),
            {True: "yes", False: "NO"}.get(c.get("same")), line.get("wall_s"),
            line.get("error_text", "")[:100],
        ]
        for line in lines if line.get("stage") == "B" for c in [line.get("check", {})]
    ]  # fmt: skip
    head = ["check", "status", "error", "allowed", "output", "same again", "s", "why"]
    return tabulate(rows, head, floatfmt=".3g") + "\n"


def _gate(lines: Lines) -> Iterator[str]:
    checked = [line for line in lines if line.get("stage") == "B"]
    if not checked:
        return
    yield "The gate\n"
    for assembler in dict.fromkeys(line["assembler"] for line in checked):
        counts = Counter(line.get("status", "ok") for line in checked if line["assembler"] == assembler)
        yield f"  {assembler}: {', '.join(f'{n} {status}' for status, n in counts.items())}"
    bad = [line for line in checked if line.get("status", "ok") not in ("ok", "not reached", "skipped")]
    if bad:
        yield gate(bad)
    yield ""


def _headline(lines: Lines) -> Iterator[str]:
    rows = []
    for line in lines:
        if line.get("stage") != "C" or "group" not in line:
            continue
        times = {n: e["extra_info"] for n, e in line["group"].items()}
        rows.append([line["key"].removesuffix("-bfloat16"), *_cells(times)])
    if rows:
        yield "This project's kernels against torch's (ratio above 1: ours is faster)\n"
        yield (
            tabulate(rows, ["case", "ours", "MB", "host us", "ours against the others (and their MB)"]) + "\n"
        )


def _again(lines: Lines) -> Iterator[str]:
    rows = []
    for line in lines:
        if line.get("stage") == "F" and "before" in line.get("group", {}):
            info = line["group"]["triton"]["extra_info"]
            changed = "; ".join(f"{kernel} {c}" for kernel, c, _ in info["settings"])
            rows.append([line["key"], _rate(info), f"{info['ratio_to']['before']:.3f}", changed])
    if rows:
        yield "Again, with the settings found (ratio above 1: faster than before)\n"
        yield tabulate(rows, ["case", "ours", "ratio", "changed"]) + "\n"


def _networks(lines: Lines) -> Iterator[str]:
    rows = []
    for line in lines:
        for how, entry in line.get("group", {}).items() if "network" in line else ():
            i = entry["extra_info"]
            peak, step = i["peak_bytes"] or 0, statistics.median(entry["seconds"])
            wanted = i["predicted_peak_bytes"]
            rows.append([
                i["case"], how, wanted / GB, peak / GB, _off(wanted, peak),
                (i["reserved_bytes"] or 0) / GB, _used(i) * 2**20 / GB,
                i["predicted_step_s"] * 1e3, step * 1e3, _off(i["predicted_step_s"], step),
            ])  # fmt: skip
    if rows:
        yield "Networks: GB (10^9) and ms, as predicted before and as measured\n"
        head = ["step", "how", "predicted", "peak", "off", "reserved", "used", "predicted", "ms", "off"]
        yield tabulate(rows, head, floatfmt=".2f") + "\n"


def _used(info: dict[str, Any]) -> float:
    """MiB of the device that the process holds, its context included; 0 where it was not alone."""
    return info["used_mib"] - (info.get("used_before_mib") or 0) if info["used_mib"] else 0.0


def _off(predicted: float, measured: float) -> str:
    return f"{predicted / measured - 1:+.1%}" if measured else ""


def _calibration(lines: Lines) -> Iterator[str]:
    rows = []
    groups = [line for line in lines if line.get("stage") == "D" and "group" in line]
    for suite in dict.fromkeys(line["key"].partition("/")[0] for line in groups):
        here = [line["group"] for line in groups if line["key"].startswith(f"{suite}/")]
        errors = [abs(g["torch"]["extra_info"]["predicted_error"] or 0) for g in here if "torch" in g]
        if errors:
            rows.append([suite, len(errors), f"{statistics.median(errors):.0%}", f"{max(errors):.0%}"])
    if rows:
        yield "Calibration: the datasheet's profile against these records\n"
        yield tabulate(rows, ["suite", "records", "median error", "largest"]) + "\n"


def _settings(lines: Lines) -> Iterator[str]:
    rows = [
        [t["kernel"], t["class"], t["before_s"] * 1e6, f"{t['best_ratio']:.3f}", "kept" if t["kept"] else "",
         ", ".join(f"{k} {v}" for k, v in t["best"].items()), len(t["tried"]), len(t["dropped"])]
        for line in lines for t in [line.get("tuned")] if t
    ]  # fmt: skip
    if rows:
        yield "Settings (ratio: the best candidate against those in force)\n"
        yield tabulate(rows, ["kernel", "class", "us before", "ratio", "", "best", "tried", "dropped"]) + "\n"


def _cells(times: dict[str, dict[str, Any]]) -> list[Any]:
    ours = times.get("triton")
    if ours is None:
        return [None, None, None, ", ".join(f"{n} {_rate(i)}" for n, i in times.items())]
    others = ", ".join(
        f"{n} {r:.2f} ({_rate(times[n])}{_megabytes(times[n])})" for n, r in ours["ratio_to"].items()
    )
    host = ours.get("host_s")
    return [_rate(ours), _megabytes(ours), host and round(host * 1e6, 1), others]


def _megabytes(info: dict[str, Any]) -> str:
    """What a call holds at its peak beyond its inputs."""
    return f" {info['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in info else ""


def _rate(info: dict[str, Any]) -> str:
    bound = info["flops"] / max(info["bytes"], 1) > 200
    return f"{info['tflops']:.0f} TF/s" if bound else f"{info['gb_s']:.0f} GB/s"


def _counts(lines: Lines) -> Iterator[str]:
    yield "Tasks by stage\n"
    for stage in sorted({line["stage"] for line in lines if "stage" in line}):
        here = [line for line in lines if line.get("stage") == stage]
        counts = Counter(line.get("status", "ok") for line in here)
        seconds = sum(line.get("wall_s", 0) for line in here)
        compiled = sum(len(line.get("compiled", ())) for line in here)
        late = f", {compiled} kernels compiled meanwhile" if compiled else ""
        yield f"  {stage}: {', '.join(f'{n} {s}' for s, n in counts.items())}; {seconds:.0f} s{late}"
    for line in lines:
        if line.get("status", "ok") in ("error", "hang", "crash", "cuda_error", "wrong"):
            yield f"  {line['status']}: {line['task']}: {line.get('error_text', '')[:160]}"
