"""The checks of a campaign's gate, as data: a name, the function that makes the check, its sizes.

The worst risks come first: results that a broken compiler or descriptor would get wrong. `tiny` has the sizes
for Triton's interpreter.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from . import faces, gate
from . import gate_rows as by_row

SMALL = {
    "window": 20,
    "rotated": 16,
    "kv": 1,
    "t": 70,
    "capacity": 64,
    "batch": 2,
}  # what sizes among the settings become when tiny


class Entry(NamedTuple):
    """One check: its kernel, the function that makes it, its sizes on a GPU and in the interpreter."""

    kernel: str
    make: Callable[..., gate.Check]
    sizes: tuple[Any, ...]
    settings: dict[str, Any]
    tiny: tuple[Any, ...] | None = None  # None: on a GPU only


def _attention(*sizes, tiny=(1, 2, 48, 16), **settings):
    return Entry("attention", gate.heads, sizes, settings, tiny)


def _matmul(*sizes, tiny=(40, 48, 32), **settings):
    return Entry("matmul", gate.product, sizes, settings, tiny)


CHECKS: dict[str, Entry] = {
    "attention d128 causal": _attention(2, 16, 4096, 128, causal=True),
    "attention d128 full": _attention(2, 16, 4096, 128),
    "attention d64 causal": _attention(2, 16, 2048, 64, causal=True),
    "attention d256 causal": _attention(1, 8, 2048, 256, causal=True, tiny=None),
    "matmul 4096 gelu": _matmul(4096, 4096, 4096, activation="gelu", train=True),
    "matmul plain": _matmul(4096, 4096, 4096, biased=False),
    "softmax 8192": Entry("softmax", by_row.rows, (8192, 8192), {}, (6, 100)),
    "cross entropy 128256": Entry("cross_entropy", by_row.losses, (4096, 128_256), {}, (9, 100)),
    "attention gqa": _attention(2, 32, 4096, 128, kv=8, causal=True, tiny=None),
    "decode d128": Entry(
        "attention_decode", gate.heads, (4, 32, 1, 128), {"t": 32768, "kv": 8, "train": False}
    ),
    "matmul odd N": _matmul(4096, 50257, 768),
    "matmul odd K": _matmul(2048, 4096, 4097, train=True),
    "matmul gated silu": _matmul(4096, 4096, 4096, gated=True, activation="silu", train=True),
    "matmul fp8": _matmul(4096, 4096, 4096, dtype="float8", tiny=None),
    "matmul skinny": _matmul(16, 4096, 4096),
    "matmul skinny odd K": _matmul(16, 4096, 4097, tiny=None),
    "matmul fp32 gated": _matmul(512, 512, 1024, dtype="float32", gated=True, activation="silu", tiny=None),
    "matmul one row": _matmul(1, 14336, 4096, tiny=None),
    "matmul medium": _matmul(512, 512, 4096, activation="silu", train=True, tiny=None),
    "matmul weight gradient": _matmul(1024, 1024, 8192, train=True, tiny=None),
    "matmul to fp32": _matmul(2048, 4096, 4096, biased=False, out_dtype="float32"),
    "matmul small": _matmul(256, 256, 512, activation="gelu", train=True, tiny=None),
    "matmul split": _matmul(128, 4096, 4096, activation="gelu", train=True, tiny=None),
    "matmul row-major b": _matmul(2048, 4096, 4096, b_row=True),
    "matmul residual": _matmul(2048, 4096, 4096, activation="gelu_tanh", residual=True),
    "matmul batched": _matmul(512, 256, 512, batch=16, biased=False),
    "matmul relu 1000": _matmul(1000, 1000, 1000, activation="relu", train=True),
    "matmul fp16": _matmul(2048, 2048, 2048, dtype="float16", train=True),
    "matmul fp32": _matmul(1024, 1024, 1024, dtype="float32", train=True),
    "attention window bias softcap": _attention(
        1, 8, 2048, 128, causal=True, window=512, softcap=30.0, bias=True
    ),
    "attention window": _attention(2, 8, 4096, 128, causal=True, window=1024, tiny=None),
    "attention bias d64": _attention(2, 8, 1024, 64, bias=True, tiny=None),
    "attention softcap": _attention(2, 8, 2048, 128, causal=True, softcap=50.0, tiny=None),
    "attention odd lengths": _attention(2, 8, 1023, 80, t=2001, kv=2, causal=True, tiny=(1, 2, 33, 16)),
    "attention sinks window": _attention(
        2, 64, 2048, 64, kv=8, causal=True, window=128, sinks=True, tiny=(1, 2, 48, 16)
    ),
    "attention bias of 1,024 windows": _attention(1024, 16, 49, 32, bias=True, tiny=(6, 2, 9, 16)),
    "attention strided": _attention(2, 16, 2048, 64, strided=True, causal=True),
    "attention fp16": _attention(2, 8, 2048, 128, dtype="float16", tiny=None),
    "attention fp32": _attention(1, 4, 1024, 64, dtype="float32", tiny=None),
    "attention fp32 bias": _attention(1, 4, 512, 64, dtype="float32", bias=True, tiny=None),
    "attention fp32 d128": _attention(1, 4, 512, 128, dtype="float32", causal=True, tiny=None),
    "attention fp32 d256": _attention(1, 2, 512, 256, dtype="float32", tiny=None),
    "attention d16": _attention(2, 8, 1024, 16, tiny=None),
    "attention 70,400 heads": _attention(4400, 16, 49, 32, tiny=None),
    "attention packed": Entry(
        "attention_packed",
        gate.packed,
        ((1000, 2048, 1, 4000, 513, 0, 630), 16, 128),
        {"kv": 4},
        ((5, 0, 9), 2, 16),
    ),
    "attention packed d64": Entry(
        "attention_packed", gate.packed, ((2048, 2048, 100), 16, 64), {"causal": False}
    ),
    "attention packed d256": Entry("attention_packed", gate.packed, ((1000, 2048, 513), 8, 256), {"kv": 2}),
    "attention d256 of everything": _attention(
        1, 8, 1024, 256, causal=True, window=256, softcap=30.0, bias=True, tiny=None
    ),
    "decode batch 1": Entry(
        "attention_decode", gate.heads, (1, 32, 1, 128), {"t": 65536, "kv": 8, "train": False}
    ),
    "decode d64": Entry(
        "attention_decode", gate.heads, (4, 32, 1, 64), {"t": 16384, "kv": 8, "train": False}
    ),
    "decode d256 bias": Entry(
        "attention_decode", gate.heads, (2, 16, 1, 256), {"t": 8192, "kv": 2, "train": False, "bias": True}
    ),
    "decode 8 queries": Entry(
        "attention_decode", gate.heads, (2, 32, 8, 128), {"t": 8192, "kv": 8, "train": False, "causal": True}
    ),
    **{
        f"decode fp32 d{d}": Entry(
            "attention_decode",
            gate.heads,
            (1, 8, 1, d),
            {"t": 4096, "kv": 2, "train": False, "dtype": "float32"},
        )
        for d in (64, 128, 256)
    },
    "decode cached": Entry(
        "attention_decode",
        gate.cached,
        ((4000, 1, 8192, 333), 64, 64),
        {"kv": 8, "capacity": 8192},
        ((30, 1, 64), 2, 16),
    ),
    "decode cached in pages": Entry(
        "attention_decode",
        gate.cached,
        ((4000, 1, 8192, 333), 32, 128),
        {"kv": 8, "capacity": 8192, "page": 16},
        ((30, 1, 64), 2, 16),
    ),
    "softmax 1024 masked": Entry(
        "softmax", by_row.rows, (8, 16, 1024, 1024), {"masked": True}, (2, 2, 8, 16)
    ),
    "softmax 32768": Entry("softmax", by_row.rows, (2048, 32768), {}),
    "softmax 50257": Entry("softmax", by_row.rows, (2048, 50257), {}),
    "softmax 262144": Entry("softmax", by_row.rows, (512, 262_144), {}),
    "softmax 1000 fp32": Entry("softmax", by_row.rows, (8192, 1000), {"dtype": "float32"}),
    "softmax log": Entry("softmax", by_row.rows, (8192, 4096), {"log": True}, (6, 100)),
    "cross entropy 50257 smooth": Entry("cross_entropy", by_row.losses, (4096, 50257), {"smoothing": 0.1}),
    "cross entropy fp32": Entry("cross_entropy", by_row.losses, (2048, 32000), {"dtype": "float32"}),
    "head and loss 50257": Entry(
        "linear_cross_entropy", by_row.head_losses, (4096, 768, 50257), {}, (12, 32, 100)
    ),
    "head and loss softcap": Entry(
        "linear_cross_entropy", by_row.head_losses, (4096, 2048, 32000), {"softcap": 10.0}, (12, 32, 100)
    ),
    "head and loss of everything": Entry(
        "linear_cross_entropy",
        by_row.head_losses,
        (1000, 768, 50257),
        {"softcap": 30.0, "biased": True, "smoothing": 0.1},
        (12, 32, 100),
    ),
    "head and loss fp32": Entry(
        "linear_cross_entropy", by_row.head_losses, (512, 256, 5000), {"dtype": "float32"}
    ),
    "rms norm 4096": Entry("rms_norm", by_row.norm, (8192, 4096), {}, (9, 100)),
    "rms norm 16384": Entry("rms_norm", by_row.norm, (4096, 16384), {}),
    "rms norm 5000 added": Entry("rms_norm", by_row.norm, (4096, 5000), {"added": True}, (9, 100)),
    "rms norm 32768": Entry("rms_norm", by_row.norm, (1024, 32768), {}),
    "rms norm offset": Entry("rms_norm", by_row.norm, (8192, 4096), {"offset": 1.0}),
    "rms norm 65536": Entry("rms_norm", by_row.norm, (1024, 65536), {}),
    "rms norm fp32": Entry("rms_norm", by_row.norm, (4096, 1024), {"dtype": "float32"}),
    "rope 128": Entry("rope", by_row.rotation, (4, 32, 4096, 128), {}, (2, 3, 9, 16)),
    "rope 64 interleaved": Entry(
        "rope", by_row.rotation, (4, 32, 2048, 64), {"interleaved": True}, (2, 3, 9, 16)
    ),
    "rope partial by position": Entry(
        "rope",
        by_row.rotation,
        (4, 32, 2048, 128),
        {"rotated": 64, "by_position": True},
        (2, 3, 9, 32),
    ),
    "rms norm in a graph": Entry("rms_norm", faces.graphed_norm, (4096, 4096), {}),
    "rope in a graph": Entry("rope", faces.graphed_rotation, (2, 16, 1024, 128), {}),
    "attention compiled": Entry("attention", faces.compiled_attention, (2, 8, 1024, 64), {}),
    "attention in a graph": Entry("attention", faces.graphed_attention, (2, 8, 1024, 64), {}),
    "decode cached in a graph": Entry("attention_decode", faces.graphed_decode, (4, 32, 8192, 128), {}),
    "matmul compiled": Entry("matmul", faces.compiled_matmul, (2048, 2048, 2048), {}),
    "matmul in a graph": Entry("matmul", faces.graphed_matmul, (2048, 2048, 2048), {}),
    "softmax compiled": Entry("softmax", faces.compiled_softmax, (4096, 4096), {}),
    "cross entropy in a graph": Entry("cross_entropy", faces.graphed_loss, (2048, 32000), {}),
    "llama on our attention": Entry("transformers", faces.llama, (2, 512), {}, (1, 20)),
    "llama, padded, in a window": Entry(
        "transformers", faces.llama, (2, 512), {"window": 128, "padded": True}
    ),
}


def made(name: str, device: torch.device) -> gate.Check:
    """The check of this name, with its tensors on device (meta: nothing but shapes)."""
    entry = CHECKS[name]
    torch.manual_seed(0)
    if device.type == "cpu":
        return entry.make(device, *(entry.tiny or ()), **_small(entry.settings))
    return entry.make(device, *entry.sizes, **entry.settings)


def main(argv: list[str]) -> int:
    """Run one check of each kernel on the GPU, small or (--large) at its size: for tools that look inside."""
    device, seen = torch.device("cuda"), set()
    for name, entry in CHECKS.items():
        if entry.kernel not in seen and entry.tiny is not None:
            seen.add(entry.kernel)
            sizes = entry.sizes if "--large" in argv else entry.tiny
            settings = entry.settings if "--large" in argv else _small(entry.settings)
            entry.make(device, *sizes, **settings).run()
            torch.cuda.synchronize()
            print(name, file=sys.stderr, flush=True)
    return 0


def _small(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: SMALL.get(k, v) for k, v in settings.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
