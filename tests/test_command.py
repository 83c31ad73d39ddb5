"""The command line as people use it: answers, formats, help, and what an estimate imports."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sympy
from commands import run

import budget
from budget import command
from budget.__main__ import main
from budget.read import preset

CONTRACT = {
    "schema": None,
    "model": {"name", "arch", "config"},
    "workload": {"mode", "batch", "seq", "dtype", "optimizer", "recompute", "attention"},
    "params": {"total", "active", "trainable"},
    "flops": {"forward", "backward", "step", "model_step", "hardware_step", "uncounted"},
    "memory_bytes": {
        "parameters",
        "gradients",
        "optimizer",
        "activations",
        "temporaries",
        "kv_cache",
        "peak",
    },
    "time_s": {"forward", "backward", "optimizer", "communication", "bubble", "step", "low", "high"},
    "rate": {"samples_per_s", "tokens_per_s", "tflops_per_device", "mfu", "hfu"},
    "device": {"name", "count"},
    "fits": None,
    "provenance": set(),
    "ops": None,
}


def test_the_contract_s_keys(capsys):
    status, out, _ = run(capsys, "estimate", "gpt2", "--format", "json")
    answer = json.loads(out)
    assert status == 0
    for key, inner in CONTRACT.items():
        assert key in answer
        assert inner is None or inner <= set(answer[key]), key
    assert answer["schema"] == "budget.estimate/1"
    assert answer["params"]["total"] == 124439808
    assert (answer["flops"]["forward"], answer["flops"]["step"]) == (291648307200, 874944921600)
    assert answer["time_s"]["low"] < answer["time_s"]["step"] < answer["time_s"]["high"]
    assert sum(op["params"] for op in answer["ops"]) == answer["params"]["total"]
    assert sum(op["time_s"] for op in answer["ops"]) <= answer["time_s"]["step"] * 1.000001


GOLDEN = [
    (["mlp-10-20-10-2", "--batch", "1"], 452, 840, 2120),
    (["resnet50"], 25557032, 8178368512, 24299077632),
    (["--arch", "rnn", "--cell", "lstm", "--input-size", "256", "--hidden-size", "512", "--layers", "2",
      "--batch", "8", "--seq", "128"], 3678208, 7516192768, 21441282048),
    (["llama-2-7b", "--seq", "4096"], 6738415616, 62921270886400, 188763812659200),
    (["mixtral-8x7b", "--seq", "4096"], 46702792704, 113232517791744, 339697553375232),
]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "params", "forward", "step"), GOLDEN, ids=lambda x: x[0] if isinstance(x, list) else ""
)
def test_golden_numbers_by_the_command_line(capsys, args, params, forward, step):
    status, out, _ = run(capsys, "estimate", *args, "--format", "json")
    answer = json.loads(out)
    assert status == 0
    assert answer["params"]["total"] == params
    assert (answer["flops"]["forward"], answer["flops"]["step"]) == (forward, step)


@pytest.mark.every(6)
@pytest.mark.parametrize("name", preset.names())
def test_every_preset_answers_in_eighty_columns(capsys, name):
    status, out, err = run(capsys, "estimate", name, "--mode", "forward")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "parameters" in out.splitlines()[0]


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
@pytest.mark.parametrize("by", ["operator", "part", "layer", "moment"])
def test_formats_and_breakdowns(capsys, tmp_path, form, by):
    target = tmp_path / "answer"
    status, out, err = run(
        capsys, "estimate", "--arch", "transformer", "--format", form, "--by", by, "--output", str(target)
    )
    assert (status, out, err) == (0, "", "")
    text = target.read_text("utf-8")
    assert len(text.splitlines()) > 5 or form == "json"
    assert os.listdir(tmp_path) == ["answer"], "nothing half written is left behind"


def test_a_comparison_as_csv_has_raw_numbers(capsys):
    status, out, _ = run(capsys, "compare", "gpt2", "resnet50", "--format", "csv")
    rows = list(csv.DictReader(out.splitlines()))
    e = budget.estimate("gpt2")
    assert status == 0 and [row["model"] for row in rows] == ["gpt2", "resnet50"]
    assert [float(rows[0][name]) for name in ("params", "forward", "peak", "time")] == [
        e.params.total, e.flops.forward, e.memory.peak, e.times.step
    ]  # fmt: skip
    assert "GiB" in run(capsys, "compare", "gpt2", "--format", "markdown")[1]


@pytest.mark.parametrize(("file", "name"), [("small.json", "small"), ("config.json", "nets")])
def test_a_config_is_named_after_its_file_or_folder(tmp_path, file, name):
    path = tmp_path / "nets" / file
    path.parent.mkdir()
    path.write_text('{"model_type": "gpt2", "n_layer": 2}')
    assert budget.estimate(path).model.name == budget.estimate(str(path)).model.name == name


def test_help_teaches_by_example(capsys):
    for args in ([], ["--help"]):
        status, out, _ = run(capsys, *args)
        assert status == 0 and "budget estimate --arch transformer" in out
        assert max(map(len, out.splitlines())) <= 80
    for name in command.names():
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        output = capsys.readouterr().out
        assert stop.value.code == 0 and "examples:" in output
        assert max(map(len, output.splitlines())) <= 80, name


def test_fits_is_a_question(capsys):
    assert run(capsys, "estimate", "gpt2", "--fits")[0] == 0
    status, out, _ = run(capsys, "estimate", "llama-3-405b", "--fits")
    assert status == 1 and "does not fit" in out


@pytest.mark.parametrize(
    ("form", "unused"),
    [
        ("json", {"budget.report._summary"}),
        ("table", {"json", "budget.report._object", "budget.fold.rows", "budget.fitting"}),
    ],
)
def test_an_estimate_imports_nothing_slow(form, unused):
    """What takes longer to import than a tenth of an estimate, of the standard library too; nor what it does
    not need: no way makes this network fit.
    """
    slow = {"torch", "numpy", "sympy", "psutil", "typing", "dataclasses", "inspect", "tomllib", "pathlib"}
    code = (
        f"import sys, budget.__main__ as m; m.main(['estimate', 'llama-3-405b', '--format', '{form}']);"
        f"print(sorted({slow | unused} & set(sys.modules)), file=sys.stderr)"
    )
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1], env=clean,
    )  # fmt: skip
    assert done.stderr == "[]\n"


def test_every_word_of_an_answer_is_explained(capsys):
    terms = set(run(capsys, "explain")[1].replace(",", " ").split())
    said = set[str]()
    for args in (["gpt2"], ["gpt3", "--recompute", "full"], ["resnet50"], ["gpt2", "--mode", "decode"]):
        out = run(capsys, "estimate", *args)[1]
        said |= {line.split()[0] for line in out.splitlines()[3:] if line.strip()}
        said |= set(re.findall(r"(\w+) \d+%", out))
        columns = run(capsys, "estimate", *args, "--by", "layer")[1].splitlines()
        said |= set(next(line for line in columns if line.startswith("layer ")).split()[-2:])
    flags = {word for word in said if word.startswith("--")}  # of what would make it fit
    assert {word for word in said - flags if word.lower() not in terms} - {"does", "to", "fits:"} == set()
    answer = budget.estimate("gpt2").to_dict()
    keys = {k for part in ("params", "flops", "memory_bytes", "time_s", "rate", "cost") for k in answer[part]}
    assert {k for k in keys if run(capsys, "explain", k)[0]} == {"total"}


@pytest.mark.parametrize(
    "name", ["resnet50", "vit-b-16", "efficientnet-b0", "gpt2", "lstm-ptb-medium", "paligemma-3b-224"]
)
def test_a_formula_s_value_is_the_estimate_s(capsys, name):
    out = run(capsys, "formula", name)[1]
    told = dict(line.split(" = ") for line in out.splitlines() if " = " in line)
    for sizes in ({"batch": 3, "image": 224}, {"batch": 2, "image": 160}, {"batch": 3, "seq": 77}):
        if ("image" in sizes) != ("image" in out):
            continue
        e = budget.estimate(name, **sizes)
        own = {key: int(sympy.sympify(value).subs(sizes)) for key, value in told.items()}
        assert own["parameters"] == e.params.total
        assert own["step FLOPs"] == e.flops.forward + e.flops.backward
        if not e.task.techniques.used:
            assert own["forward FLOPs"] == e.flops.forward


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("KV cache", "past tokens"),
        ("x real time", "sound"),
        ("pass", "Forward"),
        ("lora rank", "--lora-rank"),
        ("documents", "attention stays within"),
        ("share", "--share, a flag of budget serve: part of the memory"),
        ("output tokens", "--output-tokens, a flag of budget serve"),
        ("usd", "a flag of budget scale"),
        ("first token", "Time to the first token"),
        ("--lora-rank", "--lora-rank, a flag of budget estimate"),
        ("ridge", "295 FLOPs a byte"),
        ("6 N D", "2 N D for the forward pass"),
        ("nf4-dq", "a value of --quantize (frozen weights in few bits)"),
        ("adamw_8bit", "a value of --optimizer (budget explain optimizer)"),
        ("chinchilla", "one of the laws: budget list laws chinchilla"),
        ("h100", "H100 SXM 80GB, 79.6 GiB, 3,350 GB/s"),
        ("p4d.24xlarge", "8 devices: A100 SXM 40GB"),
        ("vpp", "of --layout: stages of each device"),
        ("zero=3", "of --layout: what dp divides"),
        ("kv heads", "of --arch transformer: key-value heads"),
        ("bf16", "--dtype"),
        ("vllm", "one of the stacks"),  # and a source of that name
        ("Maximum concurrency", "the requests, prompt and answer, whose cache fits"),
        ("nvidia-smi", "What nvidia-smi shows at the peak"),
        ("MACs", "are half of them"),
        ("16 bytes per parameter", "takes 16 bytes"),
        ("nvpmodel", "A power mode of a Jetson"),
    ],
)
def test_a_term_of_several_words_is_explained(capsys, words, says):
    assert main(["explain", *words.split()]) == 0
    assert says in capsys.readouterr().out


def test_an_output_of_a_dash_is_standard_output(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["estimate", "gpt2", "--format", "json", "--output", "-"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert not list(tmp_path.iterdir())


def test_models_to_compare_may_be_joined_by_commas(capsys):
    tables = []
    for models in (["gpt2,bert-base"], ["gpt2", "bert-base"]):
        assert main(["compare", *models, "--format", "csv"]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("as_typed", "as_told"),
    [
        ("--arch mlp --sizes [784,256,10]", "--arch mlp --sizes 784,256,10"),
        ("--arch mlp --sizes 784-256-10", "--arch mlp --sizes 784,256,10"),
        ("resnet50 --image 224x224", "resnet50 --image 224"),
        ("gpt2 --format md", "gpt2 --format markdown"),
        ("https://huggingface.co/openai-community/gpt2", "gpt2"),
        ("https://huggingface.co/gpt2/resolve/main/config.json", "gpt2"),
        ("--config https://hf.co/Qwen/Qwen3-8B/blob/main/config.json", "qwen3-8b"),
    ],
)
def test_other_ways_to_type_it(capsys, as_typed, as_told):
    output = run(capsys, "estimate", *as_typed.split())
    assert output == run(capsys, "estimate", *as_told.split()) and output[0] == 0


def test_a_config_may_be_of_an_architecture_here(capsys, tmp_path):
    path = tmp_path / "net.json"
    path.write_text('{"arch": "mlp", "sizes": [784, 256, 10], "note": "digits"}')
    flags = ("--batch", "64", "--format", "json")
    answer = json.loads(run(capsys, "estimate", "--config", str(path), *flags)[1])
    same = json.loads(run(capsys, "estimate", "--arch", "mlp", "--sizes", "784,256,10", *flags)[1])
    assert answer["model"].pop("name") == "net" and same["model"].pop("name") == "mlp"
    assert answer == same
    path.write_text('{"arch": "mlp", "layers": 3}')
    assert run(capsys, "estimate", "--config", str(path))[2].startswith("budget: layers: unknown name")
    path.write_text("\n")
    assert run(capsys, "estimate", "--config", str(path))[2].endswith("net.json is empty\n")
