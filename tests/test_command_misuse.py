"""The command line misused: one line that says what is allowed, status 2, never a traceback."""

import re

import pytest
from commands import run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import budget
from budget import arch as architectures
from budget import table


def refused(capsys, *args):
    """What a wrong call says: one line on standard error and nothing else."""
    status, out, err = run(capsys, *args)
    assert (status, out, err.count("\n")) == (2, "", 1), (args, out, err)
    assert err.startswith("budget: ")
    return err


WRONG = [
    (["estimate", "--config", ""], "--config: got ''; allowed: a file"),
    (["estimate", "--run", ""], "--run: got ''; allowed: a launch file"),
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
    (["estimate", "--arch", "mlp", "--sizes", "784", "256", "10"], "a list is one word: 784,256,10"),
    (["estimate", "--arch", "mlp", "--sizes", "784,,10"], "sizes: got ''"),
    (["estimate", "gpt2", "--layout", "tp=8", "pp=2"], "a list is one word"),
    (["estimate", "resnet50", "--image", "224x320"], "--image: got '224x320'; allowed: "),
    (["estimate", "--arch", "gru"], "did you mean 'rnn'"),
    (["serve", "resnet50"], "it generates no tokens"),
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
    (["explain", "deepspeed"], "'layout'"),
    (["explain", "cuda", "graph"], "did you mean 'execution'"),
    (["explain", "packed sequences"], "did you mean 'documents'"),
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
    (["estimate", "gpt2", "--enforce-eager"], "did you mean '--execution fused'"),
    (["estimate", "gpt2", "--sample_packing"], "did you mean '--documents'"),
    (["estimate", "gpt2", "--learning_rate", "1e-4"], "leave it out"),
    (["estimate", "gpt2", "--threads", "8"], "--device"),
    (["estimate", "gpt2", "--quantize", "4bit"], "did you mean 'nf4'"),
    (["estimate", "gpt2", "--seq", "4,096"], "allowed: 4096"),
    (["estimate", "gpt2", "--price", "2,5"], "price: got '2,5'"),
    (["estimate", "gpt2", "--dtype", "auto"], "allowed: fp64, fp32"),
    (["estimate", "llama-3"], "'llama-3-8b'"),
    (["estimate", "Llama3"], "mean 'llama-3-8b'"),
    (["estimate", "yi-35b"], "yi-34b"),
    (["estimate", "llama"], "'llama-7b'"),
    (["gpt2"], "budget estimate gpt2"),
    (["models"], "did you mean 'list'"),
    (["estimate", "gpt2", "--devices", "1e12"], "devices: got 1,000,000,000,000; allowed"),
    (["estimate", "gpt2", "--device", "macbook pro"], "did you mean 'm4'"),
    (["compare", "gpt2", "--devices", "a100,h100"], "which ones: --device"),
    (["goodput", "gpt2"], "'gpt2' is one argument too many"),
    (["estimate", "gpt2", "h100"], "too many; a device has a flag, --device h100"),
    (["estimate", "gpt2", "--device", "H100", "NVL"], "too many; a name of several words stands in quotes"),
    (["compare", "gpt2", "--device", "h100", "a100"], "'a100' is a device; it has a flag, in one word"),
    (["estimate", "--arch", "gpt2"], "--arch: 'gpt2' is the name of a model; allowed: the name alone"),
    (["estimate", "gpt2", "--seq", "8,192"], "may be a list; allowed: 8192, or '8, 192'"),
    (["estimate", "--module", "file:Net"], "no file file; allowed: path/file.py:factory"),
    (["estimate", "gpt2", "--seq", "-128k"], "seq: got -131072"),
    (["estimate", "gpt2", "--context", "1k", "--seq", "2k"], "at most context, 1024"),
    (["estimate", "gpt2", "--context", "8q"], "context: got '8q'"),
    (["estimate", "gpt2", "--device", ""], "device: unknown name ''"),
    (["estimate", "gpt2", "--reserve", "101%"], "at most 100%"),
    (["estimate", "net.py:make"], "net.py:make is no config; allowed: --module"),
    (["estimate", "--config", "train.yaml"], "allowed: --run"),
    (["scale", "--usd", "1e20"], "usd: got '1e20'; allowed: at most 1e+15"),
    (["scale", "--kwh", "1e20"], "kwh: got '1e20'; allowed: at most 1e+15"),
    (["estimate", "--run", "/"], "is a folder; allowed: a launch file, or an adapter's folder"),
    (["estimate", "--config", "f\u00fcr\\x.json"], "config: f\u00fcr\\x.json: No such file"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "says"), WRONG, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_wrong_calls_say_what_is_allowed(capsys, args, says):
    assert says in refused(capsys, *args)


@pytest.mark.parametrize(
    ("twice", "once"),
    [
        ("estimate gpt2 --device a100 --device h100", "estimate gpt2 --device h100"),
        ("compare gpt2 --batch 1 --batch 2 --mode decode", "compare gpt2 --batch 1,2 --mode decode"),
        (
            "compare gpt2 --mode decode --quantize q8_0 --quantize q4_0",
            "compare gpt2 --mode decode --quantize q8_0,q4_0",
        ),
    ],
)
def test_what_may_be_told_twice(capsys, twice, once):
    assert run(capsys, *twice.split()) == run(capsys, *once.split())


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


@pytest.mark.parametrize("typed", ["kv_cache_dtype", "cache_dtype"])
def test_an_argument_s_other_name_is_told_in_python_too(typed):
    with pytest.raises(budget.InputError, match="did you mean 'kv_dtype'"):
        budget.estimate("gpt2", **{typed: "fp8"})


@pytest.mark.every(8)
@pytest.mark.parametrize("name", architectures.names())
def test_a_choice_of_attention_that_changes_nothing_is_refused(name, capsys):
    """It is refused where the answer would be the same whatever is chosen, and nowhere else."""
    found = {a: budget.estimate(name, attention=a) for a in ("flash", "sdpa", "eager")}
    alike = len({(e.memory.peak, e.times.step, e.hardware.forward) for e in found.values()}) == 1
    status, _, error = run(capsys, "estimate", "--arch", name, "--attention", "eager")
    assert status == (2 if alike else 0)
    assert not alike or f"as {name} has no attention to choose; allowed: to leave it out" in error
    if alike:
        assert run(capsys, "estimate", "--arch", name, "--recompute", "selective")[0] == 2


@pytest.mark.parametrize("line", [
    "compare resnet50 vgg16 --attention flash,eager", "plan resnet50 --devices 2 --attention flash",
    "fit resnet50 --attention eager", "estimate resnet50 --batch 1,2 --recompute selective",
    "compare resnet50 --recompute none,selective", "serve lstm --attention eager",
])  # fmt: skip
def test_every_command_refuses_a_choice_of_attention_that_changes_nothing(line, capsys):
    status, _, error = run(capsys, *line.split())
    assert status == 2
    assert "no attention to choose" in error


def test_a_choice_of_attention_stands_where_one_of_several_networks_has_some(capsys):
    assert run(capsys, "compare", "resnet50", "vit-b-16", "--attention", "eager")[0] == 0


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


@pytest.mark.parametrize(("line", "says"), [
    ("estimate gpt2 --usd 1000", "it is a flag of budget scale"),
    ("plan gpt2 --solve batch", "it is a flag of budget fit"),
    ("estimate gpt2 --rate 4", "it is a flag of budget serve"),
    ("scale --usd 1e5 --seq 4k", "it is a flag of budget estimate"),
    ("plan gpt2 64", "a number has a flag, as --devices 64"),
    ("estimate gpt2 --offload", "activations, optimizer, or both by commas"),
])  # fmt: skip
def test_what_is_missing_or_misplaced_says_where_it_belongs(line, says, capsys):
    assert says in refused(capsys, *line.split())
