"""What fits: the largest size, and the changes that help, of presets and of torch modules."""

import json
import re
from itertools import count

import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st

import budget
from budget import InputError, estimate
from budget.fitting.largest import MOST, _halved, _on_line, _search, fit, largest
from budget.fitting.ways import changes

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from budget.read.torch_file import constructing  # noqa: E402

FILE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, vocab=5000, width=512):
        super().__init__()
        self.table, self.head = nn.Embedding(vocab, width), nn.Linear(width, vocab)

    def forward(self, input_ids):
        return self.head(self.table(input_ids)).relu()

class Four(Net):
    def forward(self, input_ids):
        assert len(input_ids) <= 4, "four at most"
        return super().forward(input_ids)

class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3)

    def forward(self, pixel_values):
        return self.stem(pixel_values).relu()

def net(): return Net()
def four(): return Four()
def large(): return Net(1_000_000, 1024)
def pictures(): return Pictures()
def given(): return Net(), torch.zeros(2, 8, dtype=torch.int64)
def raises(): raise ValueError("no such thing")
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(("name", "settings"), [("llama-3-8b", {}), ("llama-3-70b", {"mode": "decode"})])
def test_the_fewest_devices_hold_it_and_half_as_many_do_not(name, settings):
    settings = {"device": "h100", "seq": 1024, **settings}
    found = fit(name, "devices", **settings)
    n = found.largest
    assert found and n > 1 and found.to_dict()["fewest"] == n == found.estimate.devices
    assert not budget.estimate(name, **({"devices": n // 2} if n > 2 else {}), **settings).fits
    assert f"{n:,} x H100" in str(found)


@pytest.mark.slow
def test_the_fewest_devices_are_whole_nodes_between_two_powers_of_two():
    settings = {"device": "rtx-a4000", "seq": 1024}
    n = fit("llama-2-7b", "devices", **settings).largest
    assert n % 4 == 0  # which a node of A4000s has
    assert n & (n - 1)
    assert not budget.estimate("llama-2-7b", devices=2 * n // 3, **settings).fits


@pytest.mark.slow
def test_devices_do_not_hold_what_each_has_in_full():
    found = fit("resnet50", "devices", device="t4", batch=4096)
    assert not found and "no layout" in str(found)
    with pytest.raises(InputError, match="got devices and layout"):
        fit("gpt2", "devices", layout="dp=2")


@given(
    flat=st.integers(1, 10**6),
    rise=st.integers(0, 10**4),
    bend=st.integers(0, 100),
    limit=st.integers(1, 10**7),
)
def test_the_largest_size_is_found_on_lines_kinks_and_curves(flat, rise, bend, limit):
    tries = []

    def excess(n):
        tries.append(n)
        return float(max(flat, rise * n + bend * n * n) - limit)

    found = _search(excess, 1, _on_line)
    assert found == _search(excess, 1, _halved)
    assert found == 0 or excess(found) <= 0
    assert found == MOST or excess(found + 1) > 0


def test_a_line_takes_few_tries():
    tries = count()

    def excess(n):
        next(tries)
        return 7 * n - 1000

    assert _search(excess, 1, _on_line) == 142
    assert next(tries) <= 6


@pytest.mark.parametrize("solve", ["batch", "seq", "layers"])
def test_one_more_does_not_fit(solve):
    settings = {"device": "h100", "seq": 2048, "recompute": "full", "precision": "pure"}
    if solve == "seq":
        del settings["seq"]
    best, answer = largest("llama-3-8b", solve, **settings)
    more = {"config": {"layers": best + 1}} if solve == "layers" else {solve: best + 1}
    assert answer.fits
    assert not estimate("llama-3-8b", **{**settings, **more}).fits


def test_layers_without_a_config():
    assert largest("gpt2", "layers", config=None)[0] == largest("gpt2", "layers")[0]
    with pytest.raises(InputError, match="config: got 'x'; allowed: a table"):
        largest("gpt2", "layers", config="x")


def test_a_size_that_a_network_does_not_have():
    with pytest.raises(InputError, match="seq: resnet50 has no seq; allowed: batch, image"):
        largest("resnet50", "seq")


@pytest.mark.parametrize(("name", "solve", "flags"), [
    ("net", "batch", ("--seq", "512")),
    ("net", "seq", ("--batch", "64", "--optimizer", "sgd")),
    ("pictures", "image", ("--batch", "8")),
    ("pictures", "batch", ("--image", "512", "--mode", "forward")),
])  # fmt: skip
def test_one_more_of_a_module_does_not_fit(file, capsys, name, solve, flags):
    asked = ("--module", f"{file}:{name}", "--device", "t4", *flags)
    status, out, _ = run(capsys, "fit", *asked, "--solve", solve, "--format", "json")
    best = json.loads(out)["largest"]
    assert status == 0
    for n, fits in ((best, 0), (best + 1, 1)):
        assert run(capsys, "estimate", *asked, f"--{solve}", str(n), "--fits")[0] == fits


def test_python_and_the_command_agree(file, capsys):
    with constructing():
        module = nn.Sequential(nn.Embedding(5000, 512), nn.Linear(512, 5000))
    module.forward = lambda input_ids: nn.Sequential.forward(module, input_ids)
    best, answer = largest(module, "batch", seq=512, device="t4")
    assert answer.fits and answer.model.samples == best
    with pytest.raises(InputError, match="--solve: got 'layers'; allowed: batch, seq, image"):
        largest(module, "layers")
    with pytest.raises(InputError, match="--solve: the inputs are given"):
        largest(module, "seq", inputs=torch.zeros(2, 8, dtype=torch.int64))
    ids = torch.zeros(2, 512, dtype=torch.int64)  # only its first dimension changes
    assert largest(module, "batch", inputs=(ids,), device="t4")[0] == best


def test_an_estimate_over_devices_names_a_change_where_all_together_are_refused(capsys):
    asked = ("estimate", "llama-3-8b", "--device", "h100", "--layout", "dp=8,zero=3")
    sizes = ("--batch", "2", "--global-batch", "16")
    output = run(capsys, *asked, *sizes)[1].partition("to fit")[2]
    flags = re.findall(r"--[a-z-]+ \w+", output)
    assert flags
    assert run(capsys, *asked, *sizes, *" ".join(flags).split(), "--fits")[0] == 0


def test_a_module_that_does_not_fit_is_told_what_would_help(file, capsys):
    asked = ("--module", f"{file}:large", "--device", "rtx-4090", "--batch", "4", "--seq", "64")
    status, out, _ = run(capsys, "fit", *asked)
    assert status == 1
    assert "does not fit" in out
    assert "--optimizer adamw_8bit" in out
    assert "recompute" not in out
    status, out, _ = run(capsys, "estimate", *asked)
    assert "to fit" in out


def test_a_module_is_captured_once_for_each_batch(file, monkeypatch):
    from budget.read import torch_file, torch_module

    captured, own = [], torch_module.capture
    monkeypatch.setattr(torch_module, "capture", lambda *args: captured.append(args[1]) or own(*args))
    module, _ = torch_file.load(f"{file}:net")
    found = changes(module, seconds=60, batch=2000, seq=512, device="t4")
    # few weights, large activations
    assert {frozenset(c.settings) for c in found} == {frozenset({"batch", "accumulate"})}
    assert all(c.estimate.fits and c.estimate.model.samples == 2000 for c in found)
    sizes = [x["input_ids"].shape[0] for x in captured]
    assert sorted(sizes, reverse=True) == [2000, 1000, 500, 1]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("fit", "FILE:given", "--solve", "seq"), "--solve: the inputs are given"),
        (("fit", "FILE:net", "--solve", "layers"), "--solve: got 'layers'; allowed: batch, seq, image"),
        (("fit", "FILE:net", "--solve", "image"), "image: forward takes input_ids; allowed: batch, seq"),
        (
            ("fit", "FILE:pictures", "--solve", "seq"),
            "seq: forward takes pixel_values; allowed: batch, image",
        ),
        (("fit", "FILE:net", "--batch", "0"), "batch: got 0"),
        (("fit", "FILE:net", "--batch", "1.5"), "batch: got 1.5"),
        (("fit", "FILE:raises"), "--module: no such thing"),
        (("fit", "FILE:net", "gpt2"), "--module: a file's module has no preset"),
        (("fit", "FILE:net", "--layers", "3"), "--module: a file's module has no preset"),
        (("fit", "FILE:net", "--dtype", "fp8"), "dtype: got 'fp8'; allowed for a torch module: float64"),
        (("fit", "FILE:net", "--seq", "8", "--batch", "999999999999999"), "inputs: Storage size calculation"),
        (("fit", "FILE:four", "--seq", "8", "--solve", "batch"), "inputs: four at most; given input_ids ["),
        (("fit", "FILE:net", "--recompute", "full"), "recompute: a torch module does its own"),
        (("fit", "FILE:net", "--lora-rank", "4"), "lora_rank: a torch module's dimensions have no names"),
        (("fit", "FILE:net", "--precision", "autocast"), "precision: a torch module casts by itself"),
        (("fit", "FILE:net", "--accumulate", "0"), "accumulate: got 0"),
        (("fit", "FILE:net", "--offload", "weights"), "offload: unknown name 'weights'"),
        (("compare", "FILE:net", "--layers", "3"), "--module: a file's module has no flags of its own"),
        (("compare", "FILE:raises", "gpt2"), "--module: no such thing"),
        (("compare", "FILE:net", "--batch", "-1"), "batch: got -1"),
        (("compare", "FILE"), "--module: got "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(file, capsys, args, says):
    name, *words = args[0], "--module", args[1].replace("FILE", file), *args[2:]
    status, out, err = run(capsys, name, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"budget: {says}"), err


def test_modules_and_presets_side_by_side(file, capsys):
    modules = ("--module", f"{file}:net", "--module", f"{file}:large")
    status, out, err = run(capsys, "compare", "gpt2", *modules, "--batch", "2", "--format", "json")
    assert (status, err) == (0, "")
    assert [answer["model"]["name"] for answer in json.loads(out)] == ["gpt2", "Net", "Net"]
    assert run(capsys, "compare", *modules)[0] == 0


@pytest.mark.every(3)
@pytest.mark.parametrize("name", ["unet-2d", "inception-v3", "maxvit-t"])
def test_the_smallest_image_is_one_that_the_network_takes(name):
    side, answer = largest(name, "image", device="a100-40gb")
    assert answer is not None and answer.fits
    assert side >= 64


def test_what_fits_at_no_size_is_said(capsys):
    status, out, _ = run(capsys, "fit", "llama-3-8b", "--device", "4090", "--solve", "seq")
    assert status == 1
    assert out.startswith("llama-3-8b does not fit RTX 4090, whatever the seq: ")
