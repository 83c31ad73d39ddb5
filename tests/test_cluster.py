"""Clusters: their data, the usual one of a device, and errors in a user's own file."""

import json

import pytest

import budget
from budget import cluster, device
from budget.device import profile as profiles
from budget.errors import InputError
from budget.fold.collective import seconds

ALL = [cluster.load(name) for name in cluster.names()]


@pytest.mark.parametrize("c", ALL, ids=lambda c: c.id)
def test_a_cluster_is_whole(c):
    assert c.sold
    assert c.source
    assert set(c.sold) <= set(device.names())
    for inner, outer in zip(c.tiers, c.tiers[1:], strict=False):
        assert outer.devices is None or outer.devices % inner.devices == 0
        assert outer.bandwidth <= inner.bandwidth
    for tier in c.tiers:
        assert 0 < tier.link.reached <= 1
        assert 0 < tier.link.step_s < 1e-3
        assert tier.link.source


def test_there_are_the_usual_ones():
    """DGX of every generation, racks, RoCE, AMD, TPU pods, three clouds and workstations."""
    assert len(ALL) >= 15
    assert {c.tiers[0].link.kind for c in ALL} == {"switch", "mesh", "pcie", "torus", "network"}


def test_a_device_is_usual_in_one_cluster_only():
    from budget import table

    usual = [d for name in cluster.names() for d in table.load("clusters", f"{name}.json").get("usual", ())]
    assert len(usual) == len(set(usual))
    for name in usual:
        assert name in cluster.usual(device.load(name)).sold


@pytest.mark.parametrize("name", device.names())
def test_every_device_has_a_usual_cluster_or_says_why_not(name):
    found = device.load(name)
    if found.intra is None and not any(name in c.sold for c in ALL):
        with pytest.raises(InputError, match="no links"):
            cluster.usual(found)
    else:
        assert name in cluster.usual(found).sold


@pytest.mark.parametrize(
    ("name", "node", "gb_s", "network_gb_s"),
    [  # the vendors' own figures: one direction, a device; cards over the node's devices
        ("dgx-a100", 8, 300, 25),
        ("dgx-h100", 8, 450, 50),
        ("gb200-nvl72", 72, 900, 50),
        ("mi300x-roce", 8, 448, 50),
        ("aws-p4d", 8, 300, 6.25),  # 4 cards of 100 Gbit/s for 8 devices
        ("aws-p5", 8, 450, 50),  # 32 cards of 100 Gbit/s
        ("gcp-a2-highgpu", 8, 300, 1.5625),  # 100 Gbit/s for the machine
        ("gcp-a3-highgpu", 8, 450, 12.5),  # 4 cards of 200 Gbit/s
        ("jean-zay-a100", 8, 300, 6.25),
        ("leonardo-booster", 4, 300, 12.5),  # 400 Gbit/s for 4 devices
        ("marenostrum5", 4, 450, 25),  # 800 Gbit/s for 4 devices
        ("jupiter", 4, 450, 25),  # 4 cards of 200 Gbit/s for 4 devices
        ("alps", 4, 450, 25),
        ("v100-edr", 8, 150, 1.5625),  # 100 Gbit/s for the machine
    ],
)
def test_bandwidths(name, node, gb_s, network_gb_s):
    c = cluster.load(name)
    assert c.node == node
    assert c.tiers[0].bandwidth == pytest.approx(gb_s * 1e9)
    assert c.tiers[1].bandwidth == pytest.approx(network_gb_s * 1e9)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(InputError, match="did you mean 'dgx-h100'"):
        cluster.load("dgx-h10")


