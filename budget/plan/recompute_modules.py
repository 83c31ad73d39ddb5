"""Recompute modules of a layer, one by one, as Megatron-LM's --recompute-modules.

A norm, latent attention's projections to heads, and an activation keep nothing: their output is recomputed
before its first reader in the backward pass ("output-discarding"). An MLP or a mixture of experts keeps its
output; everything inside is recomputed, also the dispatch of rows to experts. `core_attn` is `recompute
selective`. `act` is the activation of every MLP, experts' or not, as in DeepSeek-V3's report. Sources:
megatron-lm, deepseek-v3.
"""

from __future__ import annotations

from ..config import Task, setting
from ..errors import InputError, unknown
from ..ir import (
    ACTIVATION_OF_MLP,
    GATE,
    INPUT_ONLY,
    LAYER_NORM,
    MLA_UP,
    MLP,
    MOE,
    NOTHING,
    SHARED_EXPERTS,
    Block,
    Model,
    Op,
    rewrite,
    walk,
)

SETTINGS = {"recompute_modules": setting("", "of layernorm, mla_up_proj, act, moe_act, mlp, moe, ...")}
NEEDS = {"recompute_modules": ("train",)}

# By name: tags of the module's operators, and whether only its activation is meant.
INSIDE: dict[str, tuple[tuple[str, ...], bool]] = {
    "mlp": ((MLP,), False),
    "moe": ((MOE, SHARED_EXPERTS), False),
    "shared_experts": ((SHARED_EXPERTS,), False),
}
DISCARDED: dict[str, tuple[tuple[str, ...], bool]] = {
    "layernorm": ((LAYER_NORM,), False),
    "mla_up_proj": ((MLA_UP,), False),
    "moe_act": ((MOE,), True),
    "act": ((MLP, MOE, SHARED_EXPERTS), True),
}
NAMES = (*DISCARDED, *INSIDE)


def named(names: str) -> tuple[str, ...]:
    """Modules by commas. Raises InputError."""
    chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in chosen:
        if name not in NAMES:
            raise unknown("recompute_modules", name, NAMES)
    return chosen


def marked(model: Model, names: str) -> Model:
    """The model whose layers keep of these modules only what a checkpoint keeps. Before `backward`.

    Raises InputError for a module that no layer has.
    """
    chosen = named(names)
    layers = [n for n in model.nodes if isinstance(n, Block)]
    ops = [o for o, _ in walk(layers)]
    for name in chosen:
        if not any(_is_part(o, name) for o in ops):
            there = [n for n in NAMES if any(_is_part(o, n) for o in ops)]
            allowed = ", ".join(there) or "none"
            raise InputError("recompute_modules", f"{model.name} has no {name}; allowed: {allowed}")

    def change(o: Op) -> tuple[Op]:
        whole = any(_is_part(o, name) for name in chosen if name in INSIDE)
        gone = any(_is_part(o, name) for name in chosen if name in DISCARDED)
        return (o._replace(keeps=INPUT_ONLY if whole else NOTHING if gone else o.keeps),)

    nodes = (n._replace(body=rewrite(n.body, change)) if isinstance(n, Block) else n for n in model.nodes)
    return model._replace(nodes=tuple(nodes))


def _is_part(o: Op, name: str) -> bool:
    """Whether an operator is part of the module of this name."""
    modules, activations = (INSIDE | DISCARDED)[name]
    return o.module in modules and (not activations or o.tag in (ACTIVATION_OF_MLP, GATE))


def check(task: Task, device: object) -> None:
    """Raise an InputError for other modules, or where whole layers run again."""
    named(task.techniques.recompute_modules)
    if task.recompute not in ("none", "selective"):
        allowed = "with recompute none, or selective (core_attn)"
        raise InputError("recompute_modules", f"got recompute {task.recompute}; allowed: {allowed}")


STAGES = {"group": lambda model, task: marked(model, task.techniques.recompute_modules)}
