"""Records of any machine, predicted on any other: the device is the one that the records state."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from .. import device as devices
from ..device import Device, profile
from ..errors import InputError, shown
from .record import Record, find, load, results_folder


def shipped() -> dict[str, list[str]]:
    """The records that come with a checkout (bench/results), by device; a wheel has none."""
    top = results_folder()
    return owners([top]) if os.path.isdir(top) else {}


def owners(paths: Sequence[str]) -> dict[str, list[str]]:
    """The results files in files or folders by the device whose records they hold. Raises InputError."""
    files: dict[str, list[str]] = {}
    for path in paths:
        if not os.path.exists(path):
            raise InputError("results", f"there is no {path}")
        for file in [path] if os.path.isfile(path) else find(path):
            for key in sorted({str(r.info["device"]) for r in load(file)}):
                files.setdefault(key, []).append(file)
    return files


def recorded(records: Sequence[Record], key: str) -> Device:
    """The device of some records: a known one, else a processor with the peak rates that the records state.

    Raises InputError where they state none.
    """
    if key in devices.names():
        return devices.load(key)
    here = devices.load("cpu")
    peak, bandwidth = (
        next((r.info[rate] / r.info[share] for r in records if r.info.get(rate) and r.info.get(share)), 0.0)
        for rate, share in (("tflops", "share_of_peak"), ("gb_s", "share_of_bandwidth"))
    )
    if not peak or not bandwidth:
        if key == profile.key(here):
            return here
        raise InputError("results", f"the records of {shown(key)} do not say its rates; allowed: new ones")
    peak *= 1e12
    cores = re.search(r"-(\d+)-cores?$", key)
    return here._replace(
        name=profile.named(key),
        flops={"fp64": peak / 2, "fp32": peak, "vector": peak},
        bandwidth=bandwidth * 1e9,
        sms=int(cores[1]) if cores else None,
        vendor="another machine",
        provenance="as its records state it",
    )
