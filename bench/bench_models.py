"""Whole networks, eager: forward passes and training steps.

Small ones, in the split `fit`, show calibration the host's time for an operator and the errors of whole
networks; networks that people ask about are held out.
"""

from __future__ import annotations

import torch
from budget.bench.cases import FIT, HELD, Case, parametrize
from budget.bench.networks import HEADS
from budget.bench.networks import build as network
from budget.bench.record import Built


def hf(kind: str, **fields):
    """A config of Hugging Face."""
    return {"model_type": kind, "architectures": [HEADS[kind]], **fields}


def gpt2(layers: int, d: int, heads: int, vocab: int = 50257):
    """A GPT-2 by its sizes."""
    return hf("gpt2", n_layer=layers, n_embd=d, n_head=heads, vocab_size=vocab, n_positions=1024)


def bert(layers: int, d: int, heads: int, vocab: int = 30522):
    """A BERT by its sizes."""
    return hf(
        "bert",
        num_hidden_layers=layers,
        hidden_size=d,
        num_attention_heads=heads,
        intermediate_size=4 * d,
        vocab_size=vocab,
    )


def llama(layers: int, d: int, heads: int, kv: int, ffn: int, vocab: int = 32000):
    """A Llama by its sizes."""
    return hf(
        "llama",
        num_hidden_layers=layers,
        hidden_size=d,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        intermediate_size=ffn,
        vocab_size=vocab,
        max_position_embeddings=4096,
    )


def vit(layers: int, d: int, heads: int, image: int, patch: int):
    """A ViT by its sizes."""
    return hf(
        "vit",
        num_hidden_layers=layers,
        hidden_size=d,
        num_attention_heads=heads,
        intermediate_size=4 * d,
        image_size=image,
        patch_size=patch,
    )


def resnet(depths: list[int], widths: list[int], layer_type: str = "bottleneck"):
    """A ResNet by its sizes."""
    return hf(
        "resnet", depths=depths, hidden_sizes=widths, layer_type=layer_type, embedding_size=min(64, widths[0])
    )


def mlp(*sizes: int):
    """An MLP by its sizes."""
    return {"model": "mlp", "config": {"sizes": list(sizes)}}


def rnn(cell: str, wide: int, hidden: int, layers: int):
    """A recurrent network by its sizes."""
    return {
        "model": "rnn",
        "config": {"cell": cell, "input_size": wide, "hidden_size": hidden, "layers": layers},
    }


def dlrm(rows: list[int], d: int, bottom: list[int], top: list[int]):
    """A DLRM by its sizes."""
    config = {"dense_features": 13, "tables": rows, "embedding_dim": d, "bottom": bottom, "top": top}
    return {"model": "dlrm", "config": config}


