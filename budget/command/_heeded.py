"""Flags that change nothing in a network without attention."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

from ..answer import Estimate
from ..errors import InputError, shown

# Groups of operators that a flag is about, and what to type where a network has none of them.
CHOSEN = {"attention": ("attention", "scan"), "recompute": ("attention",)}
WITHOUT = {"attention": "to leave it out", "recompute": "none, full"}


def heeded(args: Namespace, *estimates: Estimate) -> None:
    """Raises InputError for a flag that changes nothing in any of these networks."""
    selective = "selective" if "selective" in (args.recompute or "").split(",") else None
    asked = {k: v for k, v in (("attention", args.attention), ("recompute", selective)) if v is not None}
    if not asked or any(e.model.config.get("captured") for e in estimates):
        return
    groups = set().union(*(_groups(e) for e in estimates))
    for name, value in asked.items():
        if groups.isdisjoint(CHOSEN[name]):
            names = dict.fromkeys(str(e.model.name) for e in estimates)
            have = "has" if len(names) == 1 else "have"
            problem = (
                f"{shown(value)} changes nothing, as {' and '.join(names)} {have} no attention to choose"
            )
            raise InputError(f"--{name}", f"{problem}; allowed: {WITHOUT[name]}")


def _groups(e: Estimate) -> Iterable[str]:
    from ..ir import walk

    return {o.group for o, _ in walk(e.model.nodes)}
