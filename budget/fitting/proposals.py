"""What people change so that a network fits a device, as far as real code has it for this network and device.

The ways come in axes, on each of which a later way saves more memory. ways.py finds which of them fit.
Sources: bitsandbytes, bitsandbytes-installation, transformers, torch-optim, torch-grad-scaler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..answer import Estimate
from ..device import Device
from ..dtype import IN_FEW_BITS
from ..ir import LOSS, Op, expert_axis, walk
from ..named import Any, NamedTuple
from ..stack import ENGINES, load, of_vendors

KINDS = ("same", "nearly the same", "other weights", "shorter")
SAME, SHORTER = KINDS[0], len(KINDS) - 1
MIXED = len(KINDS)  # a kind of its own: shorter, and something else beside it that changes the training
# Formats of weights to serve from, each in fewer bits than the one before: bitsandbytes' for a forward pass;
# those of engines without own formats, each with the kind of product for which the device must have a rate.
PACKED = ("int8", "nf4", "nf4-dq")
SERVED = {"fp8-dynamic": "fp8", "w8a8": "int8", "w4a16": ""}
ATTENTION = ("eager", "sdpa")
SEQ = 512  # no way has shorter sequences
RANK = 16  # of the proposed adapters
# Makers of the devices on which torch's fused step and bitsandbytes' layers run, and bitsandbytes'
# optimizers.
VENDORS = ("NVIDIA", "AMD", "Intel", "Apple")
STEPPED, NOT_STEPPED = VENDORS[:3], "gaudi"
# Each way's name, and what to set: transformers' TrainingArguments unless it names other software.
HOW = {
    "a fused optimizer": "optim='adamw_torch_fused', or torch.optim.AdamW(fused=True)",
    "an 8-bit optimizer": "optim='adamw_8bit'; torchtune: optimizer=bitsandbytes.optim.AdamW8bit",
    "a paged 8-bit optimizer": "optim='paged_adamw_8bit'; torchtune: bitsandbytes.optim.PagedAdamW8bit",
    "a paged Lion": "optim='paged_lion_32bit'; torchtune: bitsandbytes.optim.PagedLion",
    "a chunked loss": "use_liger_kernel=True, or by hand LigerFusedLinearCrossEntropyLoss()(head.weight, "
    "hidden, labels); torchtune: loss=torchtune.modules.loss.LinearCrossEntropyLoss",
    "attention sdpa": "from_pretrained(attn_implementation='sdpa')",
    "accumulation": "per_device_train_batch_size and gradient_accumulation_steps; torchtune: batch_size",
    "recomputation": "gradient_checkpointing=True; torchtune: enable_activation_checkpointing=True",
    "pure 16 bits": "from_pretrained(dtype=torch.bfloat16) without bf16=True; torchtune: dtype=bf16",
    "LoRA": "peft.LoraConfig(r=16) on a model loaded in 16 bits; torchtune: its lora recipes",
    "QLoRA": "LoRA on a model loaded with BitsAndBytesConfig(load_in_4bit=True, "
    "bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True)",
    "shorter sequences": "the tokenizer's max_length; torchtune: tokenizer.max_seq_len",
    "a smaller batch": "vLLM's --max-num-seqs, SGLang's --max-running-requests",
    "int8 weights": "BitsAndBytesConfig(load_in_8bit=True)",
    "nf4 weights": "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4')",
    "nf4-dq weights": "the same, and bnb_4bit_use_double_quant=True",
    "fp8-dynamic weights": "a checkpoint of llm-compressor's scheme FP8_DYNAMIC",
    "w8a8 weights": "a checkpoint of llm-compressor's scheme W8A8",
    "w4a16 weights": "a checkpoint of llm-compressor's scheme W4A16",
    "q8_0 weights": "a GGUF file of llama.cpp's type Q8_0",
    "q4_k_m weights": "a GGUF file of llama.cpp's type Q4_K_M",
    "mlx-8bit weights": "mlx_lm.convert --quantize --q-bits 8",
    "mlx-4bit weights": "mlx_lm.convert --quantize --q-bits 4",
    "awq weights": "a checkpoint of AutoAWQ's",
    "gptq weights": "a checkpoint of GPTQ's",
}


class Way(NamedTuple):
    """Settings that save memory, their name (a key of HOW), and their kind's place in KINDS."""

    settings: dict[str, Any]
    words: str
    kind: int = 0


