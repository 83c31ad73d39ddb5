"""Published tables: predicted from their inputs alone, and what a bad table says."""

import json
import subprocess
import sys

import pytest
from budget.bench.published import table
from budget.bench.published.__main__ import main
from budget.bench.published.rows import NotCoveredError
from published_tables import DATA, some, written

from budget.errors import InputError

TRAINED = "tokens_per_s_per_gpu samples_per_s_total iter_time_s tflops_per_gpu mfu_pct hfu_pct mem_gb"
SERVED = (
    "ttft_ms tpot_ms e2e_latency_ms decode_tok_s_total prefill_tok_s output_tok_s_total mem_gb bandwidth_gb_s"
)
MEASURED = {
    "training_throughput.csv": TRAINED.split(),
    "inference.csv": SERVED.split(),
    "serving.csv": ["ttft_ms", "tpot_ms", "output_tok_s_per_gpu"],
}


def answer(path, capsys):
    assert main([str(path), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def asks(kind, row):
    """The parts of a row's prediction, or the reason why there is none."""
    try:
        return [(a.quantity, a.unit, a.parts, a.work, a.of is None) for a in kind.asked(row)]
    except (NotCoveredError, InputError) as why:
        return str(why)


def twice(name, rows):
    """As much again measured, and other ids."""
    return [
        {
            k: str(2 * float(v)) if k in MEASURED[name] and v.replace(".", "").isdigit() else v
            for k, v in r.items()
        }
        | {"id": f"row {i}"}
        for i, r in enumerate(rows)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_nothing_measured_and_no_id_tells_what_is_estimated(name, tmp_path):
    rows = some(name, 4)
    tables = [written(tmp_path / f"{n}.csv", r) for n, r in (("a", rows), ("b", twice(name, rows)))]
    found = [[asks(kind, row) for row in read] for kind, read in (table.read(str(t)) for t in tables)]
    assert sum(not isinstance(a, str) for a in found[0]) > 50
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_nothing_measured_and_no_id_tells_the_answer(name, tmp_path, capsys):
    """A few rows through the command have the same predictions."""
    rows = some(name, 40)
    known, again = (
        answer(written(tmp_path / f"{n}.csv", r), capsys) for n, r in (("a", rows), ("b", twice(name, rows)))
    )
    assert sum("predicted" in r for r in known["rows"]) > 3
    for a, b in zip(known["rows"], again["rows"], strict=True):
        assert a.get("predicted") == b.get("predicted")
        assert a.get("why_not") == b.get("why_not")
        if a.get("measured"):
            assert b["measured"] != a["measured"]


def checked(found):
    """An answer in the contract's form."""
    assert found["schema"] == "budget.published/1"
    for row in found["rows"]:
        if "why_not" in row:
            assert set(row) == {"id", "why_not"}
        else:
            assert {"id", "quantity", "unit", "measured", "predicted", "low", "high"} <= set(row)
            assert 0 < row["low"] <= row["predicted"] <= row["high"]
    assert {"stack", "quantity", "rows", "median_error", "p90_error", "inside"} <= set(found["summary"][0])
    return found


def test_the_contract_s_form(capsys, tmp_path):
    # Denoisers are captured, which takes seconds each.
    rows = [row for row in some("inference.csv", 25) if "diffusers" not in row["engine"]]
    checked(answer(written(tmp_path / "inference.csv", rows), capsys))


# Of rows that the fit has seen: this shows no accuracy, only that nothing has broken (see scoreboard.py).
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantity", "middle"),
    [
        ("training_throughput.csv", "tokens_per_s", 0.10),
        ("inference.csv", "step_s", 0.10),
        ("serving.csv", "tpot_s", 0.10),
    ],
)
def test_rows_that_the_fit_has_seen_are_near(name, quantity, middle, capsys, tmp_path):
    fitted = [r for r in some(name, 4) if name != "inference.csv" or r["n_gpus"] == "1"]  # see measured.py
    found = checked(answer(written(tmp_path / name, fitted), capsys))
    (every,) = [s for s in found["summary"] if (s["stack"], s["quantity"]) == ("all", quantity)]
    assert every["median_error"] < middle
    assert every["inside"] >= 0.85


@pytest.mark.parametrize("name", ["inference.csv", "training_throughput.csv", "serving.csv"])
def test_a_table_as_others_write_it_is_predicted_the_same(name, tmp_path, capsys):
    """Another order, a byte-order mark, Windows' line ends, blanks, an empty row; and nothing measured."""
    rows = some(name, 300)[:3]
    usual = answer(written(tmp_path / "usual.csv", rows), capsys)["rows"]
    columns = list(reversed(rows[0]))
    lines = [columns, *([f'"{r[c]}"' for c in columns] for r in rows), [""] * len(columns)]
    other = tmp_path / "other.csv"
    other.write_bytes("\r\n".join(", ".join(line) for line in lines).encode("utf-8-sig"))
    assert answer(other, capsys)["rows"] == usual
    needed = table.read(str(other))[0].COLUMNS
    bare = [{k: v for k, v in r.items() if k in needed or k not in MEASURED[name]} for r in rows]
    found = answer(written(tmp_path / "bare.csv", bare), capsys)["rows"]
    assert [r["id"] for r in found if "predicted" in r] == list(
        dict.fromkeys(r["id"] for r in usual if "predicted" in r)
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda r: r.pop("engine"),
            "no known kind of table; nearest is inference's, without engine; allowed",
        ),
        (lambda r: [r.pop(c) for c in ("model", "gpu")], "columns model, gpu are missing"),
        (lambda r: r.pop("output_len"), "column output_len is missing"),
        (lambda r: r.update(batch="many"), "row 2, column batch: got 'many'; allowed: a number"),
        (lambda r: r.update(layers="-3"), "row 2, column layers: got '-3'"),
        (lambda r: r.update(tpot_ms="nan"), "row 2, column tpot_ms: got 'nan'"),
    ],
)
def test_a_bad_table_is_named_with_its_row_and_column(change, problem, tmp_path, capsys):
    rows = some("inference.csv", 50)
    for row in rows if "row" not in problem else rows[:1]:
        change(row)
    path = written(tmp_path / "mine.csv", rows)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("published: table: mine.csv: ")
    assert problem in error
    assert error.count("\n") == 1


def test_a_short_row_and_no_file(tmp_path, capsys):
    text = (DATA / "inference.csv").read_text().splitlines()
    (tmp_path / "short.csv").write_text("\n".join([*text[:3], "a,b"]))
    assert main([str(tmp_path / "short.csv")]) == 2
    assert "row 4 does not have" in capsys.readouterr().err
    assert main([str(tmp_path / "none.csv")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_it_runs_as_a_module(tmp_path):
    path = written(tmp_path / "some.csv", some("inference.csv", 60))
    command = [sys.executable, "-m", "budget.bench.published", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=DATA.parents[1])
    assert "median" in done.stdout
