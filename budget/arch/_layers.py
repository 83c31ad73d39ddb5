"""Norms, multi-layer perceptrons and mixtures of experts: the rest of a transformer's layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..config import setting
from ..ir import (
    ACTIVATION_OF_MLP,
    DOWN,
    EXPERT_DOWN,
    EXPERT_GATED,
    EXPERT_IN,
    EXPERT_OUT,
    EXPERT_SEND,
    EXPERT_UP,
    GATE,
    GATED,
    LAYER_NORM,
    MLP,
    MOE,
    ROUTER,
    RULES,
    SHARED_DOWN,
    SHARED_EXPERTS,
    SHARED_GATE,
    SHARED_GATED,
    SHARED_UP,
    UP,
    Block,
    Node,
    Op,
    op,
)
from ..named import NamedTuple
from ..size import Size, is_zero

ACTIVATIONS = tuple(kind for kind, rule in RULES.items() if rule.config)  # those that configs name
RMS_NORMS = ("rms_norm", "rms_norm_float32", "rms_norm_plus_one", "rms_norm_plain")
NORMS = ("layer_norm", "layer_norm_float32", "layer_norm_plain", *RMS_NORMS)
# Settings that networks share.
DROPOUT = setting(0.0, "training: part of embeddings and of what is added, dropped", least=0, most=1)
ATTENTION_DROPOUT = setting(0.0, "training: part of attention's weights that is dropped", least=0, most=1)
ACTIVATION_DROPOUT = setting(0.0, "training: part of the MLPs' hidden units, dropped", least=0, most=1)


def norm(name: str, kind: str, x: str = "x", out: str = "n", *, bias: bool = True, dim: str = "d") -> Op:
    """A norm over the last dimension with its own weight; only layer_norm may have a bias."""
    weight = "" if kind in ("layer_norm_plain", "rms_norm_plain") else f", *{dim}"
    added = f", +*{dim}" if bias and kind == "layer_norm" else ""
    casts = (2, 2) if kind == "layer_norm_plain" else (0, 0)  # to float32 and back (OLMo's code)
    module = LAYER_NORM if dim == "d" else ""
    return op(name, f"{x}:{weight}{added} -> {out}:", kind)._replace(beside=casts, module=module)


def part(module: str, ops: Iterable[Op]) -> Iterator[Op]:
    """Operators as one module of their layer; those that have a module already keep it."""
    return (o if o.module else o._replace(module=module) for o in ops)


def mlp(
    name: str,
    activation: str,
    *,
    gated: bool = False,
    bias: bool = True,
    x: str = "n",
    out: str = "m",
    f: Size = None,
    dropout: float = 0.0,
    scaled: bool = False,
    fused: bool = False,
    tags: tuple[str, str, str] = (GATED, UP, DOWN),
) -> Iterator[Op]:
    """From `x: b s d` to `out: b s d` over f hidden units, gated or not; dropout: the share of them to drop.

    scaled: gate and output are multiplied by constants. fused: the gate and what it multiplies are one
    projection (Phi-3). tags: of the three projections.
    """
    return part(MLP, _mlp(name, activation, gated, bias, x, out, f, dropout, scaled, fused, tags))


def _mlp(
    name: str,
    activation: str,
    gated: bool,
    bias: bool,
    x: str,
    out: str,
    f: Size,
    dropout: float,
    scaled: bool,
    fused: bool,
    tags: tuple[str, str, str],
) -> Iterator[Op]:
    gate, wide, narrow = tags
    sizes = {} if f is None else {"f": f}
    up, down = (", +*f", ", +*d") if bias else ("", "")
    if gated and fused:
        both, sizes = ", +*j f" if bias else "", {**sizes, "j": 2}
        yield op(f"{name}.gate_up", f"{x}: b s d, *d j f{both} -> gu: b s j f", tag=gate, **sizes)
        yield op(f"{name}.halves", "gu: b s j f -> g: b s f, u: b s f", "split", **sizes)
        yield activate(f"{name}.act", activation, "g")
        yield op(f"{name}.mul", "u:, g: -> g:", "mul", GATE)
    elif gated:
        yield op(f"{name}.gate", f"{x}: b s d, *d f{up} -> g: b s f", tag=gate, **sizes)
        if scaled:
            yield op(f"{name}.gate_scale", "g: -> g:", "scale")
        yield activate(f"{name}.act", activation, "g")
        yield op(f"{name}.up", f"{x}: b s d, *d f{up} -> u: b s f", tag=wide, **sizes)
        yield op(f"{name}.mul", "g:, u: -> g:", "mul", GATE)
    else:
        yield op(f"{name}.up", f"{x}: b s d, *d f{up} -> u: b s f", tag=wide, **sizes)
        yield activate(f"{name}.act", activation, "u")
    if dropout:
        yield op(f"{name}.drop_hidden", "g: -> g:", "dropout")
    last = op(f"{name}.down", f"g: b s f, *f d{down} -> {out}: b s d", tag=narrow, **sizes)
    yield last._replace(callers=(x,))
    if scaled:
        yield op(f"{name}.scale", f"{out}: -> {out}:", "scale")


def activate(
    name: str, kind: str, x: str, out: str = "g", dims: str = "", tag: str = ACTIVATION_OF_MLP
) -> Op:
    """The activation of `x` as `out`; xIELU (Apertus) has two learned numbers."""
    learned = ", *w, *w" if kind == "xielu" else ""
    return op(name, f"{x}:{dims}{learned} -> {out}:{dims}", kind, tag, w=1)


def dropout(name: str, rate: float, mode: str, x: str, out: str = "") -> Iterator[Op]:
    """Dropout of `x` in training; its boolean mask is kept for the backward pass."""
    if rate and mode == "train":
        yield op(f"{name}.dropout", f"{x}: -> {out or x}:", "dropout")


class Experts(NamedTuple):
    """A mixture of experts: each token goes to `a` of `e` of them, each f wide."""

    activation: str = "silu"
    gated: bool = True
    f: Size = 0
    latent: Size = 0  # width of the experts' input and output, projected from d and back; 0: d
    linear_bias: bool = False  # these projections, and the shared expert, have biases
    bias: bool = False  # the experts have biases
    router: str = "softmax"  # over all experts, then top k; top_softmax the other way round; [top_]sigmoid
    router_bias: bool = False
    correction: bool = (
        False  # a bias that is not trained takes part in the choice of experts, not in their weights
    )
    normalize: bool = True  # the weights of a token's experts add up to one
    every: bool = (
        False  # each token goes to all, weighed before, by 0 those that are not chosen (Llama 4's code)
    )
    single: bool = False  # their outputs are weighted and added up in float32
    shared: Size = 0  # width of an expert that every token goes to
    shared_gate: bool = False


# Tokens are sorted by expert, counted, what is not here masked, and sorted back. Source: transformers.
SORTED = 14, 9


def experts(name: str, m: Experts, *, x: str = "n", out: str = "m") -> Iterator[Op]:
    """From `x: b s d` to `out: b s d`: choose, send, compute, weight, add up."""
    return part(MOE, _experts(name, m, x, out))


def _experts(name: str, m: Experts, x: str, out: str) -> Iterator[Op]:
    yield from _route(m, x)
    if is_zero(m.latent):
        yield from chosen(name, m, x, out)
    else:
        in_bias, out_bias = (", +*l", ", +*d") if m.linear_bias else ("", "")
        line = f"{x}: b s d, *d l{in_bias} -> xl: b s l"
        yield op(f"{name}.latent_in", line, tag=EXPERT_IN, l=m.latent)
        yield from (o._replace(sizes={**o.sizes, "d": m.latent}) for o in chosen(name, m, "xl", "ml"))
        line = f"ml: b s l, *l d{out_bias} -> {out}: b s d"
        yield op(f"{name}.latent_out", line, tag=EXPERT_OUT, l=m.latent)
    if m.shared_gate or not is_zero(m.shared):  # a gate of an expert without any width is there all the same
        tags = (SHARED_GATED, SHARED_UP, SHARED_DOWN)
        how = {"gated": m.gated, "bias": m.linear_bias}
        shared = mlp("shared", m.activation, **how, x=x, out="ms", f=m.shared, tags=tags)
        yield from (o._replace(module=SHARED_EXPERTS) for o in shared)
        if m.shared_gate:
            yield op("shared.choose", f"{x}: b s d, *d -> sg: b s", tag=SHARED_GATE)
            yield op("shared.sigmoid", "sg: -> sg:", "sigmoid")
            yield op("shared.weigh", "ms: b s d, sg: b s -> ms: b s d", "mul")
        yield op("shared.add", f"{out}:, ms: -> {out}:", "add")


def chosen(name: str, m: Experts, x: str, out: str) -> Iterator[Op]:
    """The outputs of a token's experts, weighted and added up."""
    a = "e" if m.every else "a"
    in_bias, out_bias = (", +*~e f", ", +*~e d") if m.bias else ("", "")
    send = op(f"{name}.send", f"{x}: b s d -> xe: b s {a} d", "repeat", tag=EXPERT_SEND)
    yield send._replace(beside=(0, 0) if m.every else SORTED)
    if m.every:
        yield op(f"{name}.weigh", f"xe: b s {a} d, chosen: b s {a} -> xe:", "mul")
    if m.gated:  # both projections are one, as in transformers and Megatron
        both = ", +*~e j f" if m.bias else ""
        line = f"xe: b s {a} d, *~e d j f{both} -> gu: b s {a} j f"
        yield _biased(op(f"{name}.gate_up", line, tag=EXPERT_GATED, f=m.f, j=2), m)
        line = f"gu: b s {a} j f -> g: b s {a} f, u: b s {a} f"
        halves = op(f"{name}.halves", line, "split", f=m.f, j=2)
        # Where gates and values alternate, the gradient of each is as large as both: two are added up.
        turns = halves.ins * 2 if m.activation == "clamped_glu" else ()
        yield halves._replace(copies=((), turns))
    else:
        line = f"xe: b s {a} d, *~e d f{in_bias} -> u: b s {a} f"
        yield _biased(op(f"{name}.up", line, tag=EXPERT_UP, f=m.f), m)
    if m.activation == "clamped_glu":
        yield op(f"{name}.act", "g:, u: -> g:", m.activation, ACTIVATION_OF_MLP)
    elif m.gated:
        yield activate(f"{name}.act", m.activation, "g", "ga")
        yield op(f"{name}.mul", "ga:, u: -> g:", "mul", GATE)._replace(callers=("g", "u"))
    else:
        yield activate(f"{name}.act", m.activation, "u")
    line = f"g: b s {a} f, *~e f d{out_bias} -> ye: b s {a} d"
    yield _biased(op(f"{name}.down", line, tag=EXPERT_DOWN, f=m.f), m)
    if m.single:
        yield op(f"{name}.weigh", "ye: b s a d, chosen: b s a -> we/float32: b s a d", "mul")
        yield op(f"{name}.return", "we: -> we:", "reorder")
        yield op(f"{name}.sum", "we: b s a d -> we: b s d", "sum_rows")._replace(callers=("xe", "ye", x))
        yield op(f"{name}.downcast", f"we: -> {out}:", "cast")
        return
    if m.every:
        yield op(f"{name}.sum", f"ye: b s {a} d -> {out}: b s d", "reduce")
        return
    # A sigmoid's weights stay in float32. Source: transformers.
    kind = "weigh_wide" if m.router == "sigmoid" else "weigh"
    yield op(f"{name}.weigh", "ye: b s a d, chosen: b s a -> yw: b s a d", kind)
    yield op(f"{name}.sum", f"yw: b s a d -> {out}: b s d", "reduce")._replace(callers=("xe", "ye", x))


