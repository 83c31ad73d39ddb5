"""Profiles: what fraction of its peak rates a device reaches, by class of kernel, and the uncertainty.

A profile is one of three things, and says which: measured on the device (`budget calibrate` writes
one into the user's folder, those of a few devices are in data/profiles/); borrowed from a measured
device of the same sort; or the datasheet's, which a software stack reaches in
part (software.py). Its interval is that of published runs that no fit had seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from .. import checked, files
from .. import table as tables
from ..errors import InputError, shown, wrong
from ..named import Any
from ..stack import CALLS, HERE, Stack, usual
from . import Device, software
from .kernel_class import LIKE, Dispatch, KernelClass, Profile, complete

SCHEMA = "budget.profile/1"
LEAST, MOST = 1e-9, 1e18  # the range of numbers that must be positive and finite
PHASES = ("forward", "backward", "optimizer")
RATES = ("share", "vector", "traffic", "bandwidth")  # the fields of a KernelClass that are never 0
FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "data", "profiles")


def key(device: Device) -> str:
    """The name of a device's folder of records and of its profile: `h200`, `amd-epyc-2-cores`."""
    name = device.name if device.id == "cpu" else device.id
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()
    return "-".join(words)


def named(name: str) -> str:
    """A device's name, from that of its folder: a shipped profile says how it is written."""
    path = os.path.join(FOLDER, f"{name}.json")
    return load(path).name if os.path.isfile(path) else name.replace("-", " ")


def user_folder() -> str:
    """Where `budget calibrate` keeps profiles. Source: xdg-basedir."""
    base = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "compute-budget", "profiles")


def profile_for(
    device: Device,
    dtype: str = "",
    stack: Stack | None = None,
    *,
    several: bool = False,
    mode: str = "forward",
) -> Profile:
    """The profile of a device: its own, else the nearest one's, else what a software stack reaches of its
    datasheet (the one that most people train with).

    dtype: what is computed in; a profile that was not measured in it counts as borrowed. several: one batch
    is on several devices, which widens the interval. mode: see software.profile.
    """
    profile = _profile_for(device.id, key(device), dtype, user_folder(), device.vendor == HERE)
    if profile.provenance != "datasheet":
        return profile
    ran = stack or usual("train")
    return software.profile(profile, device, ran, dtype or "bfloat16", several=several, mode=mode)


@cache
def _profile_for(device_id: str, name: str, dtype: str, folder: str, here: bool) -> Profile:
    for place in (folder, FOLDER):
        path = os.path.join(place, f"{name}.json")
        if os.path.isfile(path):
            if here and place == FOLDER:  # virtual machines name many processors alike
                return borrow(load(path), "another machine of this name")
            return _in_dtype(load(path), dtype)
    if device_id == "cpu" and (measured := _measured(folder)):
        return borrow(min(measured, key=lambda p: _distance(p.device, name)), f"{name} is not measured")
    return parse(tables.load("profiles", "datasheet.json"), "datasheet.json")


def _in_dtype(profile: Profile, dtype: str) -> Profile:
    if not dtype or not profile.dtypes or dtype in profile.dtypes:
        return profile
    return borrow(profile, f"measured in {', '.join(profile.dtypes)}, not in {dtype}")


def _measured(folder: str) -> list[Profile]:
    """All measured profiles of processors: the user's, then those that ship."""
    paths = [os.path.join(f, n) for f in (folder, FOLDER) if os.path.isdir(f) for n in sorted(os.listdir(f))]
    profiles = [load(path) for path in paths if path.endswith(".json")]
    return [p for p in profiles if p.provenance == "measured" and p.serial]


def _distance(a: str, b: str) -> float:
    """The distance of two devices' names: the fraction of their words that differ."""
    one, other = set(a.split("-")), set(b.split("-"))
    return len(one ^ other) / len(one | other)


def borrow(profile: Profile, why: str) -> Profile:
    """Another device's profile: its efficiencies, with an interval that is the measured one widened by the
    datasheet's, since efficiencies differ between devices as they do between published runs.
    """
    datasheet = load(os.path.join(FOLDER, "datasheet.json"))
    return profile._replace(
        provenance="borrowed",
        name=f"{profile.name}: {why}",
        low=profile.low * datasheet.low,
        high=profile.high * datasheet.high,
    )


def load(path: str) -> Profile:
    """A profile from its file, checked. Raises InputError that names the file and what is wrong."""
    return parse(files.table("profile", path, "; budget calibrate writes it anew"), path)


