"""The Triton code of matmul.py: one persistent product kernel, split over K where tiles are few.

Persistent means that there are only as many programs as run at once, each of which walks over tiles: the GPU
starts no more, and the loop can be pipelined across tiles. Tiles that run at the same time lie in groups of
GROUP rows, a block of the output instead of one long row, so that they read the same parts of a and b from
the L2 cache.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from . import settings
from .descriptors import aligned, describe
from .launch import Prepared, launch, remembered
from .matmul_epilogue import launch_reduce, vector_stride
from .matmul_tile import finish_tile, load_tile, store_tile


@triton.jit
def _tile_position(tile, tiles_m, tiles_n, GROUP: tl.constexpr):
    """(batch, row, column) of a tile; a group's tiles go down its GROUP rows first, then along the
    columns.
    """
    batch = tile // (tiles_m * tiles_n)
    within = tile % (tiles_m * tiles_n)
    first = within // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    within = within % (GROUP * tiles_n)
    return batch, first + within % height, within // height


@triton.jit
def _halves(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The left and the right half of a tile."""
    return tl.split(x.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1))


@triton.jit(do_not_specialize=("batches", "split_steps"))
def _matmul_kernel(
    a, b, gate, out, linear, gate_linear, bias, residual, scale_a, scale_b,
    batches, M, N, K, split_steps,
    a_strides, b_strides, gate_strides, residual_strides, scale_a_stride, scale_b_stride,
    ACTIVATION: tl.constexpr, PRECISION: tl.constexpr, SAVE: tl.constexpr,
    GATED: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
    SCALE_A: tl.constexpr, SCALE_B: tl.constexpr, SPLIT: tl.constexpr,
    DESCRIPTORS: tl.constexpr, STORE_DESCRIPTORS: tl.constexpr,
    A_TRANSPOSED: tl.constexpr, B_TRANSPOSED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, HALVES: tl.constexpr,
    GROUP: tl.constexpr, PROGRAMS: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """Each program walks over output tiles.

    a, b and gate are tensor descriptors where DESCRIPTORS, the outputs where STORE_DESCRIPTORS, else
    pointers. HALVES: the epilogue takes a tile in two halves, one after the other, so that its temporaries
    need half the registers. SPLIT: a tile is a sum of split_steps steps, stored as it is in out [splits *
    batches, M, N], a gate's in gate_linear. There is no mask along K: tiles are zero outside the matrices
    (load_tile).
    """
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    steps = tl.cdiv(K, BLOCK_K)
    parts = batches * tl.cdiv(steps, split_steps) if SPLIT else batches
    # Flattened, both loops are one, and the next tile's first loads overlap this one's epilogue; with a
    # gate's two products ptxas may then serialize the wgmma (C7515).
    for tile in tl.range(tl.program_id(0), parts * tiles_m * tiles_n, PROGRAMS, flatten=FLATTEN):
        part, tile_m, tile_n = _tile_position(tile, tiles_m, tiles_n, GROUP)
        batch = part % batches if SPLIT else part
        first = part // batches * split_steps if SPLIT else 0
        row = tile_m * BLOCK_M
        column = tile_n * BLOCK_N
        x = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        gate_x = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(tl.minimum(split_steps, steps - first) if SPLIT else steps):
            k = (first + step) * BLOCK_K
            a_tile = load_tile(a, a_strides, batch, row, k, M, K, BLOCK_M, BLOCK_K,
                               DESCRIPTORS, A_TRANSPOSED)  # fmt: skip
            b_tile = load_tile(b, b_strides, batch, k, column, K, N, BLOCK_K, BLOCK_N,
                               DESCRIPTORS, B_TRANSPOSED)  # fmt: skip
            x = tl.dot(a_tile, b_tile, x, input_precision=PRECISION)
            if GATED:
                gate_tile = load_tile(gate, gate_strides, batch, k, column, K, N, BLOCK_K,
                                      BLOCK_N, DESCRIPTORS, B_TRANSPOSED)  # fmt: skip
                gate_x = tl.dot(a_tile, gate_tile, gate_x, input_precision=PRECISION)

        if SPLIT:
            store_tile(out, x, part, row, column, M, N, BLOCK_M, BLOCK_N, False)
            if GATED:
                store_tile(gate_linear, gate_x, part, row, column, M, N, BLOCK_M, BLOCK_N, False)
        else:
            if HALVES:
                x, x_right = _halves(x, BLOCK_M, BLOCK_N)
                gate_x, gate_x_right = _halves(gate_x, BLOCK_M, BLOCK_N)
                finish_tile(
                    x, gate_x, batch, row, column, M, N,
                    out, linear, gate_linear, bias, residual, scale_a, scale_b,
                    residual_strides, scale_a_stride, scale_b_stride,
                    ACTIVATION, SAVE, GATED, BIAS, RESIDUAL, SCALE_A, SCALE_B,
                    STORE_DESCRIPTORS, BLOCK_M, BLOCK_N // 2,
                )  # fmt: skip
                x, gate_x = x_right, gate_x_right
                column += BLOCK_N // 2
            finish_tile(
                x, gate_x, batch, row, column, M, N,
                out, linear, gate_linear, bias, residual, scale_a, scale_b,
                residual_strides, scale_a_stride, scale_b_stride,
                ACTIVATION, SAVE, GATED, BIAS, RESIDUAL, SCALE_A, SCALE_B,
                STORE_DESCRIPTORS, BLOCK_M, BLOCK_N // 2 if HALVES else BLOCK_N,
            )  # fmt: skip


# Where the tensor cores have float8_e4m3fn (gfx942 has another e4m3); elsewhere operands become float16.
FLOAT8_ARCHITECTURES = ("sm90", "sm100", "interpreter")

# The share of the processors that a class's tiles must occupy; with less, a class of smaller tiles is tried.
FILLED = 0.4


class Choice(NamedTuple):
    """How a product runs: its class of settings, the number of parts of K, and whether through
    descriptors.
    """

    shape_class: str
    splits: int
    split_steps: int
    descriptors: bool


@remembered
def choose(
    device: torch.device, dtype: torch.dtype, batches: int, rows: int, columns: int, inner: int, gated: bool
) -> Choice:
    """The first class of the shape whose tiles, split over K where they are few, fill the processors.

    A split costs a second pass over its parts, so each part has at least SPLIT_STEPS steps.
    """
    processors = settings.processors(device)
    for name in shape_classes(dtype, rows, columns, gated):
        of_gate = (f"{name}_gated",) if gated else ()
        shape_class = settings.first_class("matmul", device, *of_gate, name)
        chosen = settings.find("matmul", device, shape_class)
        tiles = batches * triton.cdiv(rows, chosen["BLOCK_M"]) * triton.cdiv(columns, chosen["BLOCK_N"])
        steps = triton.cdiv(inner, chosen["BLOCK_K"])
        wanted = min(processors * chosen["PER_PROCESSOR"] // tiles, steps // chosen["SPLIT_STEPS"])
        split_steps = triton.cdiv(steps, max(1, wanted))
        splits = triton.cdiv(steps, max(1, split_steps)) if wanted > 1 else 1
        choice = Choice(shape_class, splits, split_steps, chosen["DESCRIPTORS"])
        if tiles * splits >= FILLED * processors:
            break
    return choice


def shape_classes(dtype: torch.dtype, rows: int, columns: int, gated: bool) -> tuple[str, ...]:
    """The classes of settings.toml that a product can run in, the preferred one first."""
    if dtype == torch.float32:
        return ("fp32",)
    if rows <= 64:
        return ("skinny",)
    if gated:
        return ("gated",)
    if dtype.itemsize == 1:
        return ("fp8",)
    return ("large", "medium", "small") if rows >= 1024 and columns >= 1024 else ("medium", "small")


def launch_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor | None,
    residual: torch.Tensor | None,
    scale_a: torch.Tensor | None,
    scale_b: torch.Tensor | None,
    out: torch.Tensor,
    linear: torch.Tensor,
    gate_linear: torch.Tensor,
    *,
    activation: str,
    tf32: bool,
) -> None:
    """Fill out (and linear, gate_linear where they have elements)."""
    if out.numel() == 0:
        return
    if a.itemsize == 1 and settings.architecture(a.device) not in FLOAT8_ARCHITECTURES:
        a, b = a.to(torch.float16), b.to(torch.float16)  # exact
    batches, rows, inner = a.shape
    columns = b.shape[2]
    choice = choose(a.device, a.dtype, batches, rows, columns, inner, gate is not None)
    saved = tuple(t if t.numel() else None for t in (linear, gate_linear))
    epilogue = (bias, residual, scale_a, scale_b)
    if choice.splits == 1:
        _launch_product(a, b, gate, out, *saved, *epilogue, choice, activation, tf32)
        return
    parts = [
        out.new_empty((choice.splits * batches, rows, columns), dtype=torch.float32)
        for _ in range(1 if gate is None else 2)
    ]
    gate_parts = None if gate is None else parts[1]
    _launch_product(a, b, gate, parts[0], None, gate_parts, *(None,) * 4, choice, "none", tf32)
    launch_reduce(parts[0], gate_parts, out, *saved, *epilogue, activation)


def _launch_product(
    a, b, gate, out, linear, gate_linear, bias, residual, scale_a, scale_b, choice, activation, tf32
):
    def prepare() -> Prepared:
        a, b, gate = _loadable(choice, *tensors[:3])
        chosen = settings.find("matmul", a.device, choice.shape_class)
        block_m, block_n, block_k = (chosen[f"BLOCK_{axis}"] for axis in "MNK")
        batches, rows, inner = a.shape
        columns = b.shape[2]
        loads, transposed = [a, b, gate], [False] * 3
        described = [_describe(a, block_m, block_k), _describe(b, block_k, block_n)]
        described.append((None, False) if gate is None else _describe(gate, block_k, block_n))
        complete = all(source is not None for source, _ in described[: 2 if gate is None else 3])
        use_descriptors = (
            choice.descriptors and complete and (gate is None or described[1][1] == described[2][1])
        )
        if use_descriptors:
            loads, transposed = map(list, zip(*described, strict=True))
        elif choice.descriptors:  # settings of pointers, of the same blocks
            names = (f"{choice.shape_class}_pointers", choice.shape_class)
            chosen = settings.find("matmul", a.device, settings.first_class("matmul", a.device, *names))
        is_split = choice.splits > 1
        stores = [out, linear, gate_linear]
        block = [1, block_m, block_n // 2 if chosen["HALVES"] else block_n]
        targets = [None if t is None else describe(t, block) for t in stores]
        store_descriptors = choice.descriptors and not is_split and targets[0] is not None
        # A float32 output that is stored through shared memory takes the room of one stage of the operands.
        stages = chosen["num_stages"] - (store_descriptors and out.itemsize == 4 and a.itemsize < 4)
        tiles = choice.splits * batches * triton.cdiv(rows, block_m) * triton.cdiv(columns, block_n)
        # PROGRAMS is a constant of the kernel, so it is not the number of tiles where these are few: every
        # number would
        # compile the kernel anew.
        programs = settings.processors(a.device) * chosen["PER_PROCESSOR"]
        sources = (*loads, *(targets if store_descriptors else stores), bias, residual, scale_a, scale_b)
        rest = {
            "batches": batches, "M": rows, "N": columns, "K": inner, "split_steps": choice.split_steps,
            "a_strides": a.stride(), "b_strides": b.stride(),
            "gate_strides": b.stride() if gate is None else gate.stride(),
            "residual_strides": (0, 0, 0) if residual is None else residual.stride(),
            "scale_a_stride": vector_stride(scale_a), "scale_b_stride": vector_stride(scale_b),
            "ACTIVATION": activation, "PRECISION": "tf32" if tf32 else "ieee",
            "SAVE": linear is not None, "GATED": gate is not None, "BIAS": bias is not None,
            "RESIDUAL": residual is not None,
            "SCALE_A": scale_a is not None, "SCALE_B": scale_b is not None, "SPLIT": is_split,
            "DESCRIPTORS": use_descriptors, "STORE_DESCRIPTORS": store_descriptors,
            "A_TRANSPOSED": transposed[0], "B_TRANSPOSED": transposed[1],
            "BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k, "HALVES": chosen["HALVES"],
            "GROUP": 8, "PROGRAMS": programs, "FLATTEN": chosen["FLATTEN"],
            "num_warps": chosen["num_warps"], "num_stages": stages,
        }  # fmt: skip
        return (min(tiles, programs),), sources, rest

    tensors = (a, b, gate, out, linear, gate_linear, bias, residual, scale_a, scale_b)
    launch(_matmul_kernel, tensors, (choice, activation, tf32), prepare)


def _loadable(choice: Choice, a, b, gate):
    """The operands, copied where descriptors are asked for and their layout allows none."""
    if not choice.descriptors:
        return a, b, gate
    if choice.shape_class == "skinny":  # b is read once there, and a copy would read it twice
        return _aligned(a), b, gate
    return _aligned(a), _aligned(b), None if gate is None else _aligned(gate)


def _aligned(matrix: torch.Tensor) -> torch.Tensor:
    """aligned(), but not for a matrix that is repeated over the batch: the copies would be many."""
    return matrix if matrix.stride(0) == 0 and matrix.shape[0] > 1 else aligned(matrix)


def _describe(matrix: torch.Tensor, block_rows: int, block_columns: int):
    """(descriptor, whether it is of the transposed matrix); no descriptor where the strides allow none."""
    transposed = matrix.stride(2) != 1 and matrix.stride(1) == 1
    if transposed:
        return describe(matrix.mT, [1, block_columns, block_rows]), True
    return describe(matrix, [1, block_rows, block_columns]), False
