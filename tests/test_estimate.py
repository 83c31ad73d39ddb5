"""What `estimate` takes and refuses, and what its answer can do."""

import csv
import pickle
import subprocess
import sys

import numpy as np
import pytest

from budget import InputError, estimate
from budget.arch import mlp
from budget.config import Workload
from budget.device import load
from budget.report import render

MODEL = mlp.build(mlp.Config(), Workload("forward", 4))

WRONG = [
    ({"device": 3}, "device: got 3; allowed: a device's name, or a Device"),
    ({"device": 7}, "device: got 7"),
    ({"config": "x"}, "config: got 'x'; allowed: a table of settings"),
    ({"config": ["layers"]}, "config: got "),
]

UNUSED = [
    (MODEL, {"batch": 64}, "batch: a Model has its own"),
    (MODEL, {"seq": 1024}, "seq: a Model has its own"),
    (MODEL, {"config": {"bias": False}}, "bias: a Model has its own"),
    ("resnet50", {"seq": 512}, "seq: resnet50 has no seq; allowed: batch, image"),
    ("gpt2", {"image": 512}, "image: gpt2 has no image; allowed: batch, seq"),
    ("mlp", {"seq": 512}, "seq: mlp has no seq; allowed: batch$"),
    (
        "resnet50",
        {"mode": "decode"},
        "mode: resnet50 has no decode, since it generates no tokens; allowed: train, forward",
    ),
    ("vit-b-16", {"mode": "prefill"}, "mode: vit-b-16 has no prefill"),
    ("conformer", {"mode": "decode"}, "mode: conformer has no decode"),
    ("gpt2", {"mode": "forward", "optimizer": "nonsense"}, "optimizer: unknown name 'nonsense'"),
    ("gpt2", {"mode": "decode", "optimizer": "sgd"}, "optimizer: there is no backward pass in mode decode"),
    ("gpt2", {"dtype": "fp8"}, "dtype: got fp8; allowed in training: bf16, with precision fp8"),
    ("resnet50", {"dtype": "int8", "device": "t4"}, ".*int8 itself: mode forward"),
    ("resnet50", {"quantize": "int8", "mode": "forward"}, "quantize: .* or dtype int8"),
    ("gpt2", {"dtype": "int4"}, "dtype: got 'int4'; allowed: fp64, fp32, tf32, bf16, fp16, fp8, int8"),
    ("gpt2", {"dtype": "int64", "mode": "forward"}, "dtype: got 'int64'"),
    ("gpt2", {"lora_rank": 8, "lora_dropout": 7.0}, "lora_dropout: got 7.0; allowed: 0 to 1"),
]


@pytest.mark.parametrize(
    ("name", "cached"),
    [
        ("gpt2", 1024), ("llama-3-8b", 8192), ("t5-small", 512), ("whisper-tiny", 448),
        ("gemma-3-4b", 8192), ("llama-3.2-11b-vision", 4096), ("gemma-4-e2b", 4096),
    ],
)  # fmt: skip
def test_decode_says_how_long_its_cache_is(name, cached):
    usual, asked = estimate(name, mode="decode"), estimate(name, mode="decode", seq=cached)
    assert usual.to_dict()["workload"]["seq"] == cached
    assert usual.memory.kv_cache == asked.memory.kv_cache and usual.flops == asked.flops
    assert f"{cached:,} tokens in the cache" in str(usual)


@pytest.mark.parametrize(("model", "settings", "problem"), UNUSED)
def test_what_would_not_be_used_is_refused(model, settings, problem):
    with pytest.raises(InputError, match=f"^{problem}"):
        estimate(model, **settings)


@pytest.mark.parametrize(("settings", "problem"), WRONG)
def test_what_is_no_setting_at_all(settings, problem):
    with pytest.raises(InputError, match=f"^{problem}"):
        estimate("gpt2", **settings)


ARRAYS = [
    ("gpt2", {"seq": np.array([512, 4096])}, "seq: got .*at most context, 1024"),
    ("gpt2", {"seq": np.array([[512], [4096]])}, "seq: got .*at most context, 1024"),
    ("whisper-tiny", {"seq": np.array([8, 2560])}, "seq: got .*at most context, 448"),
    ("conformer", {"seq": np.array([4, 800])}, "seq: an array with values out of range; allowed: .* from 7"),
    ("vit-b-16", {"image": np.array([8, 224])}, "patch: got 16; allowed: at most image"),
    ("gpt2", {"batch": np.array([1, 2, 3]), "seq": np.array([5, 6])}, r"seq: got arrays batch \(3,\), seq"),
    ("gpt2", {"batch": np.ones(3), "config": {"layers": np.array([5, 6])}}, "batch: got arrays layers"),
    ("gpt2", {"config": {"layers": np.array([5, 6]), "heads": np.ones(3)}}, "heads: got arrays layers"),
    ("gpt2", {"batch": np.array(True)}, "batch: got True"),
    ("gpt2", {"batch": np.float64(1.5)}, "batch: got .*1.5"),
    ("gpt2", {"lora_rank": np.array([4, 8])}, "lora_rank: got .*allowed: one whole number"),
    ("gpt2", {"devices": np.array([1, 2])}, "devices: got .*allowed where layouts are searched: one number"),
    ("gpt2", {"devices": 2, "global_batch": np.array([2, 4])}, "global_batch: got .*allowed where layouts"),
    ("gpt2", {"devices": 2, "batch": [1, 2]}, "batch: got .*allowed where layouts are searched"),
]