Axes = tuple[tuple[Way, ...], ...]
PAGED = {"offload": "optimizer"}
FUSED = Way({"optimizer": "adamw_fused"}, "a fused optimizer")
EIGHT = Way({"optimizer": "adamw_8bit"}, "an 8-bit optimizer", 1)
PAGED_EIGHT = Way({"optimizer": "adamw_8bit", **PAGED}, "a paged 8-bit optimizer", 1)
# By optimizer, others that do the same with fewer bytes on the device: torch's foreach step reads all states
# at once, bitsandbytes' runs a kernel for each weight.
OPTIMIZERS = {
    "adamw": (FUSED, EIGHT, PAGED_EIGHT),
    "adamw_fused": (EIGHT, PAGED_EIGHT),
    "adamw_32bit": (EIGHT, PAGED_EIGHT),
    "adamw_8bit": (Way(PAGED, "a paged 8-bit optimizer", 1),),
    "lion": (Way({"optimizer": "lion_32bit", **PAGED}, "a paged Lion", 1),),
}


def proposed(now: Estimate, *, given: bool) -> Axes:
    """The possible changes: by axis, the ways beyond the present value. given: sizes of inputs are fixed."""
    task, used = now.task, now.task.techniques.used
    train, captured = task.workload.mode == "train", now.model.captured
    # With micro-batches a batch norm's statistics are each micro-batch's, and a recomputed pass updates the
    # running ones again.
    changed = int(train and any(o.kind == "batch_norm" for o in _ops(now)))
    batches = () if given else _batches(task.workload.batch, used, train=train, kind=changed)
    if not train:
        return (_quantized(now, used), batches)
    if captured:
        return (_optimizers(now, used), batches)
    return (
        _optimizers(now, used),
        _chunked(now, used),
        tuple(Way({"attention": name}, f"attention {name}") for name in _kernels(now)),
        batches,
        () if task.recompute == "full" else (Way({"recompute": "full"}, "recomputation", changed),),
        _pure(now),
        _adapters(now, used),
        _shorter(now),
    )


def _ops(now: Estimate) -> Iterator[Op]:
    return (o for o, _ in walk(now.model.nodes))


