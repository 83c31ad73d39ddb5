"""A config's `quantization_config` to the format of its weights (plan/packed.py).

A method is a function that says what lies beside a weight, and which modules stay as they are. One that is
not here is refused: at 16 bits its bytes would be wrong.
Sources: transformers, gptq-format, awq-format, compressed-tensors, bitsandbytes, modelopt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import InputError, shown
from ..named import Any
from ..plan.packed import Packing, Part
from .hf_fields import _flag, _whole

FIELD = "quantization_config"
HEAD = r"^lm_head$"
Table = Mapping[str, Any]


def packing(values: Mapping[str, Any], dtype: str) -> Packing | None:
    """The format of a checkpoint's weights, whose other tensors are in `dtype`; None for a plain one.

    Raises InputError.
    """
    table = values.get(FIELD)
    if table is None:
        return None
    if not isinstance(table, Mapping):
        raise InputError(FIELD, f"got {shown(table)}; allowed: a table of settings")
    method = table.get("quant_method")
    if method is None and (table.get("load_in_4bit") or table.get("load_in_8bit")):
        method = "bitsandbytes"
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(f"{FIELD}.quant_method", f"got {shown(method)}; allowed: {', '.join(METHODS)}")
    return METHODS[method](table, dtype)


def _gptq(table: Table, _: str) -> Packing:
    """Groups of inputs share a scale and a packed zero point; each input names its group."""
    bits, group = _bits(table, (2, 3, 4, 8)), _group(table)
    if table.get("dynamic"):
        raise InputError(f"{FIELD}.dynamic", "allowed: no rules for single modules")
    inside = table.get("modules_in_block_to_quantize")
    flat = [name for entry in inside or () for name in (entry if isinstance(entry, list) else [entry])]
    return Packing(
        f"gptq {bits} bits",
        f"int{bits}",
        (
            Part("scales", "float16", outs=1, ins=group),
            Part("qzeros", "int32", outs=32 // bits if bits != 3 else 0, ins=group)
            if bits != 3
            else Part("qzeros", "int3", outs=1, ins=group),
            Part("g_idx", "int32", outs=0, ins=1),
        ),
        () if _flag(table, "lm_head", False) else (HEAD,),
        tuple(_pattern(name) for name in flat),
    )


def _awq(table: Table, _: str) -> Packing:
    """The same without names of groups."""
    bits, group = _bits(table, (4,)), _group(table)
    zeros = (Part("qzeros", "int32", outs=8, ins=group),) if _flag(table, "zero_point", True) else ()
    parts = (Part("scales", "float16", outs=1, ins=group), *zeros)
    return Packing(f"awq {bits} bits", "int4", parts, (HEAD, *_kept(table)))


def _fp8(table: Table, _: str) -> Packing:
    """Blocks share a float32 scale, or all of a weight does."""
    block = table.get("weight_block_size")
    if block is not None and not (isinstance(block, list | tuple) and len(block) == 2):
        raise InputError(f"{FIELD}.weight_block_size", f"got {shown(block)}; allowed: two whole numbers")
    outs, ins = (_whole({"weight_block_size": n}, "weight_block_size") for n in block) if block else (0, 0)
    static = (Part("activation_scale", "float32"),) if table.get("activation_scheme") == "static" else ()
    parts = (Part("scale_inv", "float32", outs=outs, ins=ins), *static)
    return Packing("fp8", "float8", parts, (HEAD, *_kept(table)))


def _fbgemm(table: Table, _: str) -> Packing:
    """A scale for each output, and a bound of the inputs."""
    parts = (Part("scale", "float32", outs=1), Part("input_scale_ub", "float32"))
    return Packing("fp8 by row", "float8", parts, (HEAD, *_kept(table)))


def _mxfp4(table: Table, _: str) -> Packing:
    """Experts alone: 32 inputs share a scale of one byte."""
    return Packing(
        "mxfp4", "float4", (Part("scales", "uint8", outs=1, ins=32),), _kept(table), (r"\.experts\b",)
    )


def _bitsandbytes(table: Table, _: str) -> Packing:
    """Eight bits: a float32 for each output. Four: 64 elements share one, which may be in few bits again."""
    skipped = (HEAD, *_kept(table, "llm_int8_skip_modules"))
    if _flag(table, "load_in_8bit", False):
        return Packing("bitsandbytes int8", "int8", (Part("SCB", "float32", outs=1),), skipped)
    kind = table.get("bnb_4bit_quant_type") or "fp4"
    if kind not in ("nf4", "fp4"):
        raise InputError(f"{FIELD}.bnb_4bit_quant_type", f"got {shown(kind)}; allowed: nf4, fp4")
    once = (Part("absmax", "float32", flat=64), Part("quant_map", "float32", fixed=16))
    twice = (
        Part("absmax", "uint8", flat=64),
        Part("nested_absmax", "float32", flat=64 * 256),
        Part("quant_map", "float32", fixed=16),
        Part("nested_quant_map", "float32", fixed=256),
        Part("nested_offset", "float32", fixed=1),
    )
    double = _flag(table, "bnb_4bit_use_double_quant", False)
    return Packing(f"bitsandbytes {kind}", "float4", twice if double else once, skipped)


def _compressed(table: Table, dtype: str) -> Packing:
    """One group of settings for all linear layers, and a list of those that are left alone."""
    groups = table.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise InputError(f"{FIELD}.config_groups", "allowed: one group of settings")
    group = next(iter(groups.values()))
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping) or group.get("targets") not in (["Linear"], ("Linear",)):
        raise InputError(f"{FIELD}.config_groups", 'allowed: "weights" of "targets": ["Linear"]')
    activations = group.get("input_activations")
    static = isinstance(activations, Mapping) and activations.get("dynamic") is False
    skipped = tuple(_ignored(name) for name in table.get("ignore") or ())
    form = group.get("format") or table.get("format")
    if not isinstance(form, str) or form not in FORMATS:
        raise InputError(f"{FIELD}.format", f"got {shown(form)}; allowed: {', '.join(FORMATS)}")
    weight, parts = FORMATS[form](weights, dtype)
    if static:
        parts = (*parts, Part("input_scale", "float32" if form.startswith("nvfp4") else dtype, fixed=1))
    return Packing(f"compressed-tensors {form}", weight, parts, skipped)


def _plain(weights: Table, dtype: str) -> tuple[str, tuple[Part, ...]]:
    """A byte for each weight, with scales by tensor, output, group or block."""
    if weights.get("num_bits") != 8:
        raise InputError(f"{FIELD}.num_bits", f"got {shown(weights.get('num_bits'))}; allowed: 8")
    return ("float8" if weights.get("type") == "float" else "int8"), (_scale(weights, dtype, "scale"),)


def _packed(weights: Table, dtype: str) -> tuple[str, tuple[Part, ...]]:
    """Whole numbers of few bits in int32, and the weight's shape beside them."""
    bits = _bits({"bits": weights.get("num_bits")}, (4, 8))
    scale = _scale(weights, dtype, "scale")
    parts = [scale, Part("shape", "int64", fixed=2)]
    if not _flag(weights, "symmetric", True):
        parts.append(scale._replace(name="zero_point", dtype="int32", outs=scale.outs * 32 // bits))
    if weights.get("actorder") in ("group", True):
        parts.append(Part("g_idx", "int32", ins=1))
    return f"int{bits}", tuple(parts)


def _nvfp4(*_: object) -> tuple[str, tuple[Part, ...]]:
    """16 inputs share a float8 scale, and all of a weight a float32."""
    return "float4", (Part("scale", "float8", outs=1, ins=16), Part("global_scale", "float32", fixed=1))


def _scale(weights: Table, dtype: str, name: str) -> Part:
    strategy = weights.get("strategy")
    if strategy == "tensor":
        return Part(name, dtype, fixed=1)
    if strategy == "channel":
        return Part(name, dtype, outs=1)
    if strategy == "group":
        return Part(name, dtype, outs=1, ins=_whole(weights, "group_size"))
    block = weights.get("block_structure")
    if strategy == "block" and isinstance(block, list | tuple) and len(block) == 2:
        outs, ins = (_whole({"block_structure": n}, "block_structure") for n in block)
        return Part(name, dtype, outs=outs, ins=ins)
    raise InputError(f"{FIELD}.strategy", f"got {shown(strategy)}; allowed: tensor, channel, group, block")


def _modelopt(table: Table, _: str) -> Packing:
    """NVIDIA's own: one float8 scale a tensor, or NVFP4's two levels; inputs have scales too."""
    within = table.get("quantization")
    inner: Table = within if isinstance(within, Mapping) else table
    algorithm = inner.get("quant_algo")
    names = inner.get("exclude_modules") or table.get("ignore") or ()
    skipped = (HEAD, *(_pattern(str(name).replace("*", ".*")) for name in names))
    given = Part("input_scale", "float32", fixed=1)
    if algorithm == "FP8":
        return Packing("modelopt fp8", "float8", (Part("scale", "float32", fixed=1), given), skipped)
    if algorithm == "NVFP4":
        return Packing("modelopt nvfp4", *_nvfp4(), skipped)._replace(parts=(*_nvfp4()[1], given))
    raise InputError(f"{FIELD}.quant_algo", f"got {shown(algorithm)}; allowed: FP8, NVFP4")


def _gguf(table: Table, _: str) -> Packing:
    """Each kind of matrix has a type (the smallest, of a mix); the file's total says what is left over."""
    types, total = table.get("types"), table.get("total")
    if not isinstance(types, Mapping) or not isinstance(total, int):
        raise InputError(FIELD, "got gguf; allowed: the file itself, --config model.gguf")
    return Packing("gguf", "float16", (), types=tuple(types.items()), total=total)


METHODS: Mapping[str, Callable[[Table, str], Packing]] = {
    "gptq": _gptq, "awq": _awq, "fp8": _fp8, "fbgemm_fp8": _fbgemm, "mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes, "compressed-tensors": _compressed, "modelopt": _modelopt, "gguf": _gguf,
}  # fmt: skip
FORMATS: Mapping[str, Callable[[Table, str], tuple[str, tuple[Part, ...]]]] = {
    "pack-quantized": _packed, "int-quantized": _plain, "float-quantized": _plain, "naive-quantized": _plain,
    "nvfp4-pack-quantized": _nvfp4,
}  # fmt: skip


def _bits(table: Table, allowed: tuple[int, ...]) -> int:
    bits = table.get("bits", table.get("w_bit"))
    if bits not in allowed or isinstance(bits, bool):
        raise InputError(f"{FIELD}.bits", f"got {shown(bits)}; allowed: {', '.join(map(str, allowed))}")
    return int(bits)


def _group(table: Table) -> int:
    """Inputs of a group; 0 for all of them, which -1 stands for."""
    size = table.get("group_size", table.get("q_group_size", 128))
    return 0 if size == -1 else _whole({"group_size": size}, "group_size")


def _kept(table: Table, name: str = "modules_to_not_convert") -> tuple[str, ...]:
    names = table.get(name) or ()
    if not isinstance(names, list | tuple) or not all(isinstance(text, str) for text in names):
        raise InputError(f"{FIELD}.{name}", f"got {shown(names)}; allowed: a list of modules' names")
    return tuple(_pattern(text) for text in names)


def _pattern(name: str) -> str:
    """A module's name, or the end or the beginning of one, with `*` for any text, as an expression."""
    escaped = "".join(c if c.isalnum() or c == "_" else ".*" if c == "*" else r"\." for c in name.strip("."))
    return rf"(^|\.){escaped}(\.|$)"


def _ignored(name: object) -> str:
    text = str(name)
    return f"^(?:{text[3:]})" if text.startswith("re:") else _pattern(text)