NODE = {"link": "nvlink4", "devices": 8}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", r"mine.json: got \[1\]; allowed: a table"),
        ("{", "cluster: cannot read"),
        ({"tier": []}, "^cluster: mine.json: tier is no field here; did you mean 'tiers'"),
        ({}, "mine.json: tiers: got None"),
        ({"tiers": []}, "mine.json: tiers: empty"),
        ({"tiers": [{"link": "nvlink"}]}, r"mine.json: tiers\[0\].link: unknown name 'nvlink'"),
        ({"tiers": [{"link": "nvlink4"}]}, r"tiers\[0\].devices: got None; allowed: whole numbers"),
        ({"tiers": [{**NODE, "devices": 0}]}, r"tiers\[0\].devices: got 0"),
        ({"tiers": [NODE, {"link": "roce-400", "cards": 1.5}]}, r"tiers\[1\].cards: got 1.5"),
        ({"tiers": [NODE, {"link": "roce-400", "devices": 8}]}, r"tiers\[1\].devices: a tier joins more"),
        ({"tiers": [NODE, {"link": "roce-400", "oversubscription": 0.5}]}, "oversubscription: got 0.5"),
        ({"tiers": [{**NODE, "torus": [2, 4]}]}, r"tiers\[0\].torus: a switch has no axes"),
        ({"tiers": [{"link": "ici-v4", "devices": 8}]}, r"tiers\[0\].torus: a torus has axes"),
        ({"tiers": [{"link": {"gb_s": 1}, "devices": 8}]}, "link.reached: got 0; allowed: above 0"),
        ({"tiers": [{"link": {"gb_s": -1, "reached": 1}, "devices": 8}]}, "link.gb_s: got -1"),
        ({"tiers": [{"link": {"gb_s": 1, "reached": 2}, "devices": 8}]}, "link.reached: got 2"),
        ({"tiers": [NODE], "sold": ["h1000"]}, "device: unknown name 'h1000'"),
    ],
)
def test_errors_name_the_file_and_the_field(content, message, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        cluster.load(str(path))
    assert "\n" not in str(error.value)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.json"
    link = {"name": "mine", "kind": "switch", "gb_s": 100, "reached": 0.5}
    path.write_text(
        json.dumps(
            {"name": "mine", "tiers": [{"link": link, "devices": 4}, {"link": "ethernet", "cards": 2}]}
        )
    )
    c = cluster.load(str(path))
    assert (c.id, c.node, c.tiers[0].bandwidth, c.tiers[1].bandwidth) == ("mine", 4, 100e9, 12.5e9 * 2 / 4)
    cluster.suits(c, device.load("t4"))  # it does not say which devices it is sold with


def test_a_device_in_the_wrong_cluster():
    with pytest.raises(InputError, match=r"cluster: dgx-h100 joins h100-sxm.*; for t4: "):
        cluster.suits(cluster.load("dgx-h100"), device.load("t4"))


MEASURED = {"all_reduce-1": (2e-5, 4e9), "all_reduce-4": (1e-4, 1e9), "send_receive-1": (1e-5, 2e9)}


def linked(monkeypatch, name):
    found = device.load(name)
    profile = profiles.profile_for(found)._replace(links=MEASURED)
    monkeypatch.setattr(cluster, "profile_for", lambda *_: profile)
    return cluster.usual(found)


def test_what_was_measured_here_replaces_the_datasheet(monkeypatch):
    plain, found = cluster.load("dgx-h100"), linked(monkeypatch, "h100")
    assert "measured here" in found.provenance
    within, beyond = ((4, 1),), ((4, 8),)
    gib = 2.0**30
    assert seconds(found, "all_reduce", gib, within) == pytest.approx(2e-5 + gib * 1.5 / 4e9)
    assert seconds(found, "all_reduce", gib, beyond) == pytest.approx(1e-4 + gib * 1.5 / 1e9)
    assert seconds(found, "send", gib, ((2, 1),)) == pytest.approx(1e-5 + gib / 2e9)
    assert seconds(found, "send", gib, ((2, 8),)) == seconds(plain, "send", gib, ((2, 8),))
    for group in (within, beyond):  # not measured: as before
        assert seconds(found, "all_gather", gib, group) == seconds(plain, "all_gather", gib, group)


def test_a_processor_has_what_was_measured_and_nothing_else(monkeypatch):
    with pytest.raises(InputError, match="no links"):
        cluster.usual(device.load("m1"))
    found = linked(monkeypatch, "m1")
    assert found.provenance.startswith("measured")
    assert seconds(found, "all_reduce", 1e9, ((4, 1),)) == pytest.approx(2e-5 + 1e9 * 1.5 / 4e9)


@pytest.mark.parametrize(("cluster", "says"), [("foo", "unknown name 'foo'"), ("dgx-h100", "joins h100-sxm")])
def test_a_cluster_that_one_device_asks_for_is_checked(cluster, says):
    with pytest.raises(InputError, match=f"^cluster: .*{says}"):
        budget.estimate("gpt2", device="4090", cluster=cluster)
    alone, joined = (budget.estimate("gpt2", device="h100", cluster=c) for c in (None, "dgx-h100"))
    assert alone == joined
