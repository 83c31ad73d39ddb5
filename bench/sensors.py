"""What a GPU's driver tells of it: through NVML where that is at hand, else nvidia-smi."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from typing import Any

# The name in a record, as nvidia-smi has it: a function of (pynvml, handle).
FIELDS: dict[str, Callable[[Any, Any], Any]] = {
    "clocks.sm": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM),
    "clocks.mem": lambda n, h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM),
    "power.draw": lambda n, h: n.nvmlDeviceGetPowerUsage(h) / 1000,
    "temperature.gpu": lambda n, h: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU),
    "clocks_throttle_reasons.active": lambda n, h: hex(n.nvmlDeviceGetCurrentClocksThrottleReasons(h)),
    "memory.used": lambda n, h: n.nvmlDeviceGetMemoryInfo(h).used / 2**20,
}


@functools.cache
def _nvml() -> tuple[Any, Any] | None:
    """(pynvml, the handle of the first GPU), opened once; None where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # noqa: BLE001 - no package, no driver, a library of another version
        return None


def read() -> dict[str, Any]:
    """The fields that the driver knows, each by itself: one that is missing loses no other."""
    found: dict[str, Any] = {}
    for name, ask in FIELDS.items():
        opened = _nvml()
        try:
            found[name] = ask(*opened) if opened else _smi(name)
        except Exception:  # noqa: BLE001, S112 - a field that this driver does not have
            continue
    return found


def driver() -> dict[str, str]:
    """{"driver": its version}."""
    opened = _nvml()
    try:
        version = opened[0].nvmlSystemGetDriverVersion() if opened else _smi("driver_version")
    except Exception:  # noqa: BLE001 - as above
        version = "unknown"
    return {"driver": version.decode() if isinstance(version, bytes) else str(version)}


def _smi(field: str) -> str:
    ask = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "--id=0"]
    return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603
