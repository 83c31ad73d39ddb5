"""Every command of the README prints what the README says, and its Python runs."""

import re

import pytest
import readme

TEXT = readme.README.read_text("utf-8")


@pytest.mark.parametrize("block", readme.BLOCK.findall(TEXT))
def test_commands_print_what_they_show(block):
    assert readme.commands(block)
    assert readme.filled(block) == block, "python tests/readme.py writes it anew"


@pytest.mark.parametrize("name", readme.PICTURES)
def test_pictures_are_what_their_command_draws(name):
    command = readme.PICTURES[name]
    assert f"({name})" in TEXT
    assert command in TEXT
    assert readme.printed(command) == (readme.ROOT / name).read_text("utf-8"), "python tests/readme.py"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_python_runs(code):
    exec(compile("import budget\n" + code, "README.md", "exec"), {})  # noqa: S102 - the README's own code


def test_lines_fit_a_terminal():
    shown = [line for block in readme.BLOCK.findall(TEXT) for line in block.splitlines()]
    assert [line for line in shown if len(line) > 80] == []


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (readme.README.parent / target).exists(), target
