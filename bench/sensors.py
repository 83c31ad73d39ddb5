"""A GPU's sensors, from its driver: through NVML where it is installed, else nvidia-smi."""

from __future__ import annotations

import contextlib
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
    opened, fields = _nvml(), {}
    if opened is None:
        return _through_smi()
    for name, ask in FIELDS.items():
        try:
            fields[name] = ask(*opened)
        except Exception:  # noqa: BLE001, S112 - a field that this driver does not have
            continue
    return fields


def driver() -> dict[str, str]:
    """{"driver": its version}."""
    opened = _nvml()
    try:
        version = opened[0].nvmlSystemGetDriverVersion() if opened else _smi("driver_version")[0]
    except Exception:  # noqa: BLE001 - as above
        version = "unknown"
    return {"driver": version.decode() if isinstance(version, bytes) else str(version)}


def _through_smi() -> dict[str, Any]:
    names = _known()
    try:
        return dict(zip(names, map(_value, _smi(*names)), strict=True)) if names else {}
    except (OSError, subprocess.SubprocessError, ValueError):  # slow, or another number of fields
        return {}


def _smi(*fields: str) -> list[str]:
    ask = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", "--id=0"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603
    return [text.strip() for text in answer.split(",")]


@functools.cache
def _known() -> tuple[str, ...]:
    """The fields that nvidia-smi knows, asked one by one once: it refuses all where it does not know one."""
    fields = []
    for name in FIELDS:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            _smi(name)
            fields.append(name)
    return tuple(fields)


def _value(text: str) -> float | str | None:
    """A number, where it is one; None for what the device does not have."""
    try:
        return float(text)
    except ValueError:
        return text if text.startswith("0x") else None
