"""The projector between a tower and a decoder: from the width of the tower's output to the decoder's."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Settings, setting
from ..errors import InputError
from ..ir import DOWN, GATE, GATED, UP, Node, op
from ..size import is_zero
from ._layers import ACTIVATIONS, NORMS, activate, norm


class Projected(Settings):
    """The projector behind a tower: one linear layer by default."""

    projector_norm: str = setting("", "a norm before the projector", choices=("", *NORMS))
    projector_width: int = setting(0, "hidden width of the projector; 0: it is one linear layer", least=0)
    projector_depth: int = setting(1, "hidden layers of that width (Llama 4: 2)")
    projector_activation: str = setting("gelu", "of a projector with hidden units", choices=ACTIVATIONS)
    projector_gated: bool = setting(False, "it multiplies two projections, one of them activated (Aya)")
    projector_bias: bool = setting(True, "the projector has biases")


def check(c: Projected) -> None:
    """Raises InputError for a gate or a depth without hidden units, and for both at once."""
    if c.projector_gated and c.projector_depth > 1:
        raise InputError("projector_depth", f"got {c.projector_depth}; allowed with a gate: 1")
    if is_zero(c.projector_width) and (c.projector_gated or c.projector_depth > 1):
        raise InputError("projector_width", "got 0; allowed with a gate or a depth: a width")


def project(c: Projected, name: str, x: str, out: str, kind: str, m: str = "m") -> Iterator[Node]:
    """From `x: b n m` to `out: b n d`, over f hidden units, g in further layers. kind: of the norm before."""
    if kind:
        yield norm(f"{name}.norm", kind, x, x, dim=m)
    up, next_up, down = (", +*f", ", +*g", ", +*d") if c.projector_bias else ("", "", "")
    if is_zero(c.projector_width):
        yield op(name, f"{x}: b n {m}, *{m} d{down} -> {out}: b n d")
        return
    if c.projector_gated:
        yield op(f"{name}.gate", f"{x}: b n {m}, *{m} f{up} -> g: b n f", tag=GATED)
        yield activate(f"{name}.act", c.projector_activation, "g")
        yield op(f"{name}.up", f"{x}: b n {m}, *{m} f{up} -> u: b n f", tag=UP)
        yield op(f"{name}.mul", "g:, u: -> g:", "mul", GATE)
    else:
        yield op(f"{name}.up", f"{x}: b n {m}, *{m} f{up} -> u: b n f", tag=UP)
        yield activate(f"{name}.act", c.projector_activation, "u")
    for i in range(1, c.projector_depth):
        yield op(f"{name}.up{i}", f"g: b n f, *f g{next_up} -> u: b n g", tag=UP)
        yield activate(f"{name}.act{i}", c.projector_activation, "u")
        yield op(f"{name}.as_wide{i}", "g: b n g -> g: b n f", "view")
    yield op(f"{name}.down", f"g: b n f, *f d{down} -> {out}: b n d", tag=DOWN)