def parse(about: Any, file: str) -> Profile:
    """A profile from its table. Raises InputError that names the file and the field."""
    schema = about.get("schema") if isinstance(about, Mapping) else about
    if schema != SCHEMA:
        raise InputError("profile", f"{file}: schema {shown(schema)}; allowed: {SCHEMA}")
    at, optional = f"profile: {file}", Profile._field_defaults
    checked.table(
        at, about, ("schema", "notes", *Profile._fields), [f for f in Profile._fields if f not in optional]
    )

    def field(key: str, check: Callable[..., Any], *allowed: Any) -> Any:
        return check(f"{at}: {key}", about.get(key, optional.get(key)), *allowed)

    return Profile(
        **{key: field(key, checked.text) for key in ("name", "provenance", "device")},
        forms=complete(field("forms", checked.each, _form)),
        memory=field("memory", checked.number, LEAST, MOST),
        steps=field("steps", _steps),
        launch_s=field("launch_s", checked.number, 0, MOST),
        dispatch=Dispatch(**field("dispatch", checked.numbers, Dispatch._fields, 0, MOST, PHASES)),
        serial=field("serial", checked.flag),
        low=field("low", checked.number, LEAST, 1),
        high=field("high", checked.number, 1, MOST),
        prompt=field("prompt", checked.number, LEAST, MOST),
        host=field("host", checked.number, LEAST, MOST),
        kernels=field("kernels", _row, 2, LEAST),
        dtypes=field("dtypes", checked.texts),
        source=field("source", checked.text),
        versions=field("versions", checked.each, checked.text),
        links=field("links", checked.each, lambda at, value: _row(at, value, 2)),
        fresh=field("fresh", checked.number, 0, MOST),
        turn=field("turn", _row, 2),
        calls=field("calls", checked.numbers, CALLS, 0, MOST),
        fp4=field("fp4", checked.flag),
    )


def _steps(at: str, values: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(_row(at, step, 2, LEAST) for step in checked.listed(at, values))


def _form(at: str, fields: Any) -> KernelClass:
    """A class of kernels, from what its file has of it."""
    usual = KernelClass._field_defaults

    def field(name: str, value: Any) -> Any:
        where = f"{at}.{name}"
        if isinstance(usual[name], tuple):
            return _row(where, value, 2 if name == "tile" else len(usual[name]))
        if isinstance(usual[name], float):
            return checked.number(where, value, LEAST if name in RATES else 0, MOST)
        return (checked.flag if isinstance(usual[name], bool) else checked.text)(where, value)

    return KernelClass(**{k: field(k, v) for k, v in checked.table(at, fields, usual).items()})


def _row(at: str, values: Any, length: int, least: float = 0) -> tuple[float, ...]:
    """So many numbers."""
    if not isinstance(values, list | tuple) or len(values) != length:
        raise wrong(at, values, f"{length} numbers")
    return tuple(checked.number(at, x, least, MOST) for x in values)


def save(profile: Profile, folder: str, notes: Iterable[str] = ()) -> str:
    """Write a profile to its file in a folder, replaced only when all of it is written; its path.

    Raises InputError where the folder cannot be written or the disk is full.
    """
    path = os.path.join(folder, f"{profile.device}.json")
    try:
        os.makedirs(folder, exist_ok=True)
        files.replace(path, dump(profile, notes))
    except OSError as error:
        raise InputError("profile", f"cannot write {path}: {error.strerror or error}") from None
    _profile_for.cache_clear()
    return path


def dump(p: Profile, notes: Iterable[str] = ()) -> str:
    """A profile as JSON for `parse`, without the defaults that it fills in."""
    forms = {
        name: {k: v for k, v in form._asdict().items() if v != KernelClass._field_defaults[k]}
        for name, form in p.forms.items()
        if LIKE.get(name) is None or form != p.forms[LIKE[name]]
    }
    tables = {"dispatch": p.dispatch._asdict(), "forms": forms, "links": p.links, "versions": p.versions}
    import json

    about = {"schema": SCHEMA, "notes": list(notes), **p._asdict(), **tables}
    if not p.source:  # measured here, which is no reference
        del about["source"]
    return json.dumps(_plain(about), indent=2) + "\n"


def _plain(value: Any) -> Any:
    """A value as JSON has it, floats with four significant digits."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
