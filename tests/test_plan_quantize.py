"""Weights in few bits: the formats' own blocks, and what bitsandbytes and Lightning hold besides."""

import pytest
from oracles.plan import LLAMA, RANK, gpt

from budget import estimate
from budget.errors import InputError
from budget.fold.memory import memory, tensor_bytes
from budget.ir import Block, weights
from budget.plan.backward import backward
from budget.plan.gguf import gguf
from budget.plan.lora import lora
from budget.plan.packed import Packing, Part, packed
from budget.plan.quantize import quantize
from budget.plan.recompute import recompute

LAYERS, TOKENS, WIDTH, HIDDEN, VOCAB = 5, 2 * 32, 64, 160, 500
ROWS = 5 * WIDTH + 2 * HIDDEN  # outputs of a layer's matrices
LINEAR = LAYERS * (4 * WIDTH**2 + 3 * WIDTH * HIDDEN)


def run(form="nf4", tied=True, **how):
    few = quantize(lora(gpt(**LLAMA, tied=tied), RANK, "attn.q"), form, **how)
    return memory(recompute(backward(few), "none"), "bfloat16")


@pytest.mark.parametrize(
    ("form", "bits", "tables"),
    [("nf4", 4 + 32 / 64, 16), ("nf4-dq", 4 + 8 / 64 + 32 / (64 * 256), 16 + 256 + 1)],
)
def test_a_block_of_64_has_a_scale(form, bits, tables):
    """Each of five matrices has the values of its bits, too: 16, and twice quantized 256 and a mean."""
    plain = memory(lora(gpt(**LLAMA), RANK, "attn.q"), "bfloat16").parameters
    more = plain - run(form).parameters + 5 * LAYERS * tables * 4
    assert more == pytest.approx(LINEAR * (2 - bits / 8), abs=7 * LAYERS)


def test_each_row_of_int8_has_a_scale():
    """LLM.int8's SCB: a float32 for each output."""
    plain = memory(lora(gpt(**LLAMA), RANK, "attn.q"), "bfloat16").parameters
    assert plain - run("int8").parameters == LINEAR - 4 * LAYERS * ROWS


def test_lightning_quantizes_the_head():
    fewer = run(tied=False).parameters - run(tied=False, head=True).parameters
    assert fewer == VOCAB * WIDTH * 2 - VOCAB * WIDTH * 9 // 16 - 16 * 4
    with pytest.raises(InputError, match=r"quantize_head: the head is the embedding; allowed"):
        run(head=True)


def test_weights_from_float16_are_widened_twice():
    few = quantize(gpt("forward", **LLAMA), "nf4", train=False, half=True)
    once = memory(quantize(gpt("forward", **LLAMA), "nf4", train=False), "bfloat16").curve
    twice = memory(few, "bfloat16").curve
    more = [
        b.total - a.total for a, b in zip(once, twice, strict=True) if a.op.endswith("mlp.down.dequantize")
    ]
    assert set(more) == {WIDTH * HIDDEN * 2}


def test_products_keep_their_inputs():
    plain, kept = run(), run(keeps_inputs=True)
    # Of the attention's output, of gate and up together, of down; what qkv reads the adapter keeps anyway.
    inputs = LAYERS * TOKENS * 2 * (WIDTH + WIDTH + HIDDEN)
    assert kept.activations - plain.activations == inputs


def test_a_last_loss_keeps_those_of_the_last_step():
    common = {"seq": 32, "batch": 2, "lora_rank": 4, "quantize": "nf4", "config": {"layers": 3}}
    one, two = (estimate("llama-2-7b", quantize_keeps=k, **common).memory.curve for k in ("pass", "loss"))
    every = 3 * TOKENS * 2 * (3 * 4096 + 11008)
    more = {
        phase: {b.total - a.total for a, b in zip(one, two[1:], strict=True) if a.phase == phase}
        for phase in ("forward", "backward")
    }
    assert more == {"forward": {every}, "backward": {0}}


def test_what_is_kept_is_not_kept_where_layers_are_recomputed():
    common = {"seq": 32, "batch": 2, "lora_rank": 4, "quantize": "nf4", "recompute": "full"}
    plain, kept = (
        estimate("llama-2-7b", config={"layers": 3}, quantize_keeps=k, **common).memory
        for k in ("none", "pass")
    )
    assert kept.activations == plain.activations


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"quantize_head": True}, "quantize_head"),
        ({"quantize": "q8_0", "quantize_half": True, "mode": "decode"}, "quantize_half"),
        ({"quantize": "nf4", "quantize_keeps": "pass", "mode": "decode"}, "quantize_keeps"),
        ({"quantize": "nf4", "lora_rank": 4, "quantize_keeps": "forever"}, "quantize_keeps"),
    ],
)
def test_habits_that_make_no_sense_are_named(settings, field):
    with pytest.raises(InputError, match=rf"{field}: .*allowed"):
        estimate("gpt2", **settings)


def renamed(nodes):
    """The same program under names that say nothing."""
    for i, node in enumerate(nodes):
        if isinstance(node, Block):
            yield node._replace(body=tuple(renamed(node.body)))
        else:
            yield node._replace(name=f"op{i}")


@pytest.mark.parametrize("form", ["q4_k_m", "gptq"])
def test_formats_ask_what_an_operator_is_not_how_it_is_called(form):
    model = gpt(**LLAMA, fused_qkv=False)
    scales = Part("scales", "float16", outs=1, ins=32)

    def held(network):
        few = (
            gguf(network, form) if form == "q4_k_m" else packed(network, Packing(form, "int4", (scales,)), "")
        )
        return sum(tensor_bytes(t, o.sizes, "bfloat16") * n for t, o, n in weights(few.nodes))

    other = model._replace(nodes=tuple(renamed(model.nodes)))
    assert held(other) == held(model) < memory(model, "bfloat16").parameters
