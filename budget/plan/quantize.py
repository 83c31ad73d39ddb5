"""Frozen weights in 4 or 8 bits, widened before each product that reads them and never kept so.

nf4 has blocks of 64 with a float32 scale, nf4-dq QLoRA's doubly quantized scales, int8 a scale for each
output (LLM.int8). Embeddings, the head and all that is no matrix stay as they are, as in transformers.
Settings cover what other tools do: Lightning quantizes the head too, and widens weights to float16 before it
casts them; bitsandbytes before 0.43.2 kept the inputs of products, which no gradient reads, as long as the
pass's graph
exists: until the pass ends or, where a loop's variable holds the last loss, until the next one
(plan/loss.py).
Sources: qlora, bitsandbytes, lightning-bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Task, setting
from ..errors import InputError, unknown
from ..ir import FROZEN, WEIGHT, Model, Op, Tensor, rewrite, walk
from ._names import untrained
from .fp8 import is_linear
from .gguf import FORMATS as GGUF
from .gguf import as_published, gguf
from .loss import hold_inputs
from .packed import Part, beside, packed
from .packings import NAMED, bitsandbytes

QUANTIZED = ("none", "nf4", "nf4-dq", "int8", "int8-2024", "int8-whole")
# What lies beside a weight; the scales of blocks are in the bytes of the dtypes nf4 and nf4-dq.
BESIDE: dict[str, tuple[Part, ...]] = {
    "int8": bitsandbytes("int8").parts,
    "int8-2024": bitsandbytes("int8").parts,
    "int8-whole": bitsandbytes("int8").parts,
    "nf4": bitsandbytes("nf4").parts[1:],
    "nf4-dq": bitsandbytes("nf4", double=True).parts[2:],
}
STORED = {"int8-2024": "int8", "int8-whole": "int8"}  # dtypes that are not called as their formats
# By dtype, the kind of the operator that widens it before a product, or multiplies it as it is.
KERNELS = {
    "nf4": "dequantize_nf4",
    "nf4-dq": "dequantize_nf4_dq",
    "int8": "dequantize_int8",
    "int8-2024": "dequantize_int8_2024",
    "int8-whole": "dequantize_int8_whole",
}
KEEPS_WEIGHTS = True
SETTINGS = {
    "quantize": setting("none", "frozen weights in few bits", choices=(*QUANTIZED, *NAMED, *GGUF)),
    "quantize_head": setting(False, "the output projection as well (Lightning)"),
    "quantize_half": setting(False, "weights are widened to float16, then cast (Lightning)"),
    "quantize_own": setting(False, "an engine's products run by the format's own kernels, as outside of it"),
    "quantize_keeps": setting(
        "none",
        "products keep their inputs, as before bitsandbytes 0.43.2, until the pass ends or the next loss",
        choices=("none", "pass", "loss"),
    ),
}
NEEDS = {
    "quantize_head": ("quantize",),
    "quantize_half": ("quantize",),
    "quantize_keeps": ("train", "quantize"),
}


def family(form: str) -> str:
    """The engine's family of formats to which it belongs, `gguf` or `mlx`; "" where any engine reads it."""
    return "gguf" if form in GGUF else NAMED[form].family if form in NAMED else ""


def quantize(
    model: Model,
    form: str,
    *,
    train: bool = True,
    head: bool = False,
    half: bool = False,
    keeps_inputs: bool = False,
    left: tuple[str, ...] = (),
) -> Model:
    """The model with its linear layers' weights in a format of few bits. To be applied before `backward`.

    head: the output projection as well. half: weights are widened to float16, then cast.
    keeps_inputs: products keep their inputs for the backward pass, needed or not.
    left: tags of layers that stay as they are (plan/kept.py).
    Raises InputError for weights that train: nothing updates a weight of few bits.
    """
    if form not in QUANTIZED:
        raise unknown("quantize", form, QUANTIZED)
    untrained(model, "quantize")
    if form == "none":
        return model
    tables = {t.name for o, _ in walk(model.nodes) if o.kind == "gather" for t in o.weights}
    kind = "dequantize_half" if half else "dequantize" if train else KERNELS[form]
    packed: set[str] = set()

    def change(o: Op) -> Iterator[Op]:
        weight = next((t for t in o.weights if not t.added), None)
        if weight is None or weight.dtype or (train and weight.role == WEIGHT):
            yield o
            return
        # An adapter also reads the weight of a packed layer.
        if weight.name not in packed and (o.tag in left or not is_linear(o, head)):
            yield o
            return
        if weight.name in tables:
            raise InputError("quantize_head", "the head is the embedding; allowed: where it is not tied")
        if weight.name not in packed:
            yield from beside(o, weight, BESIDE[form])
        packed.add(weight.name)
        few = weight._replace(role=FROZEN, dtype=STORED.get(form, form))
        yield from _widened(o, weight, few, kind, keeps_inputs)

    nodes = rewrite(model.nodes, change)
    if not packed:
        raise InputError(
            "quantize",
            f"no linear layer of {model.name} is frozen; allowed: with lora_rank, adapters or freeze"
            if train
            else f"{model.name} has no linear layers before its head; allowed: none, or dtype int8",
        )
    return model._replace(nodes=nodes)


def _widened(o: Op, weight: Tensor, few: Tensor, kind: str, keeps_inputs: bool) -> Iterator[Op]:
    """The operator with its weight of few bits, behind the one that widens it."""
    wide = Tensor(f"{o.name}~wide", weight.dims)
    yield Op(f"{o.name}.dequantize", kind, (few,), (wide,), o.sizes)
    ins = tuple(wide if t is weight else t for t in o.ins)
    inputs = tuple(t.name for t in ins if not t.added and t is not wide)
    yield o._replace(ins=ins, holds=(*o.holds, *inputs) if keeps_inputs else o.holds)


def check(task: Task, device: object) -> None:
    """Raise an InputError for settings that a format does not have."""
    t = task.techniques
    for name in NEEDS if t.quantize in (*GGUF, *NAMED) else ():
        if name in t.used:
            raise InputError(name, f"got quantize {t.quantize}; allowed: with nf4, nf4-dq, int8")


def apply(model: Model, task: Task) -> Model:
    """The model with its weights in few bits."""
    t, train = task.techniques, task.workload.mode == "train"
    eager = not task.fused or t.quantize_own
    if t.quantize in GGUF:
        experts = as_published(task.published)
        return gguf(model, t.quantize, train=train, widened=eager, experts=experts)
    left = task.kept.unpacked if task.kept is not None else ()
    if t.quantize in NAMED:
        if train and not (t.lora_rank or t.adapters):
            problem = f"got {t.quantize}, whose weights do not train; allowed: with lora_rank or adapters"
            raise InputError("quantize", problem)
        packing = NAMED[t.quantize]
        return packed(model, packing, task.dtype, widened=train, eager=eager, wide=left)
    half = t.quantize_half and task.dtype != "float16"
    keeps = t.quantize_keeps != "none"
    how = {"head": t.quantize_head, "half": half, "keeps_inputs": keeps}
    return quantize(model, t.quantize, train=train, **how, left=left)


def apply_loop(model: Model, task: Task) -> Model:
    """The training program with the inputs that the last loss's graph holds."""
    # A recomputed layer's graph goes with the layer.
    held = task.techniques.quantize_keeps == "loss" and task.recompute != "full"
    return hold_inputs(model) if held else model


STAGES = {"store": apply, "loop": apply_loop}