def _biased(o: Op, m: Experts) -> Op:
    """Experts' product; then each row's bias is gathered from its expert (a write) and added (two reads and a
    write): as many bytes as two copies. Source: transformers.
    """
    return o._replace(copies=(o.outs * 2, ())) if m.bias else o


def _route(m: Experts, x: str) -> Iterator[Op]:
    yield op("router.logits", f"{x}: b s d, *d e{', +*e' if m.router_bias else ''} -> rl: b s e", tag=ROUTER)
    if m.router == "top_softmax":
        yield op("router.top_k", "rl: b s e -> chosen: b s a", "top_k")
        yield op("router.softmax", "chosen: -> chosen:", "softmax")
        return
    if m.router == "top_sigmoid":
        yield op("router.top_k", "rl: b s e -> chosen: b s a", "top_k")
        if m.every:
            yield op("router.scatter", "chosen: b s a -> chosen: b s e", "pad")
        yield op("router.sigmoid", "chosen: -> chosen/float32:", "sigmoid")
        yield op("router.cast", "chosen: -> chosen:", "cast")
        return
    yield op(f"router.{m.router}", "rl: -> rp/float32:", m.router)
    if m.correction:
        yield op("router.correct", "rp: b s e, *e -> rs: b s e", "correct")
    groups = (9, 0) if m.router == "sigmoid" else (0, 0)  # which are chosen first (DeepSeek's code)
    yield op("router.top_k", "rp: b s e -> chosen: b s a", "top_k")._replace(beside=groups)
    if m.normalize:
        yield op("router.normalize", "chosen: -> chosen:", "normalize")


def sized(nodes: Iterable[Node], **sizes: Size) -> Iterator[Node]:
    """Operators with other sizes, as for an encoder whose sequence differs from the decoder's."""
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(sized(node.body, **sizes)))
        else:
            yield node._replace(sizes={**sizes, **node.sizes})
