import pytest
import torch
import torch.nn.functional as F
from budget.kernels.linear_cross_entropy import linear_cross_entropy
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
from hypothesis import example, given
from hypothesis import strategies as st

from budget.kernels import linear_cross_entropy as module


def eager(hidden, weight, target, bias, *, scale, softcap, **options):
    """torch's own: the logits in hidden's dtype, as a head makes them, the loss in at least float32."""
    logits = F.linear(hidden, weight, bias)
    z = logits.to(torch.promote_types(torch.float32, logits.dtype)) * scale
    z = softcap * torch.tanh(z / softcap) if softcap else z
    return F.cross_entropy(z, target, **options)


def check(
    tokens, width, classes, dtype, layout, where, seed, *, at_hand, has_bias=True, frozen=(), **options
):
    g = generator(seed)
    hidden = random((tokens, width), dtype, layout, generator=g)
    weight = random((classes, width), dtype, layout, generator=g, scale=width**-0.5)
    bias = random((classes,), dtype, generator=g) if has_bias else None
    target = torch.randint(0, classes, (tokens,), generator=g).to(DEVICE)
    target[::3] = -100
    target[0] = classes - 1
    runs = []
    with pytest.MonkeyPatch.context() as patch, route(where):
        patch.setattr(module, "CLASSES_AT_HAND", at_hand)
        patch.setattr(module, "WIDTHS_AT_HAND", 1)
        for function, other in ((linear_cross_entropy, None), (eager, None), (eager, torch.float64)):
            inputs = leaves((hidden, weight, bias), other)
            for i in frozen:
                inputs[i].requires_grad_(False)
            out = function(*inputs[:2], target, inputs[2], **options)
            wanted = [t for t in inputs if t is not None and t.requires_grad]
            grad = torch.randn(out.shape, generator=generator(seed + 1)).to(DEVICE)
            runs.append((out.detach(), *gradients(out, wanted, grad)))
    assert runs[0][0].dtype == torch.float32
    ours, own, oracle = runs
    # The logits are rounded in both; the losses and gradients of both are therefore those of rounded logits.
    unit = torch.finfo(dtype).eps * oracle[0].abs().max().item()
    assert_close("loss", ours[0], own[0], oracle[0], terms=unit / torch.finfo(torch.float32).eps)
    terms = gradient_terms(hidden, weight, target, grad, options)
    names = [n for i, n in enumerate(terms) if i not in frozen and (n != "bias" or has_bias)]
    for name, *triple in zip(names, ours[1:], own[1:], oracle[1:], strict=True):
        assert_close(f"gradient of {name}", *triple, terms=terms[name])


def gradient_terms(hidden, weight, target, grad, options):
    """The size of what the gradients add up, which cancels: to nothing in the sum over all classes.

    Times that of the logits: a probability is known to as many roundings.
    """
    wide, rows = hidden.double(), weight.double()
    size = (1 + (wide @ rows.mT).abs().max().item()) * grad.abs().max().item() * options["scale"]
    size /= (target != -100).sum().item() if options["reduction"] == "mean" else 1
    tokens = hidden.shape[0]
    hidden_size, weight_size = wide.abs().max().item(), rows.abs().max().item()
    return {"hidden": 2 * size * weight_size, "weight": size * tokens * hidden_size, "bias": size * tokens}


@examples(10)
@given(
    tokens=st.integers(1, 70), width=st.integers(1, 40), classes=st.integers(1, 150), dtype=dtypes,
    layout=layouts, at_hand=st.sampled_from([1, 40, 64, 1000]), has_bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.5]), softcap=st.sampled_from([None, None, 2.0]),
    smoothing=st.sampled_from([0.0, 0.0, 0.1]), reduction=st.sampled_from(["mean", "sum", "none"]),
    where=routes, seed=seeds,
)  # fmt: skip
@example(70, 16, 150, torch.bfloat16, "contiguous", 64, True, 1.0, 2.0, 0.1, "none", "triton", 0)
@example(70, 16, 150, torch.float32, "sliced", 1, True, 1.0, None, 0.1, "mean", "triton", 0)
def test_linear_cross_entropy(
    tokens,
    width,
    classes,
    dtype,
    layout,
    at_hand,
    has_bias,
    scale,
    softcap,
    smoothing,
    reduction,
    where,
    seed,
):
    check(tokens, width, classes, dtype, layout, where, seed, at_hand=at_hand, has_bias=has_bias,
          scale=scale, softcap=softcap, label_smoothing=smoothing, reduction=reduction)  # fmt: skip


@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 1), (2,)])
def test_only_the_gradients_that_are_wanted(frozen):
    check(20, 16, 90, torch.float32, "contiguous", "triton", 0, at_hand=32, frozen=frozen,
          scale=1.0, softcap=None, reduction="mean")  # fmt: skip


@pytest.mark.parametrize("where", ["triton", "reference"])
def test_no_tokens_all_ignored_and_more_dimensions(where):
    weight = random((50, 8), torch.float32, generator=generator(0)).requires_grad_()
    hidden = random((2, 3, 8), torch.float32, generator=generator(1))
    target = torch.randint(0, 50, (2, 3), generator=generator(2)).to(DEVICE)
    with route(where):
        empty = linear_cross_entropy(hidden[:0], weight, target[:0], reduction="sum")
        assert empty == 0
        assert (torch.autograd.grad(empty, weight)[0] == 0).all()
        ignored = torch.full_like(target, -100)
        assert linear_cross_entropy(hidden, weight, ignored).isnan()
        assert linear_cross_entropy(hidden, weight, ignored, reduction="sum") == 0
        loss = linear_cross_entropy(hidden, weight, target, reduction="none")
    torch.testing.assert_close(
        loss, F.cross_entropy(F.linear(hidden, weight).mT, target, reduction="none"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("tokens", [1, 100, 5000, 70_000])
@pytest.mark.parametrize(("width", "classes"), [(64, 100), (768, 50_257), (4096, 128_256), (16_384, 256_000)])
def test_the_logits_at_hand_stay_within_what_the_docstring_says(tokens, width, classes):
    hidden, weight = (torch.empty(shape, device="meta") for shape in ((tokens, width), (classes, width)))
    some, rows = module._at_hand(hidden, weight)
    allowed = tokens * max(4 * width, 16_384)
    assert tokens * some <= allowed
    assert rows * classes <= max(allowed, classes)  # one token at least
    assert 1 <= rows <= max(tokens, 1)


@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU such a target makes the loss NaN")
@pytest.mark.parametrize("bad", [-1, 5])
def test_target_out_of_range(bad):
    with pytest.raises(ValueError, match=r"^target: a class is not from 0 to 4"):
        linear_cross_entropy(torch.zeros(2, 3), torch.zeros(5, 3), torch.tensor([0, bad]))
