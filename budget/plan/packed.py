"""Weights of a checkpoint in few bits, with the scales and zero points that lie beside them, to the byte.

Products read them as they are, as the kernels of each format do. `Part`s describe what is stored beside a
weight:
so many numbers of a dtype for so many outputs and inputs. Weights that a format leaves alone are given by the
names of transformers' modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from ..config import Task
from ..errors import InputError
from ..fold.count import params
from ..fold.memory import tensor_bytes
from ..ir import (
    EMBED,
    EXPERT_GATED,
    EXPERTS,
    FROZEN,
    HEAD,
    ROUTER,
    RULES,
    SCALE,
    Block,
    Model,
    Node,
    Op,
    Tensor,
    base,
    gemm,
    letters,
    rewrite,
    walk,
    weights,
)
from ..named import NamedTuple
from ..size import Size, all_of, ceil_div, exact_div, is_number
from ._modules import called, finds, paths
from ._weights import shape
from .fp8 import is_linear

DIVIDED = frozenset("hrfvGH")  # by tensor parallelism (plan/mesh.py)


class Part(NamedTuple):
    """A tensor beside a weight [out, in]: one number for each block of `outs` x `ins`, rounded up.

    outs or ins 0: one number for all of them. flat: one number for so many elements, instead.
    fixed: so many numbers, whatever the weight. tags: only beside operators with one of these tags; (): all.
    """

    name: str
    dtype: str
    outs: int = 0
    ins: int = 0
    flat: int = 0
    fixed: int = 0
    tags: tuple[str, ...] = ()

    def numbers(self, out: Size, inner: Size) -> Size:
        """Numbers for a weight [out, inner]."""
        if self.fixed:
            return self.fixed
        if self.flat:
            return ceil_div(out * inner, self.flat)
        return (ceil_div(out, self.outs) if self.outs else 1) * (ceil_div(inner, self.ins) if self.ins else 1)


class Packing(NamedTuple):
    """A format: the dtype of a weight, what lies beside it, and which modules have it."""

    name: str
    weight: str
    parts: tuple[Part, ...]
    skipped: tuple[str, ...] = ()  # regular expressions of modules that stay as they are
    only: tuple[str, ...] = ()  # of modules that do not, where a config lists these instead
    types: tuple[tuple[str, str], ...] = ()  # dtypes by the tag of an operator: a mix (GGUF)
    total: int = 0  # bytes of a mix's whole file
    numbers: int = 0  # and how many weights it has
    spelled: tuple[tuple[str, str], ...] = ()  # expressions, each with its config's own spelling
    tables: bool = False  # embeddings' tables as well, and a head that is one of them
    others: tuple[Packing, ...] = ()  # in a mix, the formats of other modules
    family: str = ""  # an engine's own `formats` in usual_stacks.json; "": any engine reads it
    kernel: str = ""  # the kind of operator that widens it outside of engines; "": none is known

    def holds(self, module: Iterable[str]) -> bool:
        """Whether the weight of a module, by any of its names, is in the format."""
        names = tuple(module)
        left = any(finds(self.skipped, name) for name in names)
        return not left and (not self.only or any(finds(self.only, name) for name in names))


def checkpoint(model: Model, task: Task) -> Model:
    """A network as a checkpoint in its format is loaded for a task. Raises InputError.

    Weights of few bits do not train: without adapters beside them, training widens them.
    """
    used, packing = task.techniques.used, task.packing
    if used.get("quantize", "none") != "none":
        problem = f"got {used['quantize']}, and the checkpoint is in {packing.name}; allowed: none"
        raise InputError("quantize", problem)
    if task.workload.mode == "train" and not (used.get("lora_rank") or used.get("adapters")):
        return model._replace(uncounted=(*model.uncounted, f"{packing.name}: widened to train"))
    wide = task.kept.unpacked if task.kept is not None else ()
    for each in (packing, *packing.others):
        trains, own = task.workload.mode == "train", bool(used.get("quantize_own"))
        model = packed(model, each, task.dtype, widened=trains, eager=own or not task.fused, wide=wide)
    return model


def packed(
    model: Model,
    packing: Packing,
    dtype: str,
    *,
    widened: bool = False,
    eager: bool = False,
    wide: tuple[str, ...] = (),
) -> Model:
    """The model with its linear layers' weights in a format. To be applied before `backward`.

    widened: each is widened before its product, and never kept so, as in training. eager: by the kernels that
    the format has outside of engines.
    wide: tags of those that stay as they are (plan/kept.py).
    A linear layer whose module's name is not known stays as it is, and is named in `uncounted`. Routers are
    no linear layers to transformers. Raises InputError where some layers of a kind have it and others do not.
    """
    if packing.types:
        return _mixed(model, packing, dtype)
    ops = [o for o, _ in walk(model.nodes) if is_linear(o)]
    frozen = any(t.role == FROZEN for o in ops for t in o.weights)  # all but adapters are
    base = (o for o in ops if not frozen or any(t.role == FROZEN for t in o.weights))
    unknown = {o.label for o in base if o.tag not in (*called(), ROUTER)}
    left = (f"{packing.name} of {', '.join(sorted(unknown))}: taken for {dtype}",) if unknown else ()
    looked_up = {t.name for o, _ in walk(model.nodes) if o.rule.looks_up for t in o.weights}
    tied = {id(o) for o, _ in walk(model.nodes) if o.tag == HEAD and _tied(o, looked_up)}
    stays = {id(o) for o, _ in walk(model.nodes) if o.tag in wide} | (set() if packing.tables else tied)
    modules = paths(model, packing.skipped, packing.only, dict(packing.spelled))
    few = {o for o, called in modules.items() if _held(packing, called)}
    if packing.tables:
        few |= {id(o) for o, _ in walk(model.nodes) if o.tag == EMBED and o.rule.looks_up}
    kernel = "dequantize" if widened else packing.kernel if eager else ""
    nodes = tuple(_once(_packed(model.nodes, packing, kernel, few - stays), set()))
    if nodes == model.nodes:
        raise InputError("quantize", f"{model.name} has no weights that {packing.name} packs")
    return model._replace(nodes=nodes, uncounted=(*model.uncounted, *left))


def _tied(o: Op, looked_up: set[str]) -> bool:
    """Whether a head's weight is the embedding's, which no format packs."""
    return any(t.name in looked_up for t in o.weights)


def _mixed(model: Model, packing: Packing, dtype: str) -> Model:
    """The model in a mix of types; what the file has besides is stored as it is."""
    kinds = dict(packing.types)

    def change(o: Op) -> tuple[Op]:
        role = kinds.get(o.tag, "")
        if not role:
            return (o,)
        few = (t._replace(role=FROZEN, dtype=role) if t in o.weights and not t.added else t for t in o.ins)
        return (o._replace(ins=tuple(few)),)

    nodes = rewrite(model.nodes, change)
    held = sum(tensor_bytes(t, o.sizes, dtype) * copies for t, o, copies in weights(nodes))
    rest = Tensor("rest~stored", ("n",), SCALE, "uint8")
    seen = Tensor("rest~seen", ("n",), dtype="uint8")
    sizes = {"n": max(packing.total - int(held), 0)}
    counted = params(model).total
    if packing.numbers not in (0, counted):
        left = f"the file has {packing.numbers:,} weights, and the network that is counted {counted:,}"
        model = model._replace(uncounted=(*model.uncounted, left))
    return model._replace(nodes=(Op("rest", "resident", (rest,), (seen,), sizes), *nodes))


def _packed(nodes: tuple[Node, ...], packing: Packing, kernel: str, few: set[int]) -> Iterator[Node]:
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_packed(node.body, packing, kernel, few)))
        elif id(node) in few:
            yield from _stored(node, packing, kernel)
        else:
            yield node


def _once(nodes: Iterable[Node], seen: set[str]) -> Iterator[Node]:
    """The nodes in which the tensors beside a weight exist once, however many products read the weight."""
    for node in nodes:
        if isinstance(node, Block):
            yield node._replace(body=tuple(_once(node.body, seen)))
        elif not (node.kind == "resident" and node.ins[0].role == SCALE and node.ins[0].name in seen):
            seen.update(t.name for t in node.ins if t.role == SCALE)
            yield node


def _held(packing: Packing, called: list[tuple[str, ...]]) -> bool:
    """Whether a module is in the format, in all layers alike. Raises InputError."""
    held = {packing.holds(names) for names in called}
    if len(held) > 1:
        problem = f"{called[0][0]} is left out of some layers; allowed: of all or none"
        raise InputError("quantization_config", problem)
    return held.pop()


def _stored(o: Op, packing: Packing, kernel: str) -> Iterator[Op]:
    """A product whose weight is in few bits, what lies beside the weight, and what widens it."""
    weight = next(t for t in o.weights if not t.added)
    yield from beside(o, weight, packing.parts)
    few = weight._replace(role=FROZEN, dtype=packing.weight)
    if kernel:
        g = gemm(o)
        within = g is not None and all_of(g.m <= RULES[kernel].rows)
        wide = Tensor(f"{o.name}~wide", weight.dims, on_chip=within)
        yield Op(f"{o.name}.dequantize", kernel, (few,), (wide,), o.sizes)
        few = wide
    yield o._replace(ins=tuple(few if t is weight else t for t in o.ins))


def _along(weight: Tensor, o: Op, part: Part, n: Size) -> tuple[str, ...]:
    """The dimensions along which devices divide a weight, and n numbers beside it if they divide evenly:
    whole axes, or what all parts of a joint axis (G.H.k|G.n) share. One number for all outputs, or inputs, is
    on every device.
    """
    axes = tuple(
        d
        for d in weight.dims
        if DIVIDED & letters((d,)) and (part.flat or (part.outs if d in o.out.dims else part.ins))
    )
    common = tuple(sorted(DIVIDED.intersection(*(part.split(".") for d in axes for part in d.split("|")))))
    for along in (axes, common):
        even = is_number(n) and all(is_number(o.sizes[base(d)]) for d in along)
        if even and n % prod(o.sizes[base(d)] for d in along) == 0:
            return along
    return ()


def beside(o: Op, weight: Tensor, parts: Iterable[Part]) -> Iterator[Op]:
    """What lies beside a product's weight."""
    sizes = shape(weight, o)
    experts = EXPERTS in weight.dims
    out, inner = sizes[-2:]
    copies: Size = prod(sizes[:-2]) if sizes[:-2] else 1
    many = o.sizes["j"] if o.tag == EXPERT_GATED else 1  # files have an expert's gate and up apart
    for part in parts:
        if part.tags and o.tag not in part.tags:
            continue
        name = f"{weight.name}~{part.name}"
        n = many * part.numbers(exact_div(out, many), inner)
        along = _along(weight, o, part, n)
        n = exact_div(n, prod(o.sizes[base(d)] for d in along))
        dims = (*((EXPERTS,) if experts else ()), *along, "numbers")
        counts = {**o.sizes, "numbers": n, **({base(EXPERTS): copies} if experts else {})}
        beside = Tensor(name, dims, SCALE, part.dtype)
        seen = Tensor(f"{name}~seen", dims, dtype=part.dtype)
        yield Op(f"{o.name}.{part.name}", "resident", (beside,), (seen,), counts)
