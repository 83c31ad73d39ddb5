"""Devices' names as people type them: `4090`, `NVIDIA GeForce RTX 4090`, `rtx4090 24GB`, `2x h100`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from .. import table
from ..errors import InputError
from ..named import Any
from . import modes

MAKERS = {"nvidia", "geforce", "tesla", "amd", "instinct", "radeon"}
MAKERS |= {"apple", "intel", "google", "aws", "huawei", "colab", "kaggle"}
# Words around a chip.
MACS = re.compile(r"\b(macbook([\W_]*(pro|air))?|mac[\W_]*(mini|studio|pro)|imac|air)(?![a-z])")
BRAND = re.compile(r"^((rtx|gtx|rx|tpu|arc|ascend)(?=[a-z]*\d)|jetson)")  # that people leave out
MEMORY = re.compile(r"(.+)[\s_-]+(\d{1,3})(?:\s*gi?b?)?", re.IGNORECASE)  # a name with the memory behind it
AMID = re.compile(r"(.+?)[\s_-]+(\d{1,3}\s*gi?b)[\s_-]+(.+)", re.IGNORECASE)  # in its midst: A100 80GB SXM
NUMBERED = re.compile(r"([a-z]+)(\d{2,3})(?!\d)([a-z]?)")  # a board's letters and number: mi450, b300a
# The part of a memory of up to so many GB that Metal gives to a program, and of more: of 16 GB 10,923 MiB,
# of 32 21,845, of 96 73,728 in llama.cpp's logs; macOS 26 gives more. Source: metal-working-set.
METAL, LITTLE, MUCH = 32, 2 / 3, 3 / 4
WATTS = re.compile(r"(.+?)[\s_:-]*\b(\d+\s*w|max[nq])", re.IGNORECASE)  # a board in a power mode: orin 45w
KINDS = ("super", "mobile")  # left out where a memory tells a board from its namesake: RTX 4090 16GB

# How many, before a name or behind it: `2x h100`, `8 * 4090`, `8 h100`, `h100 x8`, `H100:8`.
MANY = (
    re.compile(r"(?P<n>\d+)(\s*[x*][\s-]*|\s+)(?P<of>.+)"),
    re.compile(r"(?P<of>.+?)\s*[x*:]\s*(?P<n>\d+)"),
)
CORES = re.compile(r"-\d+$")  # m3-max-30
SLICE = re.compile(r"(?:tpu[\s-]*)?(?P<of>v\d\w*?)-(?P<n>\d+)")  # of a pod of TPUs: v5e-8, v4-32


@cache
def _tables() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Each device's id and table, by its id, its aliases and its name as lists show it, all run together;
    then also without a brand's letters (`4090`), where that is one device's alone.
    """
    tables: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for device, about in _all():
        spelled = (device, *about.get("aliases", ()), about["name"])
        tables.update(dict.fromkeys(map(_key, spelled), (device, about)))
        for mode, table_of in modes.tables(about):
            in_mode = f"{device}-{mode.lower()}", table_of
            tables.update({_key(f"{name} {mode}"): in_mode for name in spelled})
        for gb, table_of in _memories(about)[1:]:
            tables.update({_key(f"{name} {gb}gb"): (device, table_of) for name in spelled})
    tables = {**_without_cores(), **tables}
    short: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for key, known in tables.items():
        if (bare := BRAND.sub("", key)) not in tables and known not in short.setdefault(bare, []):
            short[bare].append(known)
    return {**{key: known[0] for key, known in short.items() if len(known) == 1}, **tables}


