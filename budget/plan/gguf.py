"""Weights in few bits as a GGUF file holds them, for inference: all matrices and the vocabulary's table.

llama.cpp's rule for a matrix's type is in data/gguf.json: it depends on what the matrix is, on its layer, and
on how many heads and experts there are. Where layers differ, a product reads the smallest type, plus what the
layers have beyond it on average. Vectors stay in the model's dtype, though a file has them in float32. As
llama-quantize does without an importance matrix where it needs none; Falcon's exceptions are not modelled.
Sources: ggml, llama-cpp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..dtype import BYTES
from ..errors import InputError, unknown
from ..ir import (
    ACTIVE,
    DOWN,
    EMBED,
    EXPERT_DOWN,
    EXPERT_GATED,
    EXPERT_UP,
    EXPERTS,
    FROZEN,
    GATED,
    HEAD,
    KEY,
    OUTPUT,
    QKV,
    QUERY,
    ROUTER,
    SCALE,
    SHARED_DOWN,
    SHARED_GATED,
    SHARED_UP,
    SSM_IN,
    SSM_OUT,
    UP,
    VALUE,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    base,
    elements,
    gemm,
    rewrite,
    walk,
)
from ..named import Any, NamedTuple
from ..size import Size, all_of, exact_div
from ..table import load
from ._names import untrained
from ._weights import shape
from .fp8 import is_linear

# The names that data/gguf.json has rules for, here for the settings, which need no rules.
FORMATS = (
    "q8_0", "q6_k", "q5_1", "q5_0", "q4_1", "q4_0", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l",
    "q3_k_m", "q3_k_s", "q2_k", "q2_k_s", "iq4_nl", "iq4_xs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m",
    "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s", "mxfp4_moe", "q6_k_l", "q6_k_xl", "q5_k_l", "q4_k_l",
    "q3_k_xl", "q2_k_l", "ud_q5_k_xl", "ud_q4_k_xl", "ud_q3_k_xl", "ud_q2_k_xl",
    "ud_iq4_xs",
)  # fmt: skip
ATTENTION = {QUERY: "query", KEY: "key", VALUE: "value", OUTPUT: "output", QKV: "qkv"}
DENSE = {GATED: "up", UP: "up", DOWN: "down"}
SPARSE = {EXPERT_GATED: "up", EXPERT_UP: "up", EXPERT_DOWN: "down",
          SHARED_GATED: "up", SHARED_UP: "up", SHARED_DOWN: "down"}  # fmt: skip
ROLES = {**ATTENTION, **DENSE, **SPARSE}
OTHERS = {EMBED: "table", SSM_IN: "ssm_in", SSM_OUT: "ssm_out"}  # what has one type in all layers
WRITES = (OUTPUT, DOWN, EXPERT_DOWN, SHARED_DOWN)
PICKED = (EXPERT_GATED, EXPERT_UP, EXPERT_DOWN)  # what a mix may call `expert`: some tokens pick each
LARGE = 80  # layers of a network that llama.cpp calls a 70B. Source: llama-cpp.
# The type of rows that are no whole number of blocks; iq4_nl for other blocks of 256. Source: llama-cpp.
SMALLER = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
BLOCK, SUPER = 32, 256
ROWS = 8  # up to so many, no kernel widens weights before a product. Source: llama-cpp-mmvq.
SIMPLE = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "mxfp4")  # in blocks of 32


class Network(NamedTuple):
    """What the rule asks of a network: its layers, query heads that share a key, and experts."""

    layers: int
    shared: float
    experts: int


def holds(where: str, i: int, n: int, network: Network) -> bool:
    """Whether all words of a condition are true of the i-th of n matrices of a kind."""
    eighth, last = n // 8, 7 * n // 8
    facts = {
        "first2": i < 2,
        "first4": i < 4,
        "sixteenth": i < n // 16,
        "eighth": i < eighth,
        "middle": eighth <= i < last,
        "more": i < eighth or i >= last or (i - eighth) % 3 == 2,
        "shared4": network.shared >= 4,
        "large": network.layers == LARGE,
        "experts4": network.experts >= 4,
        "experts8": network.experts == 8,
    }
    return all(facts[word] for word in where.split())


def type_of(mix: Mapping[str, Any], role: str, i: int, n: int, network: Network) -> str:
    """The type of the i-th of n matrices of a role in a mix."""
    few, most = mix.get("few"), mix["most"]
    if network.experts == 8 and role in ("value", "key"):  # Mixtral's, which are few
        return "q4_k" if few else "q8_0"
    rule = mix.get(role, most)
    if isinstance(rule, str):
        return rule
    return str(next((dtype for where, dtype in rule if holds(where, i, n, network)), most))


def fitting(dtype: str, inner: Size) -> str:
    """A type, or what stands in for it where a matrix's rows are no whole number of its blocks."""
    if not isinstance(inner, int) or inner % (BLOCK if dtype in SIMPLE else SUPER) == 0:
        return dtype
    smaller = dtype if dtype in SIMPLE else SMALLER.get(dtype, "iq4_nl")
    return smaller if inner % BLOCK == 0 else "float16"


