"""Techniques together: their settings, which become flags, and the order in which they are applied.

    fuse -> freeze, lora, adapters, prompts -> quantize -> distill -> precision
    -> backward -> float8 and dtype of gradients -> recompute -> loss in chunks, what a loop holds
    -> offload activations -> accumulate -> prune -> optimizer -> offload its states

A technique that is off costs nothing, not even its import. Derived: what each needs to see of the others.
"""

from __future__ import annotations

from ..config import Settings, setting
from ..dtype import full_name
from ..errors import InputError, shown, unknown
from ..model import Model
from ..named import Any
from ._choices import FUSED, GGUF, GRADIENTS, HOLDS, KEEPS, PRECISION, QUANTIZED
from .optimizer import CHOICES as OPTIMIZERS
from .optimizer import optimizer as add_optimizer
from .recompute import CHOICES as RECOMPUTED
from .recompute import recompute as add_recompute


class Techniques(Settings):
    """Everything off. Names of operators are patterns by commas, of what `--by operator` lists."""

    precision: str = setting("pure", "what has which dtype", choices=PRECISION)
    grad_dtype: str = setting("", "dtype of the weights' gradients, where it is not the weights' own")
    accumulate: int = setting(1, "micro-batches, of the batch each, before one optimizer step")
    recompute_every: int = setting(1, "layers in a group of which recomputation keeps the input only")
    recompute_layers: int = setting(0, "layers that are recomputed, from the first on; 0: all", least=0)
    fuse: str = setting("", f"of {', '.join(FUSED)}, by commas")
    loss_chunk: int = setting(0, "tokens of each sequence whose logits' gradients exist at once", least=0)
    hold_logits: str = setting(
        "none",
        "a loop's float32 logits stay until the step ends or the next has its own",
        choices=HOLDS,
    )
    freeze: str = setting("", "names of operators whose weights do not train")
    freeze_layers: int = setting(0, "first layers that do not train, with the embeddings", least=0)
    lora_rank: int = setting(0, "rank of low-rank adapters; all else is frozen", least=0)
    lora_targets: str = setting(
        "", "names of the products that have low-rank adapters (attn.q,attn.v or attn.qkv)"
    )
    lora_dtype: str = setting("", "dtype of low-rank adapters (peft: fp32), where it is not the model's own")
    lora_dropout: float = setting(0.0, "part of the adapters' inputs that is dropped", least=0)
    adapters: int = setting(0, "width of bottleneck adapters; all else but the norms is frozen", least=0)
    adapter_targets: str = setting("attn.o,mlp.down", "names of the products that have adapters behind them")
    prompts: int = setting(0, "learned prompts of each layer (LLaMA-Adapter); all else is frozen", least=0)
    prompts_from: int = setting(0, "first layers without prompts", least=0)
    rescale: bool = setting(False, "with prompts: linear layers' outputs are scaled, norms train")
    quantize: str = setting("none", "frozen weights in few bits", choices=(*QUANTIZED, *GGUF))
    quantize_head: bool = setting(False, "the output projection as well (Lightning)")
    quantize_half: bool = setting(False, "weights are widened to float16, then cast (Lightning)")
    quantize_keeps: str = setting(
        "none",
        "products keep their inputs, as before bitsandbytes 0.43.2, until the pass ends or the next loss",
        choices=KEEPS,
    )
    sparse: str = setting("", "names of the products with 2:4 sparse weights")
    teacher: str = setting("", "a preset whose answers the network learns")
    offload: str = setting("none", "activations, optimizer, or both by commas, to the host")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, str | int | float):
                raise InputError(name, f"got {shown(value)}; allowed: one whole number")
        if self.offload != "none":
            from .offload import check

            check(self.offload)
        if self.lora_dropout >= 1:
            raise InputError("lora_dropout", f"got {self.lora_dropout}; allowed: from 0 to below 1")
        for name in ("grad_dtype", "lora_dtype"):
            value = getattr(self, name)
            if value and full_name(value) not in GRADIENTS:
                raise InputError(name, f"got {value[:40]!r}; allowed: fp32, bf16, fp16")

    @property
    def used(self) -> dict[str, Any]:
        """Settings that are not the usual ones."""
        return {f.name: value for f in self.fields.values() if (value := getattr(self, f.name)) != f.default}


OFF = Techniques()
TRAINING = (
    "precision", "grad_dtype", "accumulate", "recompute_every", "recompute_layers", "loss_chunk",
    "hold_logits", "freeze", "freeze_layers", "quantize_keeps", "teacher", "offload",
)  # fmt: skip
NAMELESS = ("precision", "grad_dtype", "accumulate", "offload")  # need no dimension by its name


