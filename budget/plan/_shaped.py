"""Optimizers that depend on each weight's shape, or that update one weight at a time.

Each function takes the trained weights of one dtype, and the dtype of its states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..errors import InputError
from ..ir import ACTIVATION, FROZEN, GIVEN, STATE, TEMPORARY, Block, Carry, Node, Op, Tensor
from ..size import Size, all_of, any_of, ceil_div, maximum, minimum, product
from ._states import all_gradients, state
from ._weights import Weight, largest

SMALL, BLOCK = 4096, 256  # below SMALL elements states stay float32; one scale a BLOCK. Source: bitsandbytes
NEWTON_SCHULZ = 5  # steps. Source: muon
SIDE = 8192  # of a preconditioner; longer axes are cut into blocks of it. Source: distributed-shampoo
ROOTS_EVERY = 100  # steps between two inverse roots. Source: distributed-shampoo
ROOT_FLOPS = 11  # times n^3 for an inverse root: eigenvectors 9, a product 2. Source: golub-van-loan


def adamw_loop(weights: Sequence[Weight], dtype: str) -> Iterator[Node]:
    """One weight at a time. Temporaries: the root, its quotient, and the previous weight's quotient."""
    yield _loop(
        "adamw",
        weights,
        dtype,
        {"exp_avg": _elements(weights), "exp_avg_sq": _elements(weights)},
        largest(weights, 2, 1),
    )


def lion(weights: Sequence[Weight], dtype: str) -> Iterator[Node]:
    """One weight at a time. Temporaries: the mean, the update, and the previous weight's. Source: lion."""
    yield _loop("lion", weights, dtype, {"exp_avg": _elements(weights)}, largest(weights, 2, 1))


def bitsandbytes(name: str, states: int, few: bool, weights: Sequence[Weight], dtype: str) -> Iterator[Node]:
    """States in eight bits with scales for large weights, in float32 for small ones; without `few` in float32
    for all. A kernel updates one weight.
    """
    small = [w for w in weights if not few or _is_small(w, f"{name}_8bit")]
    large = [w for w in weights if w not in small]
    scales = sum(ceil_div(w.size, BLOCK) * w.copies for w in large)
    eight = {"int8": (states * _elements(large), "int8"), "scales": (states * scales, "float32")}
    for kind, group, kept in (
        (f"{name}_8bit", large, eight),
        (f"{name}_fused", small, {"float32": (states * _elements(small), "float32")}),
    ):
        if group:
            o = _typed(kind, group, dtype, kept, 0)
            yield o._replace(sizes={**o.sizes, "tensors": sum(w.copies for w in group)})


def _is_small(w: Weight, name: str) -> bool:
    """Whether a weight is so small that its states are float32. Raises InputError for an array with both."""
    small = w.size < SMALL
    if any_of(small) and not all_of(small):
        text = f"{w.name} has fewer and more than {SMALL:,} elements; allowed: one size at a time"
        raise InputError("optimizer", f"{name}: {text}")
    return all_of(small)


def adafactor(weights: Sequence[Weight], dtype: str) -> Iterator[Node]:
    """Row and column statistics of the second moment for a matrix, the whole second moment for a vector."""
    second: Size = 0
    for w in weights:
        *lead, rows, columns = (1, *w.shape)
        kept = w.size if len(w.shape) == 1 else product(lead) * (rows + columns)
        second = second + kept * w.copies
    # A vector has no rows and columns to take means over: half as many kernels as a matrix.
    fewer = sum(w.copies for w in weights if len(w.shape) == 1) * -9
    yield _loop("adafactor", weights, dtype, {"second": second}, largest(weights, 1, 1))._replace(
        beside=(fewer, 0)
    )