def as_published(preset: str) -> str:
    """The type that experts keep in every format: that in which the preset that their maker publishes has
    them; "" where they keep none. Source: llmfit-mxfp4.
    """
    return "mxfp4" if preset.endswith("-mxfp4") else ""


def gguf(model: Model, form: str, *, train: bool = False, widened: bool = False, experts: str = "") -> Model:
    """The model with its matrices in a format, which products read as they are. Raises InputError.

    widened: where a product has several rows, by a kernel before it. Source: llama-cpp-cublas.
    experts: the type that experts keep (`as_published`).
    """
    if form not in FORMATS:
        raise unknown("quantize", form, FORMATS)
    if train:
        raise InputError("quantize", f"got {form}, which is for inference; allowed: nf4, nf4-dq, int8")
    untrained(model, "quantize")
    mix, rest = _parted(model, {**_mix(form), **({"expert": experts} if experts else {})})
    types = _types(model, mix, rest)
    heads, tables = (
        {t.name for o, _ in walk(model.nodes) if o.tag == tag for t in o.weights} for tag in (HEAD, EMBED)
    )
    if heads & tables:  # one is the other, and any table has its type
        heads |= tables

    def stored(t: Tensor, o: Op) -> Tensor:
        if o.tag == ROUTER:
            return t._replace(role=FROZEN, dtype="float32")
        if t.name in heads:
            dtype = _of_head(rest, shape(t, o)[-1])
        else:
            most = rest.get(OTHERS.get(o.tag, ""), rest["most"])
            dtype = min(types.get(id(o), (most,)), key=lambda one: BYTES[one])
        return t._replace(role=FROZEN, dtype=fitting(dtype, shape(t, o)[-1]))

    def change(o: Op) -> Iterator[Op]:
        if not (o.tag == EMBED or is_linear(o, head=True)):
            yield o
            return
        few = {t.name: stored(t, o) for t in o.weights if not t.added}
        o = _with_more(o, types.get(id(o), ()))
        g = gemm(o) if widened and o.tag not in (EMBED, ROUTER) else None
        one = o.sizes[base(ACTIVE)] if any(EXPERTS in t.dims for t in o.weights) else 1  # token's rows
        if g is None or all_of(g.m <= (ROWS if one == 1 else one)):
            yield o._replace(ins=tuple(few.get(t.name, t) for t in o.ins))
            return
        wide = {name: Tensor(f"{o.name}~{t.label}~wide", t.dims) for name, t in few.items()}
        for name, t in few.items():
            yield Op(f"{o.name}.dequantize", "dequantize", (t,), (wide[name],), o.sizes)
        yield o._replace(ins=tuple(wide.get(t.name, t) for t in o.ins))

    return model._replace(nodes=rewrite(model.nodes, change))


def _mix(form: str) -> Mapping[str, Any]:
    """A format's rule: its own, or another format's with some entries replaced."""
    own = load("gguf.json")[form]
    return {**_mix(own["like"]), **own} if "like" in own else own


