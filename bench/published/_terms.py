"""The model's terms, each with what leaves it out: whether it pays is judged on pairs that no fit saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from unittest.mock import patch

from budget import table
from budget.device import software
from budget.fold import kernels
from budget.named import Any

from . import fit, inference


def _kernels(**changed: Any) -> Any:
    """data/kernels.json with some tables changed."""
    return patch.dict(table.load("kernels.json"), changed)


def _alike() -> Any:
    """Every attention kernel with one share on all generations: the middle one."""
    known = table.load("kernels.json")["attention"]
    shares = sorted(v for k in known.values() for v in k.get("share", {}).values())
    one = {"": shares[len(shares) // 2]}
    even = {"share": one, "edge": {"": 0}, "tail": {"": 0}}
    return {n: {**k, **even} if k.get("share") else k for n, k in known.items()}


def _even() -> Any:
    """Products with one share on all devices: the middle one."""
    known = table.load("kernels.json")["products"]
    shares = sorted(of["bf16"] for of in known.values() if "bf16" in of)
    return {name: {"bf16": shares[len(shares) // 2]} for name in known}


WITHOUT: Mapping[str, Callable[[], Sequence[Any]]] = {
    "a causal kernel's half": lambda: [patch.object(kernels, "computed", lambda o: 1)],
    "attention by kernel, generation and length": lambda: [_kernels(attention=_alike())],
    "products by generation": lambda: [_kernels(products=_even())],
    "products of experts apart": lambda: [_kernels(grouped=1.0)],
    "what a stack reaches": lambda: [patch.object(fit, "STACK", 1e-6)],
    "products that add up in float16": lambda: [patch.object(software, "accumulated", lambda *_: 1.0)],
    "prompts in pieces": lambda: [patch.object(inference, "piece", lambda *of: of[-1])],
}
