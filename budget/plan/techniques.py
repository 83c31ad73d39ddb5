"""Techniques together: their settings, which become flags, and the order in which they are applied.

    fuse -> freeze, lora, adapters -> quantize -> distill -> precision
    -> backward -> float8 and dtype of gradients -> recompute -> offload activations
    -> accumulate -> prune -> optimizer -> offload its states

A technique that is off costs nothing, not even its import. Derived: what each needs to see of the others.
"""

from __future__ import annotations

from typing import Any

from ..config import Settings, setting
from ..dtype import full_name
from ..errors import InputError, shown, unknown
from ..model import Model
from . import precision as precisions
from . import quantize as formats
from .fused import CHOICES as FUSED
from .fused import fused, hold_chunk
from .offload import check as offloaded
from .offload import offload_activations, offload_optimizer
from .optimizer import optimizer as add_optimizer
from .recompute import CHOICES as RECOMPUTED
from .recompute import recompute as add_recompute
from .recompute import regroup


class Techniques(Settings):
    """Everything off. Names of operators are patterns by commas, of what `--by operator` lists."""

    precision: str = setting("pure", "pure, autocast, master or fp8", choices=precisions.CHOICES)
    grad_dtype: str = setting("", "dtype of the weights' gradients, where it is not the weights' own")
    accumulate: int = setting(1, "micro-batches, of the batch each, before one optimizer step")
    recompute_every: int = setting(1, "layers in a group of which recomputation keeps the input only")
    recompute_layers: int = setting(0, "layers that are recomputed, from the first on; 0: all", least=0)
    fuse: str = setting("", f"of {', '.join(FUSED)}, by commas")
    freeze: str = setting("", "names of operators whose weights do not train")
    freeze_layers: int = setting(0, "first layers that do not train, with the embeddings", least=0)
    lora_rank: int = setting(0, "rank of low-rank adapters; all else is frozen", least=0)
    lora_targets: str = setting(
        "", "names of the products that have low-rank adapters (attn.q,attn.v or attn.qkv)"
    )
    lora_dtype: str = setting("", "dtype of low-rank adapters (peft: fp32), where it is not the model's own")
    adapters: int = setting(0, "width of bottleneck adapters; all else but the norms is frozen", least=0)
    adapter_targets: str = setting("attn.o,mlp.down", "names of the products that have adapters behind them")
    quantize: str = setting("none", "frozen weights in nf4 or int8", choices=formats.CHOICES)
    sparse: str = setting("", "names of the products with 2:4 sparse weights")
    teacher: str = setting("", "a preset whose answers the network learns")
    offload: str = setting("none", "activations, optimizer, or both by commas, to the host")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, str | int):
                raise InputError(name, f"got {shown(value)}; allowed: one whole number")
        offloaded(self.offload)
        for name in ("grad_dtype", "lora_dtype"):
            value = getattr(self, name)
            if value and full_name(value) not in precisions.GRADIENTS:
                raise InputError(name, f"got {value[:40]!r}; allowed: fp32, bf16, fp16")

    @property
    def used(self) -> dict[str, Any]:
        """Settings that are not the usual ones."""
        return {f.name: value for f in self.fields.values() if (value := getattr(self, f.name)) != f.default}


OFF = Techniques()
TRAINING = (
    "precision", "grad_dtype", "accumulate", "recompute_every", "recompute_layers", "freeze", "freeze_layers",
    "teacher", "offload",
)  # fmt: skip
NAMELESS = ("precision", "grad_dtype", "accumulate", "offload")  # need no dimension by its name


def check(t: Techniques, mode: str, dtype: str, recompute: str) -> None:
    """Raise an InputError for techniques that contradict each other, the mode or the dtype."""
    if recompute not in RECOMPUTED:
        raise unknown("recompute", recompute, RECOMPUTED)
    used = {} if t is OFF else t.used
    for name in () if mode == "train" else (*(("recompute",) if recompute != "none" else ()), *used):
        if name == "recompute" or name in TRAINING:
            raise InputError(name, f"there is no backward pass in mode {mode}; allowed: in mode train")
    if t is OFF:
        return
    precisions.check(t.precision, dtype)
    if t.sparse and (t.precision in ("autocast", "fp8") or t.quantize != "none"):
        text = "products read copies of their weights; allowed: without autocast, fp8, quantize"
        raise InputError("sparse", text)
    if t.lora_rank and t.adapters:
        raise InputError("adapters", "there is a lora_rank as well; allowed: one of them")
    if recompute == "none" and (t.recompute_every > 1 or t.recompute_layers):
        name = "recompute_every" if t.recompute_every > 1 else "recompute_layers"
        raise InputError(name, "nothing is recomputed; allowed: with recompute full")
    if t.recompute_every > 1 and recompute != "full":
        raise InputError("recompute_every", f"got recompute {recompute}; allowed: with recompute full")
    for name, needs in (
        ("lora_targets", "lora_rank"),
        ("lora_dtype", "lora_rank"),
        ("adapter_targets", "adapters"),
    ):
        if name in used and not getattr(t, needs):
            raise InputError(name, f"there is no {needs}; allowed: with {needs}")


def network(model: Model, t: Techniques, mode: str) -> Model:
    """The network with what is frozen, added, fused or stored in few bits."""
    if t.fuse:
        model = fused(model, t.fuse)
    if t.freeze:
        from .freeze import freeze

        model = freeze(model, t.freeze)
    if t.lora_rank:
        from .lora import lora, usual

        model = lora(
            model,
            t.lora_rank,
            t.lora_targets or usual(model),
            full_name(t.lora_dtype) if t.lora_dtype else "",
        )
    if t.adapters:
        from .lora import adapters

        model = adapters(model, t.adapters, t.adapter_targets)
    if t.freeze_layers:
        from .freeze import freeze_layers

        model = freeze_layers(model, t.freeze_layers)
    if t.recompute_every > 1 or t.recompute_layers:
        model = regroup(model, t.recompute_every, t.recompute_layers)
    if t.quantize != "none":
        model = formats.quantize(model, t.quantize, train=mode == "train")
    return model


def learning(model: Model, t: Techniques, teacher: Model | None) -> Model:
    """The network with its teacher and its casts, ready for `backward`."""
    if teacher is not None:
        from .distill import distill

        model = distill(model, teacher)
    return precisions.precision(model, t.precision) if t.precision != "pure" else model


def sparse(model: Model, t: Techniques, dtype: str) -> Model:
    """The program with its sparse products."""
    if not t.sparse:
        return model
    from .prune import prune

    return prune(model, t.sparse, dtype)


def step(model: Model, t: Techniques, optimizer: str, recompute: str, dtype: str) -> tuple[Model, Model]:
    """A training program as the formula book counts it, and as it runs, with its optimizer."""
    if t is OFF:
        return model, add_optimizer(add_recompute(model, recompute), optimizer)
    from .accumulate import accumulate

    if t.precision == "fp8":
        from .fp8 import trained

        model = trained(model)
    if t.grad_dtype:
        model = precisions.gradients(model, full_name(t.grad_dtype))
    book = accumulate(model, t.accumulate)
    model = hold_chunk(add_recompute(model, recompute))
    if "activations" in offloaded(t.offload):
        model = offload_activations(model)
    model = sparse(accumulate(model, t.accumulate), t, dtype)
    model = add_optimizer(model, optimizer, master=t.precision == "master")
    return book, offload_optimizer(model) if "optimizer" in offloaded(t.offload) else model
