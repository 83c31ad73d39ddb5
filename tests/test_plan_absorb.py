"""Latent attention from its cache: the outputs that all keys and values give, and what it costs in torch."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from budget import estimate
from budget.ir import contraction_flops, walk
from budget.report._units import decimal

B, T, LAYERS = 2, 7, 2  # batch, cached tokens
HEADS, C, M, P, U = 3, 16, 4, 8, 6  # widths: latent, with a position, a head's keys without one, its values
CONFIG = {
    "model_type": "deepseek_v3", "hidden_size": 32, "num_attention_heads": HEADS, "vocab_size": 100,
    "num_key_value_heads": HEADS, "num_hidden_layers": LAYERS, "first_k_dense_replace": LAYERS,
    "intermediate_size": 64, "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "kv_lora_rank": C, "q_lora_rank": None, "qk_rope_head_dim": M,
    "qk_nope_head_dim": P, "v_head_dim": U,
}  # fmt: skip


def expanded(qn, qr, latent, rope, keys, values):
    """Keys and values of all cached tokens, then attention."""
    k = torch.einsum("btc,chp->bthp", latent, keys)
    v = torch.einsum("btc,chu->bthu", latent, values)
    scores = torch.einsum("bhp,bthp->bht", qn, k) + torch.einsum("bhm,btm->bht", qr, rope)
    return torch.einsum("bht,bthu->bhu", scores.softmax(-1), v)


def absorbed(qn, qr, latent, rope, keys, values):
    """Attention to the latent vectors; queries and outputs take the products."""
    q = torch.cat([torch.einsum("bhp,chp->bhc", qn, keys), qr], -1)
    scores = torch.einsum("bhw,btw->bht", q, torch.cat([latent, rope], -1))
    return torch.einsum("bhc,chu->bhu", torch.einsum("bht,btc->bhc", scores.softmax(-1), latent), values)


def operands():
    torch.manual_seed(0)
    shapes = (B, HEADS, P), (B, HEADS, M), (B, T, C), (B, T, M), (C, HEADS, P), (C, HEADS, U)
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def attention(how):
    """FLOPs of a layer's attention, from the latent vectors to the heads' outputs, in decode mode."""
    program = estimate(CONFIG, mode="decode", batch=B, seq=T, attention=how).program
    inner = ("kv_up", "q_absorb", "scores", "mix", "v_absorb")
    ran = [(o, times) for o, times in walk(program.nodes) if o.name.rpartition(".")[2] in inner]
    return sum(contraction_flops(o) * times for o, times in ran) / LAYERS


def test_outputs_are_the_same_and_costs_are_torchs():
    assert torch.allclose(expanded(*operands()), absorbed(*operands()))
    for how, function in (("eager", expanded), ("flash", absorbed)):
        with FlopCounterMode(display=False) as counter:
            function(*operands())
        assert attention(how) == counter.get_total_flops(), how


def test_parameters_caches_and_counts_stay():
    asked = {"mode": "decode", "batch": B, "seq": T}
    with_keys, without = (estimate(CONFIG, attention=a, **asked) for a in ("eager", "flash"))
    assert with_keys.params == without.params
    assert with_keys.flops == without.flops, "the formula book's are those of transformers' code"
    assert with_keys.memory.parameters == without.memory.parameters
    assert with_keys.memory.kv_cache == without.memory.kv_cache


def test_what_is_told_first_is_what_runs():
    """Not the formulas' 50 times as much, which the answer names beside it."""
    e = estimate("deepseek-v2-lite", mode="decode", seq=4096, device="h100")
    assert e.hardware.forward < e.flops.forward / 10
    first, said = (decimal(f.forward, "FLOP") for f in (e.hardware, e.flops))
    assert f"forward {first}\n" in str(e)
    assert f"{said} where keys and values of the cache are made anew" in str(e)
    assert e.to_dict()["flops"]["forward"] == e.flops.forward


def test_other_attentions_are_left_alone():
    for name in ("llama-3-8b", "gemma-2-9b", "gpt2"):
        e = estimate(name, mode="decode", batch=2, seq=64)
        assert e.hardware == e.flops


def test_quantized_weights_are_widened_and_not_absorbed():
    e = estimate(CONFIG, mode="decode", batch=B, seq=T, quantize="nf4")
    assert not any("absorb" in o.name for o, _ in walk(e.program.nodes))
