import os
import subprocess
import sys
import tomllib

import pytest
import torch

from budget.kernels import settings, tune

TABLES = settings.load()


def command(module, *arguments):
    """Run a command of the kernels as a user would: compiled, not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, "-m", f"budget.kernels.{module}", *arguments],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def test_every_architecture_has_every_class():
    """But for float8, and what a class is refined into: d128_packed is d128 where it is not there."""
    for kernel, tables in TABLES.items():
        found = {
            architecture: {n for n in classes if n.rpartition("_")[0] not in classes} - {"fp8"}
            for architecture, classes in tables.items()
        }
        assert set(found) == {"sm90", "sm100", "sm80", "gfx942", "generic", "interpreter"}, kernel
        assert all(names == found["sm90"] for names in found.values()), kernel


def test_every_setting_says_how_it_was_chosen():
    for kernel, tables in TABLES.items():
        for architecture, classes in tables.items():
            for name, setting in classes.items():
                assert ("chosen_by" in setting) == (architecture != "interpreter"), (
                    kernel,
                    architecture,
                    name,
                )


def test_find_leaves_the_provenance_out_and_follows_the_architecture():
    with settings.compiling_for("sm90"):
        found = settings.find("matmul", torch.device("cpu"), "large")
    assert found == {k: v for k, v in TABLES["matmul"]["sm90"]["large"].items() if k != "chosen_by"}
    assert settings.architecture(torch.device("cpu")) == "interpreter"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_tune_without_a_gpu_is_one_line_and_2():
    result = command("tune")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("tune: no GPU here")
    assert result.stderr.count("\n") == 1


def test_tune_refuses_an_unknown_call():
    result = command("tune", "matmul huge")
    assert result.returncode == 2
    assert "'matmul huge' is not one of matmul large" in result.stderr


def test_tune_looks_up_what_a_launch_uses(monkeypatch):
    monkeypatch.setattr(settings, "find", lambda *names: {"of": names[0]})
    launch = lambda: (settings.find("softmax", None, "long"), settings.find("matmul", None, "large"))  # noqa: E731
    found = {("softmax", "long"): {"of": "softmax"}, ("matmul", "large"): {"of": "matmul"}}
    assert tune.looked_up(launch) == found


def test_tune_writes_one_entry():
    text = settings.PATH.read_text()
    entry = {"BLOCK_M": 64, "DESCRIPTORS": True, "chosen_by": "measured"}
    changed = tomllib.loads(tune.written(text, "attention_forward", "sm90", "d128", entry))
    assert changed["attention_forward"]["sm90"].pop("d128") == entry
    before = tomllib.loads(text)
    del before["attention_forward"]["sm90"]["d128"]
    assert changed == before
    with pytest.raises(ValueError, match=r"^settings: found 0 entries"):
        tune.written(text, "attention_forward", "sm90", "d512", entry)


def test_tune_tries_the_neighbours_of_the_current_setting():
    current = {"BLOCK_M": 64, "num_warps": 4}
    tried = list(tune.neighbours(current))
    assert tried[0] == current
    assert {"BLOCK_M": 128, "num_warps": 8} in tried
    assert len(tried) == len({tuple(t.items()) for t in tried}) == 1 + 3 + 2 + 6


@pytest.mark.parametrize("wrong", [0.0, 1.03, -1.0, float("nan"), float("inf")])
def test_tune_picks_the_fastest_that_is_right(monkeypatch, wrong):
    """On a launch that knows its settings: 16 is fastest but wrong, 8 is the fastest of the right ones."""
    times = {4: 3.0, 16: 1.0, 8: 2.0}
    monkeypatch.setattr(tune, "seconds", lambda launch, key, setting, _: times[setting["num_warps"]])
    probabilities = torch.full((4, 1000), 1e-3)
    monkeypatch.setattr(tune, "exact", lambda _: [probabilities.double()])

    def launch():
        warps = settings.find("softmax", torch.device("cpu"), "long")["num_warps"]
        return (probabilities * (wrong if warps == 16 else 1 + 1e-6 * (warps == 8)),)

    key, candidates = ("softmax", "long"), [{"num_warps": warps} for warps in (4, 16, 8)]
    assert settings.find("softmax", torch.device("cpu"), "long")["num_warps"] == 4
    assert tune.best(launch, key, candidates) == ({"num_warps": 8}, 2.0, 3.0)
    with pytest.raises(ValueError, match=r"^softmax long: the settings in force give a wrong result"):
        tune.best(launch, key, [candidates[1], candidates[0]])


def test_tune_drops_what_spills_before_it_runs():
    """In a process that is not interpreted; the settings in force stay whatever they do."""
    code = """
if __name__ == "__main__":
    from budget.kernels import settings, tune
    import torch
    with settings.compiling_for("sm90"):
        current = settings.find("matmul", torch.device("meta"), "small")
    small = current | {"num_stages": 2}
    large = [current | {"num_stages": 20}, current | {"BLOCK_M": 48}]
    key = ("matmul", "small")
    assert [s for s in [small, *large] if tune.fits("sm90", "matmul small", key, s)] == [small]
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
