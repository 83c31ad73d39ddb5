"""Operators by name: which ones a technique is applied to."""

from __future__ import annotations

from collections.abc import Iterable

from ..dtype import full_name
from ..errors import InputError, wrong
from ..ir import Model, Op, Tensor, letters, walk


def chosen(
    model: Model, field: str, patterns: str, *, products: bool = False, more: Iterable[str] = ()
) -> frozenset[str]:
    """Names of the forward operators with weights that match patterns, by commas.

    A pattern is some neighbouring parts of a dotted name, with * for any text: `attn.q`, `embed`,
    `layers.*.q`. products: contractions only. more: other names that a pattern may mean.
    Raises InputError for a pattern that matches nothing.
    """
    known = [o.name for o, _ in walk(model.nodes) if can_choose(o) and (o.kind == "contract" or not products)]
    known += more
    names: set[str] = set()
    for pattern in filter(None, (p.strip() for p in patterns.split(","))):
        named = _matching(known, pattern)
        if not named:
            parts = dict.fromkeys(".".join(name.split(".")[-2:]) for name in known)
            raise InputError(
                field, f"{pattern[:60]!r} matches no operator; allowed: {', '.join(list(parts)[:20])}"
            )
        names |= named
    if not names:
        raise wrong(field, patterns, "names of operators, by commas")
    return frozenset(names)


def matching(model: Model, pattern: str, *, tables: bool = False) -> frozenset[str]:
    """Names of the products, and of the tables, that one pattern matches."""
    kinds = ("contract", "gather") if tables else ("contract",)
    return _matching((o.name for o, _ in walk(model.nodes) if can_choose(o) and o.kind in kinds), pattern)


def _matching(known: Iterable[str], pattern: str) -> frozenset[str]:
    from fnmatch import fnmatchcase

    forms = (pattern, f"*.{pattern}", f"{pattern}.*", f"*.{pattern}.*")
    return frozenset(name for name in known if any(fnmatchcase(name, form) for form in forms))


def can_choose(o: Op) -> bool:
    """Whether an operator is one of the network's with a weight."""
    return o.phase == "forward" and bool(o.weights)


def wide(field: str, dtype: str) -> None:
    """Raise an InputError for a dtype that trained weights or gradients cannot have; "" is the usual one."""
    if dtype and full_name(dtype) not in ("bfloat16", "float16", "float32"):
        raise wrong(field, dtype, "fp32, bf16, fp16")


def untrained(model: Model, technique: str) -> None:
    """Raise an InputError where the backward pass is there already."""
    if any(o.phase != "forward" for o, _ in walk(model.nodes)):
        raise InputError(technique, "comes too late; allowed: before backward")


def is_trained(model: Model, technique: str) -> None:
    """Raise an InputError where there is no backward pass yet, or the optimizer already."""
    phases = {o.phase for o, _ in walk(model.nodes)}
    if "backward" not in phases:
        raise InputError(technique, "needs a backward pass; allowed: mode train, after backward")
    if "optimizer" in phases:
        raise InputError(technique, "comes too late; allowed: before optimizer")


def operands(o: Op, field: str) -> tuple[Tensor, Tensor]:
    """The activation and the weight of a product. Raises InputError for a product of another kind."""
    xs, ws = [t for t in o.ins if not t.added and t not in o.weights], [t for t in o.weights if not t.added]
    # An axis of the weight that both sides have counts groups, as a depthwise convolution's channels do.
    if len(xs) != 1 or len(ws) != 1 or set(ws[0].dims) & letters(xs[0].dims) & letters(o.out.dims):
        raise InputError(field, f"{o.name} is no product of one input and one weight; allowed: linear layers")
    return xs[0], ws[0]
