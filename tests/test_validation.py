"""Validation counts what calibration missed, and replays the records of any machine."""

import json

import pytest
from made_records import CPU, TRUE, entries, entry, results

from budget.__main__ import main
from budget.device import _load, profile
from budget.errors import InputError
from budget.measured import calibration, record, replay, validation
from budget.report import _validation, render

pytestmark = pytest.mark.usefixtures("folder")


def test_a_limit_for_collectives_alone(folder, capsys, monkeypatch):
    workload = {"collective": "all_reduce", "nodes": 1}
    rows = [entry("collectives", "a", "held", workload, 1e-3, bytes=1e6, implementation="gloo")]
    linked = profile.profile_for(CPU)._replace(links={"all_reduce-1": (1e-5, 1e9)})
    monkeypatch.setattr(profile, "profile_for", lambda *_: linked)
    asked = ["validate", results(folder, rows), "--device", "cpu"]
    assert main(asked) == 0
    assert main([*asked, "--max-median", "5%"]) == 2
    assert "--max-median: got records of collectives only" in capsys.readouterr().err


def test_a_long_name_has_a_second_line(folder):
    """The longest that processors have is 48 characters (CPUID's brand string), and the number of cores."""
    device = CPU._replace(name=f"{'Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz':48}, 128 cores")
    made = calibration.build(TRUE, CPU, ("float32",), {})
    rows = validation.rows(record.load(results(folder, entries())), CPU, made)
    text = render(_validation.answer(rows, device, made), "table")
    assert " ".join(device.name.split()) in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_html_is_one_file_with_two_figures(folder, capsys):
    path, page = results(folder, entries(noise=0.05)), folder / "accuracy.html"
    assert main(["validate", path, "--device", "cpu", "--format", "html", "--output", str(page)]) == 0
    text = page.read_text("utf-8")
    assert text.count("<svg") == text.count("</svg>") == 2
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")  # a name, no address
    assert text.count("translate(") > 10


def test_too_few_held_out_is_an_error(folder):
    with pytest.raises(InputError, match="not seen"):
        validation.rows([], CPU, calibration.build(TRUE, CPU, (), {}))


def test_shipped_records_are_replayed_on_any_machine(folder, capsys, monkeypatch):
    shipped = replay.shipped()
    assert {"amd-epyc-1-core", "h200"} <= set(shipped)
    page = folder / "accuracy.html"
    assert main(["validate", record.results_folder(), "--format", "html", "--output", str(page)]) == 0
    text = page.read_text("utf-8")
    assert "AMD EPYC, 1 core" in text and "H200" in text and text.count("<svg") == 2 * len(shipped)
    assert page.stat().st_size < 300_000
    _load.cache_clear()
    monkeypatch.setattr("budget.device.machine.processor", lambda: "Another processor")
    assert main(["validate", "--format", "json"]) == 0
    _load.cache_clear()  # not this machine's for the tests that follow
    found = {a["device"]: a for a in json.loads(capsys.readouterr().out)}
    known = {s["name"]: s for s in found["AMD EPYC, 1 core"]["summary"]}
    assert found["AMD EPYC, 1 core"]["profile"] == "measured"
    assert known["all kernels"]["median"] < 0.1 and known["all kernels"]["coverage"] > 0.85


def test_a_replayed_processor_has_the_rates_of_its_records(folder):
    rows = entries()
    for row in rows:
        row["extra_info"] |= {"device": "some-cpu-3-cores", "tflops": 0.03, "share_of_peak": 0.3,
                              "gb_s": 5.0, "share_of_bandwidth": 0.5}  # fmt: skip
    path = results(folder, rows)
    assert list(replay.owners([path])) == ["some-cpu-3-cores"]
    device = replay.recorded(record.read([path], "some-cpu-3-cores"), "some-cpu-3-cores")
    assert (device.rate("fp32"), device.bandwidth, device.sms) == (
        pytest.approx(1e11),
        pytest.approx(1e10),
        3,
    )
    assert profile.key(device) == "some-cpu-3-cores"
    with pytest.raises(InputError, match="do not say its rates"):
        replay.recorded([], "some-cpu-3-cores")
