"""Names of devices: ids, aliases, what drivers show and what people type."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import device, table
from budget.device import spelled
from budget.errors import InputError


@pytest.mark.parametrize(("name", "chip", "usable"), [
    ("m1 8gb", "m1", 5461), ("M1 16GB", "m1", 10922), ("MacBook Air M2 24 GB", "m2", 16384),
    ("macbook pro m2 max 32gb", "m2-max", 21845), ("M4 Max 36GB", "m4-max-32", 27648),
    ("m3 max 36gb", "m3-max-30", 27648), ("m3-max-48gb", "m3-max", 36864),
    ("mac studio m2 max 96gb", "m2-max", 73728), ("m1 max 64gb", "m1-max", 49152),
    ("mac mini m4 pro 24gb", "m4-pro", 16384),
])  # fmt: skip
def test_a_chip_with_each_memory_that_it_is_sold_with(name, chip, usable):
    """Of which a program gets what ggml_metal_init logs as recommendedMaxWorkingSetSize, in MiB: 5461 of
    8 GB, 10922 of 16, 16384 of 24, 21845 of 32, 27648 of 36, 36864 of 48, 49152 of 64, 73728 of 96.
    """
    found = device.load(name)
    assert (found.id, found.usable_bytes // device.MIB) == (chip, usable)
    assert found.bandwidth == device.load(chip).bandwidth


@pytest.mark.parametrize("name", ["m1 32gb", "m4 max 16gb", "m3 ultra 128gb"])
def test_a_memory_that_a_chip_is_not_sold_with(name):
    with pytest.raises(InputError, match="did you mean"):
        device.load(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100", "h100-sxm"),
        ("H100 SXM", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA B200", "b200"),
        ("a100", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("Tesla V100-SXM2-16GB", "v100-sxm-16gb"),
        ("Tesla T4", "t4"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("A100 80GB SXM", "a100-80gb"),
        ("A100 40 GB PCIe", "a100-pcie-40gb"),
        ("GB200 NVL72", "gb200"),
        ("AMD Instinct MI300X", "mi300x"),
        ("Apple M1 Max", "m1-max"),
        ("TPU v5p", "tpu-v5p"),
        ("trillium", "tpu-v6e"),
        ("rtx4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("RTX 4090 24GB", "rtx-4090"),
        ("RTX 2060 8GB", "rtx-2060-super"),
        ("RTX 2060 12GB", "rtx-2060-12gb"),
        ("rtx3080ti-16GB", "rtx-3080-ti-mobile"),
        ("RTX 4090 16GB", "rtx-4090-mobile"),
        ("MacBook Pro M3 Max", "m3-max"),
        ("mac-mini_m4", "m4"),
        ("m2 air", "m2"),
        ("colab t4", "t4"),
        ("tpuv4", "tpu-v4"),
        ("v5e", "tpu-v5e"),
        ("mi300", "mi300x"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090-mobile"),
        ("4090 laptop", "rtx-4090-mobile"),
        ("Ryzen AI Max+ 395", "strix-halo"),
        ("h100-80gb", "h100-sxm"),
        ("a100 80gb", "a100-80gb"),
        ("a100-40", "a100-40gb"),
        ("v100 32GB", "v100-sxm-32gb"),
        ("1080 ti", "gtx-1080-ti"),
        ("rtx3060", "rtx-3060-12gb"),
        ("NVIDIA GeForce RTX 3080 Ti", "rtx-3080-ti"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000-workstation"),
        ("AMD Radeon RX 7900 XTX", "rx-7900-xtx"),
        ("7900xtx", "rx-7900-xtx"),
        ("Apple M4 Pro", "m4-pro"),
        ("dgx spark", "gb10"),
        ("910c", "ascend-910c"),
        ("A100 40G", "a100-40gb"),
        ("NVIDIA GeForce RTX 3050 Laptop GPU", "rtx-3050-mobile"),  # another processor than the card's
        ("NVIDIA TITAN X (Pascal)", "titan-x-pascal"),
        ("GeForce GTX TITAN X", "gtx-titan-x"),
        ("Tesla K40c", "k40"),
        ("Intel Data Center GPU Max 1550", "max-1550"),
        ("Jetson Orin NX 16GB", "jetson-orin-nx"),
    ],
)
def test_a_name_finds_its_device(name, expected):
    assert device.load(name).id == expected


def test_no_two_devices_share_a_name():
    tables = {name: table.load("devices", f"{name}.json") for name in table.files("devices")}
    known = [
        (spelled._key(name), key)
        for key, about in tables.items()
        for name in {key, *about.get("aliases", ())}
    ]
    assert len({key for key, _ in set(known)}) == len(set(known))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("h10", "did you mean 'h100"),
        ("h20-141gb", "H20 has 96 GB; allowed: that, or a file"),  # it was told GH200's 144 GB
        ("mi450", "did you mean 'mi455x'?"),  # a neighbour of one generation, no mi50
        ("mi308x", "did you mean 'mi300x'?"),
        ("b400", "did you mean 'b300'?"),  # no t400
        ("a200", "'a100"),
        ("mi30", "did you mean 'mi300"),
        ("NVIDIA GeForce RTX 5090 D", "budget list devices"),  # slower than the card without the letter
        ("a100 41gb", "did you mean 'a100-40gb'"),
        ("", "budget list devices"),
        ("?" * 10**6, "budget list devices"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(name, hint):
    with pytest.raises(InputError, match=r"^device: unknown name ") as caught:
        device.load(name)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@given(st.text(max_size=60))
def test_any_text_is_a_device_or_an_error(name):
    try:
        found = device.load(name)
    except InputError:
        return
    assert found.bandwidth > 0


def test_a_look_up_imports_nothing_heavy():
    program = (
        "import sys, budget.device as d; d.load('h100');"
        "print(sorted({'torch', 'numpy', 'psutil'} & set(sys.modules)))"
    )
    command = (sys.executable, "-c", program)
    root = Path(__file__).parents[1]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert output.strip() == "[]"


def test_a_device_is_known_by_the_name_that_lists_show():
    for name in device.names():
        assert device.load(device.load(name).name).id == name


@pytest.mark.parametrize(
    "text", ["2x h100", "2 x H100", "2xh100", "2x-h100", "2 h100", "h100 x2", "h100x2", "2 * h100", "H100:2"]
)
def test_a_name_may_say_how_many(text):
    assert device.several(text, None) == device.several(text, 2) == ("h100", 2)
    with pytest.raises(InputError, match=r"^devices: got 4, and "):
        device.several(text, 4)


RENTED = table.load("instances.json")["rented"]


@pytest.mark.parametrize(("has", "name"), [(has, name) for has, names in RENTED.items() for name in names])
def test_what_a_cloud_rents_is_its_devices(has, name):
    meant = device.several(has, None)
    assert device.several(name, None) == device.several(name.upper(), None) == meant
    assert device.several(name.removeprefix("Standard_"), 16) == (meant[0], 16)  # of several instances
    assert device.load(meant[0]).id in device.names()


@pytest.mark.parametrize(
    ("name", "of", "many"),
    [
        ("p4d.24xlarge", "a100-40gb", 8),
        ("g5.xlarge", "a10g", None),
        ("ND96isr_H100_v5", "h100-sxm", 8),
        ("a2-megagpu-16g", "a100-40gb", 16),
    ],
)
def test_instances_as_their_makers_describe_them(name, of, many):
    assert device.several(name, None) == (of, many)


@pytest.mark.parametrize("name", ["rtx4090", "gtx 1080 ti", "mi300x", "2x h999", "h100", "auto"])
def test_a_name_without_a_number_of_devices_stays(name):
    assert device.several(name, 8) == (name, 8)


@pytest.mark.parametrize(
    ("name", "of", "many"),  # Source: cloud-tpu-slices
    [
        ("v5litepod-8", "tpu-v5e", 8),
        ("v5e-16", "tpu-v5e", 16),  # and no chip of 16 GB
        ("v6e-256", "tpu-v6e", 256),
        ("v2-8", "tpu-v2", 4),
        ("v3-32", "tpu-v3", 16),
        ("tpu-v4-32", "tpu-v4", 16),
        ("V5p-128", "tpu-v5p", 64),
    ],
)
def test_a_slice_of_tpus_has_its_chips(name, of, many):
    assert device.several(name, None) == device.several(name, many) == (of, many)
    with pytest.raises(InputError, match=r"^devices: got 3, and "):
        device.several(name, 3)


def test_half_a_chip_is_no_slice():
    with pytest.raises(InputError, match=r"^device: got 'v4-7'; allowed: a multiple of 2"):
        device.several("v4-7", None)


def test_instances_of_sagemaker_are_those_of_aws():
    assert device.several("ml.p4d.24xlarge", None) == ("a100-40gb", 8)
    assert device.several("DGX H100", None) == ("h100-sxm", 8)
