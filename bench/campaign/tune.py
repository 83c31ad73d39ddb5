"""Settings of kernels, tried on a campaign's cases; then the cases again with the settings that were found.

A candidate counts if its result is right, compared with float64. The fastest then take turns with the
settings in force for more rounds, and one is kept where it is faster by more than the noise.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from budget.kernels.exact import distance, is_right

from budget.kernels import settings, tune

from .. import record
from ..measure import measure, sets_of_inputs
from .fatal import is_fatal, one_line
from .plan import candidates, find_case, suites

KEPT = 1.03  # times as fast as the settings in force
FINALISTS = 3
AT = " @ "  # between a case and a candidate
Key = tuple[str, str]  # a kernel and a class of settings.toml
Winners = Sequence[Mapping[str, Any]]  # what search() has found before


def tried(
    where: torch.device, case: str, kernel: str, shape_class: str, winners: Winners = ()
) -> dict[str, Any]:
    """The settings in force, those of each candidate, by the number of its line (0: in force).

    winners: settings that were found before; a class that several cases use goes on from there.
    """
    entry = next(
        e for e in candidates() if (e["case"], e["kernel"], e["class"]) == (case, kernel, shape_class)
    )
    current = _kept(winners).get((kernel, shape_class)) or settings.find(kernel, where, shape_class)
    return {str(i): current | more for i, more in enumerate([{}, *entry["settings"]])}


def names(where: torch.device, case: str, kernel: str, shape_class: str) -> list[str]:
    """A name for each candidate, which prepare compiles under and may drop."""
    with settings.compiling_for("sm90"):
        known = tried(where, case, kernel, shape_class)
    return [_name(case, kernel, shape_class, s) for s in known.values()]


def _name(case: str, kernel: str, shape_class: str, setting: Mapping[str, Any]) -> str:
    return AT.join((case, json.dumps([kernel, shape_class, setting])))


def _kept(winners: Winners) -> dict[Key, Mapping[str, Any]]:
    """The settings that were found faster, the last of each class."""
    return {(w["kernel"], w["class"]): w["setting"] for w in winners if w["kept"]}


def named(function: Callable[..., Any], where: torch.device, name: str) -> Callable[..., Any]:
    """function with the settings of the candidate whose name follows the case's."""
    kernel, shape_class, setting = json.loads(name)
    return with_settings(function, {(kernel, shape_class): setting})


def _dropped() -> set[str]:
    """The candidates that prepare found to spill, or not to compile."""
    path = os.path.join(os.environ.get("TRITON_CACHE_DIR", ""), "plan.json")
    if not os.path.exists(path):
        return set()
    with open(path, encoding="utf-8") as file:
        return set(json.load(file)["dropped"])


def with_settings(
    function: Callable[..., Any], chosen: Mapping[Key, Mapping[str, Any]]
) -> Callable[..., Any]:
    """function, run with these settings in place of those in force."""

    def run(*x):
        with ExitStack() as stack:
            for key, setting in chosen.items():
                stack.enter_context(tune.overridden(key, dict(setting)))
            return function(*x)

    return run


def search(
    where: torch.device, case: str, kernel: str, shape_class: str, winners: Winners = ()
) -> dict[str, Any]:
    """The fastest candidate of a class, as {"tuned": ...}, and the results of the others."""
    c, built = _built(where, case)
    key, known = (kernel, shape_class), tried(where, case, kernel, shape_class, winners)
    functions = {n: with_settings(built.functions["triton"], {key: s}) for n, s in known.items()}
    given = built.inputs()
    right = record.parts(built.reference(*given))
    spill = _dropped()
    dropped = {
        n: why
        for n, name in ((n, _name(case, kernel, shape_class, s)) for n, s in known.items())
        if (why := "spills" if n != "0" and name in spill else _refused(functions[n], given, right))
    }
    if "0" in dropped:
        raise AssertionError(f"{case}: the settings in force: {dropped['0']}")
    calls = _calls(c, built, {n: f for n, f in functions.items() if n not in dropped}, where)
    first = _medians(measure(calls, where, budget_s=0.25, rounds=(3, 10)))
    best = sorted(first, key=first.__getitem__)[:FINALISTS]
    final = _medians(measure({n: calls[n] for n in {"0", *best}}, where, budget_s=0.5, rounds=(9, 60)))
    winner = min(final, key=final.__getitem__)
    kept = final["0"] / final[winner] > KEPT
    return {
        "tuned": {
            "case": case, "kernel": kernel, "class": shape_class, "kept": kept,
            "setting": known[winner if kept else "0"], "seconds": final[winner if kept else "0"],
            "before_s": final["0"], "best_ratio": final["0"] / final[winner], "best": known[winner],
            "tried": {n: {"seconds": s, "setting": known[n]} for n, s in first.items()}, "dropped": dropped,
        }
    }  # fmt: skip


def again(where: torch.device, case: str, winners: Winners = ()) -> dict[str, Any]:
    """A case with the settings that were found, those in force (`before`) and torch, in turns."""
    found = _kept(winners)
    c, built = _built(where, case)
    given = built.inputs()
    looked_up = tune.looked_up(lambda: built.functions["triton"](*given))
    chosen = {key: setting for key, setting in found.items() if key in looked_up}
    if not chosen:
        return {"nothing": "no setting that this case uses has changed"}
    ours = built.functions["triton"]
    functions = {
        "triton": with_settings(ours, chosen),
        "before": with_settings(ours, {key: looked_up[key] for key in chosen}),
        built.yardstick: built.functions[built.yardstick],
    }
    group = record.take(
        c, lambda *_: built._replace(functions=functions), record.this_device(where), where, "campaign"
    )
    group["triton"]["extra_info"]["settings"] = [[*key, setting] for key, setting in chosen.items()]
    return {"key": f"{c.suite}/{c}", "group": group}


def _built(where: torch.device, case: str) -> tuple[Any, Any]:
    suite, _, name = case.partition("/")
    c = find_case(suite, name, where.type)
    return c, suites()[suite].build(c, where)


def _calls(c: Any, built: Any, functions: Mapping[str, Callable], where: torch.device) -> dict[str, list]:
    sets = sets_of_inputs(record.facts(c, record.this_device(where))["bytes"], where)
    made = [built.inputs() for _ in range(sets)]
    return {n: [partial(f, *x) for x in made] for n, f in functions.items()}


def _refused(function: Callable, given: tuple, right: Sequence[torch.Tensor]) -> str:
    """Why settings are no candidate; empty where they are one."""
    try:
        found = record.parts(function(*given))
    except Exception as error:
        if is_fatal(error):
            raise
        return one_line(error, 160)
    wrong = [distance(*pair) for pair in zip(found, right, strict=True) if not is_right(*pair)]
    return f"wrong by {max(wrong):.2g}" if wrong else ""


def _medians(taken: Mapping[str, Any]) -> dict[str, float]:
    return {n: statistics.median(s.seconds) for n, s in taken.items()}
