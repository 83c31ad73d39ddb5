"""Modules from a user's file, by command and from Python: what is read, kept, and said when it is wrong."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import budget
from budget import InputError
from budget.__main__ import main
from budget.fitting.largest import largest
from budget.read import torch_module

FILE = """
import torch
from torch import nn

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(self, x):
        y = self.up(x)
        if y.sum() > 0:
            y = y * 2
        return y

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)

    def forward(self, input_ids):
        return self.head(self.table(input_ids))

def tied():
    made = Tokens()
    made.head.weight = made.table.weight
    return made.bfloat16()

def net(): return nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 2))
def mlp(): return net(), torch.zeros(4, 10)
def wide(): return net(), torch.zeros(4, 3)
def keywords(): return net(), {"inpt": torch.zeros(4, 10)}
def branches(): return Branches(), torch.zeros(2, 4)
def three(): return 3
def raises(): raise ValueError("no\\nsuch thing")
def leaves(): raise SystemExit(7)
def still(): return nn.Dropout(), torch.zeros(2, 4)
def prints():
    print("made")
    return net()
def forks():
    import os
    os.fork()
    return net()
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.mix = nn.Embedding(50, 8), nn.Linear(8, 8)

    def forward(self, ids, x):
        return self.mix(self.table(ids)) + x
number = 5
drawn = nn.Linear(3, 3)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return str(path)


def run(capsys, *args):
    status = main(["estimate", *args])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_file_is_estimated_in_every_format(file, capsys):
    status, out, err = run(capsys, "--module", f"{file}:mlp", "--format", "json", "--by", "part")
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert answer["model"]["name"] == "Sequential"
    assert answer["params"] == {"total": 262, "active": 262, "trainable": 262}
    assert answer["flops"]["forward"] == 2 * 4 * (10 * 20 + 20 * 2)
    assert answer["flops"]["backward"] == 2 * 4 * (10 * 20 + 2 * 20 * 2)  # the input needs no gradient
    assert answer["memory_bytes"]["parameters"] == 4 * 262
    assert answer["flops"]["uncounted"] == []
    assert answer["time_s"]["step"] > 0
    for form in ("table", "csv", "markdown"):
        assert run(capsys, "--module", f"{file}:mlp", "--format", form, "--by", "layer")[0] == 0


def test_a_factory_may_change_the_dtype(file, capsys):
    status, out, err = run(capsys, "--module", f"{file}:tied", "--format", "json")
    assert (status, err) == (0, "")
    assert json.loads(out)["workload"]["dtype"] == "bfloat16"
    assert json.loads(out)["memory_bytes"]["parameters"] == 2 * (50 * 8 + 50)


def test_inputs_are_made_where_forward_takes_tokens(file, capsys):
    sizes = ("--batch", "3", "--seq", "7")
    status, out, _ = run(capsys, "--module", f"{file}:Tokens", *sizes, "--format", "json")
    assert status == 0
    assert json.loads(out)["workload"]["tokens"] == 21
    assert json.loads(out)["flops"]["forward"] == 2 * 21 * 8 * 50


def test_a_module_over_several_devices_is_captured_once(monkeypatch):
    """Its inputs say how many samples a device has at once; what fits one device is laid out as dp alone."""
    module, inputs = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 2)), torch.zeros(4, 10)
    runs, captured = [], torch_module._run
    monkeypatch.setattr(torch_module, "_run", lambda *args: runs.append(0) or captured(*args))
    found = budget.plan(module, 8, inputs=inputs, device="h100").best
    assert len(runs) == 1
    assert (found.layout.dp, found.batch, found.estimate.model.samples) == (8, 4, 32)
    assert budget.estimate(module, devices=8, inputs=inputs, device="h100").devices == 8
    assert len(runs) == 1


