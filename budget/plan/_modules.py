"""What transformers calls the modules of a network's linear layers: by their tag, and by their layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from ..errors import InputError, shown
from ..ir import (
    DOWN,
    EXPERT_DOWN,
    EXPERT_GATED,
    EXPERT_IN,
    EXPERT_OUT,
    EXPERT_UP,
    GATED,
    HEAD,
    KEY,
    LATENT_DOWN,
    LATENT_QUERY,
    LATENT_UP,
    OUTPUT,
    QKV,
    QUERY,
    SHARED_DOWN,
    SHARED_GATE,
    SHARED_GATED,
    SHARED_UP,
    SSM_IN,
    SSM_OUT,
    SSM_PARTS,
    SSM_STEP,
    UP,
    VALUE,
    Block,
    Model,
    Node,
    Op,
    walk,
)
from .fp8 import is_linear

# What transformers calls an operator's module, by its tag, in several families.
MODULES = {
    QUERY: (
        "self_attn.q_proj",
        "attn.q_proj",
        "self_attn.q_b_proj",
        "attn.attention.q_proj",
        "attention.self.query",
        "attention.q_lin",
        "attention.attn.q",
        "mixer.q_proj",
    ),
    KEY: (
        "self_attn.k_proj",
        "attn.k_proj",
        "attn.attention.k_proj",
        "attention.self.key",
        "attention.k_lin",
        "attention.attn.k",
        "mixer.k_proj",
    ),
    VALUE: (
        "self_attn.v_proj",
        "attn.v_proj",
        "attn.attention.v_proj",
        "attention.self.value",
        "attention.v_lin",
        "attention.attn.v",
        "mixer.v_proj",
    ),
    QKV: (
        "self_attn.qkv_proj",
        "attn.c_attn",
        "self_attention.query_key_value",
        "attention.query_key_value",
        "self_attn.query_key_value",
        "attn.qkv_proj",
        "attn.Wqkv",
    ),
    OUTPUT: (
        "self_attn.o_proj",
        "attn.c_proj",
        "self_attention.dense",
        "attention.dense",
        "self_attn.dense",
        "self_attn.out_proj",
        "attn.out_proj",
        "attn.attention.out_proj",
        "attention.output.dense",
        "attention.out_lin",
        "attn.Wo",
        "attention.attn.o",
        "mixer.o_proj",
    ),
    LATENT_QUERY: ("self_attn.q_a_proj",),
    LATENT_DOWN: ("self_attn.kv_a_proj_with_mqa",),
    LATENT_UP: ("self_attn.kv_b_proj",),
    GATED: ("mlp.gate_proj", "mlp.gate_up_proj", "feed_forward.w1", "feed_forward.gate_proj", "mlp.Wi"),
    UP: (
        "mlp.up_proj",
        "mlp.gate_up_proj",
        "mlp.c_fc",
        "mlp.fc1",
        "mlp.dense_h_to_4h",
        "mlp.fc_in",
        "fc1",
        "feed_forward.w3",
        "feed_forward.up_proj",
        "intermediate.dense",
        "ffn.lin1",
        "ffn.up_proj",
        "mlp.Wi",
    ),
    DOWN: (
        "mlp.down_proj",
        "mlp.c_proj",
        "mlp.fc2",
        "mlp.dense_4h_to_h",
        "mlp.fc_out",
        "fc2",
        "feed_forward.w2",
        "feed_forward.down_proj",
        "output.dense",
        "ffn.lin2",
        "ffn.down_proj",
        "mlp.Wo",
    ),
    EXPERT_GATED: ("mlp.experts.0.gate_proj", "block_sparse_moe.experts.0.w1", "mlp.experts.gate_up_proj"),
    EXPERT_UP: (
        "mlp.experts.0.up_proj",
        "block_sparse_moe.experts.0.w3",
        "mlp.experts.gate_up_proj",
        "mixer.experts.0.up_proj",
    ),
    EXPERT_DOWN: (
        "mlp.experts.0.down_proj",
        "block_sparse_moe.experts.0.w2",
        "mlp.experts.down_proj",
        "mixer.experts.0.down_proj",
    ),
    EXPERT_IN: ("mixer.fc1_latent_proj",),
    EXPERT_OUT: ("mixer.fc2_latent_proj",),
    SHARED_GATED: ("mlp.shared_experts.gate_proj", "mlp.shared_expert.gate_proj"),
    SHARED_UP: ("mlp.shared_experts.up_proj", "mlp.shared_expert.up_proj", "mixer.shared_experts.up_proj"),
    SHARED_DOWN: (
        "mlp.shared_experts.down_proj",
        "mlp.shared_expert.down_proj",
        "mixer.shared_experts.down_proj",
    ),
    SHARED_GATE: ("mlp.shared_expert_gate",),
    SSM_IN: (
        "mixer.in_proj",
        "mamba.in_proj",
        "conv.in_proj",
        "linear_attn.in_proj_qkv",
        "linear_attn.in_proj_z",
    ),
    SSM_PARTS: ("mixer.x_proj", "mamba.x_proj"),
    SSM_STEP: ("mixer.dt_proj", "mamba.dt_proj"),
    SSM_OUT: ("mixer.out_proj", "mamba.out_proj", "conv.out_proj", "linear_attn.out_proj"),
    HEAD: ("lm_head", "score", "classifier", "qa_outputs", "embed_out", "cls.predictions.decoder"),
}

# What an architecture's only family calls them, where another's name means something else there.
GEMMA4 = {
    EXPERT_GATED: ("experts.gate_up_proj", "experts.0.gate_proj"),
    EXPERT_UP: ("experts.gate_up_proj", "experts.0.up_proj"),
    EXPERT_DOWN: ("experts.down_proj", "experts.0.down_proj"),
}
OWN = {"gemma4": GEMMA4, "vision_gemma4": GEMMA4}

# Where layers are, in several families.
STACKS = (
    "model.layers", "layers", "model.language_model.layers", "language_model.model.layers", "transformer.h",
    "h", "gpt_neox.layers", "model.decoder.layers", "decoder.layers", "backbone.layers", "encoder.layer",
    "encoder.layers", "transformer.layer", "transformer.blocks", "blocks",
)  # fmt: skip
TOWER = "tower"  # the block of arch/vision_language.py
TOWERS = (
    "visual.blocks", "model.visual.blocks", "vision_tower.vision_model.encoder.layers",
    "model.vision_tower.vision_model.encoder.layers", "vision_model.encoder.layers",
    "model.vision_model.encoder.layers", "model.vision_tower.encoder.layers",
)  # fmt: skip
# Words of names that are no linear layers of a text model, or that every format leaves alone.
ASIDE = re.compile(
    r"embed|norm|head|gate|router|score|classifier|qa_outputs|pooler|conv|visual|vision|image|audio"
    r"|projector|connector|merger|mtp|shared_head|eh_proj|indexer|wte|wpe|rotary"
)
MOST = 10_000  # layers that are told apart


def paths(
    model: Model, skipped: Iterable[str], only: Iterable[str], spelled: Mapping[str, str]
) -> dict[int, list[tuple[str, ...]]]:
    """By operator (its id), what the module of a linear layer may be called in each of its layers.

    skipped, only: expressions over such names; spelled: how a config spells them. Where none tells layers
    apart, one layer stands for all.
    Raises InputError for one that means no module that is known here.
    """
    alone = not any(re.search(r"\d", text) for text in (*skipped, *only))
    seen = tuple(node for node in model.nodes if isinstance(node, Block) and node.name == TOWER)
    numbers, total = _numbers(node for node in model.nodes if node not in seen)
    numbers |= _numbers(seen)[0]
    among_seen = {id(o) for o, _ in walk(seen)}
    own_names = OWN.get(model.arch, {})
    found = {}
    for o, _ in walk(model.nodes):
        names = own_names.get(o.tag, MODULES.get(o.tag, ())) if is_linear(o, head=True) else ()
        if not names:
            continue
        own = [0] if alone else numbers.get(id(o), [0])
        stacks = ("",) if o.tag == HEAD else TOWERS if id(o) in among_seen else STACKS
        found[id(o)] = [tuple(_paths(stacks, names, i)) for i in own]
    known: dict[str, list[str]] = {"": []}
    for path in (path for called in found.values() for names in called for path in names):
        for number in _numbers_in(path):
            known.setdefault(number, []).append(path)
    for text in (*skipped, *(text for text in only if text in spelled)):
        named = any(re.search(text, path) for path in known.get(_number(text), ()))
        if not (ASIDE.search(text) or named or _beyond(text, total)):
            problem = f"{shown(spelled.get(text, text))} names no linear layer that is known of {model.name}"
            raise InputError("quantization_config", f"{problem}; allowed: names of transformers' modules")
    return found


def _paths(stacks: Iterable[str], names: Iterable[str], layer: int) -> Iterator[str]:
    for stack in stacks:
        yield from (f"{stack}.{layer}.{name}" if stack else name for name in names)


def finds(texts: tuple[str, ...], module: str) -> bool:
    """Whether one of these expressions finds a module's name. Lists have hundreds, most of other layers."""
    table = _by_number(texts)
    return any(re.search(text, module) for number in _numbers_in(module) for text in table.get(number, ()))


