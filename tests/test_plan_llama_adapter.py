"""Learned prompts and rescaled layers: parameters and FLOPs by their formulas, what is saved, bad input.

tests/test_published_memory.py holds their parameters and memory against litgpt's printed ones.
"""

import pytest
from oracles.plan import LLAMA, gpt

from budget import estimate
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.fold.memory import memory
from budget.plan.backward import backward
from budget.plan.fuse import fuse
from budget.plan.llama_adapter import llama_adapter

LAYERS, TOKENS, D, HEADS, F, VOCAB, N = 5, 2 * 32, 64, 4, 160, 500, 10


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_prompts_and_gates_train(fused, start):
    plain, ours = gpt(fused_qkv=fused), llama_adapter(gpt(fused_qkv=fused), N, start)
    with_prompts = LAYERS - start
    assert params(ours).trainable == with_prompts * (N * D + HEADS)
    assert params(ours).total - params(plain).total == params(ours).trainable
    projected = 2 * N * D * (3 if fused else 2) * D
    assert flops(ours).forward - flops(plain).forward == with_prompts * (projected + 4 * TOKENS * N * D)


def test_keys_that_heads_share_have_prompts_of_their_own():
    shared = llama_adapter(gpt(**LLAMA, kv_heads=2, fused_qkv=False), N, 0)
    projected = 2 * N * D * 2 * D // 2
    assert flops(shared).forward - flops(gpt(**LLAMA, kv_heads=2, fused_qkv=False)).forward == LAYERS * (
        projected + 4 * TOKENS * N * D
    )


def test_rescaled_layers_train_two_vectors_and_the_norms():
    small, large = (
        params(llama_adapter(gpt(**LLAMA, tied=False), N, 2, rescale=r)).trainable for r in (False, True)
    )
    assert large - small == LAYERS * (2 * (3 * D + D + 2 * F + D) + 2 * D) + D + 2 * VOCAB


def test_below_the_first_prompts_nothing_is_saved():
    kept = [
        memory(
            backward(fuse(llama_adapter(gpt(layers=n), N, n - 1), {"attention"}, "flash")), "bfloat16"
        ).activations
        for n in (3, 5)
    ]
    assert kept[0] == kept[1]


def test_bad_input_is_one_line():
    with pytest.raises(InputError, match="prompts_from: got 5 of 5 layers; allowed: fewer"):
        llama_adapter(gpt(), N, 5)
    with pytest.raises(InputError, match="prompts: comes too late; allowed: before backward"):
        llama_adapter(backward(gpt()), N, 0)


@pytest.mark.parametrize("name", ["t5-small", "conformer", "resnet50", "gpt-oss-20b", "deepseek-v3"])
def test_layers_have_to_be_alike(name):
    with pytest.raises(InputError, match=r"prompts: .* has no one stack of layers with one attention"):
        estimate(name, prompts=4)
