"""Kinds of operators: a row each, in the file of what it does. A row has all that any question asks of it."""

from __future__ import annotations

from . import collectives, movement, norms, others, pointwise, reductions
from .rule import Rule

RULES: dict[str, Rule] = {
    **movement.RULES,
    **pointwise.RULES,
    **reductions.RULES,
    **norms.RULES,
    **others.RULES,
    **collectives.RULES,
}