def muon(weights: Sequence[Weight], dtype: str, among: Size = 1) -> Iterator[Node]:
    """Momentum and Newton-Schulz steps for the hidden layers' matrices, AdamW for everything else.

    A convolution's kernel is a matrix [out, in x window], an expert's weights one matrix each. among: how
    many devices share out the matrices; each steps all the rest. Source: muon-shared.
    """
    hidden = [w for w in weights if len(w.shape) > 1 and not w.embeds]
    others = [w for w in weights if w not in hidden]
    if any_of(among > 1):
        hidden = [_share(w, among) for w in hidden]
    if others:
        n = _elements(others)
        yield _typed("adamw", others, dtype, dict.fromkeys(("exp_avg", "exp_avg_sq"), (n, dtype)), n)
    if hidden:
        yield _typed("momentum", hidden, dtype, {"momentum": (_elements(hidden), dtype)}, 0)
    for w in hidden:
        yield _orthogonalized(w, dtype)


def _share(w: Weight, among: Size) -> Weight:
    """The matrices of one device, as many as the one with the most has."""
    lead, rows, columns = _matrix(w)
    return w._replace(shape=(rows, columns), copies=ceil_div(lead * w.copies, among), experts=False)


def _orthogonalized(w: Weight, dtype: str) -> Block:
    """Newton-Schulz iterations in bfloat16 for one weight's matrices, one at a time. Tensors that Python
    variables still reference are added operands, so that they live as long as in torch's loop.
    """
    lead, rows, columns = _matrix(w)
    side = minimum(rows, columns)
    sizes = {"m": side, "i": side, "k": side, "n": maximum(rows, columns)}

    def named(name: str, dims: str) -> Tensor:
        return Tensor(f"{w.name}~{name}", tuple(dims.split()), dtype="bfloat16")

    def product_of(name: str, a: Tensor, b: Tensor, out: Tensor, *held: Tensor) -> Op:
        added = tuple(t._replace(added=True) for t in held)
        return Op(f"optimizer.{name}", "contract", (a, b, *added), (out,), sizes, "optimizer")

    update = named("update", "m n")._replace(dtype=dtype)
    x, x_in, x_out = (named(n, "m n") for n in ("x", "x@", "x'"))
    gram, poly = named("gram", "m i"), named("poly", "m k")
    step = (
        product_of("gram", x_in, x_in._replace(dims=("i", "n")), gram),
        product_of("polynomial", gram, gram._replace(dims=("i", "k")), poly, gram),
        product_of("apply", poly, x_in._replace(dims=("k", "n")), x_out, x_in, gram),
    )
    body = (
        Op(
            "optimizer.update",
            "add",
            (all_gradients(dtype, "m", "n"),),
            (update,),
            sizes,
            "optimizer",
            beside=(4, 0),  # the mean, the norm, which is clamped, and divides
        ),
        Op("optimizer.cast", "cast", (update,), (x,), sizes, "optimizer"),
        Block(
            "newton_schulz", step, NEWTON_SCHULZ, shared=True, carry=(Carry(x.name, x_in.name, x_out.name),)
        ),
        Op(
            "optimizer.write",
            "add",
            (x_out, update),
            (Tensor("params", ("m", "n"), STATE, dtype),),
            sizes,
            "optimizer",
            beside=(1, 0),  # weight decay
        ),
    )
    return Block(f"muon.{w.name}", body, lead * w.copies, shared=True)


def shampoo(weights: Sequence[Weight], dtype: str) -> Iterator[Node]:
    """A preconditioner and its inverse root for each side of each block of a weight; momentum, and the
    second moment of the grafted Adam. Roots are computed every ROOTS_EVERY steps: their share is counted.
    Sources: shampoo, distributed-shampoo.
    """
    sides: Size = 0
    for w in weights:
        lead, rows, columns = _matrix(w)
        a, b = minimum(rows, SIDE), minimum(columns, SIDE)
        tiles = ceil_div(rows, SIDE) * ceil_div(columns, SIDE) * lead * w.copies
        both = b * b if len(w.shape) == 1 else a * a + b * b
        sides = sides + tiles * both
        yield _preconditioned(w, a, b, tiles)
    n = _elements(weights)
    states = {
        "momentum": (n, dtype),
        "grafted": (n, dtype),
        "factors": (sides, "float32"),
        "roots": (sides, "float32"),
    }
    yield _typed("adamw", weights, dtype, states, 0)


