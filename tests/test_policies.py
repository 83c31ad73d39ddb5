"""Selective activation checkpointing against torch's own contexts around transformers' layers."""

from functools import partial

import pytest

from budget import estimate

torch = pytest.importorskip("torch")
hf = pytest.importorskip("transformers")
pytest.importorskip("peft")
from oracles.flops import count_flops  # noqa: E402
from oracles.memory import peak  # noqa: E402
from oracles.peft import config, inputs  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts  # noqa: E402

from budget.plan.recompute import POLICIES  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
aten = torch.ops.aten
ATTENTION = (aten._scaled_dot_product_flash_attention_for_cpu.default,)
PRODUCTS = (aten.mm.default, aten.addmm.default)


def contexts(policy):
    """What torchtitan gives torch's checkpoint, with a fused or plain product counted alike."""
    seen = {False: 0, True: 0}

    def choose(ctx, call, *_, **__):
        seen[ctx.is_recompute] += call in PRODUCTS
        kept = policy == "keep_products" or (policy == "keep_second_products" and seen[ctx.is_recompute] % 2)
        if call in ATTENTION or (call in PRODUCTS and kept):
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(choose)


def build(family, policy, attention):
    c = config(family)
    module = hf.AutoModelForCausalLM.from_config(c, attn_implementation=attention)
    module.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": partial(contexts, policy)})
    return module.train(), inputs(c, 4, 256)


def ours(family, policy, attention):
    how = {"precision": "pure", "execution": "eager", "dtype": "bfloat16", "attention": attention}
    return estimate(config(family).to_dict(), batch=4, seq=256, recompute=policy, **how)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_policy_keeps_what_torch_s_contexts_keep(family, attention, policy):
    theirs = peak(partial(build, family, policy, attention), torch.bfloat16, training=True)
    found = ours(family, policy, "fused" if attention == "sdpa" else attention)
    assert found.memory.peak == pytest.approx(theirs["Total"], rel=0.0005)


@pytest.mark.every(3)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_policy_runs_again_what_torch_s_contexts_run(family, policy):
    with FakeTensorMode():
        module, given = build(family, policy, "eager")
        theirs = count_flops(module, **given)
    found = ours(family, policy, "eager").hardware
    assert (found.forward, found.backward) == theirs
