"""A technique is one file, whose settings are its own."""

import subprocess
import sys

import pytest

from budget import arch
from budget.plan import fields, files
from budget.plan.techniques import STAGES


@pytest.mark.parametrize("technique", files(), ids=lambda m: m.__name__.rpartition(".")[2])
def test_a_technique_s_file_speaks_of_its_own_settings_and_of_stages_that_there_are(technique):
    assert technique.STAGES.keys() <= set(STAGES)
    assert all(callable(apply) for apply in technique.STAGES.values())
    needs, excludes = (getattr(technique, table, {}) for table in ("NEEDS", "EXCLUDES"))
    assert needs.keys() | excludes.keys() <= technique.SETTINGS.keys()
    others = {other for others in (*needs.values(), *excludes.values()) for other in others}
    named = {name for other in others for name in (other if isinstance(other, tuple) else (other,))}
    assert named <= {*fields(), "train", "adapter"}


def test_no_two_techniques_have_a_setting_of_one_name():
    names = [name for technique in files() for name in technique.SETTINGS]
    assert len(names) == len(set(names))
    assert all(any(stage in t.STAGES for t in files()) for stage in STAGES)


def test_what_is_off_is_not_imported():
    program = (
        "import sys; from budget.__main__ import main; main(sys.argv[1:]);"
        "print(sorted(m for m in sys.modules if m.startswith('budget.plan.')))"
    )
    off, own, on = (
        subprocess.run(
            [sys.executable, "-c", program, "estimate", "gpt2", *flags],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]
        for flags in ((), ("--layers", "3", "--no-tied"), ("--lora-rank", "4"))
    )
    assert "budget.plan.lora" in on
    shared = ("_autocast", "_names", "_needs", "_sdpa", "_states")
    used = (*shared, "backward", "fuse", "optimizer", "precision", "recompute", "techniques")
    assert off == own == str([f"budget.plan.{name}" for name in used])


@pytest.mark.parametrize("name", arch.names())
def test_no_architecture_has_a_setting_of_the_same_name(name):
    assert not {*fields()} & {*arch.load(name).Config.fields}