# name, split, what, the workload on a processor
SMALL = [
    ("mlp-8-8-8", FIT, mlp(8, 8, 8), {"batch": 32, "optimizer": "sgd"}),
    ("mlp-deep", FIT, mlp(*[16] * 10), {"batch": 16, "optimizer": "sgd"}),
    ("mlp-adamw", FIT, mlp(20, 30, 20, 4), {"batch": 64, "optimizer": "adamw"}),
    ("mlp-wide", FIT, mlp(256, 512, 512, 10), {"batch": 64, "optimizer": "adamw"}),
    ("gpt2-tiny", FIT, {"model": gpt2(2, 32, 2, 100)}, {"batch": 1, "seq": 16}),
    ("gpt2-small", FIT, {"model": gpt2(4, 192, 6, 5000)}, {"batch": 2, "seq": 48}),
    ("bert-small", FIT, {"model": bert(3, 160, 4, 3000)}, {"batch": 2, "seq": 40}),
    ("llama-tiny", FIT, {"model": llama(2, 64, 4, 2, 128, 500)}, {"batch": 1, "seq": 24}),
    ("llama-small", FIT, {"model": llama(3, 256, 8, 8, 640, 4000)}, {"batch": 1, "seq": 96}),
    ("vit-small", FIT, {"model": vit(3, 128, 4, 96, 16)}, {"batch": 2, "image": 96}),
    (
        "resnet-small",
        FIT,
        {"model": resnet([2, 2, 2, 2], [32, 64, 96, 128], "basic")},
        {"batch": 2, "image": 64},
    ),
    ("resnet-thin", FIT, {"model": resnet([1, 2, 2, 1], [64, 128, 256, 384])}, {"batch": 1, "image": 96}),
    ("gru-small", FIT, rnn("gru", 64, 96, 1), {"batch": 4, "seq": 24}),
    ("lstm-small", FIT, rnn("lstm", 96, 160, 1), {"batch": 4, "seq": 20}),
    ("lstm-wide", FIT, rnn("lstm", 128, 384, 1), {"batch": 16, "seq": 12}),
    ("dlrm-small", FIT, dlrm([1000, 300, 50, 20], 16, [64, 32], [64, 32]), {"batch": 64}),
    ("mlp-10-20-10-2", HELD, mlp(10, 20, 10, 2), {"batch": 100, "optimizer": "sgd"}),
    ("mlp-large", HELD, mlp(2048, 4096, 4096, 1000), {"batch": 32, "optimizer": "adamw"}),
    ("resnet50", HELD, {"model": resnet([3, 4, 6, 3], [256, 512, 1024, 2048])}, {"batch": 1, "image": 128}),
    ("lstm-256-512", HELD, rnn("lstm", 256, 512, 2), {"batch": 8, "seq": 32}),
    ("gpt2", HELD, {"model": gpt2(12, 768, 12)}, {"batch": 1, "seq": 32}),
    ("bert-base", HELD, {"model": bert(12, 768, 12)}, {"batch": 1, "seq": 32}),
    ("llama-42m", HELD, {"model": llama(8, 512, 8, 8, 1376)}, {"batch": 1, "seq": 64}),
    ("llama-wide", HELD, {"model": llama(2, 1024, 16, 16, 2736, 16000)}, {"batch": 1, "seq": 48}),
    ("vit-tiny", HELD, {"model": vit(12, 192, 3, 224, 16)}, {"batch": 1, "image": 224}),
    (
        "dlrm",
        HELD,
        dlrm([20000, 5000, 1000, 300, 100, 50, 20, 10], 32, [256, 128], [256, 128]),
        {"batch": 128},
    ),
]
# On a GPU the same networks at sizes that are trained there, and some that take a processor too long.
LARGER = [
    ("llama-500m", HELD, {"model": llama(22, 1280, 20, 4, 3456)}, {"batch": 4, "seq": 2048}),
    ("vit-base", HELD, {"model": vit(12, 768, 12, 224, 16)}, {"batch": 64, "image": 224}),
]
LARGE = {
    "mlp-10-20-10-2": {"batch": 100},
    "resnet50": {"batch": 128, "image": 224},
    "lstm-256-512": {"batch": 64, "seq": 128},
    "gpt2": {"batch": 8, "seq": 1024},
    "bert-base": {"batch": 32, "seq": 512},
    "llama-42m": {"batch": 8, "seq": 2048},
    "vit-tiny": {"batch": 256, "image": 224},
    "dlrm": {"batch": 2048},
}


def cases() -> list[Case]:
    """All cases, of every device."""
    found = [
        _case(name, split, what, run, "float32", mode)
        for name, split, what, run in SMALL
        for mode in ("forward", "train")
    ]
    gpu = [(n, split, w, {**r, **LARGE.get(n, {"batch": 16 * r["batch"]})}) for n, split, w, r in SMALL]
    for name, split, what, run in (*gpu, *LARGER):
        found += [_case(name, split, what, run, "bfloat16", mode) for mode in ("forward", "train")]
    return found


def _case(name: str, split: str, what: dict, run: dict, dtype: str, mode: str) -> Case:
    workload = {"attention": "fused", "execution": "eager", "optimizer": "adamw", **what, **run, "mode": mode}
    return Case("models", f"{name}-{mode}", split, workload, {"mode": mode, **run}, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    settings = {**case.workload, "dtype": case.dtype}
    return Built({"torch": network(settings, device)})


@parametrize(cases(), cpu=("torch",), cuda=("torch",))
def test_models(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
