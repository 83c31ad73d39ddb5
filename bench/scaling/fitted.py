"""The laws of the records: a fit of each family, with and without its largest network."""

from __future__ import annotations

from typing import NamedTuple

from budget.law import _fit, additive

SAMPLES = 200  # of the bootstrap
UNITS = {"mlp": "samples", "text": "tokens"}
LEFT_OUT = {"mlp": ((10, 20, 10, 2),)}  # another task: two classes of ten components


class Family(NamedTuple):
    """Records of one family, the law of all, and the largest network's losses from the law of the others."""

    name: str
    records: list[dict]
    fit: _fit.Fit
    held: list[tuple[dict, float, float, float]]  # record, predicted loss, low and high of 90 %


def families(records: list[dict]) -> list[Family]:
    """Each family that has enough records."""
    found = []
    for name in UNITS:
        own = [r for r in records if r["family"] == name and tuple(r["sizes"]) not in LEFT_OUT.get(name, ())]
        if len(own) >= _fit.LEAST and len({r["params"] for r in own}) > 2:
            found.append(Family(name, own, law(own), held_out(own)))
    return found


def law(records: list[dict]) -> _fit.Fit:
    """The fit of records: parameters, samples or tokens, loss of the test data."""
    columns = {
        "params": [r["params"] for r in records],
        "tokens": [r["data"] for r in records],
        "loss": [r["loss"] for r in records],
    }
    return _fit.fit(_fit.runs(columns), SAMPLES)


def held_out(records: list[dict]) -> list[tuple[dict, float, float, float]]:
    """The largest network, predicted by the law of the smaller ones."""
    largest = max(r["params"] for r in records)
    smaller = [r for r in records if r["params"] < largest]
    if len(smaller) < _fit.LEAST or len({r["params"] for r in smaller}) < 3:
        return []
    fit = law(smaller)
    return [(r, *interval(fit, r["params"], r["data"])) for r in records if r["params"] == largest]


def interval(fit: _fit.Fit, params: float, data: float) -> tuple[float, float, float]:
    """The loss at a point, and where 90 % of the bootstrap samples are."""
    draws = [dict(zip(fit.draws, values, strict=True)) for values in zip(*fit.draws.values(), strict=True)]
    losses = sorted(additive.loss(d, params, data) for d in draws)
    ends = losses[round(0.05 * (len(losses) - 1))], losses[round(0.95 * (len(losses) - 1))]
    return additive.loss(fit.constants, params, data), *ends


def text(family: Family) -> str:
    """The law and the held-out losses, as text."""
    c, errors, unit = family.fit.constants, family.fit.errors(), UNITS[family.name]
    lines = [
        f"{family.name}: {len(family.records)} trainings, loss = E + A / params^alpha + B / {unit}^beta",
        "  " + "   ".join(f"{k} {c[k]:.4g} +- {errors[k]:.2g}" for k in c),
        f"  {family.fit.spread:.1%} around the curve (rms); outliers: "
        + (", ".join(family.records[o.row - 2]["key"] for o in family.fit.outliers) or "none"),
    ]
    for r, loss, low, high in family.held:
        off = r["loss"] / loss - 1
        predicted = f"predicted {loss:.3f} ({low:.3f} to {high:.3f}), {off:+.1%}"
        lines.append(f"  held out {r['key']}: {r['loss']:.3f}, {predicted}")
    times = sorted(r["predicted_s"] / r["measured_s"] for r in family.records)
    busy = sum(r["busy"] for r in family.records)
    ends = f"{times[0]:.2f} to {times[-1]:.2f}, median {times[len(times) // 2]:.2f}"
    lines.append(f"  predicted over measured time {ends} ({busy} of {len(times)} on a busy machine)")
    return "\n".join(lines)
