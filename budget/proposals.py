"""What people change so that a network fits a device, of what real code has for this network and device.

Axes of ways, each in the order in which they save memory. What fits is found among them (ways.py).
Sources: bitsandbytes, bitsandbytes-installation, transformers, torch-optim, torch-grad-scaler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .answer import Estimate
from .device import Device
from .ir import LOSS, Op, expert_axis, walk
from .named import Any, NamedTuple
from .read import module as modules

SAME, NEARLY, OTHER, SHORTER = KINDS = ("same", "nearly the same", "other weights", "shorter")
# Weights to serve from, each in fewer bits. bitsandbytes packs linear layers, and experts are none of them in
# transformers: of these there are checkpoints that engines read.
QUANTIZED = ("none", "int8", "nf4", "nf4-dq")
OF_EXPERTS = ("none", "fp8-dynamic", "w4a16")
ATTENTION = ("eager", "sdpa")
RECOMPUTE = ("none", "selective", "full")
SEQ = 512  # no way is shorter
RANK = 16  # of adapters that are proposed
VENDORS = ("NVIDIA", "AMD", "Intel", "Apple")  # on whose devices torch's fused step and bitsandbytes run


class Way(NamedTuple):
    """Settings that save memory, what they are called, and their kind's place in KINDS."""

    settings: dict[str, Any]
    words: str
    kind: int = 0


Axes = tuple[tuple[Way, ...], ...]


def proposed(now: Estimate, *, given: bool) -> Axes:
    """What can be changed: each axis's ways behind the present value. given: sizes of inputs are fixed."""
    task, used = now.task, now.task.techniques.used
    train, captured = task.workload.mode == "train", modules.is_captured(now.model)
    # Statistics of a batch are those of a micro-batch, and running ones move again where a pass runs again.
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
        tuple(Way({"recompute": n}, "recomputation", changed) for n in _behind(RECOMPUTE, task.recompute)),
        _pure(now),
        _adapters(now, used),
        _shorter(now),
    )


def _ops(now: Estimate) -> Iterator[Op]:
    return (o for o, _ in walk(now.model.nodes))


def _behind(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names[names.index(name) + 1 :] if name in names else ()


def _optimizers(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """Fewer bytes of states on the device; pages of them on the host are those of Adam's and Lion's alone."""
    if now.device.vendor not in VENDORS:
        return ()
    paged = {} if "offload" in used or _one_memory(now.device) else {"offload": "optimizer"}
    fused, eight = {"optimizer": "adamw_fused"}, {"optimizer": "adamw_8bit"}
    foreach = (Way(fused, "a fused optimizer"), Way(eight, "an 8-bit optimizer", 1))
    behind = {"adamw": foreach, "adamw_fused": foreach[1:], "adamw_8bit": (), "lion": ()}
    if now.task.optimizer not in behind:
        return ()
    # torch's foreach step reads all states at once; a paged one is a kernel for each weight.
    hosted = {**fused, **paged} if now.task.optimizer == "adamw" else paged
    return (*behind[now.task.optimizer], *((Way(hosted, "offload", 1),) if paged else ()))


def _one_memory(device: Device) -> bool:
    """Whether the host's memory is the device's own, so that nothing is gained there."""
    return device.host is not None and device.host.bandwidth == device.bandwidth


def _chunked(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """A loss whose logits exist by chunks, where there is one over a vocabulary that nobody else reads."""
    from .plan.fused import OF_LOSS

    fuse = str(used.get("fuse", ""))
    losses = any(o.tag == LOSS and "s" in o.ins[0].dims for o, _ in walk(now.program.nodes))
    read = {"teacher", "hold_logits"} & used.keys()
    if not losses or read or any(name in fuse.split(",") for name in OF_LOSS):
        return ()
    names = ",".join(filter(None, (fuse, "chunked_cross_entropy")))
    return (Way({"fuse": names}, "a chunked loss"),)


def _kernels(now: Estimate) -> tuple[str, ...]:
    """Attention in a kernel: torch's SDPA has no softcap, without which it is another network."""
    capped = any(o.kind == "softcap" and o.group == "attention" for o in _ops(now))
    return () if capped else _behind(ATTENTION, now.task.attention)


def _batches(batch: int, used: Mapping[str, Any], *, train: bool, kind: int) -> tuple[Way, ...]:
    """Smaller batches: in training as many more of them, so that a step has the same samples."""
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
    """No float32 weights; in float16 small updates vanish, and a GradScaler refuses such gradients."""
    task = now.task
    wide = task.precision in ("autocast", "master") and task.dtype == "bfloat16"
    return (Way({"precision": "pure"}, "pure 16 bits", 1),) if wide else ()


def _adapters(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """LoRA, and on weights in four bits, where the network's own weights are trained now."""
    from .plan import keeps_weights

    if keeps_weights(used) or used.get("precision") == "fp8":
        return ()
    # What trains in float16 is float32 beside frozen weights in 16 bits: gradients are scaled.
    half = {"precision": "autocast", "frozen_dtype": "fp16"}
    lora = {"lora_rank": RANK, **(half if now.task.dtype == "float16" else {"precision": "pure"})}
    ways = (Way(lora, "LoRA", 2), Way({**lora, "quantize": "nf4-dq"}, "QLoRA", 2))
    return ways[:1] if _experts(now) or now.device.vendor not in VENDORS else ways


def _experts(now: Estimate) -> bool:
    """Whether some weights are of experts: three axes in transformers, which bitsandbytes leaves."""
    return any(expert_axis(t, o) for o in _ops(now) for t in o.weights)


def _shorter(now: Estimate) -> tuple[Way, ...]:
    """Half of the sequence, and so on."""
    seq = now.length if now.model.counts_tokens else 0
    halves = (seq // 2**n for n in (1, 2, 3)) if isinstance(seq, int) else ()
    return tuple(Way({"seq": n}, "shorter sequences", 3) for n in halves if n >= SEQ)


def _quantized(now: Estimate, used: Mapping[str, Any]) -> tuple[Way, ...]:
    """Weights to serve from in fewer bits, where plan/quantize.py can have them so: nearly the same."""
    from .plan.fp8 import is_linear

    stored, forms = used.get("quantize", "none"), OF_EXPERTS if _experts(now) else QUANTIZED
    if modules.is_captured(now.model) or not any(is_linear(o) for o in _ops(now)):
        return ()
    few = forms if forms is OF_EXPERTS or now.device.vendor in VENDORS else ()
    return tuple(Way({"quantize": name}, "weights in fewer bits", 1) for name in _behind(few, stored))
