"""Formats of weights in few bits: what lies beside a weight, and which modules stay as they are.

A checkpoint's `quantization_config` describes one of them in full (read/hf_quantized.py); NAMED are those
that can be requested by a name, each as its tool writes it without further settings.
Sources: transformers, mlx-lm, gptq-format, awq-format, compressed-tensors, bitsandbytes, modelopt.
"""

from __future__ import annotations

from .packed import Packing, Part

HEAD = r"^lm_head$"  # the output projection stays as it is
EXPERTS = r"\.experts\b"
OWN = ""  # of scales in the model's own dtype


def gptq(bits: int = 4, group: int = 128, *, kernel: str = "dequantize_gptq") -> Packing:
    """Groups of inputs (0: all of them) share a scale and a packed zero point; each input names its group.
    kernel: as in Packing.
    """
    zeros = Part("qzeros", "int3", 1, group) if bits == 3 else Part("qzeros", "int32", 32 // bits, group)
    parts = (Part("scales", "float16", 1, group), zeros, Part("g_idx", "int32", 0, 1))
    return Packing(f"gptq {bits} bits", f"int{bits}", parts, (HEAD,), kernel=kernel)


def awq(group: int = 128, *, zero_point: bool = True, kernel: str = "dequantize_awq") -> Packing:
    """The same in 4 bits, without names of groups. kernel: as in Packing."""
    zeros = (Part("qzeros", "int32", 8, group),) if zero_point else ()
    scales = Part("scales", "float16", 1, group)
    return Packing("awq 4 bits", "int4", (scales, *zeros), (HEAD,), kernel=kernel)


def fp8(outs: int = 128, ins: int = 128, *, static: bool = False) -> Packing:
    """Blocks of a weight share a float32 scale; (0, 0): all of the weight does; static: so does its input."""
    given = (Part("activation_scale", "float32"),) if static else ()
    return Packing("fp8", "float8", (Part("scale_inv", "float32", outs, ins), *given), (HEAD,))


def fbgemm() -> Packing:
    """A float32 scale for each output, and an upper bound for the inputs."""
    parts = (Part("scale", "float32", 1), Part("input_scale_ub", "float32"))
    return Packing("fp8 by row", "float8", parts, (HEAD,))


def mxfp4() -> Packing:
    """Experts alone: 32 inputs share a scale of one byte."""
    return Packing("mxfp4", "float4", (Part("scales", "uint8", 1, 32),), only=(EXPERTS,))


def modelopt(algorithm: str, group: int = 16) -> Packing | None:
    """NVIDIA's formats whose tensors follow from the algorithm's name alone; scales are float32."""
    if algorithm not in MODELOPT:
        return None
    weight, parts = MODELOPT[algorithm]
    parts = tuple(part._replace(ins=group) if part.dtype == "float8" else part for part in parts)
    return Packing(f"modelopt {algorithm}", weight, parts)


_ONE, _GIVEN = Part("weight_scale", "float32", fixed=1), Part("input_scale", "float32", fixed=1)
_TWICE = (Part("weight_scale", "float8", 1, 16), Part("weight_scale_2", "float32", fixed=1))
MODELOPT = {
    "FP8": ("float8", (_ONE, _GIVEN)),
    "FP8_PER_CHANNEL_PER_TOKEN": ("float8", (Part("weight_scale", "float32", 1),)),
    "W8A16": ("int8", (Part("weight_scale", "float32", 1),)),
    "NVFP4": ("float4", (*_TWICE, _GIVEN)),
    "W4A16_NVFP4": ("float4", _TWICE),  # inputs are not quantized, and have no scale
}


def bitsandbytes(kind: str, *, double: bool = False, outliers: bool = True) -> Packing:
    """int8: a float32 for each output. nf4, fp4: 64 elements share one, which may be in few bits again."""
    if kind == "int8":
        kernel = "dequantize_int8" if outliers else "dequantize_int8_whole"
        return Packing("bitsandbytes int8", "int8", (Part("SCB", "float32", 1),), (HEAD,), kernel=kernel)
    once = (Part("absmax", "float32", flat=64), Part("quant_map", "float32", fixed=16))
    twice = (
        Part("absmax", "uint8", flat=64),
        Part("nested_absmax", "float32", flat=64 * 256),
        Part("quant_map", "float32", fixed=16),
        Part("nested_quant_map", "float32", fixed=256),
        Part("nested_offset", "float32", fixed=1),
    )
    kernel = "dequantize_nf4_dq" if double else "dequantize_nf4"
    return Packing(f"bitsandbytes {kind}", "float4", twice if double else once, (HEAD,), kernel=kernel)


def plain(dtype: str, scale: Part) -> Packing:
    """compressed-tensors: a byte for each weight, with scales by tensor, output, group or block."""
    return Packing("compressed-tensors", dtype, (scale,), (HEAD,))


def pack(bits: int, scale: Part, *, symmetric: bool = True, ordered: bool = False) -> Packing:
    """compressed-tensors: whole numbers of few bits in int32, and the weight's shape beside them."""
    parts = [scale, Part("shape", "int64", fixed=2)]
    if not symmetric:
        parts.append(scale._replace(name="zero_point", dtype="int32", outs=scale.outs * 32 // bits))
    if ordered:
        parts.append(Part("g_idx", "int32", ins=1))
    return Packing("compressed-tensors", f"int{bits}", tuple(parts), (HEAD,))


def nvfp4() -> Packing:
    """16 inputs share a float8 scale, and all of a weight a float32; inputs have one, too."""
    parts = (
        Part("scale", "float8", 1, 16),
        Part("global_scale", "float32", fixed=1),
        Part("input_scale", "float32", fixed=1),
    )
    return Packing("nvfp4", "float4", parts, (HEAD,))


def mlx(bits: int, group: int = 64, mode: str = "affine") -> Packing:
    """MLX's: groups of inputs share a scale and, affine, an offset; the head and tables of embeddings too."""
    if mode == "affine":
        pair = (Part("scales", OWN, 1, group), Part("biases", OWN, 1, group))
        return Packing(f"mlx {bits} bits", f"int{bits}", pair, tables=True, family="mlx")
    scales = (Part("scales", "uint8", 1, group),)
    return Packing(f"mlx {mode}", f"float{bits}", scales, tables=True, family="mlx")


def by_output(dtype: str = OWN) -> Part:
    """A scale for each output."""
    return Part("scale", dtype, outs=1)


NAMED = {
    "gptq": gptq(), "gptq-8bit": gptq(8), "gptq-2023": gptq(kernel="dequantize_gptq_2023"),
    "awq": awq(), "awq-2023": awq(kernel="dequantize_awq_2023"),
    "fp8": fp8(), "fp8-row": fbgemm(), "mxfp4": mxfp4(), "nvfp4": nvfp4(),
    "w4a16": pack(4, by_output()._replace(ins=128)), "w8a8": plain("w8a8", by_output()),
    "fp8-dynamic": plain("float8", by_output()), **{f"mlx-{bits}bit": mlx(bits) for bits in (3, 4, 5, 6, 8)},
}  # fmt: skip
