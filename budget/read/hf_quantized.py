"""A config's `quantization_config` to the format of its weights (plan/packed.py).

A method is a function from its table to a format of plan/packings.py, with the modules that stay as they are.
Any other method is refused: at 16 bits its bytes would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping

from ..errors import InputError, wrong
from ..ir import KEY, QKV
from ..named import Any
from ..plan import packings
from ..plan.packed import Packing, Part
from ._left_out import FIELD, Table, ignored, instead, kept, leaving, pattern, without
from .hf_fields import _flag, _whole

TOWER = "visual|vision"  # in the names of its modules
MIXED = "MIXED_PRECISION"


def packing(
    values: Mapping[str, Any], dtype: str, formats: Collection[str] = (), nested: str = ""
) -> Packing | None:
    """The format of a checkpoint's weights, whose other tensors are in `dtype`; None without such a format.

    formats: where the family's layers are no torch.nn.Linear, the only formats that cover them.
    nested: the field of the text's config, whose own table applies to the text alone (Kimi K2.5).
    Raises InputError.
    """
    table, inner = values.get(FIELD, values.get("quantization")), values.get(nested)
    if table is None and isinstance(inner, Mapping) and inner.get(FIELD) is not None:
        inside = packing(inner, dtype, formats)
        return inside and without(inside, {TOWER: TOWER})
    if table is None:
        return None
    if not isinstance(table, Mapping):
        raise wrong(FIELD, table, "a table of settings")
    method = table.get("quant_method")
    if method is None and (table.get("load_in_4bit") or table.get("load_in_8bit")):
        method = "bitsandbytes"
    if method is None and {"bits", "group_size"} <= set(table):
        method = "mlx"
    if method is None and "quant_algo" in table:
        method = "modelopt"
    if not isinstance(method, str) or method not in METHODS:
        raise wrong(f"{FIELD}.quant_method", method, ", ".join(METHODS))
    if formats and method not in formats:
        problem = f"got {method}; allowed for {values.get('model_type')}: {', '.join(formats)}"
        raise InputError(f"{FIELD}.quant_method", problem)
    return METHODS[method](table, dtype)


def _gptq(table: Table, _: str) -> Packing:
    bits, group = _bits(table, (2, 3, 4, 8)), _group(table)
    if table.get("dynamic"):
        raise InputError(f"{FIELD}.dynamic", "allowed: no rules for single modules")
    inside = table.get("modules_in_block_to_quantize")
    flat = [name for entry in inside or () for name in (entry if isinstance(entry, list) else [entry])]
    only = {pattern(name): name for name in flat}
    packed = packings.gptq(bits, group)._replace(only=tuple(only), spelled=tuple(only.items()))
    return packed._replace(skipped=()) if _flag(table, "lm_head", False) else packed


def _awq(table: Table, _: str) -> Packing:
    _bits(table, (4,))
    return without(packings.awq(_group(table), zero_point=_flag(table, "zero_point", True)), kept(table))


def _fp8(table: Table, _: str) -> Packing:
    block = table.get("weight_block_size")
    if block is not None and not (isinstance(block, list | tuple) and len(block) == 2):
        raise wrong(f"{FIELD}.weight_block_size", block, "two whole numbers")
    outs, ins = (_whole({"weight_block_size": n}, "weight_block_size") for n in block) if block else (0, 0)
    static = table.get("activation_scheme") == "static"
    return instead(packings.fp8(outs, ins, static=static), table)


def _fbgemm(table: Table, _: str) -> Packing:
    return instead(packings.fbgemm(), table)


def _mxfp4(table: Table, _: str) -> Packing:
    return without(packings.mxfp4(), kept(table))


def _bitsandbytes(table: Table, _: str) -> Packing:
    """Source: bitsandbytes; which modules, transformers' own."""
    skips = "llm_int8_skip_modules"
    if _flag(table, "load_in_8bit", False):
        least = table.get("llm_int8_threshold", 6.0)
        if isinstance(least, bool) or not isinstance(least, int | float) or not least >= 0:
            name = f"{FIELD}.llm_int8_threshold"
            raise wrong(name, least, "a number, 0 or more")
        return instead(packings.bitsandbytes("int8", outliers=least > 0), table, skips)
    kind = table.get("bnb_4bit_quant_type") or "fp4"
    if kind not in ("nf4", "fp4"):
        raise wrong(f"{FIELD}.bnb_4bit_quant_type", kind, "nf4, fp4")
    double = _flag(table, "bnb_4bit_use_double_quant", False)
    return instead(packings.bitsandbytes(kind, double=double), table, skips)


