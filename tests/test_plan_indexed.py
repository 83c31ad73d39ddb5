"""Sparse attention behind an indexer, as engines run it: only what was chosen is read, no score is stored."""

import pytest
import torch
from test_plan_absorb import CONFIG, LAYERS, B, absorbed, operands
from torch.utils.flop_counter import FlopCounterMode

from budget import estimate
from budget.fold.forms import computed
from budget.ir import SCORES, contraction_flops, walk

CHOSEN, INDEX_HEADS, WIDTH = 3, 2, 4
SPARSE = {
    **CONFIG, "model_type": "deepseek_v32", "index_topk": CHOSEN, "index_n_heads": INDEX_HEADS,
    "index_head_dim": WIDTH, "q_lora_rank": 16, "mlp_layer_types": ["dense"] * LAYERS,
}  # fmt: skip


def test_a_token_attends_to_what_its_indexer_chose():
    qn, qr, latent, rope, keys, values = operands()
    with FlopCounterMode(display=False) as counter:
        absorbed(qn, qr, latent[:, :CHOSEN], rope[:, :CHOSEN], keys, values)
    program = estimate(SPARSE, mode="decode", batch=B, seq=latent.shape[1], attention="flash").program
    inner = ("attn.q_absorb", "attn.scores", "attn.mix", "attn.v_absorb")
    ran = [contraction_flops(o) * times for o, times in walk(program.nodes) if o.name.endswith(inner)]
    assert sum(ran) / LAYERS == counter.get_total_flops()


@pytest.mark.parametrize("tokens", [2, 64, 512])
def test_a_prompts_kernels_compute_the_pairs_that_were_chosen(tokens):
    seen = torch.arange(1, tokens + 1).clamp(max=64).sum().item()
    program = estimate({**SPARSE, "index_topk": 64}, mode="prefill", seq=tokens, attention="flash").program
    parts = [computed(o) for o, _ in walk(program.nodes) if o.tag == SCORES]
    assert parts[0] * tokens**2 == pytest.approx(seen, rel=0.005)


def test_an_indexers_scores_are_stored_by_eager_code_alone():
    def peak(how, tokens):
        return estimate(SPARSE, mode="prefill", seq=tokens, attention=how).memory.peak

    scores = INDEX_HEADS * 512 * 512 * 4
    assert peak("eager", 512) > scores
    assert peak("flash", 1024) < 2.1 * peak("flash", 512)  # nothing has the square of the tokens
    assert peak("flash", 512) < scores


def test_counts_are_of_the_network_whatever_its_indexer_leaves_out():
    sparse, full = (
        estimate({**SPARSE, "index_topk": k}, mode="prefill", seq=64, attention="flash") for k in (3, 64)
    )
    assert sparse.flops.forward == full.flops.forward
    assert sparse.times.step <= full.times.step
