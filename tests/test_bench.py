"""The benchmarks' own machinery: the clock, the journal, the cases, and a run in a process of its own."""

import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from budget.bench.clock import Clock
from budget.bench.collectives import CROSSED
from budget.bench.journal import Journal
from budget.bench.measure import measure
from torch.utils.flop_counter import FlopCounterMode

import budget
from budget import cluster
from budget.bench import journal as journals
from budget.bench import measure as measuring
from budget.bench import networks, sensors, tables
from budget.device import load
from budget.device import profile as profiles
from budget.device.profile import profile_for
from budget.fold.collective import seconds
from budget.measured import alone, record
from budget.measured import workload as workloads
from budget.measured.collectives import links

ROOT = Path(__file__).parents[1]
MODULES = {
    p.stem: importlib.import_module(f"budget.bench.{p.stem}") for p in (ROOT / "bench").glob("bench_*.py")
}
SUITES = sorted(name for name, module in MODULES.items() if hasattr(module, "cases"))  # of a device's kernels
CASES = [case for name in SUITES for case in MODULES[name].cases()]
H200, CPU = load("h200"), load("cpu")


def test_a_clock_stands_still_until_told():
    clock = Clock()
    assert clock() == clock() == 0.0
    clock.advance(0.25)
    assert clock() == 0.25


def test_a_journal_goes_on_where_it_was(tmp_path):
    path = str(tmp_path / "device" / "unfinished.jsonl")
    first = Journal(path, {"torch": "1"})
    first.add("a", {"torch": {"seconds": [1.0]}})
    first.add("b", {"torch": {"seconds": [2.0]}})
    with open(path, "a", encoding="utf-8") as file:
        file.write('\n{"key": "c", "group')  # killed while writing
    again = Journal(path, {"torch": "1"})
    assert again.groups == first.groups
    again.add("c", {"torch": {"seconds": [3.0]}})
    assert set(Journal(path, {"torch": "1"}).groups) == {"a", "b", "c"}
    assert Journal(path, {"torch": "2"}).groups == {}
    again.remove()
    assert not os.path.exists(path)


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    path = str(tmp_path / "unfinished.jsonl")
    Journal(path, {}).add("a", {})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journals.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Journal(path, {}).add("b", {})
    assert "a" in Journal(path, {}).groups


def test_names_are_unique():
    names = [(c.suite, str(c)) for c in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_suite_has_both_splits_on_each_device(suite, dtype):
    splits = {c.split for c in CASES if f"bench_{c.suite}" == suite and c.dtype == dtype}
    assert splits == {"fit", "held"}


def test_no_network_is_in_both_splits():
    found = [(c.split, c.name.rpartition("-")[0]) for c in CASES if c.suite == "models"]
    assert not {n for split, n in found if split == "fit"} & {n for split, n in found if split == "held"}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.suite}/{c}")
def test_every_case_is_predicted(case):
    device = CPU if case.dtype == "float32" else H200
    workload = json.loads(json.dumps({**case.workload, "dtype": case.dtype}))
    program = workloads.work(workload)
    assert program.bytes > 0
    assert 0 < workloads.seconds(program, device, profile_for(device, case.dtype)) < 100


FITTED = [c for c in CASES if c.suite == "models" and c.dtype == "float32" and c.split == "fit"]
SMALL = [c for c in FITTED if c.name.endswith("-train")]


@pytest.mark.parametrize("case", SMALL, ids=lambda c: c.name)
def test_the_network_that_runs_is_the_one_predicted(case):
    """Its parameters are; and its FLOPs where torch counts them on a processor."""
    settings = {**case.workload, "dtype": "float32"}
    real, _ = networks._network(settings, torch.device("cpu"), torch.float32)
    what = settings.pop("model")
    assert budget.estimate(what, **settings).params.total == sum(p.numel() for p in real.parameters())
    if what in ("mlp", "dlrm"):
        step = networks.build({"model": what, **settings}, torch.device("cpu"))
        with FlopCounterMode(display=False) as counter:
            step()
        assert counter.get_total_flops() == workloads.work({"model": what, **settings}).flops


def test_functions_take_turns():
    calls = []
    functions = {name: [lambda name=name: calls.append(name) or sum(range(20000))] for name in "ab"}
    taken = measure(functions, torch.device("cpu"), budget_s=0.01, rounds=(4, 6))
    assert set(taken) == {"a", "b"}
    assert all(4 <= len(s.seconds) <= 6 and min(s.seconds) > 0 for s in taken.values())
    assert len({s.inner for s in taken.values()}) <= 2


def run(*argv, folder, **environment):
    ask = [sys.executable, "-m", *argv, "--results", str(folder)]
    # A worker of pytest-xdist says so in the environment, and pytest-benchmark then measures nothing.
    outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    own = {"XDG_DATA_HOME": str(folder / "data")}  # a lock of its own, too: tests run side by side
    env = {**outside, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **own, **environment}
    return subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False, env=env)


def suite(folder, *argv):
    return run(
        "pytest",
        "bench/bench_softmax.py",
        "--quick",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "8x16",
        *argv,
        folder=folder,
    )


