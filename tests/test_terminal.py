"""The command in a terminal: its width, its colours, lists and completion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import budget
from budget import device, stack
from budget.__main__ import main
from budget.command.list import NAMES
from budget.read import preset
from budget.report._summary import fold
from budget.report._terminal import coloured

ESCAPE = re.compile(r"\x1b\[\d+m")


def printed(capsys, *args):
    assert main(list(args)) in (0, 1)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [50, 80])
def test_lines_are_as_long_as_the_terminal_is_wide(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for args in (["estimate", "gpt3"], ["fit", "gpt2"]):
        assert max(map(len, printed(capsys, *args).splitlines())) <= columns


@given(st.text("ab /;", max_size=400))
def test_any_line_is_broken_and_loses_nothing_but_spaces(line):
    lines = fold([line])
    assert max(map(len, lines)) <= 80
    assert "".join("".join(lines).split()) == "".join(line.split())


def test_a_wide_terminal_shows_whole_names(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = printed(capsys, "list", "devices").splitlines()
    assert {row.split()[0] for row in rows[1 : len(device.names()) + 1]} == set(device.names())


def test_colours_are_the_text_and_no_more(capsys, monkeypatch):
    plain = printed(capsys, "estimate", "gpt3")
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    output = printed(capsys, "estimate", "gpt3")
    assert ESCAPE.sub("", output) == plain != output
    assert "\x1b" not in printed(capsys, "estimate", "gpt3", "--format", "json")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured()


ENGINES = ("vllm", "sglang", "tensorrt-llm", "torchtitan")  # with fields by generation of each kind


def test_lists_are_whole_or_filtered(capsys):
    counts = dict(line.split()[2:] for line in printed(capsys, "list").splitlines())
    assert counts["presets"] == str(len(preset.names()))
    assert len(printed(capsys, "list", "families").splitlines()) == int(counts["families"]) + 2
    assert "LlamaForCausalLM = lm" in printed(capsys, "list", "families", "llama")
    assert counts["devices"] == str(len(device.names()))
    names = [line.split()[0] for line in printed(capsys, "list", "presets", "llama-2").splitlines()[1:-2]]
    assert set(names) == {n for n in preset.names() if "llama-2" in n}
    assert main(["list", "presets", "nonesuch"]) == 2
    assert all("(" not in printed(capsys, "list", "stacks", name).partition("\nserve")[2] for name in ENGINES)


def completed(line):
    """What a shell is offered at the end of a line: argcomplete's protocol, on file descriptor 8."""
    env = {
        **os.environ,
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    code = f"{sys.executable} -m budget 8>&1 9>/dev/null 1>/dev/null 2>/dev/null"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split("\n")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("budget es", {"estimate"}),
        ("budget estimate gpt2 --dev", {"--device"}),
        ("budget estimate gpt2 --lora-r", {"--lora-rank"}),
        ("budget compare vit-b", {n for n in preset.names() if n.startswith("vit-b")}),
        ("budget estimate gpt2 --stack ", set(stack.names())),
    ],
)
def test_completion(line, offered):
    assert offered <= set(completed(line))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_code(capsys, shell):
    assert "budget" in printed(capsys, "completion", shell)


@pytest.mark.parametrize(
    ("kind", "part", "names"),
    [
        ("clusters", "h100", {"dgx-h100", "hgx-h100-roce"}),
        ("laws", "chin", {"chinchilla", "chinchilla-2022"}),
        ("stacks", "torch-", {"torch-eager", "torch-compile"}),
        ("architectures", "language", {"vision_language", "audio_language"}),
    ],
)
def test_every_list_takes_a_part_of_names(capsys, kind, part, names):
    told = {line.split(" ")[0] for line in printed(capsys, "list", kind, part).splitlines()}
    assert names <= told
    assert all(part in word for word in told if word in NAMES[kind]())


def test_a_device_whose_prices_nobody_read_has_what_its_answers_take(capsys):
    usd = budget.estimate("gpt2", device="4090").cost()["usd_per_hour"]
    assert f"{usd:.2f}" in printed(capsys, "list", "prices", "4090")
    assert "no price of Arc A770 is known: --price" in printed(capsys, "list", "prices", "a770")


def test_one_of_a_list_names_those_whose_names_begin_so(capsys):
    assert "longer names: qwen2, " in printed(capsys, "list", "families", "qwen")
    assert "longer names: vllm-2024" in printed(capsys, "list", "stacks", "vllm")
    assert "longer" not in printed(capsys, "list", "presets", "resnet50")