def _compressed(table: Table, dtype: str) -> Packing:
    """One group of settings for all linear layers, and a list of modules that are left alone."""
    groups = table.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise InputError(f"{FIELD}.config_groups", "allowed: one group of settings")
    group = next(iter(groups.values()))
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping) or group.get("targets") not in (["Linear"], ("Linear",)):
        raise InputError(f"{FIELD}.config_groups", 'allowed: "weights" of "targets": ["Linear"]')
    activations = group.get("input_activations")
    static = isinstance(activations, Mapping) and activations.get("dynamic") is False
    form = group.get("format") or table.get("format")
    if not isinstance(form, str) or form not in FORMATS:
        raise wrong(f"{FIELD}.format", form, ", ".join(FORMATS))
    packed = FORMATS[form](weights, dtype)
    fp4 = form == "nvfp4-pack-quantized"
    if static and not fp4:
        packed = packed._replace(parts=(*packed.parts, Part("input_scale", dtype, fixed=1)))
    if packed.weight == "int8" and activations:  # inputs, too
        packed = packed._replace(weight="w8a8")
    if fp4 and not activations:  # weights alone
        packed = packed._replace(parts=packed.parts[:-1])
    left = {ignored(name): str(name) for name in table.get("ignore") or ()}
    return leaving(packed, left)._replace(name=f"compressed-tensors {form}")


def _plain(weights: Table, dtype: str) -> Packing:
    if weights.get("num_bits") != 8:
        raise wrong(f"{FIELD}.num_bits", weights.get("num_bits"), "8")
    kind = "float8" if weights.get("type") == "float" else "int8"
    return packings.plain(kind, _scale(weights, dtype))


def _packed(weights: Table, dtype: str) -> Packing:
    bits = _bits({"bits": weights.get("num_bits")}, (4, 8))
    symmetric, ordered = _flag(weights, "symmetric", True), weights.get("actorder") in ("group", True)
    return packings.pack(bits, _scale(weights, dtype), symmetric=symmetric, ordered=ordered)


def _nvfp4(*_: object) -> Packing:
    return packings.nvfp4()


def _scale(weights: Table, dtype: str) -> Part:
    strategy = weights.get("strategy")
    if strategy == "tensor":
        return Part("scale", dtype, fixed=1)
    if strategy == "channel":
        return packings.by_output(dtype)
    if strategy == "group":
        return packings.by_output(dtype)._replace(ins=_whole(weights, "group_size"))
    block = weights.get("block_structure")
    if strategy == "block" and isinstance(block, list | tuple) and len(block) == 2:
        outs, ins = (_whole({"block_structure": n}, "block_structure") for n in block)
        return Part("scale", dtype, outs=outs, ins=ins)
    raise wrong(f"{FIELD}.strategy", strategy, "tensor, channel, group, block")


def _modelopt(table: Table, _: str) -> Packing:
    """NVIDIA's own: the table lists all modules that are left out, the head included. Source: modelopt."""
    within = table.get("quantization")
    inner: Table = within if isinstance(within, Mapping) else table
    names = inner.get("exclude_modules") or table.get("ignore") or ()
    left = {pattern(str(name)): str(name) for name in names}
    mixed = inner.get("quant_algo") == MIXED
    formats = tuple(_by_layer(inner.get("quantized_layers"))) if mixed else (_algorithm(inner),)
    scales: tuple[Part, ...] = ()
    if inner.get("kv_cache_quant_algo") or table.get("kv_cache_scheme"):
        scales = (Part("kv_scales", "float32", fixed=2, tags=(KEY, QKV)),)  # k_scale and v_scale
    first, *others = (leaving(f._replace(parts=(*f.parts, *scales)), left) for f in formats)
    return first._replace(others=tuple(others))


