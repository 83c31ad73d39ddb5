"""What a call of torch contracts: from one recorded aten call to operators.

Contractions are written over generic dimensions (m, n, k of a product, a convolution's own), so
their FLOPs are those that torch's FlopCounterMode counts. An attention kernel becomes the
operators that it fuses. Everything else has a kind (_kinds.py); tensors whose dimensions have no
name carry their numbers instead: `8 128 768`. Derived: aten's schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from torch import strided as STRIDED

from ..dtype import BYTES
from ..errors import InputError
from ..ir import ACTIVATION, Op, Tensor
from ..named import Any

ALIKE = ("mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addbmm")  # their operands are of one dtype
Args = tuple[Any, ...]  # a call's arguments, its tensors by keyword last
Dims = tuple[str, ...]
Tensors = tuple[Tensor, ...]
Named = Callable[[Any], Tensor]  # a torch tensor -> the tensor of the program


class Sizes(dict[str, int]):
    """Sizes of dimensions; a dimension without a name is called by its number."""

    def __missing__(self, dim: str) -> int:
        return int(dim)


NUMBERS = Sizes()  # all that operators without named dimensions need

# `0: m k` is the call's first argument; `+0` is added; `~e` picks one (an expert).
CONTRACTIONS = {
    "mm": "0: m k, 1: k n -> m n",
    "_scaled_mm": "0: m k, 1: k n -> m n",
    "_int_mm": "0: m k, 1: k n -> m n",
    "addmm": "1: m k, 2: k n, +0 -> m n",
    "_addmm_activation": "1: m k, 2: k n, +0 -> m n",
    "bmm": "0: b m k, 1: b k n -> b m n",
    "baddbmm": "1: b m k, 2: b k n, +0 -> b m n",
    "addbmm": "1: b m k, 2: b k n, +0 -> m n",
    "mv": "0: m k, 1: k -> m",
    "addmv": "1: m k, 2: k, +0 -> m",
    "dot": "0: k, 1: k ->",
    "vdot": "0: k, 1: k ->",
    "conv_tbc": "0: y+l b c, 1: l c f, +2 -> y b f",
    "_weight_int8pack_mm": "0: m k, 1: n k -> m n",
    "_weight_int4pack_mm": "0: m k, +1 -> m n",
    "_weight_int4pack_mm_for_cpu": "0: m k, +1 -> m n",
    "_grouped_mm/2,3": "0: m k, 1: ~e k n -> m n",
    "_grouped_mm/3,2": "0: ~e m k, 1: k n -> m n",
    "_grouped_mm/3,3": "0: b m k, 1: b k n -> b m n",
    "_grouped_mm/2,2": "0: m k, 1: k n -> ~e m n",
}

ADDED = frozenset(name for name, spec in CONTRACTIONS.items() if "+0" in spec)  # times beta, which may be 0


def dtype_name(dtype: Any) -> str:
    """torch.bfloat16 -> `bfloat16`; "" for a dtype that has no name here."""
    name = str(dtype).removeprefix("torch.")
    name = "float8" if name.startswith("float8") else name
    return name if name in BYTES else ""


def shaped(name: str, t: Any, role: str = ACTIVATION) -> Tensor:
    """A torch tensor as one whose dimensions are their numbers."""
    dtype = dtype_name(t.dtype)
    dims = tuple(map(str, t.shape))
    return Tensor(name, dims, role, dtype) if dtype else Tensor(name, (*dims, str(t.itemsize)), role, "uint8")


def operators(name: str, args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    """The operators of a call that contracts, gathers or attends; none for other calls.

    make(kind, ins, outs, sizes, kernel) builds an operator.
    """
    if any(getattr(t, "layout", STRIDED) is not STRIDED for t in args[:3] if hasattr(t, "layout")):
        return _sparse(name, args, outs, named, make)
    if name.endswith("_grouped_mm"):
        name = f"_grouped_mm/{args[0].dim()},{args[1].dim()}"
    if spec := CONTRACTIONS.get(name):
        if name in ALIKE and len(dtypes := {str(t.dtype)[6:] for t in args if hasattr(t, "dtype")}) > 1:
            raise InputError("inputs", f"{name} of {' and '.join(sorted(dtypes))}; allowed: one dtype")
        return _contraction(spec, args, outs[0], named, make)
    if name.startswith("_scaled_dot_product") and name.endswith("_backward"):
        lse = args[6 if "efficient" in name else 5]
        return _attention_backward(lse, args[:4], outs, named, make)
    if name.startswith("_scaled_dot_product"):
        return _attention(args, outs, named, make)
    return OTHERS[name](args, outs, named, make) if name in OTHERS else iter(())


def _contraction(spec: str, args: tuple[Any, ...], out: Any, named: Named, make: Any) -> Iterator[Op]:
    """The contraction of a row of CONTRACTIONS; an empty one only writes zeros, or the added operand."""
    sizes = Sizes()
    left, _, right = spec.partition("->")
    ins = []
    for text in left.split(","):
        at, _, letters = text.strip().partition(":")
        index = int(at.removeprefix("+"))
        t = args[index] if index < len(args) else None
        if t is None:
            continue
        if at.startswith("+"):
            ins.append(named(t)._replace(added=True))
        else:
            dims = tuple(letters.split())
            sizes.update(zip((d.removeprefix("~") for d in dims), t.shape, strict=True))
            ins.append(named(t)._replace(dims=dims))
    dims = tuple(right.split())
    sizes.update(zip((d.removeprefix("~") for d in dims), out.shape, strict=True))
    if all(sizes.values()):
        yield make("contract", tuple(ins), (named(out)._replace(dims=dims),), sizes)
    else:
        yield make("copy", tuple(named(t) for t in args if hasattr(t, "shape")), (named(out),))


SPARSE_PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "_sparse_addmm": (1, 2), "mv": (0, 1), "bmm": (0, 1)}


def _sparse(name: str, args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    """A product with a sparse operand: a multiply-add for each stored value and each column."""
    if name not in SPARSE_PRODUCTS:
        return
    a, b = (args[i] for i in SPARSE_PRODUCTS[name])
    sparse, dense = (a, b) if a.layout is not STRIDED else (b, a)
    if dense.layout is STRIDED:
        columns = dense.numel() // max(dense.shape[0 if sparse is a else -1], 1)
        reads = tuple(named(t) for t in args if hasattr(t, "layout"))
        yield make("contract", *counted(2 * sparse._nnz() * columns, reads, tuple(map(named, outs))))


def counted(flops: int, ins: Iterable[Tensor], outs: Iterable[Tensor]) -> tuple[Tensors, Tensors]:
    """Operands of a product whose FLOPs are known, but do not follow from its shapes: one dimension each."""
    loop = Tensor("counted", (str(flops // 2),), on_chip=True)  # of a name that no operator makes
    return (loop, *(t._replace(added=True) for t in ins)), (Tensor("", (), on_chip=True), *outs)


def _trilinear(args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    """Three operands multiplied and summed: `expand` says which dimensions each does not have."""
    rank = args[0].dim() + len(args[3])
    sizes, ins = Sizes(), []
    for t, missing in zip(args[:3], args[3:6], strict=True):
        dims = tuple(f"m{i}" for i in range(rank) if i not in missing)
        sizes.update(zip(dims, t.shape, strict=True))
        ins.append(named(t)._replace(dims=dims))
    kept = tuple(f"m{i}" for i in range(rank) if i not in args[6])
    yield make("contract", tuple(ins), (named(outs[0])._replace(dims=kept),), sizes)


def _window(x: Any, weight: Any, y: Any, transposed: bool, groups: int) -> tuple[list[Dims], Sizes]:
    """Dimensions of a convolution's input, weight and output: `y+i` is what a window slides over."""
    n = x.dim() - 2
    space, window = tuple("zyx"[3 - n :]), tuple("lij"[3 - n :])
    slid = tuple(f"{s}+{w}" for s, w in zip(space, window, strict=True))
    small, large = (x, y) if transposed else (y, x)
    sizes = Sizes(b=x.shape[0], g=groups, c=x.shape[1] // groups, f=y.shape[1] // groups)
    extents = (*small.shape[2:], *weight.shape[2:], *large.shape[2:])
    sizes.update(zip((*space, *window, *slid), extents, strict=True))
    ends = (("b", "g", "c"), ("b", "g", "f"))
    if transposed:
        return [(*ends[0], *space), ("g", "c", "f", *window), (*ends[1], *slid)], sizes
    return [(*ends[0], *slid), ("g", "f", "c", *window), (*ends[1], *space)], sizes


def _convolution(args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    x, weight, bias = args[:3]
    dims, sizes = _window(x, weight, outs[0], *args[6:9:2])
    added = (named(bias)._replace(added=True),) if bias is not None else ()
    ins = tuple(named(t)._replace(dims=d) for t, d in zip((x, weight), dims, strict=False))
    yield make("contract", (*ins, *added), (named(outs[0])._replace(dims=dims[2]),), sizes)


def _convolution_backward(args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    grad, x, weight, transposed, groups, wanted = *args[:3], args[7], args[9], args[10]
    dims, sizes = _window(x, weight, grad, transposed, groups)
    read_x, read_w, g = (named(t)._replace(dims=d) for t, d in zip((x, weight, grad), dims, strict=True))
    left = iter(outs)
    if wanted[0]:
        yield make("contract", (g, read_w), (named(next(left))._replace(dims=dims[0]),), sizes)
    if wanted[1]:
        yield make("contract", (g, read_x), (named(next(left))._replace(dims=dims[1]),), sizes)
    if wanted[2]:
        yield make("reduction", (named(grad),), (named(next(left)),))


HEADS = {  # dimensions of an attention kernel's operands
    "q": "b h r s k",
    "k": "b h t k",
    "v": "b h t n",
    "out": "b h r s n",
    "lse": "b h r s",
    "scores": "b h r s t",
}


def _heads(q: Any, k: Any, v: Any) -> Sizes:
    b, heads, s, width = q.shape
    return Sizes(b=b, h=k.shape[1], r=heads // k.shape[1], s=s, k=width, t=k.shape[2], n=v.shape[3])


def _as(role: str, t: Tensor) -> Tensor:
    return t._replace(dims=tuple(HEADS[role].split()))


def _on_chip(name: str) -> Tensor:
    return _as("scores", Tensor(name, (), on_chip=True))


def _attention(args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    """Scores and probabilities never reach memory; the backward pass makes them again."""
    q, k, v = (_as(role, named(t)) for role, t in zip("qkv", args, strict=False))
    sizes = _heads(*args[:3])
    out, lse = _as("out", named(outs[0])), _as("lse", named(outs[1]))
    scores, probs = _on_chip(f"{lse.name}.scores"), _on_chip(f"{lse.name}.probs")
    masks = tuple(named(t) for t in args[3:] if hasattr(t, "untyped_storage"))
    yield make("contract", (q, k), (scores,), sizes, "attention")
    yield make("softmax", (scores, *masks), (probs,), sizes, "attention")
    yield make("contract", (probs, v), (out, lse, *map(named, outs[2:])), sizes, "attention")


def _attention_backward(lse: Any, args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    """lse: the tensor of log-sum-exps. args: the output's gradient, q, k and v."""
    forward = named(lse).name
    g = _as("out", named(args[0]))
    q, k, v = (_as(role, named(t)) for role, t in zip("qkv", args[1:], strict=True))
    dq, dk, dv = (_as(role, named(t)) for role, t in zip("qkv", outs[:3], strict=True))
    probs, d_probs, d_scores = (_on_chip(f"{forward}.{x}") for x in ("probs", "d_probs", "d_scores"))
    sizes = _heads(*args[1:])
    for kind, ins, made in (
        ("contract", (probs, g), dv),
        ("contract", (g, v), d_probs),
        ("softmax", (d_probs, probs), d_scores),
        ("contract", (d_scores, k), dq),
        ("contract", (d_scores, q), dk),
    ):
        yield make(kind, ins, (made,), sizes, "attention")


def _lookup(kind: str, args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    table, ids = args[:2]
    rows, width = map(str, table.shape)
    ins = (named(ids), named(table)._replace(dims=(f"~{rows}", width)))
    yield make(kind, ins, tuple(map(named, outs)))


def _lookup_backward(args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    yield make("gather", (named(args[0]), named(args[1])), (named(outs[0]),))


def _flex_attention(args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    return _attention(args[:3], outs, named, make)


def _flex_attention_backward(args: Args, outs: list[Any], named: Named, make: Any) -> Iterator[Op]:
    return _attention_backward(args[4], (args[5], *args[:3]), outs, named, make)


OTHERS: dict[str, Callable[..., Iterator[Op]]] = {
    "_trilinear": _trilinear,
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "convolution_backward": _convolution_backward,
    "embedding": partial(_lookup, "gather"),
    "_embedding_bag": partial(_lookup, "embedding_bag"),
    "embedding_dense_backward": _lookup_backward,
    "flex_attention": _flex_attention,
    "flex_attention_backward": _flex_attention_backward,
}
