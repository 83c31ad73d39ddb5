"""`pytest bench/` measures this machine; bench/README.md says how."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest
import torch
from budget.bench.apart import apart, is_apart
from budget.bench.cases import Case
from budget.bench.clock import CLOCK, replay
from budget.bench.journal import Journal
from budget.bench.record import source_hash, take, versions
from pytest_benchmark.logger import PytestBenchmarkWarning

from budget import device as devices
from budget.device import profile as profiles
from budget.errors import InputError
from budget.measured import record as records
from budget.measured.alone import alone


def pytest_addoption(parser):
    """The flags of `pytest bench/` in addition to pytest-benchmark's."""
    group = parser.getgroup("budget")
    group.addoption("--quick", action="store_true", help="the quick suite: two minutes on two cores")
    group.addoption(
        "--on",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="what to measure (auto: a GPU if there is one)",
    )
    group.addoption(
        "--results", metavar="FOLDER", help="where records go, a folder for each device (bench/results)"
    )
    group.addoption(
        "--unsure", action="store_true", help="only cases whose two fastest runs in --results do not agree"
    )
    group.addoption("--again", action="store_true", help="do not go on with an interrupted run")


def pytest_configure(config):
    """Records are stored by device; without a GPU where one is asked for, nothing runs."""
    config.addinivalue_line("filterwarnings", "default::pytest_benchmark.logger.PytestBenchmarkWarning")
    on = config.getoption("--on")
    if on == "cuda" and not torch.cuda.is_available():
        pytest.exit("--on: there is no GPU here that torch can use; allowed: auto, cpu", returncode=2)
    held = ExitStack()
    try:
        held.enter_context(alone())
    except InputError as error:
        pytest.exit(str(error), returncode=2)
    config.add_cleanup(held.close)
    where = torch.device("cuda" if on != "cpu" and torch.cuda.is_available() else "cpu")
    try:
        device = devices.load("auto" if where.type == "cuda" else "cpu")
    except InputError as error:
        pytest.exit(str(error), returncode=2)
    mode = "quick" if config.getoption("--quick") else "full"
    results = config.getoption("--results") or records.results_folder()
    folder = os.path.join(os.path.abspath(results), profiles.key(device))
    if config.getoption("benchmark_storage") == "file://./.benchmarks":
        config.option.benchmark_storage = f"file://{folder}"
    if not (config.option.benchmark_save or config.option.benchmark_autosave):
        config.option.benchmark_save = mode
    if where.type == "cpu":
        torch.set_num_threads(device.sms or 1)
    found = versions()
    journal = Journal(
        os.path.join(folder, f"unfinished-{mode}.jsonl"),
        {"versions": found, "source": source_hash(), "threads": torch.get_num_threads()},
    )
    if config.getoption("--again"):
        journal.groups.clear()
    config.stash[STATE] = (where, device, mode, journal, found)


STATE = pytest.StashKey[tuple]()
LEFT = pytest.StashKey["Left"]()
EVERY_S = 20  # between two messages about the time that is left
QUICK = ("torch", "triton", "cudnn", "flash", "varlen", "cublas_gelu")  # on a GPU: without compilation
LAST = ("bench_attention", "bench_models")  # run last: they take longest


def pytest_report_header(config):
    """What is measured, and where records go."""
    where, device, mode, journal, _ = config.stash[STATE]
    resumed = f", {journal.resumed} groups resumed" if journal.groups else ""
    folder = os.path.dirname(journal.path)
    return f"budget: {mode} suite on {device.name} ({where.type}){resumed}; records in {folder}"


def pytest_collection_modifyitems(config, items):
    """Keep the cases and the implementations of this device and suite."""
    where, device, mode, journal, _ = config.stash[STATE]
    kept = [i for i in items if _runs(i, where.type, mode)]
    if config.getoption("--unsure"):
        found = records.newest(records.find(os.path.dirname(journal.path)), profiles.key(device))
        sure = {r.name for r in found if r.confirmed}
        kept = [i for i in kept if i.nodeid not in sure]
    first = {i for i in kept if (case := _case(i)) is not None and is_apart(case, where.type)}
    kept.sort(key=lambda i: (i not in first, i.path.stem in LAST))
    for item in kept:
        item.add_marker(pytest.mark.benchmark(timer=CLOCK))
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = kept