def _behind(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names[names.index(name) + 1 :] if name in names else ()


def _optimizers(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """Fewer bytes of states on the device, or pages of them on the host."""
    device = now.device
    steps = device.vendor in STEPPED and device.generation != NOT_STEPPED
    pages = steps and "offload" not in used and not _one_memory(device)

    def runs(way: Way) -> bool:
        if "offload" in way.settings:
            return pages
        return steps or (way is FUSED and device.vendor in VENDORS)

    return tuple(way for way in OPTIMIZERS.get(now.task.optimizer, ()) if runs(way))


def _one_memory(device: Device) -> bool:
    """Whether the device's memory is the host's, so that offloading gains nothing."""
    return device.host is not None and device.host.bandwidth == device.bandwidth


def _chunked(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """A loss that makes its logits in chunks, where one over a vocabulary is the only reader of its
    logits.
    """
    from ..plan.fused import OF_LOSS

    fuse = str(used.get("fuse", ""))
    losses = any(o.tag == LOSS and "s" in o.ins[0].dims for o, _ in walk(now.program.nodes))
    read = {"teacher", "hold_logits"} & used.keys()
    if not losses or read or any(name in fuse.split(",") for name in OF_LOSS):
        return ()
    names = ",".join(filter(None, (fuse, "chunked_cross_entropy")))
    return (Way({"fuse": names}, "a chunked loss"),)


def _kernels(now: Estimate) -> tuple[str, ...]:
    """Attention in a kernel; torch's SDPA has no softcap, and without it the network is another one."""
    capped = any(o.kind == "softcap" and o.group == "attention" for o in _ops(now))
    return () if capped else _behind(ATTENTION, now.task.attention)


def _batches(batch: int, used: Mapping[str, Any], *, train: bool, kind: int) -> tuple[Way, ...]:
    """Smaller batches; in training more of them, so that a step has as many samples."""
    if not isinstance(batch, int):
        return ()
    halves: list[int] = []
    while (half := (halves or [batch])[-1] // 2) >= 1:
        halves.append(next(n for n in range(half, 0, -1) if not train or batch % n == 0))
    steps = used.get("accumulate", 1)
    if not train:
        return tuple(Way({"batch": n}, "a smaller batch") for n in halves)
    return tuple(Way({"batch": n, "accumulate": steps * batch // n}, "accumulation", kind) for n in halves)


def _pure(now: Estimate) -> tuple[Way, ...]:
    """No float32 weights; not in float16, where small updates vanish and GradScaler refuses the gradients."""
    task = now.task
    wide = task.precision in ("autocast", "master", "fsdp") and task.dtype == "bfloat16"
    return (Way({"precision": "pure"}, "pure 16 bits", 1),) if wide else ()


def _adapters(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """LoRA, then LoRA on weights in four bits, where the network's own weights train now; only the four bits
    where LoRA is there already.
    """
    from ..plan import keeps_weights

    if used.get("precision") in IN_FEW_BITS:
        return ()
    packs = now.device.vendor in VENDORS and not _experts(now)
    if "lora_rank" in used and "quantize" not in used and now.task.packing is None and packs:
        return (Way({"quantize": "nf4-dq"}, "QLoRA", 1),)
    if keeps_weights(used):
        return ()
    # Under autocast trained weights are float32, frozen ones in 16 bits; float16's gradients are scaled.
    task = now.task
    half = task.dtype == "float16"
    cast = {"precision": "autocast", "frozen_dtype": "fp16" if half else "bf16"}
    lora = {"lora_rank": RANK, **(cast if half or task.precision == "autocast" else {"precision": "pure"})}
    ways = (Way(lora, "LoRA", 2), Way({**lora, "quantize": "nf4-dq"}, "QLoRA", 2))
    return ways if packs else ways[:1]


def _experts(now: Estimate) -> bool:
    """Whether some weights are experts': they have three axes in transformers, and bitsandbytes leaves
    these.
    """
    return any(expert_axis(t, o) for o in _ops(now) for t in o.weights)


def _shorter(now: Estimate) -> tuple[Way, ...]:
    """Half of the sequence, a quarter, and so on."""
    seq = now.length if now.model.counts_tokens else 0
    halves = (seq // 2**n for n in (1, 2, 3)) if isinstance(seq, int) else ()
    return tuple(Way({"seq": n}, "shorter sequences", 3) for n in halves if n >= SEQ)


def _quantized(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """Serving from weights in fewer bits, as far as plan/quantize.py has the format: nearly the same
    results.
    """
    from ..plan.fp8 import is_linear

    if now.model.captured or not any(is_linear(o) for o in _ops(now)):
        return ()
    few = ("none", *_forms(now)) if now.device.vendor in (*VENDORS, *of_vendors("decode")) else ()
    return tuple(
        Way({"quantize": name}, f"{name} weights", 1) for name in _behind(few, used.get("quantize", "none"))
    )


def _forms(now: Estimate) -> tuple[str, ...]:
    """The formats of weights that software for this mode and device has."""
    vendor = now.device.vendor
    serves = of_vendors("decode").get(vendor)
    usual = load(serves).formats if serves else ()
    own = now.stack.formats or usual if now.task.workload.mode in ENGINES else PACKED
    if own == PACKED and (_experts(now) or vendor not in VENDORS):
        return ()
    return own or tuple(name for name, rate in SERVED.items() if not rate or rate in now.device.flops)
