"""Techniques that change how a network is computed: fused, quantized, sparse, taught."""

import numpy as np
import pytest

from budget import estimate
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.fold.memory import memory
from budget.ir import WEIGHT, walk
from budget.plan.accumulate import accumulate
from budget.plan.backward import backward
from budget.plan.distill import distill
from budget.plan.freeze import freeze
from budget.plan.fused import fused, hold_chunk
from budget.plan.lora import lora
from budget.plan.offload import offload_optimizer
from budget.plan.optimizer import optimizer
from budget.plan.prune import prune
from budget.plan.quantize import quantize
from budget.plan.recompute import recompute
from budget.plan.regroup import regroup

torch = pytest.importorskip("torch")
from oracles.plan import LLAMA, RANK, gpt, model  # noqa: E402


@pytest.mark.parametrize("name", ["cross_entropy", "chunked_cross_entropy"])
def test_a_fused_loss_never_stores_the_logits(name):
    plain = backward(gpt(layers=1, vocab=4000))
    program = hold_chunk(recompute(backward(fused(gpt(layers=1, vocab=4000), name)), "none"))
    logits = 2 * 32 * 4000
    head = 2 * logits * 64
    again = head if name == "cross_entropy" else 0
    assert flops(program).forward == flops(plain).forward
    assert flops(program).backward == flops(plain).backward + again
    less = memory(plain, "bfloat16").peak - memory(program, "bfloat16").peak
    assert less > 2 * logits


def test_a_fused_mlp_keeps_what_its_products_made():
    program = recompute(backward(fused(gpt(**LLAMA), "mlp")), "none")
    less = memory(backward(gpt(**LLAMA)), "bfloat16").activations - memory(program, "bfloat16").activations
    assert less == 5 * 2 * (2 * 32 * 160) * 2, "the activation and its product with the other half"
    assert flops(program)[:2] == flops(backward(gpt(**LLAMA)))[:2]


def test_a_fused_norm_keeps_its_input_and_one_statistic():
    x = 2 * 32 * 64
    less = (
        memory(backward(gpt(**LLAMA)), "bfloat16").activations
        - memory(backward(fused(gpt(**LLAMA), "norm")), "bfloat16").activations
    )
    # The float32 copy and the normed one of 11 norms; in0 is a residual that nothing else keeps.
    assert less == 11 * (4 * x + 2 * x - 2 * x)


def test_four_bits_a_weight_and_scales_of_two_levels():
    plain, few = lora(gpt(**LLAMA), RANK, "attn.o"), quantize(lora(gpt(**LLAMA), RANK, "attn.o"), "nf4-dq")
    linear = 5 * (4 * 64 * 64 + 3 * 64 * 160)
    saved_bytes = memory(plain, "bfloat16").parameters - memory(few, "bfloat16").parameters
    # Each of five weights a layer has its code's 16 float32 numbers, its scales' 256, and their offset.
    tables = 5 * 5 * (16 + 256 + 1) * 4
    assert saved_bytes == pytest.approx(linear * (2 - 0.5 - 1 / 64 - 4 / (64 * 256)) - tables, abs=35)
    a, b = (recompute(backward(m), "none") for m in (plain, few))
    assert memory(a, "bfloat16").activations == memory(b, "bfloat16").activations, (
        "wide weights are never kept"
    )
    assert (flops(a)[:2], params(a)) == (flops(b)[:2], params(b))


def test_sparse_products_do_half_of_the_arithmetic():
    forward = gpt("forward")
    sparse = prune(forward, "mlp", "bfloat16")
    mlp = 2 * 64 * 256 * 5
    assert flops(forward).forward - flops(sparse).forward == mlp * 2 * 32
    assert memory(forward, "bfloat16").parameters - memory(sparse, "bfloat16").parameters == mlp * 2 * 7 / 16
    trained = backward(gpt())
    assert flops(prune(trained, "mlp", "bfloat16")).backward == flops(trained).backward
    assert (
        memory(prune(trained, "mlp", "bfloat16"), "bfloat16").parameters
        == memory(trained, "bfloat16").parameters
    )


