"""Several estimates at once: `budget compare`, and lists of sizes and names in `budget estimate`."""

from __future__ import annotations

import json
import re

import pytest

import budget
from budget.__main__ import main
from budget.command._lists import sizes
from budget.comparison import compare
from budget.report._comparison import answer, heading, table
from budget.report.csv import records


def printed(capsys, *args):
    assert main(args) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16", 16),
        ("128k", 128 * 1024),
        ("1M", 1024**2),
        ("1.5k", 1536),
        ("1_000", 1000),
        ("8,16,32", [8, 16, 32]),
        ("1..16", [1, 2, 4, 8, 16]),
        ("3..20", [3, 6, 12, 20]),
        ("1k,4k", [1024, 4096]),
        ("many", "many"),
        (None, None),
    ],
)
def test_sizes(text, found):
    assert sizes("batch", text) == found


def test_a_sweep_is_an_estimate_of_each(capsys):
    args = ("estimate", "gpt2", "--batch", "1,3", "--device", "a100,h100", "--format", "json")
    each = json.loads(printed(capsys, *args))
    assert [(e["workload"]["batch"], e["device"]["id"]) for e in each] == [
        (batch, budget.estimate("gpt2", device=device).device.id)
        for batch in (1, 3)
        for device in ("a100", "h100")
    ]
    for e in each:
        own = budget.estimate("gpt2", batch=e["workload"]["batch"], device=e["device"]["id"])
        assert e == json.loads(json.dumps(own.to_dict()))


def test_what_is_shared_is_said_once(capsys):
    several = ("--device", "v100", "--device", "h100")  # as good as v100,h100
    text = printed(capsys, "compare", "resnet50", *several, "--batch", "64", "--dtype", "fp16")
    head, table = text.split("\n\n", 1)
    assert "resnet50" in head and "batch 64" in head and "fp16 + fp32 master" in head
    assert "resnet50" not in table and "V100" in table and "H100" in table and "images/s" in table


def test_what_differs_has_a_column():
    found = compare("gpt2", "bert-base", batch=[1, 2])
    columns = [c.key for c in answer(found).tables()[0].columns]
    assert columns[:3] == ["model", "params", "batch"] or columns[:3] == ["model", "params", "mode"]
    assert "device" not in columns
    assert "H200" in heading(found)
    assert records(answer(found))[0]["dtype"] == "bfloat16"  # scripts have its name
    assert "seq" not in [c.key for c in answer(compare("resnet50", "vit-b-16")).tables()[0].columns]
    assert "0" not in [
        cell for row in answer(compare("gpt2", "resnet50")).tables()[0].cells() for cell in row
    ]


def test_each_rate_is_of_its_own_unit():
    of = budget.compare("gpt2", "resnet50", batch=4)
    told = dict(zip([c.key for c in table(of).columns], zip(*table(of).cells(), strict=True), strict=True))
    for e, said in zip(of, told["rate"], strict=True):
        number, prefix, unit = re.fullmatch(r"([\d.]+) (?:(k|M) )?(\w+)/s", said).groups()
        a_sample = 1024 if unit == "tokens" else 1
        per_second = 4 * a_sample / e.times.step
        assert float(number) * {"k": 1e3, "M": 1e6, None: 1}[prefix] == pytest.approx(per_second, rel=0.01)
    assert [c.key for c in table(budget.compare("gpt2", mode="decode", batch=[1, 2])).columns][-1] == "MBU"


def test_devices_of_one_model_have_a_price():
    found = compare("llama-3-8b", mode="decode", device=["h100", "a100"])
    table = answer(found).tables()[0]
    assert table.columns[-1].key == "usd_per_million"
    assert [row[-1] for row in table.rows] == [e.cost()["usd_per_million"] for e in found]
    assert "usd_per_million" not in [c.key for c in answer(compare("gpt2", batch=[1, 2])).tables()[0].columns]


def test_whole_runs_have_the_price_of_each_device_their_ranges_and_pictures(capsys):
    args = ["compare", "gpt2", "--device", "h100,a100", "--tokens", "1T"]
    output = printed(capsys, *args, "--price", "2,1", "--format", "json")
    for run, price in zip(json.loads(output), (2, 1), strict=True):
        assert run["job"]["usd"] == pytest.approx(run["job"]["device_hours"] * price)
    low, high = (json.loads(output)[1]["job"][f"days_{end}"] for end in ("low", "high"))
    assert f"{low:.3g} days to {high:.3g} days" in printed(capsys, *args)
    assert "H100 SXM 80GB" in printed(capsys, *args, "--format", "svg")