def _runs(item, where: str, mode: str) -> bool:
    case = _case(item)
    if case is None:
        return True
    params = item.callspec.params
    made_for = (case.dtype == "float32") == (where == "cpu")  # a GPU's are the narrower formats
    if mode == "quick" and (not case.quick or (where == "cuda" and params["implementation"] not in QUICK)):
        return False
    return where in params["where"] and made_for


def _case(item) -> Case | None:
    params = getattr(item, "callspec", None)
    return params.params.get("case") if params is not None else None


class Left:
    """How many groups are left, and how long they will take if they are like those before."""

    def __init__(self, groups: int):
        self.groups, self.done, self.start = groups, 0, time.monotonic()
        self.last = self.start

    def one_more(self) -> str:
        """The message after a group; None where the last one was recent."""
        self.done, now = self.done + 1, time.monotonic()
        if now - self.last < EVERY_S:
            return ""
        self.last, left = now, self.groups - self.done
        return f" {left} of {self.groups} groups left, {(now - self.start) / self.done * left / 60:.1f} min "


def pytest_report_collectionfinish(config, items):
    """How much there is to measure."""
    journal = config.stash[STATE][3]
    cases = [case for item in items if (case := _case(item)) is not None]
    left = config.stash[LEFT] = Left(len({f"{c.suite}/{c}" for c in cases} - set(journal.groups)))
    return f"budget: {left.groups} groups to measure"


@pytest.fixture
def measured(request, benchmark) -> Callable:
    """A function of (case, implementation, build) that makes one record, measuring its group if new."""
    where, device, mode, journal, found = request.config.stash[STATE]

    def run(case: Case, implementation: str, build: Callable) -> None:
        key = f"{case.suite}/{case}"
        if key not in journal.groups:
            only = QUICK if mode == "quick" and where.type == "cuda" else None
            taken = partial(take, case, build, device, where, mode, only)
            group = apart(taken) if is_apart(case, where.type) else taken()
            try:
                journal.add(key, group)
            except OSError as error:
                pytest.exit(
                    f"cannot write {journal.path}: {error.strerror}; what was measured before is kept",
                    returncode=2,
                )
            if message := request.config.stash[LEFT].one_more():
                request.config.get_terminal_writer().write(message)
        journal.used.add(key)
        entry = journal.groups[key].get(implementation)
        if entry is None:
            pytest.skip(f"{implementation} does not run here")
        benchmark.extra_info.update(
            entry["extra_info"], versions=found, source_hash=journal.fingerprint["source"]
        )
        replay(benchmark, entry["seconds"])

    return run


def pytest_benchmark_update_machine_info(config, machine_info):
    """The device instead of the host's name and its list of instructions."""
    where, device, _, _, found = config.stash[STATE]
    cpu = machine_info.get("cpu", {})
    machine_info["cpu"] = {k: cpu[k] for k in ("brand_raw", "arch", "count") if k in cpu}
    for private in ("node", "release", "python_build"):
        machine_info.pop(private, None)
    machine_info["device"] = {"key": profiles.key(device), "name": device.name, "type": where.type}
    machine_info["versions"] = found


def pytest_benchmark_update_json(config, benchmarks, output_json):
    """Drop what is in the extra_info already, or what nobody reads: it would be half of the file."""
    for entry in output_json["benchmarks"]:
        entry.update(params=None, options={})


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    """Remove the journal once pytest-benchmark's file has everything."""
    journal = session.config.stash[STATE][3]
    try:
        with warnings.catch_warnings():
            if not session.items:  # --unsure, and all is sure: there is nothing to save
                warnings.simplefilter("ignore", PytestBenchmarkWarning)
            result = yield
    except OSError as error:
        pytest.exit(
            f"cannot save the records: {error.strerror}; they are kept in {journal.path}", returncode=2
        )
    if exitstatus == pytest.ExitCode.OK and set(journal.groups) <= journal.used:
        journal.remove()
    return result
