"""Calibration finds what made the records; bad results are one line; a busy machine is refused."""

import json
import math
import os
import shutil
from types import SimpleNamespace

import pytest
from made_records import CPU, NAME, TRUE, copy, entries, entry, gemm, mlp, results

from budget.__main__ import main
from budget.command import calibrate
from budget.device import load, profile
from budget.device.kernel_class import Dispatch
from budget.errors import InputError
from budget.measured import alone, calibration, record, validation
from budget.measured import workload as workloads
from budget.measured.collectives import links

pytestmark = pytest.mark.usefixtures("folder")


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


def test_a_gradient_has_numbers_of_its_own_where_it_was_measured(folder):
    """A kernel's gradient that is five times as slow per element as the kernel."""
    true = {**TRUE, "forms.fused_rms_norm.vector": 0.05, "forms.fused_rms_norm_backward.vector": 0.01}
    made = calibration.build(true, CPU, ("float32",), {})
    rows = []
    for mode in ("forward", "train"):
        for s in (64, 256, 1024, 4096):
            ops = [["norm", "*x: s d, *d -> y: s d", "fused_rms_norm"]]
            workload = {"ops": ops, "mode": mode, "sizes": {"s": s, "d": 64}, "dtype": "float32"}
            seconds = workloads.predict(workload, CPU, made)
            rows.append(entry("rms_norm", f"{s}-{mode}", "fit", workload, seconds))
    found = calibration.fit(record.load(results(folder, [*entries(), *rows])), CPU, {}).forms
    forward, back = (found[f"fused_rms_norm{phase}"].vector for phase in ("", "_backward"))
    assert forward / back == pytest.approx(5, rel=0.2)


def test_copies_that_are_mapped_tell_what_a_new_page_costs(folder):
    made = calibration.build({**TRUE, "fresh": 8.0}, CPU, ("float32",), {})
    rows = []
    for s in (20000, 30000, 50000, 150000):  # 20 to 154 MB
        seconds = workloads.predict(copy(s), CPU, made)
        rows.append(entry("memory_bandwidth", f"copy-{s}", "fit", copy(s), seconds))
    found = calibration.fit(record.load(results(folder, [*entries(), *rows])), CPU, {})
    assert found.fresh == pytest.approx(8, rel=0.1)
    assert calibration.fit(record.load(results(folder, entries())), CPU, {}).fresh < 0.5


def test_its_interval_holds_what_it_has_not_seen(folder):
    inside = []
    for seed in range(5):
        records = record.load(results(folder, entries(noise=0.1, seed=seed)))
        found = calibration.fit(records, CPU, {})
        assert found.kernels[1] > math.exp(0.1)
        assert found.low == pytest.approx(1 / found.high)
        inside += [r.inside for r in validation.rows(records, CPU, found)]
    assert sum(inside) >= 0.8 * len(inside)


def test_interval_is_the_rank_that_covers():
    errors = [math.log(1 + i / 100) * (-1) ** i for i in range(1, 20)]
    assert calibration.interval(errors, 0.9) == pytest.approx(1.18)  # the 18th of 19
    assert calibration.interval(errors[:3], 0.9) == pytest.approx(1.03)  # all of three
    assert calibration.interval([]) == 10.0


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
    for number, seconds in ((1, 3.0), (2, 1.0), (3, 2.0)):
        row = entry("matmul", "a", "fit", gemm(1, 2, 3), seconds)
        (folder / f"000{number}_x.json").write_text(json.dumps({"benchmarks": [row]}))
    (found,) = record.read([str(folder)], NAME)
    assert (found.seconds, found.again, found.confirmed) == (1.0, 1.0, False)  # the next one took one longer


@pytest.mark.parametrize(
    ("runs", "confirmed"), [((1.0,), False), ((1.0, 3.0, 1.04), True), ((2.0, 1.0, 2.0), False)]
)
def test_a_case_is_confirmed_by_a_second_run_as_fast(folder, runs, confirmed):
    for number, seconds in enumerate(runs):
        row = entry("matmul", "a", "fit", gemm(1, 2, 3), seconds)
        (folder / f"000{number}_x.json").write_text(json.dumps({"benchmarks": [row]}))
    (found,) = record.read([str(folder)], NAME)
    assert found.confirmed is confirmed


def test_a_network_without_its_own_code_is_faster():
    program = workloads.work(mlp(8, "forward"))
    slow = calibration.build(TRUE, CPU, ("float32",), {})._replace(dispatch=Dispatch(1e-3, 1e-3, 1e-3))
    assert workloads.seconds(program._replace(bare=True), CPU, slow) < workloads.seconds(program, CPU, slow)


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
            asked.append(ask)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(calibrate.subprocess, "run", suite)
    monkeypatch.setenv(alone.BUSY_ANYWAY, "1")
    calibrate.measure(load("cpu"))
    assert len(asked) == calibrate.MOST_PASSES
    assert asked.count(asked[0]) == calibrate.PASSES
    assert asked.count([*asked[0], "--unsure"]) == calibrate.MOST_PASSES - calibrate.PASSES
    where = asked[0][asked[0].index("--results") + 1]
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
