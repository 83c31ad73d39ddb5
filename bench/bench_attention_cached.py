"""Generation from a partly filled cache: SDPA with a mask, SDPA of the filled part, and this project's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from budget.bench.cases import FIT, HELD, Case, operators, parametrize, random, shaped
from budget.bench.record import Built

# One step of one head; `!` marks inputs without a gradient.
LINES = (
    ("scores", "!q: b h r k, !key: b h t k -> score: b h r t", "contract"),
    ("softmax", "score: -> prob:", "softmax"),
    ("mix", "prob: b h r t, !value: b h t k -> out: b h r k", "contract"),
)
# batch, query heads, key heads, room in the cache, keys in it, head_dim
CPU = {FIT: ((2, 4, 2, 512, 200, 64), (4, 8, 8, 256, 256, 32)), HELD: ((1, 8, 2, 1024, 700, 64),)}
GPU = {
    FIT: ((32, 32, 8, 8192, 4096, 128), (4, 32, 8, 32768, 32768, 128), (64, 32, 8, 4096, 1024, 64)),
    HELD: ((1, 32, 8, 131072, 65536, 128), (128, 64, 8, 8192, 2048, 128)),
}


def cases() -> list[Case]:
    """All cases, of every device."""
    return [_case(*one) for one in shaped(CPU, GPU)]


def _case(split: str, shape: tuple[int, ...], dtype: str) -> Case:
    b, heads, kv, _, length, k = shape
    workload = operators(*LINES, group="attention", b=b, h=kv, r=heads // kv, t=length, k=k)
    least = 2 * b * kv * length * k * (4 if dtype == "float32" else 2)
    sizes = {"shape": list(shape), "least_bytes": least}
    return Case("attention_cached", "x".join(map(str, shape)), split, workload, sizes, dtype)


def build(case: Case, device: torch.device) -> Built:
    """The case in each implementation, and its exact result."""
    b, heads, kv, room, length, k = case.sizes["shape"]
    lengths = torch.full((b,), length, dtype=torch.int32, device=device)
    seen = torch.arange(room, device=device)[None, None, None, :] < lengths.view(b, 1, 1, 1)

    def inputs():
        q = random(b, heads, 1, k, device=device, dtype=case.dtype)
        return q, *(random(b, kv, room, k, device=device, dtype=case.dtype) for _ in range(2))

    def cut(q, key, value):
        return F.scaled_dot_product_attention(q, key[:, :, :length], value[:, :, :length], enable_gqa=True)

    def masked(q, key, value):
        return F.scaled_dot_product_attention(q, key, value, attn_mask=seen, enable_gqa=True)

    functions = {"torch": masked, "torch_cut": cut}
    if device.type != "cpu":
        from budget.kernels.attention_cached import attention_cached

        functions["triton"] = lambda q, key, value: attention_cached(q, key, value, lengths)
    return Built(functions, lambda *x: cut(*(t.double() for t in x)), inputs=inputs)


@parametrize(cases(), cpu=("torch", "torch_cut"), cuda=("torch", "torch_cut", "triton"))
def test_attention_cached(measured, case, implementation, where):
    """One record."""
    measured(case, implementation, build)
