"""Run the programs, each in a forked process, until the time is over; a line of JSON for each in DIR."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import time
import tomllib
import traceback
from collections.abc import Mapping
from typing import Any

import torch

from .. import record, sensors
from . import how

LONGEST_S, COMPILING_S = 40.0, 150.0  # of one program


def main(argv: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.programs", description=__doc__)
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=300, help="in all (300)")
    parser.add_argument("--on", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument(
        "--programs", default=os.path.join(os.path.dirname(__file__), "programs.toml"), metavar="FILE"
    )
    options = parser.parse_args(argv)
    end = time.monotonic() + options.seconds
    with open(options.programs, "rb") as file:
        told = tomllib.load(file)
    os.makedirs(options.out, exist_ok=True)
    import_all()
    with open(os.path.join(options.out, "programs.jsonl"), "a", encoding="utf-8") as out:
        for program in told["program"]:
            left = end - time.monotonic()
            if left < 5:
                answer = {"status": "not reached"}
            else:
                started = time.monotonic()
                limit = COMPILING_S if program.get("compile") else LONGEST_S
                answer = forked(program, told["config"].get(program["of"], {}), options.on, min(limit, left))
                answer["wall_s"] = round(time.monotonic() - started, 1)
            out.write(json.dumps({"program": program, **answer}) + "\n")
            out.flush()
            os.fsync(out.fileno())
            print(" ".join(map(str, program.values())), "|", _short(answer), flush=True)
    return 0


def import_all() -> None:
    """What the children need, once, before any fork; none of it touches the GPU."""
    import transformers

    for head in (
        "AutoModel",
        "AutoModelForCausalLM",
        "AutoModelForMaskedLM",
        "AutoModelForSeq2SeqLM",
        "Trainer",
    ):
        getattr(transformers, head)
    for library in ("peft", "timm", "torchvision"):
        try:
            __import__(library)
        except ImportError as error:
            print(f"programs: {error}", file=sys.stderr)


def forked(program: Mapping[str, Any], config: Mapping[str, Any], on: str, limit: float) -> dict[str, Any]:
    """What a program measured, or what became of it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.setsid()
        os.write(write, json.dumps(_answer(program, config, on)).encode() + b"\n")
        os._exit(0)
    os.close(write)
    text, end = b"", time.monotonic() + limit
    while not text.endswith(b"\n"):
        if not select.select([read], [], [], max(0.0, end - time.monotonic()))[0]:
            text = json.dumps({"status": "hang", "error": f"nothing for {limit:.0f} s"}).encode() + b"\n"
            break
        part = os.read(read, 2**16)
        if not part:
            text = b'{"status": "crash"}\n'
            break
        text += part
    os.close(read)
    for kill in (lambda: os.killpg(pid, signal.SIGKILL), lambda: os.kill(pid, signal.SIGKILL)):
        with contextlib.suppress(OSError):
            kill()
    os.waitpid(pid, 0)
    return json.loads(text)


def _answer(program: Mapping[str, Any], config: Mapping[str, Any], on: str) -> dict[str, Any]:
    where = torch.device(on)
    try:
        torch.manual_seed(0)
        before = sensors.read() if on == "cuda" else {}
        found = how.DOES[program["does"]](program, config, where)
        memory = {}
        if on == "cuda":
            memory = {
                "allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved(),
                "gpu": torch.cuda.get_device_name(), "used_before_mib": before.get("memory.used"),
                "sensors": sensors.read(),
            }  # fmt: skip
        return {
            "status": "ok", **found, **memory, "versions": record.versions(), "source": record.source_hash(),
        }  # fmt: skip
    except Exception as error:  # noqa: BLE001 - the next program must run
        traceback.print_exc()
        return {"status": "error", "error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]}


def _short(answer: Mapping[str, Any]) -> str:
    kept = {
        k: v for k, v in answer.items() if k in ("status", "error", "ttft_s", "tpot_s", "seconds", "wall_s")
    }
    return f"{kept} {answer.get('allocated', 0) / 2**30:.2f} GiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