def _without_cores() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Chips by their name and memory alone, where that tells their cores: an M3 Max with 36 GB has 30."""
    chips = [(CORES.sub("", device), device, about) for device, about in _all()]
    few = [(chip, device, about) for chip, device, about in chips if chip != device]
    most = {chip: table.load("devices", f"{chip}.json") for chip, _, _ in few if table.has("devices", chip)}
    return {
        _key(f"{chip} {gb}gb"): (device, with_gb)
        for chip, device, about in few
        if chip in most
        for gb, with_gb in _memories(about)
        if gb != most[chip]["memory_gb"]
    }


def _memories(about: Mapping[str, Any]) -> list[tuple[float, Mapping[str, Any]]]:
    """The memories that a device is sold with, in GB, and its table with each: first the one of the table."""
    sold = [(about["memory_gb"], about)]
    for gb in about.get("sold_gb", ()):
        other = {**about, "name": f"{about['name']} {gb} GB", "memory_gb": gb}
        if "visible_mib" in about:
            other["visible_mib"] = int(gb * 1024 * (LITTLE if gb <= METAL else MUCH))
        sold.append((gb, other))
    return sold


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


def near(name: str) -> str:
    """What to say of an unknown name: the board's power modes, or its memory, where that is another one; the
    name that it begins, and the board of its letters with the nearest number, as neighbours are called; ""
    where none is known.
    """
    if (powered := WATTS.fullmatch(name)) and (known := find(powered[1])):
        return modes.instead(*known)
    key, tables = _key(name), _tables()
    sized = MEMORY.fullmatch(name)
    if sized and (entry := tables.get(board := _key(sized[1]))):
        sizes = [int(m[1]) for other in tables if (m := re.fullmatch(rf"{board}(\d+)gb", other))]
        if sizes:
            return f"did you mean '{sized[1]}-{min(sizes, key=lambda gb: abs(gb - int(sized[2])))}gb'?"
        about = entry[1]
        return (
            f"{about['name']} has {about['memory_gb']:g} GB; allowed: that, or a file of one's own (x.json)"
        )
    if (typed := NUMBERED.match(key)) is None:
        return ""
    begun = sorted((len(other), entry[0]) for other, entry in tables.items() if other.startswith(key))
    alike = [
        (m, entry[0]) for other, entry in tables.items() if (m := NUMBERED.match(other)) and m[1] == typed[1]
    ]
    beside = sorted(
        (abs(int(m[2]) - int(typed[2])), m[3] != typed[3], device)
        for m, device in alike
        if len(m[2]) == len(typed[2])
    )
    names = dict.fromkeys(device for *_, device in (*begun[:1], *beside[:1]))
    return f"did you mean {' or '.join(map(repr, names))}?" if names else ""


def several(name: str, devices: Any) -> tuple[str, Any]:
    """A device's name without a number of devices in it, and this number. Raises InputError where `devices`
    is another one. For what a cloud rents (`p4d.24xlarge`) `devices` may be those of several.
    """
    of_slice = _slice(name)
    if of_slice is None and find(name):
        return name, devices
    if rented := _rented().get(_type(name)):
        device, many = several(rented, None)
        return device, many if devices is None else devices
    for match in filter(None, (pattern.fullmatch(name.strip().lower()) for pattern in MANY)):
        if of_slice is None and find(match["of"]):
            of_slice = match["of"], int(match["n"])
    if of_slice is None:
        return name, devices
    if devices not in (None, of_slice[1]):
        raise InputError("devices", f"got {devices}, and {name!r}; allowed: one of them")
    return of_slice


def _slice(name: str) -> tuple[str, int] | None:
    """The chip and how many of them a slice of TPUs has, by its accelerator type: v5e-8 has 8, v4-8, which
    counts TensorCores, 4. Source: cloud-tpu-slices.
    """
    slice_ = SLICE.fullmatch(name.strip().lower())
    chip = slice_ and find(slice_["of"])
    cores = chip and table.load("instances.json")["cores"].get(chip[0])
    if not (slice_ and chip and cores):
        return None
    if (many := int(slice_["n"])) % cores or not many:
        raise InputError("device", f"got {name!r}; allowed: a multiple of {cores}, the TensorCores of a chip")
    return chip[0], many // cores


@cache
def _rented() -> dict[str, str]:
    """Instance types of clouds and the devices that each has."""
    clouds = table.load("instances.json")["rented"]
    return {_type(name): has for has, names in clouds.items() for name in names}


def _type(name: str) -> str:
    """An instance type without Azure's first word and SageMaker's: `ml.g5.xlarge` is a g5.xlarge."""
    bare = "-".join(name.lower().split())
    return bare.removeprefix("standard_").removeprefix("ml.")


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
