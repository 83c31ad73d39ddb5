"""Programs to time on a GPU: each kind runs, with small sizes on a processor; each has a row, predicted."""

import json
import tomllib

import pytest
from budget.bench.programs import __main__ as programs
from budget.bench.programs.__main__ import PROGRAMS
from budget.bench.published.predict import predict
from budget.bench.published.table import read

SMALL = """
[config.llama]
model_type = "llama"
vocab_size = 1024
hidden_size = 64
intermediate_size = 96
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
named = "Llama-3.2-1B"

[config.odd]
model_type = "llama"
hidden_size = 64
num_attention_heads = 5
named = "none"

[[program]]
does = "generate"
of = "llama"
dtype = "bf16"
batch = 1
input_len = 8
output_len = 9

[[program]]
does = "train"
of = "llama"
precision = "bf16"
recompute = "full"
lora_rank = 4
micro_batch = 2
seq = 8

[[program]]
does = "forward"
of = "llama"
dtype = "fp32"
batch = 1
seq = 8

[[program]]
does = "train"
of = "odd"
precision = "bf16"
micro_batch = 2
seq = 8
"""


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    assert programs.main(["--out", str(folder), "--seconds", "0"]) == 0
    return folder


@pytest.mark.parametrize("name", ["training", "inference", "memory"])
@pytest.mark.slow
def test_every_program_has_a_row_that_is_predicted(unmeasured, name):
    kind, rows = read(str(unmeasured / f"{name}.csv"))
    found = [p for row in rows for p in predict(kind, row)]
    assert rows
    assert all(p.predicted and p.predicted > 0 for p in found), [p.why_not for p in found]
    assert {p.row["id"] for p in found} == {row["id"] for row in rows}


def test_every_program_has_one_row_and_those_that_train_one_of_memory(unmeasured):
    with open(PROGRAMS, "rb") as file:
        told = tomllib.load(file)["program"]
    rows = {n: read(str(unmeasured / f"{n}.csv"))[1] for n in ("training", "inference", "memory")}
    assert len(rows["training"]) + len(rows["inference"]) == len(told)
    assert len(rows["memory"]) == sum(p["does"] == "train" for p in told)


@pytest.mark.slow
def test_programs_run_and_what_fails_stops_no_other(tmp_path, capfd):
    (tmp_path / "small.toml").write_text(SMALL)
    ask = ["--out", str(tmp_path), "--on", "cpu", "--programs", str(tmp_path / "small.toml"), "--gpu", "H100"]
    assert programs.main([*ask, "--seconds", "200"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "programs.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok", "ok", "ok", "error"]
    adapted, missing = read(str(tmp_path / "training.csv"))[1]
    assert float(adapted["iter_time_s"]) > 0
    assert not missing["iter_time_s"]
    assert not read(str(tmp_path / "memory.csv"))[1][0]["measured_gb"]  # a processor has no such counter
    times = read(str(tmp_path / "inference.csv"))[1]
    assert float(times[0]["tpot_ms"]) > 0
    assert float(times[1]["e2e_latency_ms"]) > 0
    capfd.readouterr()
    assert programs.main([*ask, "--seconds", "60"]) == 0  # only what failed is tried again
    assert len((tmp_path / "programs.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[program", "Expected"),
        ('[[program]]\ndoes = "sing"', "program 1, does: 'sing'; allowed: generate"),
        ('[[program]]\ndoes = "train"\nof = "missing"', "program 1, of: 'missing'; allowed: "),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, capsys, text, said):
    (tmp_path / "bad.toml").write_text(text)
    assert programs.main(["--out", str(tmp_path), "--programs", str(tmp_path / "bad.toml")]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"programs: {said}")
    assert message.count("\n") == 1
    assert not (tmp_path / "programs.jsonl").exists()