@pytest.mark.parametrize(("model", "settings", "problem"), ARRAYS)
def test_limits_hold_for_every_element(model, settings, problem):
    with pytest.raises(InputError, match=f"^{problem}") as error:
        estimate(model, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("four", [np.int64(4), np.uint8(4), np.array(4), np.float32(4)])
def test_numbers_of_numpy_are_numbers(four):
    assert estimate("gpt2", batch=four).to_dict() == estimate("gpt2", batch=4).to_dict()


@pytest.mark.parametrize("by", ["operator", "moment"])
def test_arrays_are_csv_by_index(by):
    table = list(csv.DictReader(render(estimate("gpt2", batch=np.array([1, 3])), "csv", by).splitlines()))
    for i, batch in enumerate((1, 3)):
        alone = csv.DictReader(render(estimate("gpt2", batch=batch), "csv", by).splitlines())
        for row, one in zip([r for r in table if r["index"] == str(i)], alone, strict=True):
            for name, value in one.items():
                number = value[:1].isdigit()
                assert (float(row[name]) == pytest.approx(float(value))) if number else row[name] == value


def test_sizes_that_are_used():
    assert estimate(MODEL).model.samples == 4
    assert estimate("video_resnet", seq=8, image=64).flops.forward > 0
    assert estimate("gpt2", seq=512, dtype="fp8", mode="decode").memory.kv_cache > 0


@pytest.mark.parametrize("name", ["gpt2", "resnet50"])
def test_an_estimate_survives_pickling(name):
    ours = estimate(name, dtype="fp32", lora_rank=8 if name == "gpt2" else 0)
    peak = ours.memory.peak
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301 - our own
    assert again == ours and again.to_dict() == ours.to_dict()
    assert (again.memory.peak, again.memory.curve) == (peak, ours.memory.curve)
    assert pickle.loads(pickle.dumps(load("h100"))) == load("h100")  # noqa: S301 - our own


def test_estimates_of_one_program_share_its_memory():
    assert estimate("gpt2").memory is estimate("gpt2", device="h100").memory


def test_an_estimate_is_shown_in_one_line():
    assert repr(estimate("gpt2", batch=4)) == "Estimate(gpt2, train, batch=4, bfloat16, H200 SXM 141GB)"
    assert len(repr(estimate("mlp", batch=np.arange(1, 9999)))) < 200


def test_a_presets_own_sizes_are_its_usual_ones():
    assert estimate("lstm-ptb-medium").model.tokens == 20 * 35
    assert estimate("lstm-ptb-medium", seq=70, batch=1).model.tokens == 70


def test_importing_leaves_the_collector_as_it_was():
    program = "import gc; {}; import budget; print(gc.isenabled(), gc.get_freeze_count() > 0)"
    for before, after in (("0", "True False"), ("gc.disable()", "False False"), ("gc.freeze()", "True True")):
        command = [sys.executable, "-c", program.format(before)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == after


def test_float8_needs_a_device_that_has_it():
    assert estimate("gpt2", device="h100", precision="fp8").times.step > 0
    with pytest.raises(InputError, match="has no fp8"):
        estimate("gpt2", device="v100", precision="fp8")


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({"optimizer": "AdamW"}, {"optimizer": "adamw"}),
        ({"optimizer": "SGD"}, {"optimizer": "sgd"}),
        ({"dtype": "torch.float16"}, {"dtype": "fp16"}),
        ({"dtype": "BF16"}, {"dtype": "bf16"}),
    ],
)
def test_settings_in_torch_s_words(told, meant):
    assert estimate("gpt2", batch=2, **told).to_dict() == estimate("gpt2", batch=2, **meant).to_dict()


def test_a_dtype_of_torch_is_its_name():
    torch = pytest.importorskip("torch")
    assert estimate("gpt2", dtype=torch.float16).to_dict() == estimate("gpt2", dtype="fp16").to_dict()


def test_who_asks_for_a_longer_context_means_to_use_it():
    """The length of a preset's own context is 8,192 at most; one that is asked for is taken whole."""
    for config, seq in (({"context": 4096}, 4096), ({"context": 32768}, 32768)):
        asked = estimate("llama-3.1-8b", mode="decode", config=config)
        assert asked.memory.kv_cache == estimate("llama-3.1-8b", mode="decode", seq=seq).memory.kv_cache
    short = estimate("llama-3.1-8b", mode="decode", seq=512, config={"context": 32768})
    assert short.memory.kv_cache == estimate("llama-3.1-8b", mode="decode", seq=512).memory.kv_cache