@pytest.mark.slow
def test_a_run_makes_records(tmp_path):
    done = suite(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = record.read([str(tmp_path)], profiles.key(CPU))
    assert [(r.suite, r.case, r.implementation) for r in found] == [("softmax", "8x16", "torch")]
    info = found[0].info
    wanted = (
        "flops bytes tflops gb_s share_of_peak predicted_s error error_after method cache n versions ratio_to"
    )
    wanted = set(wanted.split()) | {"interquartile_range_s", "source_hash"}
    assert wanted <= set(info)
    assert not list(tmp_path.rglob("unfinished*"))


@pytest.mark.slow
def test_what_two_runs_agree_on_is_not_measured_again(tmp_path):
    for _ in range(2):
        assert suite(tmp_path, "--unsure").returncode == pytest.ExitCode.OK
    for path in record.find(str(tmp_path)):
        content = json.loads(Path(path).read_text())
        for entry in content["benchmarks"]:
            entry["stats"]["min"] = 1e-5
        Path(path).write_text(json.dumps(content))
    assert suite(tmp_path, "--unsure").returncode == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.slow
def test_a_second_suite_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with alone.alone():
        done = suite(tmp_path)
    assert done.returncode == 2
    assert "another suite measures this machine" in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.json*"))


def test_what_is_disturbed_is_taken_again(monkeypatch):
    """Rounds are taken until one of them has not waited, within four times the budget."""
    shares = iter([0.5] * 7 + [0.0] * 100)
    monkeypatch.setattr(measuring, "_round", lambda *_: (1e-3, next(shares)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    (taken,) = measure({"a": [lambda: None]}, torch.device("cpu"), budget_s=5.0, rounds=(3, 3)).values()
    assert len(taken.seconds) == 8
    shares = iter([0.5] * 1000000)
    (taken,) = measure({"a": [lambda: None]}, torch.device("cpu"), budget_s=0.001, rounds=(3, 3)).values()
    assert taken.waited == 0.5


@pytest.mark.slow
def test_an_interrupted_run_is_taken_up(tmp_path):
    assert suite(tmp_path).returncode == 0
    (saved,) = tmp_path.rglob("*.json")
    content = json.loads(saved.read_text("utf-8"))["benchmarks"][0]
    saved.unlink()
    info = content["extra_info"]
    fingerprint = {"versions": info["versions"], "source": info["source_hash"], "threads": CPU.sms}
    key = "softmax/8x16-float32"
    journal = Journal(str(tmp_path / profiles.key(CPU) / "unfinished-quick.jsonl"), fingerprint)
    journal.add(key, {"torch": {"seconds": [123.0, 124.0], "extra_info": info}})
    done = suite(tmp_path)
    assert done.returncode == 0, done.stdout
    (found,) = record.read([str(tmp_path)], profiles.key(CPU))
    assert found.seconds == 123.0  # what was measured before, not measured again
    assert not list(tmp_path.rglob("unfinished*"))


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_where_one_is_asked_for(tmp_path):
    done = suite(tmp_path, "--on", "cuda")
    assert done.returncode == 2
    assert "there is no GPU here" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    done = suite(tmp_path)
    assert done.returncode == 2
    assert "cannot write" in done.stdout + done.stderr


def test_sensors_without_nvml(tmp_path, monkeypatch):
    """nvidia-smi refuses a query of several fields where it does not know one of them."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("""#!/bin/sh
case "$1" in *throttle*) echo 'Field is not valid'; exit 2;; esac
case "$1" in *,*) echo '1980, 2619, [N/A], 41, 618';; *) echo 1;; esac
""")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sensors, "_nvml", lambda: None)
    sensors._known.cache_clear()
    read = sensors.read()
    sensors._known.cache_clear()
    assert read == {
        "clocks.sm": 1980.0, "clocks.mem": 2619.0, "power.draw": None, "temperature.gpu": 41.0,
        "memory.used": 618.0,
    }  # fmt: skip


@pytest.mark.slow
def test_collectives_between_two_processes(tmp_path):
    argv = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "budget.bench.collectives")
    done = run(*argv, "--quick", "--on", "cpu", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = record.read([str(tmp_path)], profiles.key(CPU))
    assert {r.collective for r in found} == {f"{name}-1" for name in CROSSED}
    assert {r.split for r in found} == {"fit", "held"}
    link = cluster.Link("gloo", "switch", 1e9, 1.0, 0.0, 0.0, 0.0, True, ())
    here = cluster.Cluster(
        "here",
        "",
        (),
        (cluster.Tier(link, 2, 1e9, 1.0, (), 1.0),),
        (),
        "",
        "",
        cluster.by_nodes(links(found)),
    )
    kinds = {"send_receive": "send"}
    for r in found:
        w = r.workload
        took = seconds(here, kinds.get(w["collective"], w["collective"]), w["bytes"], ((w["ranks"], 1),))
        assert took > 0
        if r.split == "fit" and w["bytes"] == max(x.workload["bytes"] for x in found if x.split == "fit"):
            assert r.seconds / 10 < took < r.seconds * 10  # what they are fitted to, on a busy machine


@pytest.mark.slow
def test_collectives_want_torchrun(tmp_path):
    done = run("budget.bench.collectives", folder=tmp_path)
    assert done.returncode == 2
    assert "torchrun" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_page_of_benchmarks_is_what_its_records_say():
    assert Path(tables.PAGE).read_text("utf-8") == tables.page(), "python -m budget.bench.tables --write"
