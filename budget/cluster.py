"""Clusters: how devices are joined, from data: one file a cluster in data/clusters, the links in
data/links.json.

A cluster is its tiers, innermost first: so many devices joined by one kind of link (a node by NVLink), these
joined by another (a fabric by InfiniBand). Every collective's time follows from that (fold/collective.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from . import checked, files, table
from .config import size
from .device import Device
from .device import load as load_device
from .device.profile import profile_for
from .errors import InputError, unknown, wrong
from .named import Any, NamedTuple
from .size import any_of, product
from .stack import AllReduce

KINDS = ("switch", "mesh", "pcie", "torus", "network")


class Link(NamedTuple):
    """A kind of link.

    bandwidth: bytes/s of one device, or of one network card, one way, as sold. reached: the fraction of it
    that large messages reach; reduced: the fraction where the switch adds up (NVLink SHARP), 0 where it does
    not. start_s: seconds of a collective before its first step; step_s: seconds of a step from one device to
    the next. kind: switch (within a node, a device may send to any other at its full rate), mesh (each pair
    has a link of its own), pcie, torus, network (the cards of nodes).
    """

    name: str
    kind: str
    bandwidth: float
    reached: float
    reduced: float
    start_s: float
    step_s: float
    measured: bool  # whether `reached` and the two times are
    source: tuple[str, ...]


class Tier(NamedTuple):
    """Links that join `devices` devices, those of the tiers inside included (None: any number).

    bandwidth: of one device while all send, bytes/s one way, as sold: its share of its node's cards.
    crowd: how many times more a device gets while no other one of its node sends.
    torus: the devices along each axis, innermost first, where the links are a torus.
    oversubscription: how many times less leaves this tier's members than they could send.
    """

    link: Link
    devices: int | None
    bandwidth: float
    crowd: float
    torus: tuple[int, ...]
    oversubscription: float


class Cluster(NamedTuple):
    """Devices and what joins them.

    sold: the ids of the devices that it is sold with, the usual one first. records: what was measured on this
    machine, by collective and number of nodes: seconds before the first byte, and bytes/s as
    NCCL's tests count them on the bus (measured/collectives.py). all_reduce, call_s: see Stack.
    """

    id: str
    name: str
    sold: tuple[str, ...]
    tiers: tuple[Tier, ...]
    source: tuple[str, ...]
    provenance: str
    notes: str
    records: Mapping[tuple[str, int], tuple[float, float]] = {}
    all_reduce: AllReduce | None = None
    call_s: float = 0.0

    @property
    def node(self) -> int:
        """Devices that the innermost links join."""
        return self.tiers[0].devices or 1

    @property
    def devices(self) -> int | None:
        """The most devices that one job can have; None: any number."""
        return self.tiers[-1].devices


@cache
def names() -> tuple[str, ...]:
    """The ids of all clusters in the data, sorted."""
    return table.files("clusters")


def load(name: str) -> Cluster:
    """A cluster by its id, or from a JSON file of the form that data/README.md describes.

    Raises InputError with the nearest known name, or with the file and the field.
    """
    if not name.endswith(".json"):
        return _known(name)
    return read(os.path.basename(name), files.table("cluster", name, "; allowed: a JSON file"))


@cache
def _known(name: str) -> Cluster:
    if name not in names():
        raise unknown("cluster", name, names(), "`budget list clusters` has the names")
    return read(name, table.load("clusters", f"{name}.json"))


def read(name: str, about: Any) -> Cluster:
    """A cluster from its table. Raises InputError that names the file and the field."""
    at = f"cluster: {name}"
    checked.table(at, about, ("name", "sold", "usual", "tiers", "source", "notes"))
    tiers: list[Tier] = []
    for place, tier in enumerate(checked.listed(f"{at}: tiers", about.get("tiers"))):
        tiers.append(_tier(f"{at}: tiers[{place}]", tier, tiers))
        inside = tiers[-2].devices if place else 0
        outside = tiers[-1].devices
        if inside is None or (outside is not None and outside <= inside):
            raise InputError(
                f"{at}: tiers[{place}].devices", "a tier joins more devices than the one inside it"
            )
    if not tiers:
        raise InputError(f"{at}: tiers", "empty; allowed: at least one tier")
    sold = checked.texts(f"{at}: sold", about.get("sold", []))
    return Cluster(
        id=name.removesuffix(".json"),
        name=checked.text(f"{at}: name", about.get("name", name)),
        sold=tuple(load_device(device).id for device in sold),
        tiers=tuple(tiers),
        source=_sources(at, about),
        provenance="data" if "source" in about else "as given",
        notes=checked.text(f"{at}: notes", about.get("notes", "")),
    )


TIER = ("link", "devices", "cards", "per", "torus", "oversubscription")
RATES = {"gb_s": 1e6, "reached": 1.0, "reduced": 1.0, "start_us": 1e6, "step_us": 1e6}  # and the most of each


def _tier(where: str, about: Any, inside: list[Tier]) -> Tier:
    checked.table(where, about, TIER)
    link = _link(f"{where}.link", about.get("link"))
    axes = checked.listed(f"{where}.torus", about.get("torus", []))
    torus = tuple(_whole(f"{where}.torus", axis) for axis in axes)
    if bool(torus) != (link.kind == "torus"):
        raise InputError(
            f"{where}.torus", f"a {link.kind} has {'no axes' if torus else 'axes: a list of numbers'}"
        )
    devices = product(torus) if torus else about.get("devices")
    if devices is not None or not inside:
        devices = _whole(f"{where}.devices", devices)
    share = 1.0
    if "cards" in about:
        share = _whole(f"{where}.cards", about["cards"])
        share = share / _whole(f"{where}.per", about.get("per", inside[0].devices if inside else None))
    over = checked.number(f"{where}.oversubscription", about.get("oversubscription", 1), 1, 1e6)
    return Tier(link, devices, link.bandwidth * share, max(1 / share, 1.0), torus, over)


def _link(where: str, about: Any) -> Link:
    """A link by its name in data/links.json, or from a table of the same form. Raises InputError."""
    links = table.load("links.json")
    if isinstance(about, str):
        if about not in links:
            raise unknown(where, about, links)
        about = links[about]
    checked.table(where, about, (*RATES, "name", "kind", "measured", "source", "note"))
    rates = {key: checked.number(f"{where}.{key}", about.get(key, 0), 0, most) for key, most in RATES.items()}
    for key in ("gb_s", "reached"):
        if not rates[key]:
            raise wrong(f"{where}.{key}", about.get(key, 0), "above 0")
    return Link(
        name=checked.text(f"{where}.name", about.get("name", "link")),
        kind=checked.word(f"{where}.kind", about.get("kind", "network"), KINDS),
        bandwidth=rates["gb_s"] * 1e9,
        reached=rates["reached"],
        reduced=rates["reduced"],
        start_s=rates["start_us"] * 1e-6,
        step_s=rates["step_us"] * 1e-6,
        measured=checked.flag(f"{where}.measured", about.get("measured", False)),
        source=_sources(where, about),
    )


def _whole(where: str, value: Any) -> int:
    return size(where, value)  # type: ignore[no-any-return] # a number, as JSON has no arrays


def _sources(where: str, about: Mapping[str, Any]) -> tuple[str, ...]:
    return checked.sources(f"{where}: source", about["source"]) if "source" in about else ()


def joining(device: Device, cluster: object) -> Cluster:
    """A cluster, by its name, as it is, or the one that a device is usually sold in. Raises InputError."""
    chosen = usual(device) if cluster is None else named(cluster)
    suits(chosen, device)
    return chosen


def named(cluster: object) -> Cluster:
    """A cluster, by its name or as it is. Raises InputError."""
    loaded = load(cluster) if isinstance(cluster, str) else cluster
    if not isinstance(loaded, Cluster):
        raise wrong("cluster", cluster, "a cluster's name, or a Cluster")
    return loaded


def by_nodes(links: Mapping[str, tuple[float, float]]) -> dict[tuple[str, int], tuple[float, float]]:
    """A profile's links (`all_reduce-1`) by collective and number of nodes."""
    keys = ((key.rpartition("-"), measured) for key, measured in links.items())
    return {(kind, int(nodes)): measured for (kind, _, nodes), measured in keys}


