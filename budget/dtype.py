"""Number formats: their size, and the name that people type."""

from __future__ import annotations

from .errors import InputError, unknown

BYTES: dict[str, float] = {
    "float64": 8, "float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2,
    "float8": 1, "int8": 1, "float4": 0.5, "int4": 0.5,
    "w8a8": 1,  # int8 that is multiplied by inputs of int8, and not widened. Source: compressed-tensors
    # four bits and a float32 scale for 64 of them; or a byte for 64 and a float32 for 64 x 256 of them:
    # double quantization. Sources: bitsandbytes, qlora
    "nf4": 0.5 + 4 / 64, "nf4-dq": 0.5 + 1 / 64 + 4 / (64 * 256),
    # blocks of 32 with a float16 scale (and offset: _1), of 256 with scales of two levels. Source: ggml
    "q8_0": 34 / 32, "q6_k": 210 / 256, "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32,
    # 2:4 sparsity: half of the values, and two bits for the place of each. Source: sparse-2-4
    "sparse8": 0.625, "sparse16": 1.125,
    "nvfp4": 0.5 + 1 / 16,  # a float8 scale for 16 of them. Source: transformer-engine-nvfp4
    "int2": 0.25, "int3": 0.375, "int5": 0.625, "int6": 0.75,
    # of GGUF's mixes: blocks of 256 with scales of two levels, or looked up in a grid. Source: ggml
    "q2_k": 84 / 256, "q3_k": 110 / 256, "q4_k": 144 / 256, "q5_k": 176 / 256, "q8_k": 292 / 256,
    "iq1_s": 50 / 256, "iq1_m": 56 / 256, "iq2_xxs": 66 / 256, "iq2_xs": 74 / 256, "iq2_s": 82 / 256,
    "iq3_xxs": 98 / 256, "iq3_s": 110 / 256, "iq4_xs": 136 / 256, "iq4_nl": 18 / 32, "q8_1": 40 / 32,
    "tq1_0": 54 / 256, "tq2_0": 66 / 256, "mxfp4": 17 / 32,
    "int64": 8, "int32": 4, "int16": 2, "bool": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "complex32": 4, "complex64": 8, "complex128": 16,
}  # fmt: skip

# The time to unpack a weight, as a number of its dot products with a row: llama.cpp's instructions for four
# weights (an integer instruction takes 2, a load 4 and a bit count 8 times as long as a multiply-add), over
# the 7 of the dot product. Derived. Source: llama-cpp-mmvq.
UNPACKING: dict[str, float] = {
    "q4_0": 1.4, "q4_1": 1.4, "q5_0": 3.6, "q5_1": 3.6, "q8_0": 1.9, "mxfp4": 3.7,
    "q2_k": 3.9, "q3_k": 8.3, "q4_k": 2.1, "q5_k": 3.1, "q6_k": 6.9, "iq4_nl": 2.8, "iq4_xs": 3.1,
    "iq1_s": 2.2, "iq1_m": 3.6, "iq2_xxs": 5.3, "iq2_xs": 5.4, "iq2_s": 5.5, "iq3_xxs": 5.9, "iq3_s": 6.1,
}  # fmt: skip

SHORT = {
    "fp64": "float64", "fp32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16",
    "half": "float16", "fp8": "float8", "fp4": "float4",
}  # fmt: skip


IN_FEW_BITS = {"fp8": "float8", "nvfp4": "nvfp4"}  # the dtype of products' operands, by the precision
FLOATING = frozenset({"float64", "float32", "bfloat16", "float16"})  # results take these from their input
SPARSE = frozenset({"sparse8", "sparse16"})  # dtypes of weights whose products take half the arithmetic
COMPUTED = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")  # dtypes that a whole network can run in


SHORT_OF = {full: short for short, full in reversed(SHORT.items())}  # float16 -> fp16


def short_name(name: str) -> str:
    """`bfloat16` -> `bf16`, the name that devices' data has; a name without a short form as it is."""
    return SHORT_OF.get(name, name)


def full_name(name: str) -> str:
    """`bf16` -> `bfloat16`. Raises InputError."""
    full = SHORT.get(name, name)
    if full not in BYTES:
        raise unknown("dtype", name, [*SHORT, *BYTES])
    return full


def computed(name: str) -> str:
    """The full name of a dtype that a network can run in; torch's names (`torch.float16`) are known, too.
    Raises InputError.
    """
    short = str(name).lower().removeprefix("torch.")
    full = SHORT.get(short, short)
    if full not in BYTES:
        raise unknown("dtype", name, (*SHORT, *COMPUTED), f"allowed: {', '.join(COMPUTED)}")
    if full not in map(full_name, COMPUTED):
        raise InputError("dtype", f"got {name!r}; allowed: {', '.join(COMPUTED)}; weights alone: quantize")
    return full


def of_class(name: str) -> str:
    """The full name of a dtype that the weights of a captured class can have. Raises InputError."""
    full = full_name(name)
    if full not in FLOATING | {"tf32"}:
        raise InputError("dtype", f"got {name}; allowed for a captured class: bf16, fp16, fp32, tf32, fp64")
    return "float32" if full == "tf32" else full  # which it is in memory
