"""The representation: tensors over named dimensions, operators, blocks, and a model as a tuple of them.

Architectures write it, techniques rewrite it, questions read it; all import it from here. ir/verify.py says
what every program must satisfy, ir/kinds/ what each kind of operator does.
"""

from __future__ import annotations

from .block import (
    ALL,
    INPUT_ONLY,
    NOTHING,
    Block,
    Carry,
    Model,
    Node,
    block,
    pieces,
    renamed,
    rewrite,
    states,
    walk,
    weights,
)
from .kinds import RULES
from .kinds.rule import Rule
from .line import ROLES, group, line, op
from .link import link, model
from .op import (
    ACTIVATION_OF_MLP,
    DOWN,
    EMBED,
    GATE,
    HEAD,
    LATENT_DIVIDE,
    LATENT_JOIN,
    LATENT_UP,
    LEAF,
    LOSS,
    MERGE,
    MIX,
    PROMPT,
    QKV,
    REMADE,
    ROUTER,
    SCORES,
    Gemm,
    Op,
    beside,
    contracted_dims,
    contraction_flops,
    expert_axis,
    gemm,
    is_convolution,
    pointwise_flops,
    widest,
)
from .tensor import (
    ACTIVATION,
    ACTIVE,
    CACHE,
    CHUNK,
    COPY,
    FROZEN,
    GIVEN,
    GRADIENT,
    HOST,
    INPUT,
    SAVED,
    SCALE,
    STATE,
    SUMMAND,
    TEMPORARY,
    WEIGHT,
    WEIGHTS,
    Tensor,
    base,
    elements,
    is_picked,
    picked,
    window,
)

__all__ = [
    "ACTIVATION", "ACTIVATION_OF_MLP", "ACTIVE", "ALL", "CACHE", "CHUNK", "COPY", "DOWN", "EMBED", "FROZEN",
    "GATE", "GIVEN", "GRADIENT", "HEAD", "HOST", "INPUT", "INPUT_ONLY", "LATENT_DIVIDE", "LATENT_JOIN",
    "LATENT_UP", "LEAF", "LOSS", "MERGE", "MIX", "NOTHING", "PROMPT", "QKV", "REMADE", "ROLES", "ROUTER",
    "RULES", "SAVED", "SCALE", "SCORES", "STATE", "SUMMAND", "TEMPORARY", "WEIGHT", "WEIGHTS", "Block",
    "Carry", "Gemm", "Model", "Node", "Op", "Rule", "Tensor", "base", "beside", "block", "contracted_dims",
    "contraction_flops", "elements", "expert_axis", "gemm", "group", "is_convolution", "is_picked", "line",
    "link", "model", "op", "picked", "pieces", "pointwise_flops", "renamed", "rewrite", "states", "walk",
    "weights", "widest", "window",
]  # fmt: skip
