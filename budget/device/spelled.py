"""Devices' names as people type them: `4090`, `NVIDIA GeForce RTX 4090`, `rtx4090 24GB`, `2x h100`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from .. import table
from ..errors import InputError
from ..named import Any

MAKERS = {"nvidia", "geforce", "tesla", "amd", "instinct", "radeon"}
MAKERS |= {"apple", "intel", "google", "aws", "huawei"}
MACS = re.compile(r"\b(macbook([\W_]*(pro|air))?|mac[\W_]*(mini|studio|pro)|imac)(?![a-z])")  # around a chip
BRAND = re.compile(r"^(rtx|gtx|rx|tpu|arc|ascend|jetson)(?=[a-z]*\d)")  # that people leave out
MEMORY = re.compile(r"(.+)[\s_-]+(\d{1,3})(?:\s*gi?b?)?", re.IGNORECASE)  # a name with the memory behind it
AMID = re.compile(r"(.+?)[\s_-]+(\d{1,3}\s*gi?b)[\s_-]+(.+)", re.IGNORECASE)  # in its midst: A100 80GB SXM
KINDS = ("super", "mobile")  # left out where a memory tells a board from its namesake: RTX 4090 16GB

# How many, before a name or behind it: `2x h100`, `8 * 4090`, `h100 x8`.
MANY = (re.compile(r"(?P<n>\d+)\s*[x*]\s*(?P<of>.+)"), re.compile(r"(?P<of>.+?)\s*[x*]\s*(?P<n>\d+)"))


@cache
def _tables() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Each device's id and table, by its id, its aliases and its name as lists show it, all run together;
    then also without a brand's letters (`4090`), where that is one device's alone.
    """
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for device, about in _all():
        spelled = (device, *about.get("aliases", ()), about["name"])
        found.update(dict.fromkeys(map(_key, spelled), (device, about)))
    short: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for key, known in found.items():
        if (bare := BRAND.sub("", key)) not in found and known not in short.setdefault(bare, []):
            short[bare].append(known)
    return {**{key: known[0] for key, known in short.items() if len(known) == 1}, **found}


def find(name: str) -> tuple[str, Mapping[str, Any]] | None:
    """A device's id and table by a name as people type it, whose memory may be added: `rtx4090 24GB`."""
    tables = _tables()
    if (key := _key(name)) in tables:
        return tables[key]
    if amid := AMID.fullmatch(name):
        return find(f"{amid[1]} {amid[3]} {amid[2]}")
    sized = MEMORY.fullmatch(name)
    if sized is None:
        return None
    found = tables.get(_key(sized[1]))
    if found is not None and int(sized[2]) == found[1]["memory_gb"]:
        return found
    if found is None or f"{_key(sized[1])}{sized[2]}gb" in tables:
        return tables.get(f"{_key(sized[1])}{sized[2]}gb")
    others = (tables.get(f"{_key(sized[1])}{kind}") for kind in KINDS)
    return next((d for d in others if d and int(sized[2]) == d[1]["memory_gb"]), None)


def several(name: str, devices: Any) -> tuple[str, Any]:
    """A name without how many it says there are, and how many are meant. Raises InputError where `devices`
    says something else. Of what a cloud rents (`p4d.24xlarge`) `devices` are those of several.
    """
    if find(name):
        return name, devices
    if rented := _rented().get(name.strip().lower().removeprefix("standard_")):
        device, many = several(rented, None)
        return device, many if devices is None else devices
    for pattern in MANY:
        told = pattern.fullmatch(name.strip().lower())
        if told and find(told["of"]):
            many = int(told["n"])
            if devices not in (None, many):
                raise InputError("devices", f"got {devices}, and {name!r}; allowed: one of them")
            return told["of"], many
    return name, devices


@cache
def _rented() -> dict[str, str]:
    """Instance types of clouds, without Azure's first word, and the devices that each has."""
    clouds = table.load("instances.json")["rented"]
    return {name.lower().removeprefix("standard_"): has for has, names in clouds.items() for name in names}


def aliases() -> list[str]:
    """All other names of devices."""
    return [alias for _, about in _all() for alias in about.get("aliases", ())]


def _all() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each device's id and table."""
    return ((device, table.load("devices", f"{device}.json")) for device in table.files("devices"))


def _key(name: str) -> str:
    """`NVIDIA GeForce RTX 4090` -> `rtx4090`: makers, Macs and spaces say nothing that the rest does not."""
    bare = MACS.sub("", name.lower())
    return "".join(w for w in re.findall(r"[a-z0-9]+", bare) if w not in MAKERS)