def test_devices_of_a_file_s_module(file, capsys):
    status, out, err = run(capsys, "--module", f"{file}:mlp", "--devices", "8", "--format", "json")
    assert (status, err) == (0, "")
    assert (json.loads(out)["device"]["count"], json.loads(out)["layout"]["dp"]) == (8, 8)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("FILE:wide", "inputs: .*[4, 3].*given input [4, 3] float32"),
        ("FILE:keywords", "inputs: .*unexpected keyword argument 'inpt'"),
        ("FILE:branches", "module: .item(), or a branch on a tensor, needs the data .*net.py:12"),
        ("FILE:three", "--module: three returned 3; allowed: a module, or (module, inputs)"),
        ("FILE:raises", "--module: no such thing; .*net.py:"),
        ("FILE:leaves", "--module: 7; "),
        ("FILE:still", "module: no output needs a gradient"),
        ("FILE:number", "--module: number in .* is 5; allowed"),
        ("FILE:drawn", "inputs: forward takes no input_ids or pixel_values"),
        ("FILE:other", "--module: .*has no 'other'; it has .*mlp"),
        ("FILE", "--module: got .*allowed: path/file.py:factory"),
        ("nowhere.py:f", "--module: no file nowhere.py"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file, capsys, what, says):
    status, out, err = run(capsys, "--module", what.replace("FILE", file))
    assert (status, out, err.count("\n")) == (2, "", 1)
    rest = err
    for part in says.split(".*"):  # in this order
        assert part in rest, err
        rest = rest.partition(part)[2]


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        (("--recompute", "full"), "recompute"),
        (("--mode", "decode"), "mode"),
        (("--attention", "eager"), "attention"),
        (("--seq", "2"), "seq"),
        (("--layers", "2"), "--module"),
        (("--arch", "mlp"), "--module"),
        (("--dtype", "bf17"), "dtype"),
        (("--lora-rank", "4"), "lora_rank"),
    ],
)
def test_what_does_not_go_with_a_module(file, capsys, flags, field):
    status, _, err = run(capsys, "--module", f"{file}:mlp", *flags)
    assert status == 2
    assert err.startswith(f"budget: {field}: "), err


def test_inputs_by_their_sizes(file, capsys):
    status, out, err = run(capsys, "--module", f"{file}:net", "--input", "4x10", "--format", "json")
    assert (status, err) == (0, "")
    assert json.loads(out)["flops"]["forward"] == 2 * 4 * (10 * 20 + 20 * 2)
    two = ("--module", f"{file}:Two", "--input", "int64:3x7", "--input", "3x7x8", "--batch", "5")
    status, out, _ = run(capsys, *two, "--format", "json")
    assert status == 0
    assert json.loads(out)["flops"]["forward"] == 2 * 5 * 7 * 8 * 8
    shapes = (
        budget.estimate(nn.Linear(10, 20), inputs=(4, 10)),
        budget.estimate(nn.Linear(10, 20), inputs="4x10"),
    )
    assert shapes[0].to_dict() == shapes[1].to_dict()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--input", "4x0"), "inputs: got '4x0'; allowed: sizes as 8x3x224x224 or int64:8x128"),
        (("--input", "int99:4x10"), "inputs: got dtype 'int99'; allowed: int64, bool, bf16"),
        (("--input", "4x10", "--seq", "3"), "seq: the inputs are given; allowed: batch"),
        (("--input", "float64:4x10"), "inputs: addmm of float32 and float64; allowed: one dtype"),
        (("--input", "4x9"), "inputs: "),
    ],
)
def test_sizes_that_are_wrong(file, capsys, flags, says):
    status, out, err = run(capsys, "--module", f"{file}:net", *flags)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"budget: {says}")


def test_the_largest_batch_of_given_sizes(file):
    model, settings = nn.Linear(1000, 2000), {"inputs": (4, 100, 1000), "device": "h100"}
    best, answer = largest(model, "batch", **settings)
    assert answer.model.samples == best
    assert answer.fits
    assert not budget.estimate(model, batch=best + best // 1000 + 1, **settings).fits
    with pytest.raises(InputError, match="--solve: the inputs are given; allowed: batch"):
        largest(model, "seq", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["prints", "forks"])
def test_what_a_factory_does_besides_is_no_part_of_the_answer(file, factory):
    asked = ("estimate", "--module", f"{file}:{factory}", "--input", "4x10", "--format", "json")
    done = subprocess.run(
        [sys.executable, "-m", "budget", *asked], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["params"]["total"] == 262


def test_a_constructor_may_read_numbers_from_tensors(tmp_path, capsys):
    pytest.importorskip("transformers")
    path = tmp_path / "convnext.py"
    path.write_text(
        "from transformers import ConvNextConfig, ConvNextForImageClassification as Model\n"
        "def make(): return Model(ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2))\n"
    )
    assert run(capsys, "--module", f"{path}:make", "--image", "64")[0] == 0


def test_estimate_does_not_import_torch_for_others():
    code = "import budget, sys; budget.estimate('gpt2'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LENGTHS = """
import torch
from torch import nn

class Longest(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 8)

    def forward(self, x, lengths):
        return self.up(x[:, : int(lengths.max())])

def factory():
    return Longest(), (torch.zeros(4, 9, 8), torch.tensor([5, 3, 2, 2]))
"""


def test_a_factory_s_own_numbers_decide_sizes(tmp_path, capsys):
    """As those of tensors that a script hands over do: five steps of nine are read."""
    path = tmp_path / "lengths.py"
    path.write_text(LENGTHS)
    assert main(["estimate", "--module", f"{path}:factory", "--mode", "forward", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["flops"]["forward"] == 2 * 4 * 5 * 8 * 8
