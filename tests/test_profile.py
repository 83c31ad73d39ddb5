"""Profiles: written and read, found or borrowed, and what a broken one says."""

import errno
import os
import re
from pathlib import Path

import pytest

from budget.device import load
from budget.device import profile as profiles
from budget.device.kernel_class import KernelClass, complete
from budget.device.profile import FOLDER, borrow, dump, key, profile_for, save
from budget.errors import InputError

CPU, H200 = load("cpu"), load("h200")
DATASHEET = profiles.load(os.path.join(FOLDER, "datasheet.json"))


@pytest.fixture(autouse=True)
def folder(folder):
    """The profiles in a user's data folder of its own (conftest.py)."""
    return profiles.user_folder()


def measured(of, **changes):
    """The datasheet's profile with a few numbers of its own."""
    forms = {
        **DATASHEET.forms,
        "matmul": KernelClass(share=0.25, edge=(1.5, 0.25, 8.0), tile=(128, 128), overlap=0.5),
    }
    values = {"name": of.name, "provenance": "measured", "device": key(of), "forms": complete(forms)}
    values |= {
        "steps": ((1e6, 0.5),),
        "low": 0.9,
        "high": 1.125,
        "dtypes": ("float32",),
        "links": {"all_reduce-1": (1e-5, 1e9)},
    }
    return DATASHEET._replace(**{**values, "source": "", **changes})


def test_written_and_read_again(folder):
    more = {"prompt": 2.0, "host": 1.5, "kernels": (0.9, 1.1), "fresh": 4.0, "turn": (1e-3, 1e-5)}
    original = measured(H200, dtypes=(), calls={"grouped": 1.0}, fp4=True, **more)
    path = save(original, folder, ["a note"])
    again = profiles.load(path)
    assert again == original
    assert profile_for(H200) == again
    assert "measured on this device" in again.summary


def test_a_shipped_profile_is_another_machine_of_the_name(tmp_path, monkeypatch):
    shipped = save(measured(CPU), str(tmp_path / "shipped"))
    monkeypatch.setattr(profiles, "FOLDER", os.path.dirname(shipped))
    Path(profiles.FOLDER, "datasheet.json").write_text(dump(DATASHEET), encoding="utf-8")
    found = profile_for(CPU)
    assert found.provenance == "borrowed" and "another machine" in found.summary
    assert found.high > 1.125
    recorded = CPU._replace(vendor="another machine")  # whose records are replayed: it is that one
    assert profile_for(recorded).provenance == "measured"
    save(measured(CPU), profiles.user_folder())
    assert profile_for(CPU).provenance == "measured"


def test_shipped_profiles_are_sound():
    for name in os.listdir(FOLDER):
        found = profiles.load(os.path.join(FOLDER, name))
        assert found.device == name.removesuffix(".json")
        assert found.low < 1 < found.high


def test_the_datasheet_is_the_last_resort():
    found = profile_for(load("tpu-v5e"))
    assert found.provenance == "datasheet"
    assert "from the datasheet" in found.summary


def test_the_users_own_comes_first(folder):
    save(measured(CPU), folder)
    assert profile_for(CPU, "float32").provenance == "measured"


def test_in_a_format_that_was_not_measured_it_is_borrowed(folder):
    save(measured(CPU), folder)
    found = profile_for(CPU, "bfloat16")
    assert found.provenance == "borrowed"
    assert "measured in float32, not in bfloat16" in found.summary


def test_a_processor_borrows_from_the_nearest(folder):
    for name in ("another-maker-x9-64-cores", "some-maker-x7-8-kerns"):
        save(measured(CPU, device=name, name=name, serial=True), folder)
    found = profile_for(CPU._replace(name="Some Maker X7, 8 cores of another kind"), "float32")
    assert found.provenance == "borrowed"
    assert "another-maker" not in found.name


def test_borrowed_is_wider_than_measured_and_datasheet():
    own, sheet = measured(CPU), profiles.load(os.path.join(FOLDER, "datasheet.json"))
    wide = borrow(own, "why")
    assert wide.low < min(own.low, sheet.low)
    assert wide.high > max(own.high, sheet.high)


GOOD = dump(measured(H200))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD[: len(GOOD) // 2] + '"', "h200"),
        ("{}", "schema"),
        ("[1]", "schema"),
        ("", "cannot read"),
        (GOOD.replace("budget.profile/1", "budget.profile/9"), "budget.profile/9"),
        (GOOD.replace("launch_s", "lunch_s"), "lunch_s is no field here; did you mean 'launch_s'"),
        (re.sub('"launch_s": [^,]*,', "", GOOD), "h200.json: launch_s is missing"),
        (GOOD.replace('"memory": ', '"memory": -'), "memory: got -.*; allowed: 1e-09 to 1e"),
        (GOOD.replace('"share": 0.25', '"share": "much"'), "forms.*share: got 'much'"),
        (GOOD.replace('"share": 0.25', '"share": 0'), "forms.*share: got 0; allowed: 1e-09"),
        (GOOD.replace('"share": 0.25', '"sharp": 0.25'), "sharp is no field here; did you mean 'share'"),
        (GOOD.replace('"low": 0.9', '"low": 1.9'), "low: got 1.9; allowed: 1e-09 to 1"),
        (re.sub('"memory": [^,]*', '"memory": Infinity', GOOD), "memory: got inf"),
        (GOOD.replace('"serial": false', '"serial": "false"'), "serial: got 'false'; allowed: true, false"),
        (re.sub('"steps": ', '"steps": [[1]], "dtypes": ', GOOD), "steps: got .*allowed: 2 numbers"),
        ("\x00\xff", "h200"),
    ],
)
def test_a_broken_profile_is_one_line(folder, text, said):
    os.makedirs(folder)
    with open(os.path.join(folder, "h200.json"), "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(InputError, match=said) as caught:
        profile_for(H200)
    assert "\n" not in str(caught.value)


def test_a_full_disk_loses_nothing(folder, monkeypatch):
    path = save(measured(H200), folder)
    before = Path(path).read_text("utf-8")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        save(measured(H200, low=0.1), folder)
    assert Path(path).read_text("utf-8") == before
    assert os.listdir(folder) == [os.path.basename(path)]


def test_a_relative_data_home_is_ignored(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "here")
    assert os.path.isabs(profiles.user_folder())