def usual(device: Device) -> Cluster:
    """The cluster that a device is usually sold in, as the clusters' tables say; else one made of what the
    device's own table says of its links. What `budget calibrate` found on this machine replaces both.
    Raises InputError where nothing is known.
    """
    records = by_nodes(profile_for(device).links)
    for name in names():
        if device.id in table.load("clusters", f"{name}.json").get("usual", ()):
            cluster = load(name)
            break
    else:
        cluster = _assumed(device, records)
    if not records:
        return cluster
    return cluster._replace(records=records, provenance=f"{cluster.provenance}; collectives measured here")


def _assumed(device: Device, records: Mapping[tuple[str, int], tuple[float, float]]) -> Cluster:
    """A node of eight with the device's own links, or of four on PCIe; its own network card, or one of 100
    Gbit/s a node. Assumed. For a device that is sold without any link, the links measured on this machine.
    Raises InputError where none was.
    """
    if device.intra is None and records:
        best = max(bandwidth for _, bandwidth in records.values())
        link = {"name": "measured here", "kind": "switch", "gb_s": best / 1e9, "reached": 1, "measured": True}
        cluster = read(
            device.id, {"name": f"{device.name}, as measured", "tiers": [{"link": link, "devices": 64}]}
        )
        return cluster._replace(sold=(device.id,), provenance="measured")
    if device.intra is None:
        raise InputError(
            "cluster",
            f"no links between devices are known of {device.name}; allowed: a JSON file that has them",
        )
    links = table.load("links.json")
    nvlink_like = "PCIe" not in device.intra.name
    like = {**links["nvlink4" if nvlink_like else "pcie4"], "reduced": 0, "measured": False}
    inner = {**like, "name": device.intra.name, "gb_s": device.intra.bandwidth / 1e9}
    node = 8 if nvlink_like else 4
    card, cards = (device.inter.bandwidth / 1e9, node) if device.inter else (links["ethernet"]["gb_s"], 1)
    outer = {**links["infiniband-ndr" if device.inter else "ethernet"], "name": "network card", "gb_s": card}
    tiers = [{"link": inner, "devices": node}, {"link": {**outer, "measured": False}, "cards": cards}]
    cluster = read(
        f"{device.id}-assumed", {"name": f"{device.name}, a node of {node}, assumed", "tiers": tiers}
    )
    return cluster._replace(sold=(device.id,), provenance="assumed")


def suits(cluster: Cluster, device: Device) -> None:
    """Raise an InputError for a device that a cluster is not sold with."""
    if cluster.sold and device.id not in cluster.sold:
        others = f"for {device.id}: {usual(device).id}, or a JSON file"
        raise InputError("cluster", f"{cluster.id} joins {', '.join(cluster.sold)}; {others}")


def holds(cluster: Cluster, devices: Any, field: str) -> None:
    """Raise an InputError for more devices than a cluster has; of an array, its most."""
    if cluster.devices is not None and any_of(devices > cluster.devices):
        got = f"{int(getattr(devices, 'max', lambda: devices)()):,}"
        raise InputError(
            field, f"got {got}; allowed: up to {cluster.devices:,} devices, what {cluster.id} has"
        )