def _parted(model: Model, mix: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The rules of experts that tokens pick and of the rest. Where a network has layers with states, some
    formats have others: with experts beside them (`hybrid`) a type for the rest, and others for experts;
    without (`states`) types for some roles.
    """
    tags = {o.tag for o, _ in walk(model.nodes)}
    if "hybrid" not in mix or SSM_IN not in tags:
        return mix, mix
    if EXPERT_DOWN not in tags:
        alone = {**mix, **mix.get("states", {})}
        return alone, alone
    rest = mix["hybrid"]["rest"]
    return {**mix, **mix["hybrid"]}, {"most": rest, "head": rest}


def _with_more(o: Op, types: Sequence[str]) -> Op:
    """A product that reads, too, the bytes that its layers have beyond the smallest type, on average."""
    weight = o.weights[0]
    held = [BYTES[fitting(t, shape(weight, o)[-1])] for t in types] or [0]
    experts = tuple(d for d in weight.dims if d == EXPERTS)
    numbers = exact_div(elements(weight, o.sizes), o.sizes[base(EXPERTS)] if experts else 1)
    more = round(numbers * sum(b - min(held) for b in held) / len(held))
    if not more:
        return o
    beside = Tensor(f"{weight.name}~more", (*experts, "more"), SCALE, "uint8", added=True)
    return o._replace(ins=(*o.ins, beside), sizes={**o.sizes, "more": more})


def _of_head(mix: Mapping[str, Any], inner: Size) -> str:
    """The type of the output projection, or of a table that is one with it."""
    if fitting(mix["most"], inner) != mix["most"]:
        return "q8_0"
    return str(mix.get("head", "q5_k" if mix.get("few") else "q6_k"))


def _types(model: Model, mix: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[int, tuple[str, ...]]:
    """The type of each layer's matrix, by its product's identity: of experts that tokens pick by a mix, of
    the rest by its own. Raises InputError where the rule depends on a layer's place and the layers are not a
    decoder's: attention and an MLP in each, those with experts last, or both in each.
    """
    ops = list(_in_order(model.nodes))
    order: dict[str, list[Op]] = {}
    for o in ops:
        order.setdefault(o.tag, []).append(o)
    first = {tag: of[0] for tag, of in order.items()}
    downs = [o.tag == EXPERT_DOWN for o in ops if o.tag in (DOWN, EXPERT_DOWN)]
    both = downs[:2] * (len(downs) // 2) == downs and len(set(downs[:2])) == 2  # an MLP and experts in each
    layers, dense = (len(downs) // 2, 0) if both else (len(downs), downs.count(False))
    widths = {(o.tag, _width(o)) for o in ops}
    attention = max((len(of) for tag, of in order.items() if tag in ATTENTION), default=0)
    alike = len(widths) == len(order) and attention <= layers and (both or downs == sorted(downs))
    alike &= all(isinstance(times, int) for _, times in walk(model.nodes))
    if any(isinstance(rule, list) for rule in mix.values()) and not alike:
        problem = f"{model.name}'s layers are no decoder's alike; allowed: {', '.join(SIMPLE)}"
        raise InputError("quantize", problem)
    query, value, expert = (first.get(tag) for tag in (QUERY, VALUE, EXPERT_DOWN))
    of = Network(
        layers,
        _size(query) / _size(value) if query and value else 1,
        int(expert.sizes[base(EXPERTS)]) if expert else 1,
    )
    found: dict[int, list[str]] = {}
    for tag, same in order.items():
        n, before = (len(same), 0) if tag in ATTENTION else (layers, dense if tag in SPARSE else 0)
        for i, o in enumerate(same, before):
            role = "expert" if "expert" in mix and tag in PICKED else ROLES[tag]
            found.setdefault(id(o), []).append(type_of(mix if tag in PICKED else rest, role, i, n, of))
    return {key: tuple(types) for key, types in found.items()}


def _in_order(nodes: Iterable[Node]) -> Iterator[Op]:
    """The layers' products of matrices, each as often as it runs."""
    for node in nodes:
        if isinstance(node, Block):
            for _ in range(1 if node.shared or not isinstance(node.count, int) else node.count):
                yield from _in_order(node.body)
        elif node.tag in ROLES and is_linear(node):
            yield node


def _width(o: Op) -> Any:
    """The width of what layers hand on: a matrix's columns, or its rows where its output is handed on."""
    inner = shape(o.weights[0], o)[-1]
    return exact_div(_size(o), inner) if o.tag in WRITES else inner


def _size(o: Op) -> Any:
    return elements(o.weights[0], o.sizes)
