"""After a campaign, on the same machine: the kernels' tests compiled, and the tools that look inside.

Each command has a share of the time that is left; the end of its output goes into follow.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

from .parent import say, stop

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TINY = [sys.executable, "-m", "budget.bench.campaign.checks"]
KEPT = 6000  # characters at the end of a command's output
# name, share of the time, command, variables
COMMANDS = (
    (
        "the kernels' tests, compiled",
        0.55,
        [sys.executable, "-m", "pytest", "tests/kernels", "-n", "14", "-q", "--maxfail", "40",
         "-p", "no:cacheprovider"],
        {"TRITON_INTERPRET": "0"},
    ),
    (
        "compute-sanitizer, one small call of each kernel",
        0.25,
        ["compute-sanitizer", "--tool", "memcheck", *TINY],
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    ),
    (
        "ncu, three kernels",
        0.20,
        ["ncu", "--clock-control", "none", "--section", "SpeedOfLight", "--section", "Occupancy", "--section",
         "WarpStateStats", "--kernel-name", "regex:_(matmul|attention_forward|row)_kernel",
         "--launch-count", "4", *TINY, "--large"],
        {},
    ),
)  # fmt: skip


def follow(folder: str, environment: Mapping[str, str], end: float) -> None:
    """Run the commands until the end."""
    shares = [share for _, share, _, _ in COMMANDS]
    for i, (name, share, command, variables) in enumerate(COMMANDS):
        limit = (end - time.monotonic()) * share / sum(shares[i:])
        say(f"follow-up: {name}, {limit:.0f} s")
        text = _output(command, {**environment, **variables}, limit)
        try:
            with open(os.path.join(folder, "follow.txt"), "a", encoding="utf-8") as file:
                file.write(f"== {name}: {' '.join(command)}\n{text[-KEPT:]}\n\n")
        except OSError:
            say(text[-KEPT:])


def _output(command: list[str], environment: Mapping[str, str], limit: float) -> str:
    """What a command printed, and how it ended."""
    try:
        process = subprocess.Popen(  # noqa: S603 - the commands above
            command, cwd=TOP, env=dict(environment), text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    try:
        return f"{process.communicate(timeout=max(limit, 1.0))[0]}\nexit status {process.returncode}"
    except subprocess.TimeoutExpired:
        stop(process)  # and its children, which may hold the pipe
        return f"{process.communicate()[0]}\nstopped after {limit:.0f} s"
