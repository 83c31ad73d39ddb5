"""Calibration finds what made the records; validation counts what it missed; bad results are one line."""

import json
import math
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from budget.__main__ import main
from budget.command import calibrate
from budget.device import _load, load, profile
from budget.device.kernel_class import Dispatch
from budget.errors import InputError
from budget.measured import alone, calibration, record, replay, validation
from budget.measured import workload as workloads
from budget.measured.collectives import links
from budget.report import _validation, render

CPU = load("cpu")
NAME = profile.key(CPU)
TRUE = {
    **calibration.START,
    "memory": 3.0,
    "launch_s": 2e-6,
    "forms.matmul.share": 0.6,
    "forms.matmul.edge.0": 7.0,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    profile._profile_for.cache_clear()
    yield tmp_path
    profile._profile_for.cache_clear()


def gemm(m, n, k):
    line = "!x: s d, *d f, +*f -> z: s f"
    return {
        "ops": [["product", line, "contract"]],
        "mode": "forward",
        "sizes": {"s": m, "f": n, "d": k},
        "dtype": "float32",
    }


def copy(s):
    return {
        "ops": [["copy", "!x: s d -> z: s d", "copy"]],
        "mode": "forward",
        "sizes": {"s": s, "d": 256},
        "dtype": "float32",
    }


def mlp(width, mode):
    settings = {
        "attention": "fused",
        "execution": "eager",
        "optimizer": "sgd",
        "dtype": "float32",
        "batch": 8,
    }
    return {"model": "mlp", "config": {"sizes": [width, width, 4]}, "mode": mode, **settings}


def entry(suite, case, split, workload, seconds, **info):
    extra = {
        "schema": record.SCHEMA, "device": NAME, "suite": suite, "case": case, "split": split,
        "dtype": "float32",
        "workload": workload, "implementation": "torch", "statistic": "min", "method": "made up", **info,
    }  # fmt: skip
    return {"fullname": f"{suite}[{case}]", "stats": {"min": seconds}, "extra_info": extra}


def entries(noise=0.0):
    """What a device with the numbers of TRUE would have measured."""
    random = np.random.default_rng(0)
    made = calibration.build(TRUE, CPU, ("float32",), {})
    found = []
    shapes = [(m, n, k) for m in (1, 8, 64, 500) for n in (32, 700) for k in (64, 900)]
    work = [("matmul", f"{s}", gemm(*s)) for s in shapes]
    work += [
        ("memory_bandwidth", f"{s}", copy(s))
        for s in (4, 64, 300, 512, 2000, 4096, 9000, 16384, 30000, 50000)
    ]
    work += [
        ("models", f"mlp{w}-{mode}", mlp(w, mode))
        for w in (8, 16, 20, 40, 64, 100)
        for mode in ("forward", "train")
    ]
    for i, (suite, case, workload) in enumerate(work):
        seconds = workloads.predict(workload, CPU, made) * math.exp(random.normal(0, noise))
        found.append(entry(suite, case, "held" if i % 5 == 2 else "fit", workload, seconds))
    return found


def results(folder, benchmarks):
    path = folder / "results.json"
    path.write_text(json.dumps({"benchmarks": benchmarks}), encoding="utf-8")
    return str(path)


def test_it_finds_what_made_the_records(folder):
    records = record.load(results(folder, entries()))
    found = calibration.fit(records, CPU, {})
    rows = validation.rows(records, CPU, found)
    assert max(abs(r.error) for r in rows) < 0.05
    assert found.forms["matmul"].share == pytest.approx(0.6, rel=0.1)
    assert found.forms["matmul"].edge[0] == pytest.approx(7.0, rel=0.3)


def test_what_no_record_tells_stays_where_it_starts(folder):
    rows = [e for e in entries() if "1," not in e["fullname"] and "x" not in e["fullname"]]
    found = calibration.fit(record.load(results(folder, rows)), CPU, {})
    for k, edge in enumerate(
        found.forms["matmul"].edge[1:], 1
    ):  # of 32 and 64 or more: next to nothing is lost
        assert 0.3 < edge / calibration.START[f"forms.matmul.edge.{k}"] < 3


def test_its_interval_holds_what_it_has_not_seen(folder):
    records = record.load(results(folder, entries(noise=0.1)))
    found = calibration.fit(records, CPU, {})
    assert found.kernels[1] > math.exp(0.1)
    assert found.low == pytest.approx(1 / found.high)
    assert sum(r.inside for r in validation.rows(records, CPU, found)) >= 0.8 * len(
        validation.rows(records, CPU, found)
    )


def test_interval_is_the_rank_that_covers():
    errors = [math.log(1 + i / 100) * (-1) ** i for i in range(1, 20)]
    assert calibration.interval(errors, 0.9) == pytest.approx(1.18)  # the 18th of 19
    assert calibration.interval(errors[:3], 0.9) == pytest.approx(1.03)  # all of three
    assert calibration.interval([]) == 10.0


def test_a_limit_for_collectives_alone(folder, capsys, monkeypatch):
    workload = {"collective": "all_reduce", "nodes": 1}
    rows = [entry("collectives", "a", "held", workload, 1e-3, bytes=1e6, implementation="gloo")]
    linked = profile.profile_for(CPU)._replace(links={"all_reduce-1": (1e-5, 1e9)})
    monkeypatch.setattr(profile, "profile_for", lambda *_: linked)
    asked = ["validate", results(folder, rows), "--device", "cpu"]
    assert main(asked) == 0
    assert main([*asked, "--max-median", "5%"]) == 2
    assert "--max-median: got records of collectives only" in capsys.readouterr().err


def test_links_are_a_start_and_a_bandwidth(folder):
    rows = []
    for size in (1e3, 1e5, 1e6, 1e8):
        workload = {"collective": "all_reduce", "bytes": size, "ranks": 2, "nodes": 1}
        rows.append(
            entry(
                "collectives",
                f"{size}",
                "fit",
                workload,
                2e-5 + size / 4e9,
                bytes=size,
                implementation="gloo",
            )
        )
    for drop, name in ((rows[0]["extra_info"]["workload"], "nodes"), (rows[1]["extra_info"], "bytes")):
        kept = drop.pop(name)
        with pytest.raises(InputError, match=f"{name} is None; allowed: a positive number"):
            record.load(results(folder, rows))
        drop[name] = kept
    start, bandwidth = links(record.load(results(folder, rows)))["all_reduce-1"]
    assert (start, bandwidth) == (pytest.approx(2e-5), pytest.approx(4e9))


def test_the_commands_one_after_the_other(folder, capsys):
    path = results(folder, entries(noise=0.05))
    assert main(["calibrate", path, "--device", "cpu"]) == 0
    assert "profile written to" in capsys.readouterr().out
    assert main(["validate", path, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "measured on this device" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert main(["validate", path, "--device", "cpu", "--max-median", "0.1%"]) == 1
    capsys.readouterr()
    assert main(["validate", path, "--device", "cpu", "--format", "json", "--max-median", "50%"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "budget.validate/1"
    assert {"median", "p90", "bias", "coverage"} <= set(answer["summary"][0])
    main(["estimate", "mlp-10-20-10-2", "--device", "cpu"])
    assert "measured on this device" in " ".join(capsys.readouterr().out.split())


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


def without(name):
    found = entries()
    del found[3]["extra_info"][name]
    return json.dumps({"benchmarks": found})


BROKEN = [
    (json.dumps({"benchmarks": entries()})[:5000], "truncated"),
    ("", "truncated or no JSON"),
    ("[1, 2]", "not of pytest-benchmark"),
    (json.dumps({"benchmarks": [{"stats": {}}]}), "schema none"),
    (json.dumps({"benchmarks": entries()}).replace(record.SCHEMA, "budget.record/9"), "budget.record/9"),
    (json.dumps({"benchmarks": entries()}).replace(NAME, "h900"), "h900"),
    (without("workload"), "workload is missing"),
    (json.dumps({"benchmarks": entries()}).replace('"min": ', '"min": -'), "positive seconds"),
    (json.dumps({"benchmarks": entries()}).replace("s d, *d f", "s d, *d g"), "workload"),
    (json.dumps({"benchmarks": entries()[:5]}), "20 or more"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_bad_results_are_one_line(folder, capsys, text, said):
    path = folder / "bad.json"
    path.write_text(text, encoding="utf-8")
    assert main(["calibrate", str(path), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_checkout_s_records_are_not_taken_for_this_processor_s(monkeypatch, tmp_path):
    """Virtual machines name many processors alike."""
    key = "amd-epyc-2-cores"
    monkeypatch.setattr(record, "own_folder", lambda: str(tmp_path))
    assert record.read([], key)
    assert calibrate._own(CPU, key) == []
    shutil.copytree(os.path.join(record.results_folder(), key), tmp_path / key)
    assert calibrate._own(CPU, key)
    assert calibrate._own(load("h200"), "h200") == record.read([], "h200")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["validate", "nowhere.json", "--device", "cpu"], "there is no nowhere.json"),
        (["validate", "--device", "h900"], "unknown name"),
        (["validate", "--device", "b300"], "no records of B300"),
        (["calibrate", "--device", "b300"], "not in this machine"),
        (["validate", "--max-median", "much"], "--max-median"),
        (["validate", "--format", "pdf"], "--format"),
        (["validate", "--wat"], "unknown name"),
    ],
)
def test_bad_usage_is_one_line(capsys, argv, said):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_newest_record_counts(folder):
    for number, seconds in ((1, 1.0), (2, 2.0)):
        row = entry("matmul", "a", "fit", gemm(1, 2, 3), seconds, versions={"torch": str(number)})
        (folder / f"000{number}_x.json").write_text(json.dumps({"benchmarks": [row]}))
    assert [r.seconds for r in record.read([str(folder)], NAME)] == [2.0]


def test_of_runs_with_the_same_versions_the_least_counts(folder):
    for number, seconds in ((1, 1.0), (2, 2.0)):
        row = entry("matmul", "a", "fit", gemm(1, 2, 3), seconds)
        (folder / f"000{number}_x.json").write_text(json.dumps({"benchmarks": [row]}))
    assert [r.seconds for r in record.read([str(folder)], NAME)] == [1.0]


def test_a_network_without_its_own_code_is_faster():
    program = workloads.work(mlp(8, "forward"))
    slow = calibration.build(TRUE, CPU, ("float32",), {})._replace(dispatch=Dispatch(1e-3, 1e-3, 1e-3))
    assert workloads.seconds(program._replace(bare=True), CPU, slow) < workloads.seconds(program, CPU, slow)


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


def test_a_worse_profile_is_not_stored(folder, capsys):
    path = results(folder, entries())
    assert main(["calibrate", path, "--device", "cpu"]) == 0
    stored = folder / "data" / "compute-budget" / "profiles" / f"{NAME}.json"
    kept = stored.read_text("utf-8")
    bad = entries()
    for row in bad:  # what is fitted is disturbed, what is held out is not
        if row["extra_info"]["split"] == "fit":
            row["stats"]["min"] *= 1.5
    capsys.readouterr()
    assert main(["calibrate", results(folder, bad), "--device", "cpu"]) == 2
    assert "which is kept" in capsys.readouterr().err
    assert stored.read_text("utf-8") == kept
    stored.write_text("{", encoding="utf-8")
    assert main(["calibrate", results(folder, bad), "--device", "cpu"]) == 0


def test_disturbed_records_are_not_fitted_to(folder):
    rows = entries()
    for row in rows[:8]:
        row["extra_info"]["waited"] = 0.2
        row["stats"]["min"] *= 3
    for row in rows[8:]:
        row["extra_info"]["interquartile_range_s"] = 0.1 * row["stats"]["min"]
    found = record.load(results(folder, rows))
    assert sum(r.disturbed for r in found) == 8
    with pytest.raises(InputError, match="disturbed ones apart"):
        calibration.fit(found[:14], CPU, {})
    rows[20]["extra_info"]["interquartile_range_s"] = rows[20]["stats"]["min"]
    assert record.load(results(folder, rows))[20].disturbed


def test_a_checkout_stays_as_it_is(folder, monkeypatch):
    """Records of calibrate are beside its profiles, where it finds them; the suite has the lock."""
    asked = []

    def suite(ask, **_):
        with alone.alone():
            asked.extend(ask)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(calibrate.subprocess, "run", suite)
    monkeypatch.setenv(alone.BUSY_ANYWAY, "1")
    calibrate.measure(load("cpu"))
    where = asked[asked.index("--results") + 1]
    assert where == record.own_folder() == str(folder / "data" / "compute-budget" / "results")
    key = profile.key(load("cpu"))
    os.makedirs(os.path.join(where, key))
    rows = entries()
    for row in rows:
        row["extra_info"]["device"] = key
    shutil.copy(results(folder, rows), os.path.join(where, key, "0001.json"))
    assert {r.name for r in record.load(results(folder, rows))} <= {r.name for r in record.read([], key)}


def test_a_second_suite_and_a_busy_machine_are_refused(monkeypatch):
    import psutil

    with alone.alone(), pytest.raises(InputError, match="another suite measures this machine"), \
            alone.alone():  # fmt: skip
        pass
    with alone.alone():  # the lock ends with its suite
        pass
    monkeypatch.setattr(psutil, "cpu_percent", lambda _: 85.0)
    with pytest.raises(InputError, match="other programs use 85% of the processors; allowed: 20%"):
        alone.idle()
    monkeypatch.setattr(psutil, "cpu_percent", lambda _: 3.0)
    alone.idle()