def test_the_knee_is_the_first_batch_near_the_highest_rate():
    found = compare("gpt2", mode="decode", batch=[2**i for i in range(10)])
    best = max(e.rate[0] for e in found if e.fits)
    knee = next(e.task.workload.batch for e in found if e.rate[0] >= 0.9 * best)
    assert f"batch {knee} " in answer(found).foot
    assert answer(compare("gpt2", "bert-base")).foot == ""


@pytest.mark.parametrize(("settings", "says"), [({"batch": []}, "0 cases"), ({"batch": [1] * 1001}, "1,001")])
def test_too_many_or_none(settings, says):
    with pytest.raises(budget.InputError, match=says):
        compare("gpt2", **settings)


@pytest.mark.parametrize(
    ("name", "unit"), [("vit-b-16", "images"), ("gpt2", "tokens"), ("mlp-10-20-10-2", "samples")]
)
def test_work_has_its_unit(name, unit):
    assert budget.estimate(name).unit == unit


@pytest.mark.parametrize("name", ["bert-base-uncased", "DeepSeek-R1", "albert-base-v2"])
def test_a_name_of_the_hub_needs_no_owner(name):
    assert budget.estimate(name).params.total > 1e6


def test_a_heading_says_the_techniques_that_all_have(capsys):
    args = ["compare", "gpt2", "--device", "h100,a100", "--mode", "decode", "--quantize", "int8"]
    assert main(args) == 0
    assert "quantize int8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("quantize", ["none", "Q8_0", "q4_k_m"]), ("lora_rank", [8, 64]), ("kv_dtype", ["bf16", "fp8"]),
        ("precision", ["pure", "autocast"]), ("accumulate", [1, 4]), ("devices", [2, 4]),
    ],
)  # fmt: skip
def test_techniques_are_compared_as_single_calls_answer(capsys, flag, values):
    mode = "decode" if flag in ("quantize", "kv_dtype") else "train"
    found = compare("gpt2", mode=mode, **{flag: values})
    for e, value in zip(found, values, strict=True):
        one = budget.estimate("gpt2", mode=mode, **{flag: value})
        assert (e.memory.peak, e.times.step) == (one.memory.peak, one.times.step)
    listed = ",".join(map(str, values))
    args = ["compare", "gpt2", "--mode", mode, f"--{flag.replace('_', '-')}", listed, "--format", "json"]
    assert main(args) == 0
    assert [e["memory_bytes"]["peak"] for e in json.loads(capsys.readouterr().out)] == [
        e.memory.peak for e in found
    ]


def test_the_number_of_devices_is_said_apart_where_it_or_their_name_is_shared(capsys):
    """In 80 columns `8 x H100 SXM 80GB` was cut to `..0 SXM 80GB` beside a layout."""
    kinds = printed(capsys, "compare", "llama-3-8b", "--device", "h100,a100", "--devices", "8")
    assert "on 8 devices" in kinds.replace("\n              ", " ")
    assert " H100 SXM 80GB " in kinds and ".." not in kinds
    counts = printed(capsys, "compare", "gpt2", "--device", "h100", "--devices", "2,4")
    assert "on H100 SXM 80GB" in counts.replace("\n              ", " ")
    assert re.search(r"(?m)^2 ", counts) and re.search(r"(?m)^4 ", counts)


def test_a_layout_of_a_table_is_as_its_flag_takes_it(capsys):
    output = printed(capsys, "compare", "llama-3-8b", "--device", "h100,a100", "--devices", "8")
    layouts = re.findall(r" ((?:\w+=\d+,?)+) ", output)
    assert layouts
    for layout in layouts:
        assert budget.estimate("llama-3-8b", device="h100", layout=layout).devices == 8


def test_a_batch_is_said_to_be_a_replica_s_where_more_devices_take_more_samples(capsys):
    args = ["compare", "gpt2", "--device", "a100,h100", "--devices", "1,8"]
    output = printed(capsys, *args, "--batch", "8")
    assert "a batch is one replica's: steps are of 8, 64 samples (the same: --global-batch)" in output
    assert "replica's" not in printed(capsys, *args, "--global-batch", "64")
    searched = printed(
        capsys, "compare", "gpt2", "--device", "2xa100,3xh100", "--global-batch", "65536-tokens"
    )
    assert re.search(r"steps are of 64, 6\d samples$", searched, re.MULTILINE)
    assert "accumulate" not in searched
    assert "replica's" not in printed(capsys, *args, "--mode", "decode")
