"""Times of fused losses and MLPs: no faster than their products, and what they move."""

import pytest

import budget


def spent(fuse, phase, chosen):
    """Seconds of the chosen kernels of a large model, with parts fused or not."""
    kernels = budget.estimate("llama-3-8b", device="h100", execution="eager", fuse=fuse).times.kernels
    return sum(k.seconds for k in kernels if k.work.contraction and k.work.phase == phase and chosen(k.work))


@pytest.mark.parametrize(
    ("fuse", "kind", "runs"), [("cross_entropy", "cross_entropy", 3), ("chunked_cross_entropy", "chunked", 2)]
)
def test_a_fused_loss_is_no_faster_than_its_products(fuse, kind, runs):
    alone = [spent("", phase, lambda w: w.op == "head.logits") for phase in ("forward", "backward")]
    found = [spent(fuse, phase, lambda w: w.kind == kind) for phase in ("forward", "backward")]
    assert found[0] >= alone[0] and alone[1] == pytest.approx(2 * alone[0], rel=1e-3)
    # The backward pass has two products; the one that runs the head again has three.
    assert runs * alone[0] <= found[1] * 1.001 <= 1.02 * runs * alone[0]


def test_a_fused_loss_reads_the_logits_and_writes_their_gradient():
    """Of 8,192 x 128,256 logits in 16 bits: once in each pass, and the gradient once."""
    logits = 8192 * 128256 * 2
    kernels = budget.estimate("llama-3-8b", seq=8192, execution="eager", fuse="loss").times.kernels
    found = {k.work.phase: k.work.bytes for k in kernels if k.work.kind == "loss"}
    assert found["forward"] == pytest.approx(logits, rel=1e-3)
    assert found["backward"] == pytest.approx(2 * logits, rel=1e-3)


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_a_fused_mlp_s_product_is_as_fast_as_alone(phase):
    alone = spent("", phase, lambda w: w.op == "layers.mlp.down")
    assert spent("mlp", phase, lambda w: w.kind == "mlp") == pytest.approx(alone, rel=0.01)
