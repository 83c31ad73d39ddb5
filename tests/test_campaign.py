"""The campaign: its parent outlives what becomes of workers, its plan reaches every setting, its import."""

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from budget.bench.campaign import __main__ as campaign
from budget.bench.campaign import follow, parent, precompile, prepare, summary
from budget.bench.campaign import lines as results
from budget.bench.campaign import tune as tuned
from budget.bench.campaign.plan import STAGES, candidates, find_case, tasks
from budget.bench.campaign.refused import RefusedError
from budget.bench.campaign.run import LOGGED, _shorten
from campaign_records import folder

from budget.kernels import settings, tune
from budget.measured import record

ROOT = Path(__file__).parents[1]


def run(*argv, seconds=150, **environment):
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_"))}
    env = {**outside, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    ask = [sys.executable, "-m", *argv]
    return subprocess.run(
        ask, cwd=ROOT, capture_output=True, text=True, check=False, env=env | environment, timeout=seconds
    )


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """A campaign on the processor, in a minute, or three of a slow one: (its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("campaign")
    asked = ("run", "--on", "cpu", "--seconds", "180", "--out", str(folder))
    done = run("budget.bench.campaign", *asked, seconds=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_a_dry_run_does_every_stage(dry):
    folder, printed = dry
    lines = results.read(str(folder))
    reached = {line["stage"] for line in lines if line["status"] == "ok"}
    assert {"A", "B", "C", "G"} <= reached
    assert not [line for line in lines if line["stage"] != "P" and line["status"] in ("wrong", "error")]
    assert {p.name for p in folder.iterdir()} == {
        "records.jsonl", "env.json", "gate.txt", "summary.txt", "log.txt",
    }  # fmt: skip
    assert sum(p.stat().st_size for p in folder.iterdir()) < 4e6
    assert (folder / "summary.txt").read_text() in printed


@pytest.mark.slow
def test_a_crash_a_hang_and_a_cuda_error_are_outlived(dry):
    lines = [line for line in results.read(str(dry[0])) if line["stage"] == "P"]
    became = [(line["task"], line["status"]) for line in lines]
    assert became == [  # after a failure comes another kernel; two failures skip the rest of one
        ("P/a/hang", "hang"),
        ("P/b/cuda_error", "cuda_error"),
        ("P/a/crash", "crash"),
        ("P/c/fine", "ok"),
        ("P/a/fine", "skipped"),
    ]


@pytest.mark.slow
def test_its_records_are_imported(dry, tmp_path):
    assert campaign.main(["import", str(dry[0]), "--results", str(tmp_path), "--records-only"]) == 0
    (device,) = os.listdir(tmp_path)
    found = record.read([str(tmp_path)], device)
    assert {r.suite for r in found} == {"softmax", "matmul", "attention", "models"}
    lines = [line for line in results.read(str(dry[0])) if "group" in line]
    least = {line["key"]: min(line["group"]["torch"]["seconds"]) for line in lines}
    assert {f"{r.suite}/{r.case}-{r.dtype}": r.seconds for r in found} == least


@pytest.mark.slow
def test_the_plan_reaches_every_setting_of_hopper():
    done = run("budget.bench.campaign.precompile", "--uncovered")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_every_task_has_its_case_and_its_stage():
    for on in ("cuda", "cpu"):
        plan = tasks(on)
        assert len({t.id for t in plan}) == len(plan)
        assert {t.stage for t in plan} <= set(STAGES)
        for task in plan:
            if task.do == "measure":
                find_case(task.what["suite"], task.what["case"], on)
            for spec in task.what.get("specs", ()):
                find_case("models", spec["case"], on)


def test_candidates_are_settings_that_there_are():
    known = settings.load()
    for entry in candidates():
        find_case(*entry["case"].split("/"), "cuda")
        current = known[entry["kernel"]]["sm90"][entry["class"]]
        changed = [current | more for more in entry["settings"]]
        assert all(set(more) <= set(current) for more in entry["settings"])
        assert current not in changed
        assert len({json.dumps(c, sort_keys=True) for c in changed}) == len(changed)


ECHO = """
import json, sys
print(json.dumps({"shares": {"A": 1}, "fields": ["id"], "plan": [["x"]]}), flush=True)
for line in sys.stdin:
    print(json.dumps({"alive": "still"}), flush=True)
    print(json.dumps({"task": json.loads(line)[0], "status": "ok"}), flush=True)
    sys.exit(0)
"""


def test_a_worker_that_is_alive_and_one_that_has_ended(tmp_path):
    with open(tmp_path / "log.txt", "w") as log:
        worker = parent.Worker([sys.executable, "-c", ECHO], os.environ, log)
        assert worker.ready(30) == ""
        assert worker.plan == [{"id": "x"}]
        assert worker.run("x", {}, 30) == {"task": "x", "status": "ok"}
        assert worker.run("x", {}, 30) == "crash"
        worker.stop()
        silent = parent.Worker([sys.executable, "-c", "import time; time.sleep(99)"], os.environ, log)
        start = time.monotonic()
        assert silent.ready(0.2) == "hang"
        assert time.monotonic() - start < 10
        silent.stop()


def test_a_full_disk_loses_no_record(tmp_path, monkeypatch, capsys):
    records = parent.Records(str(tmp_path))
    records.add({"task": "a"})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parent.os, "fsync", full)
    records.add({"task": "b"})
    records.add({"task": "c"})
    output = capsys.readouterr()
    assert [json.loads(line)["task"] for line in output.out.splitlines()] == ["b", "c"]
    assert output.err.count("\n") == 1
    assert "No space left" in output.err


def test_a_class_of_two_cases_goes_on_from_what_the_first_has_found():
    case, kernel, name = "matmul/plain-1024x1024x8192", "matmul", "large"
    device = torch.device("meta")
    with settings.compiling_for("sm90"):
        usual = tuned.tried(device, case, kernel, name)
        faster = usual["0"] | {"num_stages": 3}
        winners = [{"kernel": kernel, "class": name, "kept": kept, "setting": s}
                   for kept, s in ((True, faster), (False, usual["0"]))]  # fmt: skip
        found = tuned.tried(device, case, kernel, name, winners)
    assert found["0"] == faster
    assert found["1"] == usual["1"] | {"num_stages": 3}


def test_a_tool_that_goes_on_is_stopped_with_what_it_started():
    """Its children hold the pipe: to wait for them would outlast the machine's time."""
    start = time.monotonic()
    said = follow._output(["sh", "-c", "echo begun; sleep 60 & sleep 60"], os.environ, 0.0)
    assert said.startswith("begun")
    assert "stopped" in said
    assert time.monotonic() - start < 20
    assert "cannot be run" in follow._output(["no-such-program"], os.environ, 1.0)


def test_tuned_settings_reach_a_kernel_and_leave_it():
    device = torch.device("meta")
    with settings.compiling_for("sm90"):
        usual = settings.find("softmax", device, "middle")
        with tune.overridden(("softmax", "middle"), {"num_warps": 2}):
            assert settings.find("softmax", device, "middle") == {"num_warps": 2}
            with ThreadPoolExecutor(1) as other:  # as autograd's, on a GPU
                seen = other.submit(settings.find, "softmax", torch.device("cpu"), "middle").result()
            assert seen == {"num_warps": 2}
        assert settings.find("softmax", device, "middle") == usual


def test_a_summary_of_nothing_and_of_failures():
    assert "Predicted" in summary.summary([])
    failed = {"task": "B/newest/x", "stage": "B", "kernel": "k", "assembler": "newest", "status": "hang"}
    assert "hang" in summary.gate([failed])
    assert "B/newest/x" in summary.summary([failed])


def test_a_place_that_is_no_run(tmp_path):
    with pytest.raises(RefusedError, match="allowed: a table"):
        results.read(folder(tmp_path / "list", [1, 2]))


def test_a_worker_says_that_it_waits_for_a_compiler_and_why_it_cannot_start(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(precompile, "TELL_S", 0.01)
    monkeypatch.setattr(precompile, "_since", [])
    precompile.tell(said.append)
    time.sleep(0.1)
    assert not said
    precompile._since.append(time.monotonic())
    time.sleep(0.2)
    assert said
    monkeypatch.setattr(precompile, "_since", [])
    refuses = 'print(\'{"refused": "the driver is too old"}\', flush=True)'
    with open(tmp_path / "log.txt", "w") as log:
        worker = parent.Worker([sys.executable, "-c", refuses], os.environ, log)
        assert worker.ready(30) == "the driver is too old"
        worker.stop()


def test_a_task_that_goes_on_saying_that_it_is_alive_ends_in_time(tmp_path):
    with open(tmp_path / "log.txt", "w") as log:
        endless = ECHO.replace("sys.exit(0)", "").replace(
            '    print(json.dumps({"task"',
            '    while True: print(json.dumps({"alive": 1}), flush=True)\n    print(json.dumps({"task"',
        )
        worker = parent.Worker([sys.executable, "-c", endless], os.environ, log)
        assert worker.ready(30) == ""
        assert worker.run("x", {}, 30, time.monotonic() + 0.3) == "hang"
        worker.stop()


def test_what_was_prepared_and_is_damaged_is_not_used(tmp_path, capsys):
    for name, text in (("plan.json", '{"source": "x", "versions": {}}'), ("cache.zip", "no archive")):
        (tmp_path / name).write_text(text)
    with open(tmp_path / "log.txt", "w") as log:
        assert not prepare.unpack(str(tmp_path), str(tmp_path / "cache"), str(tmp_path / "ptxas"), log)
    assert capsys.readouterr().err.count("\n") == 1
    assert os.listdir(tmp_path / "cache") == []


def test_a_long_log_is_cut_in_the_middle(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("first\n" + "x" * 2 * LOGGED + "\nlast")
    _shorten(str(path))
    text = path.read_text()
    assert LOGGED <= len(text) < LOGGED + 20
    assert text.startswith("first")
    assert text.endswith("last")
