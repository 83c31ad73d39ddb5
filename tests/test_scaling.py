"""The scaling experiment: real data, networks as estimated, a loop that resumes, the committed records."""

import json
import re
from pathlib import Path

import pytest
import torch
from budget.bench.scaling import data, fitted, models, picture, train
from budget.bench.scaling.__main__ import RECORDS, main, read
from torch.utils.flop_counter import FlopCounterMode

import budget

TINY = train.Run("text", (1, 12, 1), 8192, 0)


@pytest.fixture(scope="module")
def texts():
    return data.text()


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("sizes", [(10, 20, 10, 2), (64, 8, 8, 10)])
def test_a_perceptron_is_the_one_that_is_estimated(sizes):
    network = models.Perceptron(sizes)
    counted = budget.estimate("mlp", config={"sizes": sizes}).params.total
    assert sum(p.numel() for p in network.parameters()) == counted


def test_a_decoder_is_the_one_that_is_estimated():
    network = models.Decoder(2, 24, 2, 96, 64)
    config = {"layers": 2, "d_model": 24, "heads": 2, "vocab": 96, "context": 64}
    found = budget.estimate("transformer", config=config, batch=4, seq=64)
    assert sum(p.numel() for p in network.parameters()) == found.params.total
    with FlopCounterMode(display=False) as counter:
        network.to("meta")(torch.zeros(4, 64, dtype=torch.long, device="meta")).sum().backward()
    assert counter.get_total_flops() == found.flops.forward + found.flops.backward


@pytest.mark.slow
def test_no_file_is_in_two_splits_and_all_is_known(texts):
    assert all(len(part) > 100_000 for part in texts)
    assert len(texts.train) > max(r.data for r in train.decoders())
    assert max(int(part.max()) for part in texts) < len(data.ALPHABET)
    lines = [set("".join(data.ALPHABET[i] for i in part[:200_000].tolist()).split("\n")) for part in texts]
    rare = [{line for line in part if len(line) > 60} for part in lines]
    assert len(rare[0] & rare[2]) < 0.02 * len(rare[2])


def test_digits_are_standardised_by_what_is_trained_on_alone():
    pytest.importorskip("sklearn")
    split = data.digits(300, 0)
    images, labels = split.train
    assert images.shape == (300, 64) and labels.max() == 9
    assert images.mean(dim=0).abs().max() < 1e-5
    assert images.std(dim=0).max() < 1.0 + 1e-4  # a pixel that never changes keeps its scale
    other = data.digits(75, 1)
    assert torch.equal(other.test[1], split.test[1]), "one test for all"
    two = data.digits(100, 0, classes=2, components=10)
    assert two.train[0].shape == (100, 10) and set(two.train[1].tolist()) == {0, 1}


def test_augmentation_moves_by_a_pixel():
    image = torch.arange(64.0).view(1, 64)
    generator = torch.Generator().manual_seed(0)
    moved = {tuple(data.shifted(image, generator)[0].tolist()) for _ in range(200)}
    assert len(moved) == 9
    assert tuple(image[0].tolist()) in moved


@pytest.mark.slow
def test_training_resumes_and_learns(tmp_path, monkeypatch, capsys, texts):
    monkeypatch.setitem(train.PLANS, "text", lambda: iter([TINY, TINY._replace(seed=1)]))
    monkeypatch.setitem(train.TUNED_ON, "text", 4096)
    monkeypatch.setattr(data, "text", lambda: texts)
    out = tmp_path / "records.jsonl"
    assert main(["run", "--family", "text", "--out", str(out), "--only", "8192-0"]) == 0
    first = read(str(out))
    out.write_text(out.read_text("utf-8") + '{"key": "half', "utf-8")  # as an interruption leaves it
    assert main(["run", "--family", "text", "--out", str(out)]) == 0
    both = read(str(out))
    assert [r["key"] for r in both] == ["text-1x12x1-8192-0", "text-1x12x1-8192-1"]
    assert both[0] == first[0]
    assert both[1]["loss"] < 4.5  # 96 characters: ln 96 is 4.56
    assert both[1]["train_flops"] > 0 and both[1]["predicted_s"] > 0
    assert both[1]["lr"] in train.RATES["text"]


def test_an_interruption_is_one_line(tmp_path, monkeypatch, capsys, texts):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "text", lambda: texts)
    monkeypatch.setattr(train, "tune", interrupted)
    assert main(["run", "--family", "text", "--out", str(tmp_path / "records.jsonl")]) == 130
    assert capsys.readouterr().out == "interrupted; run again to go on\n"


@pytest.mark.slow
def test_the_records_tell_the_law_that_the_page_has(capsys, tmp_path):
    pytest.importorskip("scipy")
    records = read(RECORDS)
    assert len(records) >= 50
    assert len({r["key"] for r in records}) == len(records)
    for r in records:
        kind = "mlp" if r["family"] == "mlp" else "transformer"
        layers, d_model, heads = (*r["sizes"], 0, 0)[:3]
        config = {"sizes": r["sizes"]} if kind == "mlp" else {
            "layers": layers, "d_model": d_model, "heads": heads, "vocab": 96, "context": 64
        }  # fmt: skip
        assert budget.estimate(kind, config=config).params.total == r["params"]
    target = tmp_path / "curves.svg"
    assert main(["report", "--picture", str(target)]) == 0
    output = capsys.readouterr().out
    page = (Path(__file__).parents[1] / "docs/scaling.md").read_text("utf-8")
    exponents = re.compile(r"(alpha|beta) ([\d.]+)")  # to the digits that another processor's rounding leaves
    for (name, now), (kept, then) in zip(
        exponents.findall(output), exponents.findall(page.split("```")[1]), strict=True
    ):
        assert name == kept
        assert float(now) == pytest.approx(float(then), rel=0.03)
    assert target.read_text("utf-8").count("<circle") > len(records)


def test_held_out_losses_come_from_the_others():
    true = {"E": 1.0, "A": 20.0, "B": 50.0, "alpha": 0.4, "beta": 0.4}
    rows = [
        {"family": "text", "sizes": [1], "params": n, "data": d, "key": f"{n}-{d}",
         "loss": fitted.additive.loss(true, n, d)}
        for n in (1e3, 1e4, 1e5, 1e6) for d in (1e4, 1e5, 1e6)
    ]  # fmt: skip
    held = fitted.held_out(rows)
    assert [r["params"] for r, *_ in held] == [1e6] * 3
    for r, loss, low, high in held:
        assert loss == pytest.approx(r["loss"], rel=1e-3)
        assert low <= loss * 1.001 and high >= loss * 0.999


def test_no_records_is_said(tmp_path, capsys):
    assert main(["report", "--records", str(tmp_path / "none")]) == 2
    assert "no records" in capsys.readouterr().err


def test_ticks_are_round():
    assert picture._ticks(0.28, 2.3) == [0.5, 1.0, 2.0]
    assert json.dumps(picture._ticks(1.7, 3.1)) == "[1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0]"
