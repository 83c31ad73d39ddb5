"""The package as scripts and notebooks use it: names, what is left unsaid, and what wrong calls teach."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import budget
from budget.comparison import LISTS
from budget.device import load
from budget.estimate import estimate

COMMANDS = ("estimate", "compare", "fit", "plan", "serve", "scale", "sensitivity", "goodput")


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_compute_are_functions(name):
    """Also where a submodule has been imported that could be called the same."""
    first = "import budget.__main__, budget.report._plan, budget.scaling.levers, budget.runs.failures"
    code = f"{first}; print(callable(budget.{name}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"
    assert inspect.getdoc(getattr(budget, name)) and name in dir(budget)


def test_a_name_that_there_is_not_says_which_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'formula'; it has .*fit, fit_law, goodput, plan"):
        budget.formula  # noqa: B018 - looking it up is what raises
    assert not hasattr(budget, "__wrapped__")


def test_a_plan_is_what_its_command_prints():
    asked = {"device": "h100", "global_batch": 16, "seq": 128}
    found = budget.plan("gpt2", 8, **asked)
    assert budget.estimate("gpt2", devices=8, **asked).to_dict() == found.best.estimate.to_dict()
    assert budget.plan("gpt2", **{**asked, "device": "8xh100"}).best.layout == found.best.layout
    assert found.to_dict()["schema"] == "budget.plan/1"
    assert found.to_dict()["layouts"][0]["layout"] == vars(found.best.layout)
    for wrong in ({}, {"devices": 8, "layout": "dp=8"}):
        with pytest.raises(budget.InputError, match=r"^devices: missing; allowed: how many devices"):
            budget.plan("gpt2", **wrong)


def test_none_is_not_said():
    """Of every setting: None is what nothing is."""
    own = estimate.__kwdefaults__
    nothing = dict.fromkeys([*own, *LISTS, "fuse", "offload", "recompute_modules"])
    assert budget.estimate("gpt2", **nothing).to_dict() == budget.estimate("gpt2").to_dict()
    assert budget.compare("gpt2", **nothing).to_dict() == budget.compare("gpt2").to_dict()
    assert budget.fit("gpt2", **nothing).to_dict() == budget.fit("gpt2").to_dict()
    asked = {"context": 256, "users": [4]}
    told = ("batch", "seq", "mode", "device", "quantize", "output_tokens", "layout", "share", "stack")
    assert budget.serve("gpt2", **asked, **dict.fromkeys(told)).points == budget.serve("gpt2", **asked).points
    plain = budget.scale(compute=1e20, mfu=0.4)
    nothing = dict.fromkeys(set(budget.scale.__kwdefaults__) - {"compute", "mfu"})
    assert budget.scale(compute=1e20, mfu=0.4, **nothing) == plain


def test_a_cluster_brings_its_device():
    asked = {"cluster": "aws-p4d"}
    spread = budget.estimate("gpt2", layout="dp=8", **asked)
    planned = budget.plan("gpt2", 8, **asked).best.estimate
    served = budget.serve("gpt2", context=256, users=4, layout="tp=2", **asked).full
    assert {e.device.id for e in (spread, planned, served)} == {"a100-40gb"}


def test_one_number_of_users_is_a_list_of_one():
    one, listed = (budget.serve("gpt2", context=256, users=users) for users in (4, [4]))
    assert one.points == listed.points


WRONG = [
    ("transformer", {"d_model": 512}, r"d_model: .* config=\{'d_model': 512\}"),
    ("gpt2", {"fuse": "qkv", "layers": 3, "heads": 4}, r"layers: .* config=\{'layers': 3, 'heads': 4\}"),
    ("gpt2", {"batch_size": 8}, "batch_size: .*did you mean 'batch'"),
    ("gpt2", {"batchsize": 8}, "batchsize: .*did you mean 'batch'"),
    ("gpt2", {"devise": "h100"}, "devise: .*did you mean 'device'"),
    ("gpt2", {"n_layers": 3}, "n_layers: .*did you mean 'layers'"),
    ("gpt2", {"xyzzy": 3}, r"xyzzy: .*budget estimate --help"),
    ("gpt2", {"tokens": 1e9}, r"tokens: .*priced\(tokens="),
    ("gpt2", {"device": ["a100", "h100"]}, "device: got .*budget.compare"),
    ("gpt2", {"lora_rank": "8"}, "lora_rank: got '8'; allowed: whole numbers"),
]


@pytest.mark.parametrize(("model", "settings", "says"), WRONG)
def test_wrong_calls_say_what_is_right(model, settings, says):
    with pytest.raises(budget.InputError, match=f"^{says}"):
        budget.estimate(model, **settings)


def test_what_a_wrong_call_says_is_right():
    given = budget.estimate("transformer", config={"d_model": 512, "heads": 8})
    assert given.model.config["d_model"] == 512
    assert budget.estimate("gpt2").priced(tokens=1e9, price=2).job.work == 1e9
    assert len(budget.compare("gpt2", device=["a100", load("h100")])) == 2


def test_what_every_function_takes_is_known_to_editors():
    for name in COMMANDS:
        found = inspect.signature(getattr(budget, name)).parameters.values()
        assert all(p.annotation is not p.empty for p in found)
        assert [str(p.annotation) for p in found if p.kind is p.VAR_KEYWORD] in (
            [], ["Any"], ["Unpack[Techniques]"], ["Unpack[Lists]"], ["Unpack[Settings]"], ["Unpack[Each]"],
        )  # fmt: skip


def test_what_moves_a_plan_is_asked_as_the_plan_is():
    asked = {"compute": 1e20, "mfu": 0.4}
    assert budget.sensitivity(**asked) == budget.sensitivity(budget.scale(**asked))


def test_devices_that_are_no_number_are_refused():
    with pytest.raises(budget.InputError, match=r"^devices: got 'x'; allowed: numbers above 0"):
        budget.goodput("x")


@pytest.mark.parametrize("name", ["device", "law", "dtype"])
def test_a_plan_s_names_are_text(name):
    with pytest.raises(budget.InputError, match=rf"^{name}: got 3; allowed: "):
        budget.scale(usd=1e6, **{name: 3})
