"""Goodput against a simulation of failures; the best interval against a scan and Daly's paper."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import estimate
from budget.__main__ import main
from budget.errors import InputError
from budget.runs.failures import best_interval, goodput, young

HOUR, MINUTE = 3600.0, 60.0


@pytest.mark.parametrize(("mtbf", "minutes"), [(24 * HOUR, 117), (6 * HOUR, 57), (15 * MINUTE, 9.1)])
def test_the_best_intervals_of_dalys_figures(mtbf, minutes):
    """Figures 3 to 5: checkpoints of five minutes."""
    assert best_interval(5 * MINUTE, mtbf) / MINUTE == pytest.approx(minutes, rel=0.02)


def test_young_is_the_first_approximation():
    """Where failures are rare, the interval with its checkpoint is sqrt(2 c M)."""
    assert best_interval(1.0, 1e8) == pytest.approx(young(1.0, 1e8), rel=1e-3)


@given(st.floats(1, 1e4), st.floats(1e2, 1e7), st.floats(0, 1e4))
def test_no_other_interval_is_better(checkpoint, mtbf, restart):
    best = goodput(1, device_mtbf_s=mtbf, checkpoint_s=checkpoint, restart_s=restart)
    for factor in (0.5, 0.9, 1.1, 2.0):
        other = goodput(
            1,
            device_mtbf_s=mtbf,
            checkpoint_s=checkpoint,
            restart_s=restart,
            interval_s=best.interval_s * factor,
        )
        assert other.fraction <= best.fraction * (1 + 1e-9)


def simulated(mtbf, checkpoint, restart, interval, segments, seed):
    """Fractions of a run with failures drawn at random: training, checkpoints, lost, restarts."""
    draw = random.Random(seed)
    lost = restarts = 0.0
    fails = draw.expovariate(1 / mtbf)
    for _ in range(segments):
        while fails < interval + checkpoint:
            lost += fails
            while (fails := draw.expovariate(1 / mtbf)) < restart:
                restarts += fails
            restarts += restart
            fails -= restart
        fails -= interval + checkpoint
    parts = (segments * interval, segments * checkpoint, lost, restarts)
    return [part / sum(parts) for part in parts]


@pytest.mark.parametrize("restart", [0.0, 300.0, 2000.0])
@pytest.mark.parametrize("mtbf", [2e3, 1e4, 1e5])
def test_a_simulation_of_failures(mtbf, restart):
    g = goodput(1, device_mtbf_s=mtbf, checkpoint_s=60, restart_s=restart, interval_s=900)
    want = simulated(mtbf, 60, restart, 900, 100_000, 1)
    assert [g.fraction, g.checkpoints, g.lost, g.restarts] == pytest.approx(want, rel=0.02, abs=0.002)


@given(st.integers(1, 10**7), st.floats(1e3, 1e9), st.floats(1, 1e5), st.floats(0, 1e6))
def test_parts_are_parts_of_all_time(devices, mtbf, checkpoint, restart):
    """No overflow, however many devices: a job that never gets through a segment has no goodput."""
    g = goodput(devices, device_mtbf_s=mtbf, checkpoint_s=checkpoint, restart_s=restart)
    assert 0 <= g.fraction < 1
    assert g.mtbf_s == mtbf / devices


def test_llama_3():
    """A failure every three hours. Its storage takes 2 TB/s, so states of 405e9 x 14 bytes take 3 s; with
    restarts of ten minutes, more than 90 % is training, as it was.
    """
    g = goodput(16384, checkpoint_s=405e9 * 14 / 2e12, restart_s=600)
    assert g.mtbf_s / HOUR == pytest.approx(54 * 24 / 419)
    assert g.fraction > 0.9


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"devices": 0}, "devices"), ({"checkpoint_s": 0}, "checkpoint_s"), ({"restart_s": -1}, "restart_s"),
     ({"interval_s": float("nan")}, "interval_s")],
)  # fmt: skip
def test_errors(settings, field):
    with pytest.raises(InputError) as error:
        goodput(**{"devices": 8, **settings})
    assert error.value.field == field


def test_the_command(capsys):
    assert main(["goodput", "--devices", "16384"]) == 0
    out = capsys.readouterr().out
    assert "goodput" in out
    assert "Llama 3" in out
    for flag, value in (("--devices", "1.5"), ("--mtbf", "x"), ("--checkpoint", "0"), ("--interval", "nan")):
        assert main(["goodput", flag, value]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_whole_run_says_what_failures_leave(capsys):
    asked = ["estimate", "llama-3-8b", "--layout", "dp=1024,zero=1", "--device", "h100", "--tokens", "1T"]
    assert main([*asked, "--format", "json"]) == 0
    job = json.loads(capsys.readouterr().out)["job"]
    assert job["goodput"] == goodput(1024).fraction
    assert job["days_with_failures"] == pytest.approx(job["days"] / job["goodput"])
    assert main(asked) == 0
    assert "failures    one in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("layout", "line"),
    [
        ("dp=128", "none assumed; they wasted 7.8% in the median of 3,079 jobs"),
        ("dp=128,straggler=1.1", "take 1.1 x as long, as you say"),
        ("dp=64", ""),
    ],
)
def test_what_is_taken_of_stragglers_is_said_of_many_devices(capsys, layout, line):
    assert main(["estimate", "gpt2", "--layout", layout, "--device", "h100"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert ("stragglers" in out) == bool(line)
    assert line in out


def test_a_straggler_makes_kernels_and_no_collective_take_longer():
    asked = {"seq": 512, "device": "h100"}
    one = estimate("gpt2", layout="dp=8,zero=1", **asked).times
    slow = estimate("gpt2", layout="dp=8,zero=1,straggler=1.085", **asked).times
    assert slow.forward == pytest.approx(1.085 * one.forward)
    assert slow.communication <= one.communication * (1 + 1e-12)


def test_goodput_in_python_is_the_command_s_json(capsys):
    assert main(["goodput", "--devices", "16384", "--format", "json"]) == 0
    assert goodput(16384).to_dict() == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("model", "said"), [("resnet18", True), ("gpt2", False)])
def test_training_on_pictures_says_that_an_input_pipeline_is_left_out(capsys, model, said):
    estimate(model, device="a100-80gb", batch=2, mode="train").show()
    assert ("left out    reading" in capsys.readouterr().out) == said
