"""Answers as people meet them in Python: printed, in a notebook, as a picture, as a data frame."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy
import pytest

import budget
from budget import report
from budget.read import preset


@pytest.fixture(scope="module")
def one():
    return budget.estimate("gpt2")


@pytest.fixture(scope="module")
def several():
    return budget.compare("gpt2", device=["a100", "h100"])


ANSWERS = {
    "estimate": lambda: budget.estimate("gpt2"),
    "compare": lambda: budget.compare("gpt2", "resnet50"),
    "fit": lambda: budget.fit("llama-3-8b", device="4090"),
    "scale": lambda: budget.scale(usd=1e6),
    "serve": lambda: budget.serve("gpt2", context=128),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_shows_itself(name):
    found = ANSWERS[name]()
    assert len(str(found).splitlines()) > 3
    assert "<svg" in found._repr_html_() and found.plot().startswith("<svg")
    assert str(found).split()[0] in found._repr_markdown_()
    assert set(found._repr_mimebundle_()) == {"text/plain", "text/markdown", "text/html"}


def test_printing_is_the_table(one, several):
    assert str(one) == report.render(one, "table")
    assert "H100" in str(several)
    assert repr(several) == "Comparison of 2 estimates"


class Balanced(HTMLParser):
    """Counts tags that were opened and not closed."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, _):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_notebook_shows_html_and_the_picture(one, several):
    for found in (one, several):
        shown = found._repr_mimebundle_(include=None, exclude=None)
        assert set(shown) == {"text/plain", "text/markdown", "text/html"}
        page = Balanced()
        page.feed(shown["text/html"])
        assert page.open == []
        assert "<svg" in shown["text/html"] and "<html" not in shown["text/html"]


def test_a_plot_is_an_svg_object(one, tmp_path):
    picture = one.plot()
    assert ET.fromstring(picture._repr_svg_()).tag.endswith("svg")  # noqa: S314 # our own
    picture.save(str(tmp_path / "x.svg"))
    assert (tmp_path / "x.svg").read_text() == picture + "\n"


def test_a_frame_needs_pandas_and_says_so(one, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(budget.InputError, match="pip install pandas"):
        one.to_frame()


def test_lists_are_arrays_of_sizes():
    found = budget.estimate("gpt2", batch=[1, 2, 3]).memory.peak
    assert found.tolist() == [budget.estimate("gpt2", batch=n).memory.peak for n in (1, 2, 3)]
    assert (budget.estimate("gpt2", batch=range(1, 4)).memory.peak == found).all()
    assert str(budget.estimate("gpt2", batch=[1, 2])).startswith("Estimate(")  # no table of arrays
    for wrong, says in (([], "empty"), ([1, "x"], "'x'"), ([0], "got 0")):
        with pytest.raises(budget.InputError, match=says):
            budget.estimate("gpt2", batch=wrong)
    assert isinstance(found, numpy.ndarray)


def test_a_config_object_is_its_dictionary():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=3, n_embd=96, n_head=4)
    assert budget.estimate(config).params.total == budget.estimate(config.to_dict()).params.total


def test_the_package_shows_what_it_offers():
    assert dir(budget) == budget.__all__
    for name in budget.__all__:
        assert getattr(budget, name)
    assert "gpt2" in budget.presets() and budget.presets() == preset.names()
    assert "h100" in budget.devices() or len(budget.devices()) > 50
    assert "vllm" in budget.stacks()
    with pytest.raises(AttributeError, match="nonsense"):
        budget.nonsense  # noqa: B018


def test_an_answer_lists_no_tuple_s_names(one):
    assert not {"count", "index", "walked"} & set(dir(one))
    assert {"params", "memory", "plot", "to_frame"} <= set(dir(one))


def test_what_is_lazy_stays_so():
    code = "import budget, sys; print('budget.comparison' in sys.modules or 'budget.report' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_notebook_shows_an_answer_of_arrays_as_text():
    """A format that shows one case raises: a notebook printed its traceback."""
    numpy = pytest.importorskip("numpy")
    found = budget.estimate("gpt2", batch=numpy.arange(1, 4))
    assert found._repr_html_() is None and found._repr_markdown_() is None
    assert found._repr_mimebundle_() == {"text/plain": repr(found)}


def test_users_may_be_an_array():
    numpy = pytest.importorskip("numpy")
    points = budget.serve("gpt2", device="h100", users=numpy.array([1, 8])).points
    assert points == budget.serve("gpt2", device="h100", users=[1, 8]).points


def test_show_prints_and_answers_are_keys(capsys):
    answer = budget.estimate("gpt2")
    assert answer.show() is None
    assert capsys.readouterr().out == f"{answer}\n"
    assert answer.show("csv") == answer._as("csv")
    twice, other = budget.estimate("gpt2"), budget.estimate("gpt2", batch=2)
    assert len({answer, twice, other}) == 2
    assert {answer: 1}[twice] == 1
    for found in (budget.scale(usd=1e3), budget.serve("gpt2", device="h100"), budget.fit("gpt2")):
        assert hash(found) == hash(found)
