"""Devices: the data against the table it is from, look-up by name, and this machine."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from budget import device, stack
from budget.device import GIB, MIB
from budget.device.profile import profile_for
from budget.errors import InputError
from budget.table import DATA


def read(file: str) -> list[dict[str, str]]:
    lines = (Path(__file__).parent / "data" / file).read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


ROWS, MARKET = read("hardware.csv"), read("techpowerup.csv")


BY_NAME = {device.load(name).name: device.load(name) for name in device.names()}


RATES = {
    "fp64": "fp64_tflops",
    "fp32": "fp32_tflops",
    "vector": "fp32_tflops",
    "tf32": "tf32_tflops",
    "bf16": "bf16_dense_tflops",
    "fp16": "fp16_dense_tflops",
    "fp8": "fp8_dense_tflops",
    "int8": "int8_dense_tops",
    "fp4": "fp4_dense_tflops",
}


def number(text: str, unit: float) -> float | None:
    return float(text) * unit if text else None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_device_is_as_in_the_table(row):
    d = BY_NAME[row["name"]]
    assert (d.vendor, d.year, d.memory) == (row["vendor"], int(row["year"]), row["mem_type"])
    assert d.memory_bytes == float(row["memory_gb"]) * GIB
    least = 0.66 if row["vendor"] == "Apple" else 0.93  # Metal keeps a part
    assert least * d.memory_bytes <= d.usable_bytes <= d.memory_bytes
    assert d.bandwidth == float(row["bandwidth_gb_s"]) * 1e9
    assert d.flops == {
        k: number(row[column], 1e12) for k, column in RATES.items() if row[column]
    }  # nothing more, nothing less
    measured = {k: number(row[f"measured_matmul_{k}_tflops"], 1e12) for k in ("bf16", "fp8")}
    assert d.measured == {k: v for k, v in measured.items() if v}
    assert d.l2_bytes == number(row["l2_mb"], MIB)
    assert d.sms == number(row["sms"], 1)
    assert d.tdp_w == number(row["tdp_w"], 1)
    one_way, both_ways = row["intra_node_gb_s_unidir_per_gpu"], row["intra_node_gb_s_bidir_per_gpu"]
    assert (d.intra and d.intra.bandwidth) == number(one_way, 1e9)
    assert d.intra is None or d.intra.name == row["interconnect"]
    assert d.intra is None or 2 * d.intra.bandwidth == pytest.approx(number(both_ways, 1e9), rel=0.004)
    assert (d.inter and d.inter.bandwidth) == number(row["typical_node_nic_gbit_per_gpu"], 1e9 / 8)
    prices = number(row["cloud_usd_per_gpu_h_low"], 1), number(row["cloud_usd_per_gpu_h_high"], 1)
    assert (d.usd_per_hour or (None, None)) == prices
    assert d.confidence == row["confidence"]


@pytest.mark.parametrize("row", MARKET, ids=lambda row: row["id"])
def test_a_device_is_as_in_the_database_it_is_from(row):
    d, boards = device.load(row["id"]), {"a16": 4, "m60": 2}.get(row["id"], 1)  # GPUs share a board's power
    assert d.memory_bytes == float(row["memory_gb"]) * GIB
    assert d.bandwidth == pytest.approx(float(row["bandwidth_gb_s"]) * 1e9, rel=0.005)
    assert d.flops["fp32"] == pytest.approx(float(row["fp32"]) * 1e9, rel=0.002)
    assert row["id"].startswith("h100") or d.year == int(row["year"])
    assert d.tdp_w == number(row["tdp_w"], 1 / boards)
    assert d.sms == int(row["sms"]) or row["sms"] == "0"
    assert ("fp16" in d.flops) == (float(row["fp16"] or 0) >= float(row["fp32"]))  # else float32's is used


# Of a multiprocessor's tensor units in a clock, float16 with float32 sums, dense: NVIDIA's whitepapers
# print 53.8 TFLOP/s for an RTX 2080 Ti of 68 at 1,545 MHz, 71 for an RTX 3090 of 82 at 1,695, 165.2 for an
# RTX 4090 of 128 at 2,520, 209.5 for an RTX 5090 of 170 at 2,407; twice that on cards for workstations.
# Jetson's: 85 dense int8 TOPS of an AGX Orin of 16 at 1,300 MHz (half in float16); Xavier's as Volta's.
A_CLOCK = {"sm72": 1024, "sm75": 512, "sm86": 512, "sm87": 1024, "sm89": 512, "sm120": 512}


WHOLE = {"titan-rtx", "quadro-rtx-5000", "quadro-rtx-6000", "quadro-rtx-8000", "a2", "a16"}


@pytest.mark.parametrize(
    "name", [row["id"] for row in MARKET if row["tensor_cores"] != "0" and row["name"][0] != "H"]
)
def test_tensor_units_are_those_of_their_generation(name):
    d = device.load(name)
    hertz = d.flops["fp32"] / d.sms / (128 if d.generation == "sm75" else 256)
    whole = name in WHOLE or not name.startswith(("rtx-2", "rtx-3", "rtx-4", "rtx-5")) or "-ada" in name
    if d.generation != "sm70":
        expected = d.sms * hertz * A_CLOCK[d.generation] * (1 + whole)
        assert d.flops["fp16"] == pytest.approx(expected, rel=0.002)
    for narrow, factor in {"fp8": 2, "int8": 2 if whole else 4, "fp4": 4 if whole else 8}.items():
        if narrow in d.flops and d.generation not in ("sm70", "sm75"):
            assert d.flops[narrow] == pytest.approx(factor * d.flops["fp16"], rel=0.002)


def test_every_device_is_in_a_table_or_read():
    listed = {BY_NAME[row["name"]].id for row in ROWS} | {row["id"] for row in MARKET}
    assert len(device.names()) == len(BY_NAME) > 150
    assert all(device.load(name).confidence == "read" for name in set(device.names()) - listed)


def test_rates_fill_gaps_from_below():
    h100, v100, t4, tpu = (device.load(name) for name in ("h100", "v100", "t4", "tpu-v5p"))
    assert h100.rate("bf16") == h100.rate("bfloat16") == 989e12
    assert h100.rate("fp4") == h100.rate("fp8") == 1979e12
    assert h100.rate("vector") == h100.rate("float32") == 67e12
    assert v100.rate("fp8") == v100.rate("fp16") == 125e12
    assert v100.rate("bf16") == v100.rate("tf32") == v100.rate("fp32") == 15.7e12
    assert t4.rate("int8") == 130e12
    assert t4.rate("int4") == 65e12
    assert tpu.rate("fp32") == tpu.rate("tf32") == 459e12 / 6
    assert tpu.rate("vector") == pytest.approx(14.3e12, rel=0.01)  # 2 cores x 8 x 128 x 4 x 1.75 GHz
    with pytest.raises(InputError, match=r"^dtype: T4 states no rate for fp64; known: fp32"):
        t4.rate("fp64")


@pytest.mark.parametrize("name", device.names())
def test_every_device_computes_every_format(name):
    d = device.load(name)
    wide = [
        d.rate(dtype) for dtype in ("fp4", "fp8", "fp16", "bf16", "fp32", "int8", "int4", "tf32", "vector")
    ]
    assert all(rate > 0 for rate in wide)
    assert d.rate("fp8") >= d.rate("fp16") >= d.rate("fp32") >= d.rate("vector")
    assert d.uncertainty == 1


@pytest.mark.parametrize(
    ("name", "usual", "bf16", "fp8"),
    [
        (
            "t4",
            "fp16",
            "T4 has no bf16: computed at the rate of fp32; --dtype fp16 is its own",
            "T4 has no fp8: ",
        ),
        (
            "a100",
            "bf16",
            "",
            "A100 SXM 80GB has no fp8: computed at the rate of fp16; --dtype bf16 is its own",
        ),
        (
            "gtx-1080-ti",
            "fp32",
            "GTX 1080 Ti has no bf16: computed at the rate of fp32",
            "GTX 1080 Ti has no",
        ),
        ("h100", "bf16", "", ""),
        ("cpu", "fp32", "", ""),  # assumed rates: nobody knows
    ],
)
def test_what_a_device_lacks_is_said(name, usual, bf16, fp8):
    d = device.load(name)
    assert d.usual_dtype == usual
    assert d.lacks("bfloat16") == d.lacks("bf16") == bf16
    assert d.lacks("fp8").startswith(fp8) and bool(d.lacks("fp8")) == bool(fp8)
    assert d.lacks("fp32") == d.lacks("int8") == ""


def test_a_host_is_reached_by_what_is_there():
    links = {
        n: device.load(n).host for n in ("t4", "rtx-4090", "rtx-4060", "h100", "gh200", "m3-max", "mi300x")
    }
    assert [round(link.bandwidth / 1e9, 2) for link in links.values()] == [
        15.75,
        31.5,
        15.75,
        63,
        450,
        400,
        63,
    ]
    assert device.load("m3-max").host.name == "unified memory"
    assert device.load("tpu-v4").host is None


def test_a_change_to_a_device_is_nobody_elses():
    rates = device.load("h100").flops
    rates.clear()  # type: ignore[attr-defined] # what a Mapping should not let anybody do
    assert device.load("h100").rate("bf16") > 1e14
    with pytest.raises(AttributeError):
        device.load("h100").bandwidth = 1  # type: ignore[misc]


def test_what_products_reach_is_measured_or_usual():
    measured = [
        d.measured["bf16"] / d.flops["bf16"] for d in map(device.load, device.names()) if "bf16" in d.measured
    ]
    assert statistics.median(measured) == pytest.approx(device.REACHED, abs=5e-4)
    mi300x = device.load("mi300x")
    assert mi300x.reached("bf16") == mi300x.reached("float16") == pytest.approx(668.4 / 1307.4, rel=1e-3)
    assert device.load("h100").reached("fp8") == pytest.approx(1402.6 / 1979, rel=1e-3)
    assert device.load("tpu-v5p").reached("bf16") == device.REACHED
    assert device.load("v100-sxm2-32gb").reached("fp32") == 1, "no tensor units"


def test_a_profile_of_the_datasheet_follows_what_was_measured():
    plain = stack.load("megatron-2021")._replace(like="")  # nothing is fitted to it
    profiles = [profile_for(device.load(name), "bfloat16", plain) for name in ("mi300x", "h100")]
    shares = [p.forms["matmul"].share for p in profiles]
    # Of one source; the profile's table of products has the medians of several.
    assert shares[0] / shares[1] == pytest.approx((668.4 / 1307.4) / (794.5 / 989.4), rel=0.15)


@pytest.mark.parametrize(
    ("name", "dtype", "tflops"),
    # As torch-matmuls has them; it has no RTX 4080, which is as other GeForce boards, relative to its peak.
    [("4090", "fp16", 166), ("5090", "bf16", 238), ("h20", "bf16", 142), ("a6000", "bf16", 123),
     ("t4", "fp16", 41.9), ("3090", "fp32", 24.8), ("a100", "fp32", 19.2), ("4080", "bf16", 1.054 * 97.5)],
)  # fmt: skip
def test_products_reach_what_torch_was_measured_to_reach(name, dtype, tflops):
    one, plain = device.load(name), stack.load("megatron-2021")._replace(like="")
    profile = profile_for(one, dtype, plain)
    usual = (
        profile_for(device.load("h100"), "bf16", plain).forms["matmul"].share / 0.752
    )  # what all stacks share
    assert profile.forms["matmul"].share * one.rate(dtype) / usual == pytest.approx(tflops * 1e12, rel=0.1)


def test_a_t4_trains_at_what_its_power_lets_it_keep_up():
    t4, plain = device.load("t4"), stack.load("megatron-2021")._replace(like="")
    for dtype, kept in (
        ("fp16", 24 / 41.9),
        ("fp32", 1),
    ):  # cuBLAS's, over and over
        served, trained = (profile_for(t4, dtype, plain, mode=mode) for mode in ("forward", "train"))
        for form in "matmul", "conv":
            assert trained.forms[form].share / served.forms[form].share == pytest.approx(kept, rel=0.01)
        assert trained.memory == served.memory
    h100 = device.load("h100")
    assert profile_for(h100, "bf16", plain, mode="train") == profile_for(h100, "bf16", plain)


@pytest.mark.parametrize("name", [n for n in device.names() if device.load(n).vendor == "Apple"])
def test_cores_are_those_of_the_name(name):
    table = json.loads(Path(DATA, "devices", f"{name}.json").read_text())
    assert f"({table['cores']}-core" in table["name"]