@lru_cache(maxsize=16)
def _by_number(texts: tuple[str, ...]) -> Mapping[str, list[str]]:
    table: dict[str, list[str]] = {}
    for text in texts:
        table.setdefault(_number(text), []).append(text)
    return table


def _numbers_in(name: str) -> set[str]:
    """The runs of digits of a name and all their parts, and nothing."""
    runs = re.findall(r"\d+", name)
    return {"", *(run[i:j] for run in runs for i in range(len(run)) for j in range(i + 1, len(run) + 1))}


@lru_cache(maxsize=4096)
def _number(text: str) -> str:
    """A number that is in each name which an expression finds; nothing where none is known to be."""
    plain = text.replace(r"(^|\.)", "").replace(r"(\.|$)", "").replace("(?:", "(")
    if re.search(r"[\[{+?]|\d\*|\\[^.]", plain):
        return ""
    numbers = {(re.findall(r"\d+", part) or [""])[0] for part in plain.split("|")}
    return numbers.pop() if len(numbers) == 1 else ""


def _beyond(text: str, total: int) -> bool:
    """Whether a layer is meant that the class does not have: those for predicting several tokens."""
    number = re.search(r"layers\W*(\d{1,9})", text)
    return number is not None and int(number[1]) >= total


def _numbers(nodes: Iterable[Node]) -> tuple[dict[int, list[int]], int]:
    """The numbers of the layers that each linear layer is in, and how many layers there are.

    A block that has linear layers among its own operators is a layer, repeated; others hold layers.
    """
    found: dict[int, list[int]] = {}
    first = 0
    for node in nodes:
        if not isinstance(node, Block):
            continue
        times = node.count if isinstance(node.count, int) and node.count <= MOST else 1
        if any(isinstance(n, Op) and n.tag in MODULES for n in node.body):
            each = list(range(first, first + times))
            found.update({id(o): each for o, _ in walk(node.body)})
            first += times
        else:
            inside, length = _numbers(node.body)
            for o, own in inside.items():
                found[o] = [first + turn * length + i for turn in range(times) for i in own]
            first += length * times
    return found, first
