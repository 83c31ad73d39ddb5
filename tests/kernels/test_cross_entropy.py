import math

import pytest
import torch
import torch.nn.functional as F
from budget.kernels.softmax import cross_entropy
from cases import (
    DEVICE,
    assert_close,
    dtypes,
    examples,
    generator,
    gradients,
    layouts,
    leaves,
    random,
    route,
    routes,
    seeds,
)
from hypothesis import given
from hypothesis import strategies as st


def eager(logits, target, scale, **options):
    """torch's own, over flattened leading dimensions, in float32 or the dtype given."""
    flat = (logits * scale).reshape(-1, logits.shape[-1])
    out = F.cross_entropy(flat, target.reshape(-1), **options)
    return out.reshape(target.shape) if options["reduction"] == "none" else out


@examples(30)
@given(
    leading=st.lists(st.integers(1, 5), max_size=2), classes=st.integers(1, 400), dtype=dtypes,
    layout=layouts, scale=st.sampled_from([1.0, 0.5]), smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]), ignored=st.booleans(), where=routes, seed=seeds,
)  # fmt: skip
def test_cross_entropy(leading, classes, dtype, layout, scale, smoothing, reduction, ignored, where, seed):
    g = generator(seed)
    logits = random((*leading, classes), dtype, layout, generator=g, scale=2.0)
    target = torch.randint(0, classes, leading, generator=g).to(DEVICE)
    if ignored and target.numel() > 1:
        target.view(-1)[0] = -100
    options = {"label_smoothing": smoothing, "reduction": reduction}
    (ours_in,), (own_in,), (oracle_in,) = leaves([logits]), leaves([logits]), leaves([logits], torch.float64)
    with route(where):
        ours = cross_entropy(ours_in, target, scale=scale, **options)
        grad = torch.randn(ours.shape, generator=g).to(DEVICE)
        (ours_grad,) = gradients(ours, [ours_in], grad)
    own, oracle = eager(own_in.float(), target, scale, **options), eager(oracle_in, target, scale, **options)
    assert ours.dtype == torch.float32
    assert_close("loss", ours, own, oracle)
    (own_grad,) = gradients(own, [own_in], grad)
    (oracle_grad,) = gradients(oracle, [oracle_in], grad)
    assert_close("gradient", ours_grad, own_grad, oracle_grad)


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_all_ignored_no_rows_and_infinities(where):
    logits = random((4, 300), torch.float32, generator=generator(0))
    with route(where):
        ignored = torch.full((4,), -100, device=DEVICE)
        assert cross_entropy(logits, ignored).isnan()
        assert cross_entropy(logits, ignored, reduction="sum") == 0
        empty = cross_entropy(logits[:0], ignored[:0], reduction="none")
        assert empty.shape == (0,)
        logits[0, 1], logits[1, 1], logits[2, 1] = -math.inf, math.inf, math.nan
        target = torch.tensor([0, 0, 0, 1], device=DEVICE)
        ours = cross_entropy(logits, target, reduction="none")
    own = F.cross_entropy(logits, target, reduction="none")
    oracle = F.cross_entropy(logits.double(), target, reduction="none")
    assert_close("loss", ours[[0, 2, 3]], own[[0, 2, 3]], oracle[[0, 2, 3]])
    assert not ours[1].isfinite()  # +inf - +inf: torch says inf, and no number is right


@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU such a target makes the loss NaN")
@pytest.mark.parametrize("bad", [-1, 5])
def test_target_out_of_range(bad):
    with pytest.raises(ValueError, match=r"^target: a class is not from 0 to 4"):
        cross_entropy(torch.zeros(2, 5), torch.tensor([0, bad]))