def _preconditioned(w: Weight, a: Size, b: Size, tiles: Size) -> Block:
    """Products of one block: both factors from the gradient, the gradient between both roots."""
    x, y = (ceil_div(side * ROOT_FLOPS, 2 * ROOTS_EVERY) for side in (a, b))  # a step's share of a root
    sizes = {"m": a, "i": a, "n": b, "j": b, "x": x, "y": y}

    def tensor(name: str, dims: str, role: str = ACTIVATION) -> Tensor:
        return Tensor(name, tuple(dims.split()), role, "float32")

    def op(name: str, ins: tuple[Tensor, ...], outs: tuple[Tensor, ...]) -> Op:
        return Op(f"optimizer.{name}", "contract", ins, outs, sizes, "optimizer")

    grad = all_gradients("float32", "m", "n")
    left, right = tensor("left", "i m", GIVEN), tensor("right", "n j", GIVEN)
    is_vector = len(w.shape) == 1
    half = grad._replace(dims=("i", "n")) if is_vector else tensor(f"{w.name}~half", "i n")
    update = tensor(f"{w.name}~update", "i j")
    body = [
        op("factor_right", (grad, grad._replace(dims=("m", "j"))), (tensor(f"{w.name}~right", "n j"),)),
        op("root_right", (right, tensor("vectors", "n y", GIVEN)), (tensor(f"{w.name}~root", "j y"),)),
        op("right", (half, right), (update._replace(dims=("i", "j")),)),
    ]
    if not is_vector:
        body[:0] = [
            op("factor_left", (grad, grad._replace(dims=("i", "n"))), (tensor(f"{w.name}~left", "m i"),)),
            op("root_left", (left, tensor("vectors", "m x", GIVEN)), (tensor(f"{w.name}~root", "i x"),)),
            op("left", (left, grad), (half,)),
        ]
    return Block(f"shampoo.{w.name}", tuple(body), tiles, shared=True)


def _matrix(w: Weight) -> tuple[Size, Size, Size]:
    """(matrices, rows, columns) of a weight; a vector is one row."""
    if len(w.shape) == 1:
        return 1, 1, w.shape[0]
    if w.experts:
        return w.shape[0], w.shape[1], product(w.shape[2:])
    return 1, w.shape[0], product(w.shape[1:])


def _elements(weights: Sequence[Weight]) -> Size:
    return sum(w.size * w.copies for w in weights)


def _loop(name: str, weights: Sequence[Weight], dtype: str, states: dict[str, Size], temporary: Size) -> Op:
    """A step that updates one weight at a time, each with its own launches."""
    o = _typed(name, weights, dtype, {k: (n, dtype) for k, n in states.items()}, temporary)
    return o._replace(sizes={**o.sizes, "tensors": sum(w.copies for w in weights)})


def _typed(
    name: str, weights: Sequence[Weight], dtype: str, states: dict[str, tuple[Size, str]], temporary: Size
) -> Op:
    """One operator for the step of some weights: states by name, with elements and dtype."""
    sizes = {"p": _elements(weights), "temporary": temporary, **{k: n for k, (n, _) in states.items()}}
    names = {k: state(f"{name}.{k}", weights[0].dtype) for k in states}
    kept = tuple(Tensor(names[k], (k,), STATE, own) for k, (_, own) in states.items())
    params = Tensor("params", ("p",), FROZEN, weights[0].dtype)
    scratch = (Tensor("optimizer#temporary", ("temporary",), dtype=dtype, part=TEMPORARY),)
    ins = (all_gradients(dtype), params, *kept)
    return Op(
        f"optimizer.{name}", name, ins, (params._replace(role=STATE), *kept, *scratch), sizes, "optimizer"
    )
