"""Run the programs of programs.toml, each in a process of its own, until the time is over.

A line of JSON for each goes into DIR/programs.jsonl; what an earlier run has there is not done again. At the
end DIR has training.csv, inference.csv and memory.csv, which `python -m budget.bench.published TABLE.csv`
predicts; `--seconds 0` writes them before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import tomllib
from collections.abc import Mapping
from typing import Any

import torch

from .. import record, sensors
from ..forked import Say, Wait, answered
from . import how, tables

LONGEST_S, COMPILING_S = 40.0, 150.0  # of one program
SHORTEST_S = 5.0  # left, and no other program begins
LIBRARIES = ("transformers", "peft", "timm", "torchvision")
PROGRAMS = os.path.join(os.path.dirname(__file__), "programs.toml")


def main(argv: list[str]) -> int:
    """The exit status: 2 for what the caller got wrong."""
    options = _parser().parse_args(argv)
    end = time.monotonic() + options.seconds
    path = os.path.join(options.out, "programs.jsonl")
    try:
        known = _load(options.programs)
        os.makedirs(options.out, exist_ok=True)
        done = _done(path)
    except (OSError, ValueError) as error:
        print(f"programs: {error}", file=sys.stderr)
        return 2
    if options.seconds > SHORTEST_S:
        _import_all()
    answers = []
    with open(path, "a", encoding="utf-8") as out:
        for program in known["program"]:
            answer = done.get(_key(program))
            if answer is None and (answer := _answer(program, known["config"], options.on, end)):
                print(json.dumps(answer), file=out, flush=True)
                os.fsync(out.fileno())
            answers.append(answer or {"program": program})
            print(_short(answers[-1]), flush=True)
    print("\n".join(tables.write(options.out, answers, known["config"], options.gpu)))
    return 0


def _parser() -> argparse.ArgumentParser:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m budget.bench.programs", description=__doc__, formatter_class=shown
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="a folder for the results; made if need be"
    )
    parser.add_argument("--seconds", type=float, default=300, help="in all (300)")
    parser.add_argument("--on", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument(
        "--gpu", default="H200", help="what the tables call a device that measured nothing (H200)"
    )
    parser.add_argument("--programs", default=PROGRAMS, metavar="FILE", help="which (programs.toml)")
    return parser


def _load(path: str) -> dict[str, Any]:
    """The programs of a file and the configs that they name. Raises ValueError."""
    with open(path, "rb") as file:
        known = tomllib.load(file)
    configs = known.get("config", {})
    for number, p in enumerate(known.get("program", ()), 1):
        if p.get("does") not in how.DOES:
            raise ValueError(f"program {number}, does: {p.get('does')!r}; allowed: {', '.join(how.DOES)}")
        of = str(p.get("of", ""))
        if of not in configs and of.partition(" ")[0] not in how.PICTURES:
            raise ValueError(
                f"program {number}, of: {of!r}; allowed: {', '.join(configs)}, and NAME of timm or"
                " torchvision as 'timm NAME'"
            )
    return {"config": configs, "program": known.get("program", [])}


def _done(path: str) -> dict[str, Any]:
    """What an earlier run has measured."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return {_key(line["program"]): line for line in lines if line["status"] == "ok"}


def _key(program: Mapping[str, Any]) -> str:
    return json.dumps(program, sort_keys=True)


def _import_all() -> None:
    """Import everything that the children need, once, before any fork; none of it may touch the GPU."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for library in LIBRARIES:
        try:
            __import__(library)
        except ImportError as error:
            print(f"programs: {error}", file=sys.stderr)
    import transformers

    for name in ("AutoModel", *how.HEADS.values(), "Trainer"):
        getattr(transformers, name)


def _answer(
    program: Mapping[str, Any], configs: Mapping[str, Any], on: str, end: float
) -> dict[str, Any] | None:
    """A program's measurement, or its error; None where there is no time for it."""
    left, started = end - time.monotonic(), time.monotonic()
    if left < SHORTEST_S:
        return None
    limit = min(left, COMPILING_S if program.get("compile") else LONGEST_S)
    answer = {"program": program, **forked(program, configs.get(program["of"], {}), on, limit)}
    return answer | {"wall_s": round(time.monotonic() - started, 1)}


def forked(program: Mapping[str, Any], config: Mapping[str, Any], on: str, limit: float) -> dict[str, Any]:
    """A program's measurement in a process of its own, which ends after `limit` seconds."""

    def work(say: Say, _: Wait) -> None:
        os.setsid()  # what it starts, a compiler's processes, ends with it
        say(_measured(program, config, torch.device(on)))

    return answered(work, limit)


def _measured(program: Mapping[str, Any], config: Mapping[str, Any], where: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    before = sensors.read() if where.type == "cuda" else {}
    measured = how.DOES[program["does"]](program, config, where)
    if where.type == "cuda":
        measured |= {
            "allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved(),
            "gpu": torch.cuda.get_device_name(), "sensors_before": before, "sensors": sensors.read(),
        }  # fmt: skip
    return {"status": "ok", **measured, "versions": record.versions(), "source": record.source_hash()}


def _short(answer: Mapping[str, Any]) -> str:
    kept = ("status", "error_text", "ttft_s", "tpot_s", "seconds", "wall_s")
    values = {k: answer[k] for k in kept if k in answer} or "not reached"
    return f"{' '.join(map(str, answer['program'].values()))}: {values}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