def test_a_teacher_adds_its_forward_pass_and_its_weights():
    teacher = gpt("forward", layers=9, d_model=128)
    student = gpt()
    both = backward(distill(student, teacher))
    assert flops(both).forward == flops(student).forward + flops(teacher).forward
    assert flops(both).backward == flops(backward(student)).backward
    a, b = memory(backward(student), "bfloat16"), memory(both, "bfloat16")
    assert b.parameters == a.parameters + memory(teacher, "bfloat16").parameters
    assert b.gradients == a.gradients
    with pytest.raises(InputError, match=r"teacher: answers .*; allowed: answers of one shape"):
        distill(gpt(), gpt("forward", vocab=77))


@pytest.mark.parametrize("name", ["googlenet-aux", "inception-v3"])
def test_a_student_s_other_heads_have_their_backward_pass(name):
    alone, taught = (estimate(name, batch=2, teacher=t) for t in ("", "resnet18"))
    assert taught.flops.backward == alone.flops.backward
    assert taught.memory.gradients == alone.memory.gradients


def test_a_chunk_of_several_batches_is_that_of_each():
    def kept(batch):
        return estimate("gpt2", batch=batch, fuse="chunked_cross_entropy").memory.activations

    batches = [5, 8, 11, 23]  # a chunk has a power of two of tokens
    np.testing.assert_array_equal(kept(np.array(batches)), [kept(b) for b in batches])


def test_a_teacher_of_several_batches():
    how = {"teacher": "gpt2-medium", "seq": 16}
    both = estimate("gpt2", batch=np.array([1, 3]), **how)
    ones = [estimate("gpt2", batch=b, **how) for b in (1, 3)]
    np.testing.assert_array_equal(both.flops.backward, [e.flops.backward for e in ones])
    np.testing.assert_array_equal(both.memory.peak, [e.memory.peak for e in ones])


def test_neutral_settings_change_nothing():
    m = backward(gpt())
    assert accumulate(m, 1) is m
    assert quantize(gpt(), "none") == gpt()
    one = regroup(gpt(), 1, 0)
    assert one == gpt()
    assert not any(t.role != WEIGHT for o, _ in walk(gpt().nodes) for t in o.weights)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda: lora(gpt(), 4, "nothing"), "lora_targets: 'nothing' matches no operator; allowed: .*attn.q"),
        (lambda: lora(gpt(), 4, "norm1"), "lora_targets: 'norm1' matches no operator"),
        (lambda: lora(backward(gpt()), 4, "attn.q"), "lora_rank: comes too late; allowed: before backward"),
        (lambda: freeze(gpt(), ","), "freeze: got ','; allowed"),
        (lambda: accumulate(gpt(), 2), "accumulate: needs a backward pass"),
        (
            lambda: accumulate(optimizer(backward(gpt()), "sgd"), 2),
            "accumulate: comes too late; allowed: before optimizer",
        ),
        (lambda: quantize(gpt(), "nf4"), "quantize: no linear layer of transformer is frozen"),
        (lambda: fused(gpt(), "attention"), "fuse: unknown name 'attention'"),
        (lambda: fused(gpt("forward"), "cross_entropy"), "fuse: transformer has no product before a loss"),
        (
            lambda: prune(gpt("forward"), "mlp", "float32"),
            "sparse: got dtype float32; allowed: bf16, fp16, fp8",
        ),
        (
            lambda: regroup(model(2)._replace(nodes=model(2).nodes[:1]), 2),
            "recompute_every: t has no counted stack of layers",
        ),
        (lambda: offload_optimizer(optimizer(backward(gpt()), "sgd")), "offload: the optimizer has no state"),
    ],
)
def test_bad_input_is_one_line(change, error):
    with pytest.raises(InputError, match=error):
        change()
