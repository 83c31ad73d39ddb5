"""No page is read twice: one figure of a device and a network is of one source, but for rounded ones."""

import csv
from itertools import pairwise

import pytest
from budget.bench.published.measured import publication
from budget.bench.published.rows import NotCoveredError, device
from published_tables import DATA


def _trained(row):
    """Tokens or pictures a second of a device, whichever column has them, and what they are of."""
    batch, seq = float(row["global_batch"] or row["micro_batch"] or 1), float(row["seq"] or 1)
    of = row["n_gpus"], row["seq"], row["precision"].replace("tf32", "fp32")[:4]
    if row["tokens_per_s_per_gpu"]:
        return of, float(row["tokens_per_s_per_gpu"])
    total = row["samples_per_s_total"]
    steps = 1 / float(row["iter_time_s"]) if row["iter_time_s"] else float(total) / batch
    return of, batch * steps * seq / float(row["n_gpus"])


def _decoded(row):
    """Tokens a second, or a whole answer's time, and how a network's name begins, as pages spell it."""
    of = row["n_gpus"], _name(row)[:6]
    if row["e2e_latency_ms"] and not row["tpot_ms"]:
        return of, float(row["e2e_latency_ms"])
    total = row.get("decode_tok_s_total") or row.get("output_tok_s_total")
    batch = float(row["batch"] or row["concurrency"] or 1)
    return of, float(total) if total else batch * 1e3 / float(row["tpot_ms"])


def _prompted(row):
    """Tokens of prompts a second, and how a network's name begins."""
    of = row["n_gpus"], _name(row)[:6]
    if row["prefill_tok_s"]:
        return of, float(row["prefill_tok_s"])
    return of, float(row["batch"]) * float(row["input_len"]) * 1e3 / float(row["ttft_ms"])


TRAINING = ("training_throughput.csv", "unseen_training.csv")
INFERENCE = ("inference.csv", "unseen_inference.csv")


@pytest.mark.parametrize(
    ("tables", "figure"), [(TRAINING, _trained), (INFERENCE, _decoded), (INFERENCE, _prompted)]
)
def test_no_page_is_read_twice(tables, figure):
    found = []
    for row in (row for name in tables for row in _rows(name)):
        try:
            of, rate = figure(row)
            found.append((device(row["gpu"]).id, *of, rate, row["source"], row["id"]))
        except (NotCoveredError, ValueError):
            continue
    twice = [
        (a[-1], b[-1])
        for a, b in pairwise(sorted(found))
        if a[:-3] == b[:-3]
        and a[-3] == pytest.approx(b[-3], rel=5e-5)
        and a[-2] != b[-2]
        and _told(a[-3])
        and _told(b[-3])
    ]
    assert len(found) > 1000
    assert not twice


SETTINGS = (
    "n_gpus", "seq", "global_batch", "micro_batch", "batch", "input_len", "output_len", "engine",
    "weight_precision",
)  # fmt: skip
FIGURES = (
    "tokens_per_s_per_gpu", "samples_per_s_total", "iter_time_s", "ttft_ms", "tpot_ms", "e2e_latency_ms",
    "decode_tok_s_total", "output_tok_s_total", "prefill_tok_s",
)  # fmt: skip


@pytest.mark.parametrize("tables", [TRAINING, INFERENCE], ids="+".join)
def test_a_figure_of_a_page_stands_there_once(tables):
    """The same publication, device, network and settings, however its words are written down."""
    once, again = {}, []
    for row in (row for name in tables for row in _rows(name)):
        try:
            on = publication(row["source"]), device(row["gpu"]).id, _name(row)
        except NotCoveredError:
            continue
        figures = tuple(float(row.get(c) or 0) for c in FIGURES)
        key = (*on, *(row.get(c) for c in SETTINGS), *figures)
        again += [(once[key], row["id"])] if any(figures) and key in once else []
        once[key] = row["id"]
    assert len(once) > 1000
    assert not again


@pytest.mark.parametrize("name", ["training_throughput", "inference", "memory", "serving"])
def test_no_row_of_a_fit_stands_among_those_of_none(name):
    """The same publication, network, settings and figures, whatever their notes."""
    seen, unseen = (_rows(f"{table}.csv") for table in (name, f"unseen_{name.split('_')[0]}"))
    columns = sorted(seen[0].keys() & unseen[0].keys() - {"id", "notes", "confidence", "tier"})
    fitted = {tuple(row[c].strip() for c in columns): row["id"] for row in seen}
    again = [row["id"] for row in unseen if tuple(row[c].strip() for c in columns) in fitted]
    assert not again


def _rows(name):
    with open(DATA / name) as file:
        return list(csv.DictReader(file))


def _name(row):
    """A network's name, however pages spell it."""
    return row["model"].lower().replace("-", "").replace(" ", "").replace("_", "")


def _told(rate):
    """Whether a rate has so many digits that two sources won't agree by chance."""
    return len(f"{rate:.6g}".replace(".", "").strip("0")) >= 4
