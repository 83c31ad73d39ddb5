"""Folded stacks: read as flamegraph.pl reads them, and nothing of the time is missing."""

import re

import numpy as np
import pytest

import budget
from budget.__main__ import main
from budget.errors import InputError
from budget.report import render

LINE = re.compile(r"^(.*)\s+?(\d+(?:\.\d*)?)$")  # flamegraph.pl's own


def stacks(text):
    return [(found[1].split(";"), float(found[2])) for found in map(LINE.match, text.splitlines())]


@pytest.mark.parametrize("execution", ["compiled", "eager"])
@pytest.mark.parametrize("name", ["gpt2", "resnet50", "mlp-10-20-10-2"])
def test_the_nanoseconds_are_those_of_the_step(name, execution):
    e = budget.estimate(name, execution=execution)
    found = stacks(render(e, "folded"))
    assert {path[0] for path, _ in found} == {name}
    assert all(frame for path, _ in found for frame in path)
    assert len({tuple(path) for path, _ in found}) == len(found)
    assert sum(n for _, n in found) == pytest.approx(e.times.step * 1e9, abs=len(found))
    for phase in ("forward", "backward", "optimizer"):
        own = sum(n for path, n in found if path[1] == phase)
        assert own == pytest.approx(getattr(e.times, phase) * 1e9, abs=len(found))


def test_a_comparison_has_a_stack_each(capsys):
    assert main(["compare", "gpt2", "resnet50", "--format", "folded"]) == 0
    assert {path[0] for path, _ in stacks(capsys.readouterr().out)} == {"gpt2", "resnet50"}


def test_what_has_no_stacks_is_said():
    with pytest.raises(InputError, match="folded shows the times of single cases"):
        render(budget.estimate("gpt2", batch=np.array([1, 2])), "folded")
    assert main(["list", "devices", "--format", "folded"]) == 2
