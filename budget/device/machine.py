"""What this machine says of itself: its processor, its memory, its GPU. Nothing is measured here."""

from __future__ import annotations

import os
import sys

from ..named import NamedTuple

# The widest vector unit among /proc/cpuinfo's flags, and the float32 operations of one core in a
# cycle that usually come with it. Source: peak-flops-per-cycle. ARM: two units of 4 lanes, assumed.
VECTOR_UNITS = (("avx512f", 64), ("avx2", 32), ("avx", 16), ("asimd", 16), ("sse2", 8))
NO_FLAGS = ("vector unit not stated, 4 lanes assumed", 16)

# A GPU's driver, as files: NVIDIA and AMD on Linux, Linux on Windows, Windows.
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")


class Facts(NamedTuple):
    """The processor. hertz: the highest clock that the system states, else 2.5 GHz, assumed."""

    processor: str
    cores: int
    hertz: float
    vector_unit: str
    flops_per_cycle: int
    memory_bytes: int


def power_w() -> float | None:
    """What the first NVIDIA GPU draws now, in watts, as its driver says; None where there is none."""
    import subprocess

    ask = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "--id=0"]
    try:
        import pynvml

        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetPowerUsage(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1000)
    except Exception:  # noqa: BLE001 - no package, no driver, a library of another version: its program may do
        try:
            answer = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
            return float(answer.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return None


def facts() -> Facts:
    """The processor that this program may use, and all memory."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = min(psutil.cpu_count(logical=False) or 1, allowed or 1)
    clock = psutil.cpu_freq()
    hertz = (max(clock.max, clock.current) if clock else 0) * 1e6 or 2.5e9
    unit, width = vector_unit(_cpuinfo("flags") or _cpuinfo("Features"))
    return Facts(processor(), cores, hertz, unit, width, psutil.virtual_memory().total)


def vector_unit(flags: str) -> tuple[str, int]:
    """The name of the widest vector unit and its float32 operations a cycle."""
    present = flags.split()
    return next((unit for unit in VECTOR_UNITS if unit[0] in present), NO_FLAGS)


def processor() -> str:
    """The processor's name; never empty."""
    import platform

    if sys.platform == "darwin":
        import subprocess

        ask = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(ask, capture_output=True, text=True, check=False)  # noqa: S603 # a constant
        return answer.stdout.strip() or "Apple"
    return _cpuinfo("model name") or platform.processor() or platform.machine() or "CPU"


def gpu() -> tuple[str, int] | None:
    """Name and bytes of memory of the first GPU that torch sees; None without one.

    Importing torch takes seconds: only where a GPU's driver is, or where torch is imported already.
    """
    from importlib.util import find_spec

    if "torch" not in sys.modules and not (any(map(os.path.exists, DRIVERS)) and find_spec("torch")):
        return None
    try:
        import torch
    except (ImportError, OSError):  # a torch that does not fit this machine's libraries
        return None
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory


def _cpuinfo(key: str) -> str:
    """The first value of a key in Linux's /proc/cpuinfo; empty where there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as text:
            return next((line.partition(":")[2].strip() for line in text if line.startswith(key)), "")
    except OSError:
        return ""