def check(t: Techniques, mode: str, dtype: str, recompute: str, optimizer: str) -> None:
    """Raise an InputError for techniques that contradict each other, the mode or the dtype."""
    if recompute not in RECOMPUTED:
        raise unknown("recompute", recompute, RECOMPUTED)
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    used = {} if t is OFF else t.used
    for name in () if mode == "train" else (*(("recompute",) if recompute != "none" else ()), *used):
        if name == "recompute" or name in TRAINING:
            raise InputError(name, f"there is no backward pass in mode {mode}; allowed: in mode train")
    if t is OFF:
        return
    if t.precision != "pure":
        from .precision import check as check_dtype

        check_dtype(t.precision, dtype)
    if t.sparse and (t.precision in ("autocast", "fp8") or t.quantize != "none"):
        text = "products read copies of their weights; allowed: without autocast, fp8, quantize"
        raise InputError("sparse", text)
    if t.loss_chunk and "cross_entropy" in t.fuse:
        raise InputError("loss_chunk", f"got fuse {t.fuse}, which has no logits; allowed: one of them")
    if t.quantize in GGUF:
        for name in used:
            if name.startswith("quantize_"):
                raise InputError(name, f"got quantize {t.quantize}; allowed: with nf4, nf4-dq, int8")
    added = [name for name in ("lora_rank", "adapters", "prompts") if name in used]
    if len(added) > 1:
        raise InputError(added[1], f"there is a {added[0]} as well; allowed: one of them")
    if recompute == "none" and (t.recompute_every > 1 or t.recompute_layers):
        name = "recompute_every" if t.recompute_every > 1 else "recompute_layers"
        raise InputError(name, "nothing is recomputed; allowed: with recompute full")
    if t.recompute_every > 1 and recompute != "full":
        raise InputError("recompute_every", f"got recompute {recompute}; allowed: with recompute full")
    for name, needs in (
        ("lora_targets", "lora_rank"),
        ("lora_dtype", "lora_rank"),
        ("lora_dropout", "lora_rank"),
        ("quantize_head", "quantize"),
        ("quantize_half", "quantize"),
        ("quantize_keeps", "quantize"),
        ("adapter_targets", "adapters"),
        ("prompts_from", "prompts"),
        ("rescale", "prompts"),
    ):
        if name in used and needs not in used:
            raise InputError(name, f"there is no {needs}; allowed: with {needs}")


def network(model: Model, t: Techniques, mode: str, dtype: str) -> Model:
    """The network with what is frozen, added, fused or stored in few bits."""
    if t.fuse:
        from .fused import fused

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
            dropout=mode == "train" and t.lora_dropout > 0,
        )
    if t.adapters:
        from .lora import adapters

        model = adapters(model, t.adapters, t.adapter_targets)
    if t.prompts:
        from .prompts import prompts

        model = prompts(model, t.prompts, t.prompts_from, rescale=t.rescale)
    if t.freeze_layers:
        from .freeze import freeze_layers

        model = freeze_layers(model, t.freeze_layers)
    if t.recompute_every > 1 or t.recompute_layers:
        from .regroup import regroup

        model = regroup(model, t.recompute_every, t.recompute_layers)
    if t.quantize in GGUF:
        from .gguf import gguf

        model = gguf(model, t.quantize, train=mode == "train")
    elif t.quantize != "none":
        from .quantize import quantize

        model = quantize(
            model,
            t.quantize,
            train=mode == "train",
            head=t.quantize_head,
            half=t.quantize_half and dtype != "float16",
            keeps_inputs=t.quantize_keeps != "none",
        )
    return model


def learning(model: Model, t: Techniques, teacher: Model | None) -> Model:
    """The network with its teacher and its casts, ready for `backward`."""
    if teacher is not None:
        from .distill import distill

        model = distill(model, teacher)
    if t.precision != "pure":
        from .precision import precision

        model = precision(model, t.precision)
    return model


def served(model: Model, mode: str, attention: str) -> Model:
    """The program as an engine runs it: with kernels of its own, latent attention from its cache."""
    if mode != "decode" or attention != "flash":
        return model
    from .absorb import absorb

    return absorb(model)


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
    from . import loss
    from .accumulate import accumulate
    from .fused import hold_chunk
    from .offload import check as offloaded
    from .offload import offload_activations, offload_optimizer

    if t.precision == "fp8":
        from .fp8 import trained

        model = trained(model)
    if t.grad_dtype:
        from .precision import gradients

        model = gradients(model, full_name(t.grad_dtype))
    book = accumulate(model, t.accumulate)
    model = hold_chunk(add_recompute(model, recompute))
    if t.loss_chunk:
        model = loss.in_chunks(model, t.loss_chunk)
    if t.hold_logits != "none":
        model = loss.hold_logits(model, t.hold_logits)
    if t.quantize_keeps == "loss" and recompute != "full":  # a recomputed layer's graph goes with the layer
        model = loss.hold_inputs(model)
    if "activations" in offloaded(t.offload):
        model = offload_activations(model)
    model = sparse(accumulate(model, t.accumulate), t, dtype)
    model = add_optimizer(model, optimizer, master=t.precision == "master")
    return book, offload_optimizer(model) if "optimizer" in offloaded(t.offload) else model
