"""Every command answers in every format, or says in one line why not; a format is one new file."""

import csv
import io
import json
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from budget import report
from budget.__main__ import main

COMMANDS = {
    "estimate": ["gpt2", "--by", "layer"],
    "estimate too large": ["gpt3", "--device", "t4"],
    "compare": ["gpt2", "resnet50"],
    "fit": ["llama-3-8b", "--device", "h100"],
    "fit batch": ["gpt2", "--solve", "batch", "--device", "t4"],
    "list": ["devices"],
    "list presets": ["presets"],
    "list presets one": ["presets", "gpt2"],
    "list architectures": ["architectures"],
    "list architectures one": ["architectures", "mlp"],
}
PICTURES = {"estimate too large", "fit", "fit batch"}  # of one estimate without a breakdown


class Tags(HTMLParser):
    """The tags that are open, and a count of all."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], 0
        self.feed(text)

    def handle_starttag(self, tag, _):
        self.seen += 1
        self.open += [tag] if tag != "meta" else []

    def handle_startendtag(self, *_):
        self.seen += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def run(capsys, name, form):
    status = main([name.partition(" ")[0], *COMMANDS[name], "--format", form])
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == (status == 2)
    return status, out, err


@pytest.mark.parametrize("form", report.names())
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_format_or_says_why_not(capsys, name, form):
    status, out, err = run(capsys, name, form)
    if status == 2:
        assert err.startswith("budget: format: ")
        assert form in ("svg", "folded", "trace")
        assert form != "svg" or name not in PICTURES
        return
    if form in ("json", "trace"):
        assert json.loads(out)
    elif form == "csv":
        head, *rows = csv.reader(io.StringIO(out))
        assert rows
        assert {len(row) for row in rows} == {len(head)}
    elif form == "html":
        tags = Tags(out)
        assert tags.open == []
        assert tags.seen > 10
    elif form == "svg":
        ElementTree.fromstring(out)  # noqa: S314 - our own
    elif form == "table":
        assert max(map(len, out.splitlines())) <= 80
    assert out.strip()


def test_what_a_json_says_a_csv_says(capsys):
    answer = json.loads(run(capsys, "list", "json")[1])
    rows = list(csv.DictReader(io.StringIO(run(capsys, "list", "csv")[1])))
    shown = [{k: "" if v is None else str(v) for k, v in row.items()} for row in answer]
    assert shown == rows


def test_a_new_file_is_a_format_of_every_command(capsys, monkeypatch):
    shout = SimpleNamespace(render=lambda answer: json.dumps(answer.data()).upper())
    monkeypatch.setitem(sys.modules, "budget.report.shout", shout)
    monkeypatch.setattr(report, "names", lambda: ("shout", "table"))
    for name in COMMANDS:
        _, out, err = run(capsys, name, "shout")
        assert err == ""
        assert out == out.upper() != ""


@pytest.mark.parametrize("name", ["estimate", "compare", "fit", "list", "validate"])
def test_an_unknown_format_is_known_before_anything_is_worked_out(capsys, name):
    assert main([name, "--format", "pdf"]) == 2
    assert "--format: got 'pdf'; allowed: 'csv'" in capsys.readouterr().err


def test_the_breakdown_over_time_has_the_estimate_s_picture(capsys):
    pictures = []
    for more in ([], ["--by", "moment"]):
        assert main(["estimate", "gpt2", *more, "--format", "svg"]) == 0
        pictures.append(capsys.readouterr().out)
    assert pictures[0] == pictures[1]
