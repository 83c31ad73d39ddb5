from budget.kernels.costs import (
    attention_cost,
    decode_cost,
    linear_cross_entropy_cost,
    matmul_cost,
    rms_norm_cost,
    rope_cost,
    softmax_cost,
    visited_pairs,
)

from budget.ir import contraction_flops
from budget.kernels import settings

TABLES = settings.load()


def computed(cost):
    return sum(contraction_flops(o) for o in cost.ops)


def test_whole_tiles_execute_what_is_computed():
    setting = TABLES["matmul"]["sm90"]["large"]
    cost = matmul_cost(4096, 4096, 4096, setting=setting)
    assert cost.flops == computed(cost) == 2 * 4096**3
    assert cost.bytes == 2 * 3 * 4096**2
    assert matmul_cost(4097, 4096, 4096, setting=setting).flops == 2 * (4096 + 128) * 4096**2


def test_a_long_row_is_read_twice():
    tables = TABLES["softmax"]["sm90"]
    assert softmax_cost(10, 1000, setting=tables["short"]).bytes == 2 * 10 * 1000 * 2
    assert softmax_cost(10, 100_000, setting=tables["long"]).bytes == 2 * 10 * 100_000 * 3


def test_head_and_loss_make_the_logits_twice():
    forward = linear_cross_entropy_cost(100, 32, 1000, at_hand=300)
    backward = linear_cross_entropy_cost(100, 32, 1000, at_hand=300, backward=True)
    assert forward.flops == computed(forward) == 2 * 100 * 32 * 1000
    assert backward.flops == computed(backward) == 3 * forward.flops
    whole = linear_cross_entropy_cost(100, 32, 1000, at_hand=1000, backward=True)
    assert backward.bytes - whole.bytes == 3 * 2 * 4 * 100 * 32  # a sum read and written, but for the first


def test_a_norm_with_its_residual_moves_two_tensors_more():
    alone = rms_norm_cost(10, 1000)
    assert alone.bytes == 2 * (2 * 10 * 1000 + 1000) + 4 * 10
    assert rms_norm_cost(10, 1000, residual=True).bytes - alone.bytes == 2 * 2 * 10 * 1000


def test_a_partial_rotation_moves_the_rest_unless_in_place():
    tables = 2 * 4 * 100 * 16
    assert rope_cost(2, 8, 100, 128, 16).bytes == 2 * 2 * 2 * 8 * 100 * 128 + tables
    assert rope_cost(2, 8, 100, 128, 16, in_place=True).bytes == 2 * 2 * 2 * 8 * 100 * 32 + tables


def test_attention_in_full_executes_what_is_computed_and_causal_about_half():
    setting = TABLES["attention_forward"]["sm90"]["d128"]
    shape = (2, 8, 2, 4096, 4096, 128)
    full = attention_cost(*shape, setting=setting)
    assert full.flops == computed(full) == 4 * 2 * 8 * 4096**2 * 128
    causal = attention_cost(*shape, setting=setting, causal=True)
    tiles = 4096 // 128
    assert causal.flops / full.flops == (tiles + 1) / (2 * tiles)
    assert full.bytes == 2 * 128 * 2 * (2 * 8 + 2 * 2) * 4096 + 4 * 2 * 8 * 4096


def test_a_step_of_generation_reads_what_the_cache_holds():
    setting = TABLES["attention_decode"]["sm90"]["d128"]
    cost = decode_cost(32, 8, 1, [64, 1], 128, setting=setting)
    assert computed(cost) == 4 * 32 * 65 * 128
    assert cost.flops == 4 * 8 * 16 * (64 + 64) * 128
    assert cost.bytes == 2 * 128 * 2 * (8 * 65 + 2 * 32)


def test_visited_pairs_of_uneven_lengths():
    assert visited_pairs(5, 9, 4, 4, causal=False) == 2 * 4 * 12
    # Queries stand at 4 to 8: the first block sees keys to 7, the second to 8.
    assert visited_pairs(5, 9, 4, 4, causal=True) == 4 * 8 + 4 * 12
    assert visited_pairs(4, 2, 2, 2, causal=True) == 0 + 2 * 2
