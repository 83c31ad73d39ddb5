"""The lint in full is a step of .ci/run; here, that it finds what it is for."""

import pytest
from budget.kernels.lint import Row
from budget.kernels.lint_calls import CALLS, HOPPER_CALLS
from test_settings import command

from budget.kernels import lint

GOOD = Row("sm90", "matmul large", "_matmul_kernel", 200, 0, 1000, 4)


def test_worse_than_the_baseline_is_a_violation():
    baseline = {"matmul large: _matmul_kernel": [200, 0]}
    rows = [GOOD, GOOD._replace(registers=201), GOOD._replace(spilled=lint.SLACK + 4)]
    rows.append(GOOD._replace(call="new"))
    same, more, spilled, unknown = lint.compared(rows, baseline)
    assert same.problem == ""
    assert more.problem == spilled.problem == "worse than 200 registers, 0 bytes spilled"
    assert unknown.problem == "not in the baseline: --record"


def test_a_kernel_that_a_call_launches_twice_is_recorded_at_its_worst():
    rows = [
        GOOD._replace(spilled=8),
        GOOD._replace(registers=255),
        GOOD._replace(architecture="sm80", registers=None),
    ]
    assert lint.recording(rows) == {"matmul large: _matmul_kernel": [255, 8]}
    assert not any(row.problem for row in lint.compared(rows, lint.recording(rows)))


def test_settings_that_nothing_compiles_are_violations():
    found = lint.unused(set())
    assert {row.architecture for row in found} == set(lint.TARGETS)
    assert all(row.problem for row in found)


@pytest.mark.parametrize("call", [*CALLS, *HOPPER_CALLS])
def test_which_calls_need_wgmma(call):
    needs = lint.WGMMA.match(call) is not None
    assert needs == (call.startswith(("matmul", "attention")) and "fp32" not in call)


def test_compiles_for_hopper_and_finds_no_violation():
    """One kernel through the whole command's machinery, in a process that is not interpreted."""
    result = command("lint", "--call", "matmul skinny", "--call", "decode 64")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "matmul skinny" in result.stdout
    assert "0 violations" in result.stdout


def test_interpreted_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lint"])
    monkeypatch.setattr(lint.settings, "INTERPRETED", True)
    assert lint.main() == 2
    assert "TRITON_INTERPRET is set" in capsys.readouterr().err
