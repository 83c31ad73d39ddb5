"""Fit a profile to records: a few numbers for each class of kernels, by relative least squares.

Each class is fitted to its own suite, then the host's share to small networks. Only records of the
split `fit` are used. The interval is that of networks predicted without having been fitted to: in turns a
fifth of them is left out. Numbers are fitted as logarithms, so that they stay positive, and errors
are logarithms of ratios, so that microseconds and seconds count alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from .device import Device
from .errors import InputError
from .profile import Dispatch, Form, Profile, complete, key
from .record import Program, Record, seconds, work

# Where the fit starts: any processor or GPU within a factor of a hundred gets to its own values.
START = {
    "memory": 2.0, "steps.0.size": 1e6, "steps.0.share": 1.0, "steps.1.size": 1e7, "steps.1.share": 0.5,
    "launch_s": 3e-6, "dispatch.forward": 5e-6, "dispatch.backward": 8e-6, "dispatch.optimizer": 8e-6, "dispatch.step": 5e-5,
    "forms.pointwise.vector": 0.3, "forms.reduction.vector": 0.3, "forms.reduction.traffic": 1.0,
    "forms.optimizer.vector": 0.3, "forms.optimizer.traffic": 0.8,
    "forms.matmul.share": 0.5, "forms.matmul.edge": 2.0, "forms.matmul.start_s": 2e-6, "forms.matmul.traffic": 1.0,
    "forms.matmul.overlap": 0.0,
    "forms.conv.share": 0.4, "forms.conv.edge": 4.0, "forms.conv.start_s": 1e-5, "forms.conv.overlap": 0.0,
    "forms.conv_backward.share": 0.4, "forms.conv_backward.edge": 4.0, "forms.conv_backward.start_s": 1e-5,
    "forms.conv_backward.overlap": 0.0,
    "forms.recurrent.share": 0.3, "forms.recurrent.edge": 1.0, "forms.recurrent.traffic": 1.1, "forms.recurrent.vector": 0.1,
    "forms.recurrent.start_s": 1e-6, "forms.attention.share": 0.4, "forms.attention.vector": 0.1, "forms.attention.start_s": 1e-5,
    "forms.attention_backward.share": 0.4, "forms.attention_backward.vector": 0.1,
    "forms.attention_backward.start_s": 1e-5,
}  # fmt: skip
FOLDS = 5
COVERAGE = 0.9


def fit(records: Iterable[Record], device: Device, versions: Mapping[str, str]) -> Profile:
    """A measured profile from the records of the split `fit`. Raises InputError where there are too few."""
    known = [r for r in records if r.split == "fit" and r.predicted]
    if len(known) < 20:
        raise InputError("results", f"{len(known)} records to calibrate from; allowed: 20 or more (pytest bench/)")
    dtypes = tuple(sorted({r.dtype for r in known}))
    cases = [(r, work(r.workload), math.log(r.seconds)) for r in known]
    numbers = dict(START)
    for chosen, names in _stages(cases):
        numbers = _least_squares(numbers, names, chosen, lambda n: build(n, device, dtypes, versions), device)
    return build(numbers, device, dtypes, versions)


Cases = Sequence[tuple[Record, Program, float]]


def _stages(cases: Cases) -> Iterable[tuple[Cases, list[str]]]:
    """What is fitted to what, in order."""
    def of(*suites: str, mode: str = "") -> Cases:
        return [c for c in cases if c[0].suite in suites and c[0].workload["mode"] == (mode or c[0].workload["mode"])]

    kinds = sorted({o[2] for r, _, _ in of("memory_bandwidth", "softmax") for o in r.workload["ops"]} & OWN)
    memory = ["memory", "steps.0.size", "steps.0.share", "steps.1.size", "steps.1.share", "launch_s"]
    yield of("memory_bandwidth", "softmax"), [*memory, *(f"forms.{k}.{n}" for k in kinds for n in ("vector", "start_s"))]
    yield of("matmul"), [f"forms.matmul.{n}" for n in ("share", "edge.0", "edge.1", "edge.2", "start_s", "traffic")]
    for suite, name in (("convolution", "conv"), ("attention", "attention")):
        edges = [f"forms.{name}.{n}" for n in ("share", "edge.0", "edge.1", "edge.2", "start_s")]
        yield of(suite, mode="forward"), edges if name == "conv" else [edges[0], edges[-1], "forms.attention.vector"]
        back = f"forms.{name}_backward."
        more = ("edge.0", "edge.1", "edge.2") if name == "conv" else ("vector",)
        yield of(suite, mode="train"), [back + n for n in ("share", *more, "start_s")]
    networks = of("models")
    recurrences = [c for c in networks if any(w.form == "recurrent" for w in c[1].kernels)]
    yield recurrences, [f"forms.recurrent.{n}" for n in ("share", "traffic", "vector", "start_s")]
    host = ["dispatch.forward", "forms.attention.host_s", "forms.layer_norm.host_s"]
    yield [c for c in networks if c[0].workload["mode"] == "forward"], host
    yield networks, [*host, "dispatch.backward", "dispatch.optimizer", "dispatch.step", "forms.optimizer.traffic"]


OWN = {"gelu", "gelu_new", "silu", "tanh", "layer_norm", "batch_norm", "max_pool", "softmax"}


def build(numbers: Mapping[str, float], device: Device, dtypes: tuple[str, ...], versions: Mapping[str, str]) -> Profile:
    n = dict(numbers)
    forms: dict[str, dict[str, Any]] = {}
    for name, value in n.items():
        if name.startswith("forms."):
            _, form, field, *axis = name.split(".")
            table = forms.setdefault(form, {})
            if field == "edge" and not axis:
                table["edge"] = [value] * 3
            elif field == "edge":
                table["edge"] = [value if i == int(axis[0]) else v for i, v in enumerate(table["edge"])]
            else:
                table[field] = value
    made = {k: Form(**{f: tuple(v) if f == "edge" else v for f, v in t.items()}) for k, t in forms.items()}
    return Profile(
        name=device.name, provenance="measured", device=key(device), forms=MappingProxyType(complete(made)),
        memory=n["memory"], steps=tuple((n[f"steps.{i}.size"], n[f"steps.{i}.share"]) for i in (0, 1)),
        launch_s=n["launch_s"], dispatch=Dispatch(*(n[f"dispatch.{p}"] for p in Dispatch._fields)), serial=device.id == "cpu",
        low=1.0, high=1.0, dtypes=dtypes, versions=versions,
    )  # fmt: skip


def _least_squares(start, names, cases, make, device):
    """Levenberg and Marquardt's method on logarithms; large errors count linearly, not squared."""
    import numpy as np

    numbers = dict(start)
    for name in names:
        if name not in numbers:
            numbers[name] = numbers.get(name.rpartition(".")[0], 1e-6 if name.endswith("_s") else 0.1)
    x = np.log([numbers[n] for n in names])
    measured = np.array([c[2] for c in cases])

    def errors(x):
        profile = make({**numbers, **dict(zip(names, map(float, np.exp(x)), strict=True))})
        return np.log([seconds(p, device, profile) for _, p, _ in cases]) - measured

    def weighted(e):
        return e * np.sqrt(1 / np.maximum(1, np.abs(e) / 0.1))

    damping, e = 1e-2, errors(x)
    cost = (weighted(e) ** 2).sum()
    for _ in range(60):
        w = weighted(e) / np.where(e == 0, 1, e)
        J = np.stack([(errors(x + 1e-4 * d) - e) / 1e-4 for d in np.eye(len(x))], 1)
        A = (J * w[:, None]).T @ (J * w[:, None])
        step = np.linalg.solve(A + damping * np.eye(len(x)), -(J * (w ** 2)[:, None]).T @ e)
        new = x + np.clip(step, -1, 1)
        e2 = errors(new)
        cost2 = (weighted(e2) ** 2).sum()
        if cost2 < cost:
            done = cost - cost2 < 1e-5 * cost
            x, e, cost, damping = new, e2, cost2, damping / 3
            if done:
                break
        else:
            damping *= 5
            if damping > 1e6:
                break
    return {**numbers, **dict(zip(names, map(float, np.exp(x)), strict=True))}
