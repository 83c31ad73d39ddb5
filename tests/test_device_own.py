"""A device from a file of one's own: `--device mine.json`."""

import json
import math

import pytest

from budget import device, estimate, table
from budget.device import own
from budget.errors import InputError


def file_of(folder, **changes):
    about = {**table.load("devices", "h100-sxm.json"), **changes}
    path = folder / "mine.json"
    path.write_text(json.dumps({k: v for k, v in about.items() if v is not None}), "utf-8")
    return str(path)


def test_a_device_of_ones_own_is_one_as_the_data_has_it(tmp_path):
    own, shipped = device.load(file_of(tmp_path)), device.load("h100")
    assert own._replace(id=shipped.id) == shipped
    assert device.several(file_of(tmp_path), 2) == (file_of(tmp_path), 2)
    bare = {"name": "Mine", "memory_gb": 24, "bandwidth_gb_s": 900, "bf16_tflops": 100, "source": "a page"}
    (tmp_path / "bare.json").write_text(json.dumps(bare), "utf-8")
    found = estimate("gpt2", device=str(tmp_path / "bare.json"), mode="decode")
    assert found.device.name == "Mine" and found.times.step > 0


@pytest.mark.parametrize("name", device.names())
def test_every_device_of_the_data_is_one_that_a_file_could_have(name):
    own.check(table.load("devices", f"{name}.json"), name)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"source": None}, "source is missing"),
        ({"memory_gb": None}, "memory_gb is missing"),
        ({"host": None}, "host is missing"),
        ({"fp32_tflops": None, "bf16_tflops": None}, "fp32_tflops is missing; bf16_tflops stands in for it"),
        ({"bandwidth_gb_s": -3350}, "bandwidth_gb_s: got -3350; allowed: 1e-06 to 1e+12"),
        ({"bf16_tflops": "fast"}, "bf16_tflops: got 'fast'; allowed: 1e-06 to 1e+12"),
        ({"name": 100}, "name: got 100; allowed: text"),
        ({"wheels": 4}, "wheels is no field here; "),
        (
            {"up_to_mhz": 1000},
            "up_to_mhz: got 1000; allowed: 1,98",
        ),
        ({"up_to_mhz": 2500, "sms": None}, "up_to_mhz: needs sms, fp32_tflops and a generation whose clock"),
        ({"usd_per_hour": 2}, "usd_per_hour: got 2; allowed: a low and a high price"),
    ],
)
def test_a_wrong_file_of_a_device_is_named_with_its_field(tmp_path, changes, problem):
    with pytest.raises(InputError) as said:
        device.load(file_of(tmp_path, **changes))
    assert str(said.value).startswith(f"device: mine.json: {problem}")


@pytest.mark.parametrize("field", own.FIELDS)
def test_a_wrong_type_and_what_is_no_figure_are_refused(tmp_path, field):
    text = field in own.TEXTS
    for value in (
        True,
        -3,
        [],
        [-1, 2],
        [3, 2],
        [3],
        {"": 1},
        math.nan,
        math.inf,
        10**400,
        *([] if text else ["warp"]),
    ):
        if (field, value) in (("aliases", []), ("sold_gb", [3, 2]), ("sold_gb", [3])):
            continue
        with pytest.raises(InputError, match=rf"^device: mine.json: {field}: got .*; allowed: ") as said:
            device.load(file_of(tmp_path, **{field: value}))
        assert "\n" not in str(said.value)


def test_no_file_of_a_device(tmp_path):
    (tmp_path / "list.json").write_text("[]", "utf-8")
    (tmp_path / "torn.json").write_text("{", "utf-8")
    for name, problem in {"list": "list.json: got", "torn": "cannot read", "none": "cannot read"}.items():
        with pytest.raises(InputError, match=problem):
            device.load(str(tmp_path / f"{name}.json"))