def _algorithm(table: Table) -> Packing:
    algorithm = table.get("quant_algo")
    packed = packings.modelopt(str(algorithm), _whole(table, "group_size", 16))
    if packed is None:
        raise wrong(f"{FIELD}.quant_algo", algorithm, f"{', '.join(packings.MODELOPT)}, {MIXED}")
    return packed


def _by_layer(layers: object) -> Iterator[Packing]:
    """A mix's algorithms, each with the modules that have it. One expert stands for all of its layer."""
    field = f"{FIELD}.quantized_layers"
    if not isinstance(layers, Mapping) or not all(isinstance(x, Mapping) for x in layers.values()):
        raise InputError(field, "allowed: a table of modules, each with its quant_algo")
    among: dict[Packing, dict[str, str]] = {}
    for name, own in layers.items():
        module = re.sub(r"\bexperts\.\d+\b", "experts.0", str(name))
        among.setdefault(_algorithm(own), {})[pattern(module)] = str(name)
    patterns = [text for texts in among.values() for text in texts]
    if len({*patterns}) != len(patterns) or not patterns:
        raise InputError(field, "allowed: one algorithm for all experts of a layer")
    for form, texts in among.items():
        yield form._replace(only=tuple(texts), spelled=tuple(texts.items()), name=f"modelopt {MIXED}")


def _gguf(table: Table, _: str) -> Packing:
    """Each kind of matrix has a type (in a mix the smallest); the rest follows from the file's total."""
    types, total = table.get("types"), table.get("total")
    if not isinstance(types, Mapping) or not isinstance(total, int):
        raise InputError(FIELD, "got gguf; allowed: the file itself, --config model.gguf")
    numbers = table.get("numbers", 0)
    by_kind = tuple(types.items())
    return Packing("gguf", "float16", (), types=by_kind, total=total, numbers=numbers, family="gguf")


def _mlx(table: Table, _: str) -> Packing:
    """One setting for all layers, except those that have their own, or none. Source: mlx-lm."""
    usual = _mlx_format(table)
    own = {name: value for name, value in table.items() if isinstance(value, Mapping) or value is False}
    among: dict[Packing, dict[str, str]] = {}
    for name, value in own.items():
        form = _mlx_format({**table, **value}) if isinstance(value, Mapping) else None
        if form != usual:
            among.setdefault(form or usual._replace(name=""), {})[pattern(name)] = name
    apart = {text: name for texts in among.values() for text, name in texts.items()}
    others = tuple(
        form._replace(only=tuple(texts), spelled=tuple(texts.items()), tables=False)
        for form, texts in among.items()
        if form.name
    )
    return leaving(usual, apart)._replace(others=others)


def _mlx_format(table: Table) -> Packing:
    mode, field = table.get("mode") or "affine", f"{FIELD}.mode"
    if mode == "affine":
        return packings.mlx(_bits(table, (2, 3, 4, 5, 6, 8)), _group(table))
    if mode not in ("mxfp4", "mxfp8", "nvfp4"):
        raise wrong(field, mode, "affine, mxfp4, mxfp8, nvfp4")
    return packings.mlx(_bits(table, (4, 8)), _group(table), mode)


METHODS: Mapping[str, Callable[[Table, str], Packing]] = {
    "gptq": _gptq, "awq": _awq, "fp8": _fp8, "fbgemm_fp8": _fbgemm, "mxfp4": _mxfp4,
    "bitsandbytes": _bitsandbytes, "compressed-tensors": _compressed, "modelopt": _modelopt, "gguf": _gguf,
    "mlx": _mlx,
}  # fmt: skip
FORMATS: Mapping[str, Callable[[Table, str], Packing]] = {
    "pack-quantized": _packed, "int-quantized": _plain, "float-quantized": _plain, "naive-quantized": _plain,
    "nvfp4-pack-quantized": _nvfp4,
}  # fmt: skip


def _bits(table: Table, allowed: tuple[int, ...]) -> int:
    bits = table.get("bits", table.get("w_bit"))
    if bits not in allowed or isinstance(bits, bool):
        raise wrong(f"{FIELD}.bits", bits, ", ".join(map(str, allowed)))
    return int(bits)


def _group(table: Table) -> int:
    """Inputs of a group; 0 for all of them, which -1 stands for."""
    size = table.get("group_size", table.get("q_group_size", 128))
    return 0 if size == -1 else _whole({"group_size": size}, "group_size")
