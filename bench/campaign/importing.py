"""Bring a campaign's results into the checkout: records, settings, a profile, pages. No GPU is needed.

    python -m budget.bench.campaign import DIR [DIR ...]

Later folders win over earlier ones. The records go to bench/results/DEVICE as a file of pytest-benchmark's,
the gate and the summary beside it as text; settings that were found faster replace those in
kernels/settings.toml.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from budget.errors import InputError
from budget.files import replace
from budget.measured import record as records

from . import summary
from .lines import read
from .refused import RefusedError

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SETTINGS = os.path.join(TOP, "kernels", "settings.toml")
PROFILES = os.path.join(TOP, "budget", "data", "profiles")
Lines = Sequence[Mapping[str, Any]]


def main(options: argparse.Namespace) -> int:
    """Import the folders; the exit status."""
    runs = [(folder, read(folder)) for folder in options.folders]
    _check(runs, options.any_source)
    results = options.results or records.results_folder()
    devices = []
    for folder, lines in runs:
        device = save(lines, results)
        if device and device not in devices:
            devices.append(device)
        print(f"{folder}: {len(list(entries(lines)))} records of {device or 'nothing'}")
    if options.records_only:
        return 0
    changed = merge([line for _, lines in runs for line in lines])
    print(f"settings: {', '.join(changed) or 'none changed'}")
    for device in devices:
        _profile(os.path.join(results, device), device)
    return _command("budget.bench.tables", "--write")


def _check(runs: Sequence[tuple[str, Lines]], any_source: bool) -> None:
    """Raise RefusedError for results of other sources, before anything is written."""
    from ..record import source_hash

    here = source_hash()
    for folder, lines in runs:
        found = {line["fingerprint"].get("source") for line in lines if "fingerprint" in line} - {here}
        if found and not any_source:
            named = ", ".join(map(str, sorted(found)))
            raise RefusedError(
                f"{folder}: measured with source {named}, this checkout is {here};"
                " allowed: the same, or --any-source"
            )


def entries(lines: Lines) -> Iterator[dict[str, Any]]:
    """A benchmark of pytest-benchmark's JSON for each record; settings tried and given up are none."""
    for line in lines:
        for name, entry in line.get("group", {}).items():
            if name == "before" or not entry.get("seconds"):
                continue
            info = entry["extra_info"]
            test = f"test_{info['suite']}[{info['case']}-{info['dtype']}-{name}]"
            yield {
                "group": None, "name": test, "fullname": f"bench/bench_{info['suite']}.py::{test}",
                "params": None, "param": test.partition("[")[2][:-1],
                "extra_info": {
                    **info, "versions": line["fingerprint"]["versions"],
                    "source_hash": line["fingerprint"]["source"],
                },
                "options": {}, "stats": stats(entry["seconds"]),
            }  # fmt: skip


def stats(seconds: Sequence[float]) -> dict[str, Any]:
    """pytest-benchmark's statistics of seconds."""
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {
        "min": min(seconds), "max": max(seconds), "mean": statistics.fmean(seconds),
        "stddev": statistics.stdev(seconds) if len(seconds) > 1 else 0.0, "rounds": len(seconds),
        "median": statistics.median(seconds), "q1": quartiles[0], "q3": quartiles[2],
        "iqr": quartiles[2] - quartiles[0], "total": sum(seconds), "iterations": 1,
    }  # fmt: skip


def save(lines: Lines, results: str) -> str:
    """Write the records of a run, its gate and its summary; the device's key, "" without records."""
    found = list(entries(lines))
    if not found:
        return ""
    device = str(found[0]["extra_info"]["device"])
    versions = found[0]["extra_info"]["versions"]
    python = ".".join(str(versions.get("python", "")).split(".")[:2])
    folder = os.path.join(results, device, f"Linux-CPython-{python}-64bit")
    stem = os.path.join(folder, f"{_next(os.path.join(results, device)):04d}_campaign")
    machine = next((line["environment"] for line in lines if "environment" in line), {})
    ceilings = {k: v for line in lines for k, v in line.get("ceiling", {}).items()}
    named = next((line["device"] for line in lines if "device" in line), {"key": device})
    content = {
        "machine_info": {"device": named, "versions": versions, "environment": machine, "ceilings": ceilings},
        "benchmarks": found, "datetime": datetime.datetime.now(datetime.UTC).isoformat(),
        "version": "5.3.1",
    }  # fmt: skip
    texts = {
        ".json": json.dumps(content, indent=1) + "\n",
        "_gate.txt": summary.gate(lines), "_summary.txt": summary.summary(lines),
    }  # fmt: skip
    try:
        os.makedirs(folder, exist_ok=True)
        for ending, text in texts.items():
            replace(stem + ending, text)
    except OSError as error:
        raise RefusedError(f"cannot write {stem}: {error.strerror}") from None
    try:
        records.load(f"{stem}.json")
    except InputError as error:
        raise RefusedError(str(error)) from None
    return device


def _next(folder: str) -> int:
    """The number after the largest of a device's files."""
    names = [name for _, _, names in os.walk(folder) for name in names]
    return 1 + max((int(name[:4]) for name in names if name[:4].isdigit()), default=0)


def merge(lines: Lines, path: str = SETTINGS) -> list[str]:
    """Write settings that were found faster into settings.toml; their names."""
    from budget.kernels import tune

    with open(path, encoding="utf-8") as file:
        text = file.read()
    machine = next((line["environment"] for line in lines if "environment" in line), {})
    tuned = [line for line in lines if line.get("tuned", {}).get("kept")]
    if tuned and "capability" not in machine:
        raise RefusedError(f"no line tells of the GPU whose settings these are: {tuned[0]['task']}")
    changed = {}
    for line in tuned:
        settings = line["tuned"]
        major, minor = machine["capability"]
        key = (settings["kernel"], f"sm{major}{minor}", settings["class"])
        setting = settings["setting"] | {"chosen_by": _provenance(settings, line, machine)}
        text = tune.written(text, *key, setting)
        changed[" ".join(key)] = None
    try:
        if changed:
            replace(path, text)
    except OSError as error:
        raise RefusedError(f"cannot write {path}: {error.strerror}") from None
    return list(changed)


def _provenance(tuned: Mapping[str, Any], line: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    v = line["fingerprint"]["versions"]
    faster = f"{tuned['seconds'] * 1e6:.1f} us, {tuned['best_ratio']:.2f} times as fast as before"
    with_what = f"torch {v.get('torch')}, Triton {v.get('triton')}, ptxas {v.get('assembler')}"
    return f"{tuned['case']}: {faster}, {machine.get('gpu')}, {with_what}, {datetime.date.today()}"  # noqa: DTZ011


def _profile(folder: str, device: str) -> None:
    """Make the device's profile from its records, and print how well it predicts the others."""
    if _command("budget", "calibrate", folder, "--device", device, "--profiles", PROFILES) == 0:
        made = os.path.join(PROFILES, f"{device}.json")
        _command("budget", "validate", folder, "--device", device, "--profile", made)


def _command(*argv: str) -> int:
    print(f"\n$ python -m {' '.join(argv)}", flush=True)
    return subprocess.run([sys.executable, "-m", *argv], check=False).returncode  # noqa: S603 - this project's own
