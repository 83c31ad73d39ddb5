"""The command line as people use it, and as they misuse it: one line, status 2, never a traceback."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import budget
from budget import command, table
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


def refused(capsys, *args):
    """What a wrong call says: one line on standard error and nothing else."""
    status, out, err = run(capsys, *args)
    assert (status, out, err.count("\n")) == (2, "", 1), (args, out, err)
    assert err.startswith("budget: ")
    return err


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
        told = capsys.readouterr().out
        assert stop.value.code == 0 and "examples:" in told
        assert max(map(len, told.splitlines())) <= 80, name


def test_fits_is_a_question(capsys):
    assert run(capsys, "estimate", "gpt2", "--fits")[0] == 0
    status, out, _ = run(capsys, "estimate", "llama-3-405b", "--fits")
    assert status == 1 and "does not fit" in out


WRONG = [
    (["estimate", "gpt3-xxl"], "gpt3"),
    (["estimate", "gpt2", "--device", "h2000"], "did you mean"),
    (["estimate", "gpt2", "--batch", "0"], "batch: got 0"),
    (["estimate", "gpt2", "--batch", "-4"], "batch: got -4"),
    (["estimate", "gpt2", "--batch", "1.5"], "batch: got 1.5"),
    (["estimate", "gpt2", "--batch", "nan"], "batch: got 'nan'"),
    (["estimate", "gpt2", "--batch", "many"], "batch: got 'many'"),
    (["estimate", "gpt2", "--batch", "1e40"], "batch"),
    (["estimate", "gpt2", "--batch"], "--batch"),
    (["estimate", "gpt2", "--btach", "3"], "did you mean '--batch'"),
    (["estimate", "gpt2", "gpt2"], "too many"),
    (["estimate", "gpt2", "--arch", "mlp"], "one of PRESET"),
    (["estimate", "--arch", "transfomer"], "did you mean 'transformer'"),
    (["estimate", "--arch", "transformer", "--heads", "7"], "heads"),
    (["estimate", "--arch", "transformer", "--kv-heads", "5"], "kv_heads"),
    (["estimate", "--arch", "transformer", "--d-model", "0"], "d_model: got 0"),
    (["estimate", "--arch", "transformer", "--kind", "sideways"], "decoder, encoder"),
    (["estimate", "gpt2", "--mode", "tain"], "did you mean 'train'"),
    (["estimate", "gpt2", "--dtype", "bf61"], "did you mean 'bf16'"),
    (["estimate", "gpt2", "--optimizer", "adamww"], "did you mean 'adamw'"),
    (["estimate", "gpt2", "--recompute", "some"], "recompute"),
    (["estimate", "gpt2", "--attention", "fast"], "attention"),
    (["estimate", "gpt2", "--format", "yaml"], "format"),
    (["estimate", "gpt2", "--by", "colour"], "by"),
    (["estimate", "gpt2", "--output", "/nowhere/at/all"], "--output"),
    (["estimate", "gpt2", "--output", "/"], "--output"),
    (["estimate", "--config", "/nowhere/config.json"], "config"),
    (["estimate", ""], "model"),
    (["esitmate"], "did you mean 'estimate'"),
    (["list", "colours"], "architectures, families, presets, devices"),
    (["explain", "mfuu"], "did you mean"),
    (["explain", "deepspeed"], "did you mean 'layout'"),
    (["list", "models"], "did you mean 'presets'"),
    (["serve", "gpt2", "--prompt", "8"], "did you mean '--context'"),
    (["estimate", "--arch", "mlp", "--layers", "10"], "did you mean '--sizes'"),
    (["estimate", "gpt2", "--mode", "inference"], "did you mean 'forward'"),
    (["formula", "--arch", "mlp", "--free", "colour"], "--free"),
    (["fit", "gpt2", "--solve", "colour"], "--solve"),
    (["compare", "gpt2", "gtp2"], "did you mean"),
    (["estimate", "gpt2", "--batch", "8..2"], "--batch: got 8..2"),
    (["estimate", "gpt2", "--batch", "1,x"], "batch: got 'x'"),
    (["estimate", "gpt2", "--output", "x.png"], ".svg"),
    (["fit", "gpt2", "--batch", "1,2"], "one case at a time"),
    (["estimate", "gpt2", "--seq-len", "8"], "did you mean '--seq'"),
    (["estimate", "gpt2", "--gpu", "h100"], "did you mean '--device'"),
    (["estimate", "gpt2", "--lora", "8"], "did you mean '--lora-rank'"),
    (["estimate", "--model", "gpt2"], "without a flag"),
    (["estimate", "gpt2", "-c", "4096"], "did you mean '--seq'"),
    (["estimate", "gpt2", "--no-flash-attention"], "did you mean '--attention'"),
    (["estimate", "gpt2", "--dpo"], "not modelled"),
    (["estimate", "gpt2", "--learning_rate", "1e-4"], "leave it out"),
    (["estimate", "gpt2", "--threads", "8"], "--device"),
    (["estimate", "gpt2", "--quantize", "4bit"], "did you mean 'nf4'"),
    (["estimate", "gpt2", "--seq", "4,096"], "allowed: 4096"),
    (["estimate", "gpt2", "--price", "2,5"], "price: got '2,5'"),
    (["estimate", "gpt2", "--dtype", "auto"], "allowed: fp64, fp32"),
    (["estimate", "llama-3"], "'llama-3-8b'"),
    (["estimate", "llama3"], "mean 'llama-3-8b'"),
    (["estimate", "yi-35b"], "yi-34b"),
    (["estimate", "llama"], "'llama-7b'"),
    (["gpt2"], "budget estimate gpt2"),
    (["models"], "did you mean 'list'"),
    (["compare", "gpt2", "--devices", "a100,h100"], "which ones: --device"),
    (["goodput", "gpt2"], "'gpt2' is one argument too many"),
    (["estimate", "gpt2", "--seq", "-128k"], "seq: got -131072"),
    (["estimate", "gpt2", "--context", "1k", "--seq", "2k"], "at most context, 1024"),
    (["estimate", "gpt2", "--context", "8q"], "context: got '8q'"),
    (["estimate", "gpt2", "--device", ""], "device: unknown name ''"),
    (["estimate", "gpt2", "--reserve", "101%"], "at most 100%"),
    (["estimate", "net.py:make"], "net.py:make is no config; allowed: --module"),
    (["estimate", "--config", "train.yaml"], "allowed: --run"),
    (["estimate", "--config", "f\u00fcr\\x.json"], "config: f\u00fcr\\x.json: No such file"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "says"), WRONG, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_wrong_calls_say_what_is_allowed(capsys, args, says):
    assert says in refused(capsys, *args)


words = st.one_of(
    st.sampled_from(
        ["--batch", "--seq", "--layers", "--d-model", "--heads", "--vocab", "--sizes", "--device"]
    ),
    st.sampled_from(
        ["--mode", "--dtype", "--arch", "--config", "--by", "--recompute", "--lora-rank", "--fuse"]
    ),
    st.sampled_from(["mlp", "rnn", "transformer", "gpt2", "cnn"]),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["1,2,3", "0", "1", "-1", "inf", "nan", "1e999", "true", "{}", "[]", "\x00", "../..", "/"]
    ),
)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words, max_size=6))
def test_no_words_bring_a_traceback(capsys, args):
    if {"-h", "--help", "--output"} & set(args):  # hypothesis knows the words of our own code
        return
    status, out, err = run(capsys, "estimate", *args)
    assert status in (0, 2)
    assert (
        (out == "" and err.count("\n") == 1 and err.startswith("budget: "))
        if status == 2
        else (out and not err)
    )


def test_as_a_process():
    call = [sys.executable, "-m", "budget", "estimate", "--arch", "transformer", "--bathc", "2"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "budget: flag: unknown name '--bathc'; did you mean '--batch'?\n"


def test_a_closed_pipe_is_no_error():
    call = [sys.executable, "-m", "budget", "estimate", "llama-3-405b", "--format", "json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(call, cwd=Path(__file__).parents[1], **pipes) as process:
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_full_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    for asked in (["estimate", "gpt2"], ["list", "presets"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "budget", *asked],
                stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=Path(__file__).parents[1],
            )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr == "budget: output: No space left on device\n"


@pytest.mark.parametrize(
    ("form", "unused"),
    [
        ("json", {"budget.report._summary"}),
        ("table", {"json", "budget.told", "budget.fold.rows", "budget.ways", "budget.proposals"}),
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


def test_a_closed_output_is_one_line():
    call = ["sh", "-c", f"{sys.executable} -m budget estimate gpt2 >&-"]
    root = Path(__file__).parents[1]
    done = subprocess.run(call, stderr=subprocess.PIPE, text=True, check=False, cwd=root)
    assert done.returncode == 2
    assert done.stderr == "budget: output: standard output is closed; allowed: an open one\n"


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
    told = budget.estimate("gpt2").to_dict()
    keys = {k for part in ("params", "flops", "memory_bytes", "time_s", "rate", "cost") for k in told[part]}
    assert {k for k in keys if run(capsys, "explain", k)[0]} == {"total", "device"}


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
    ("words", "says"), [("KV cache", "past tokens"), ("x real time", "sound"), ("pass", "Forward")]
)
def test_a_term_of_several_words_is_explained(capsys, words, says):
    assert main(["explain", *words.split()]) == 0
    assert says in capsys.readouterr().out


def test_an_output_of_a_dash_is_standard_output(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["estimate", "gpt2", "--format", "json", "--output", "-"]) == 0
    assert capsys.readouterr().out.startswith("{")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["estimate llama-3-8b", "serve llama-3-8b --device h100"])
def test_what_a_hint_tells_to_type_works(capsys, command, tmp_path, monkeypatch):
    """Of a flag of other tools: what stands between the quotes is a flag here that takes the value."""
    monkeypatch.chdir(tmp_path)  # some write a file
    said = set()
    for name in table.load("synonyms.json"):
        status, _, error = run(capsys, *command.split(), f"--{name}", "2")
        if status == 0 or "unknown name" not in error:  # a flag of this command, too
            continue
        assert "known:" not in error and error.count("\n") == 1 and len(error) < 250
        said |= set(re.findall(r"'(--[^']+ [^']+)'", error))
    assert len(said) > 10
    for hint in said - {"--run ds_config.json"}:
        typed = hint.replace("N", "2").split()
        status, _, error = run(capsys, *command.split(), *typed)
        assert status == 0 or not re.search("unknown|usage|got '", error), (hint, error)


def test_models_to_compare_may_be_joined_by_commas(capsys):
    tables = []
    for models in (["gpt2,bert-base"], ["gpt2", "bert-base"]):
        assert main(["compare", *models, "--format", "csv"]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
