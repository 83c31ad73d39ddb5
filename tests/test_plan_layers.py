"""The first layers are the same however a stack is stored: one block, periods, several stacks."""

import pytest

from budget import estimate
from budget.errors import InputError

# With a kernel that needs no mask a window changes nothing of a training step, but makes periods of layers.
PERIODS = [{"windows": (64, 0)}, {"windows": (64, 0, 0, 64, 64)}]


def answer(config, **how):
    e = estimate("gpt2", config=config, batch=2, seq=64, attention="flash", **how)
    m, hardware = e.memory, e.hardware._replace(forward_pointwise=0)  # each window has a mask of its own
    return e.params, hardware, m.activations, m.gradients, m.optimizer, m.peak


@pytest.mark.every(2)
@pytest.mark.parametrize("config", PERIODS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 11, 12])
@pytest.mark.parametrize(
    "how", [("freeze_layers", {}), ("recompute_layers", {"recompute": "full", "optimizer": "none"})]
)
def test_unlike_layers_are_counted_one_by_one(config, n, how):
    field, beside = how
    assert answer(config, **{field: n}, **beside) == answer({}, **{field: n}, **beside)


@pytest.mark.parametrize("n", [1, 3, 5, 12])
def test_layers_are_counted_across_stacks(n):
    config = {"experts": 4, "dense_layers": 3}
    left = estimate("gpt2", config=config, freeze_layers=n).params.trainable
    # What trains is what a network of the other layers has, but for the frozen embeddings.
    rest = {"layers": 12 - n, "experts": 4, "dense_layers": max(3 - n, 0)}
    embeddings = (50257 + 1024) * 768
    assert left == (estimate("gpt2", config=rest).params.total - embeddings if n < 12 else 2 * 768)


@pytest.mark.parametrize("n", [12, 13])
def test_an_encoder_s_layers_come_first(n):
    plain, some = (estimate("whisper-small", freeze_layers=k).params.trainable for k in (11, n))
    assert some < plain


@pytest.mark.parametrize("every", [2, 3, 4, 5, 6, 12])
def test_groups_go_across_periods(every):
    how = {"recompute": "full", "recompute_every": every, "optimizer": "none"}
    assert answer(PERIODS[0], **how) == answer({}, **how)


@pytest.mark.parametrize("precision", ["pure", "autocast", "master"])
@pytest.mark.parametrize("name", ["vit-b-16", "wav2vec2-base", "gpt2"])
def test_what_an_embedding_trains_is_trained_in_groups_too(name, precision):
    """A checkpoint with reentry needs a gradient of its input, and changes no gradient of a weight."""
    plain = estimate(name, batch=2, precision=precision).flops
    grouped = estimate(name, batch=2, precision=precision, recompute="full", recompute_every=2).flops
    assert grouped == plain


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"freeze_layers": 13}, "freeze_layers: got 13; allowed: 0 to 12, the layers of gpt2"),
        ({"recompute_layers": 13, "recompute": "full"}, "recompute_layers: got 13; allowed: 0 to 12"),
    ],
)
def test_what_cannot_be_cut_is_refused(how, error):
    with pytest.raises(InputError, match=error):
        estimate("gpt2", config=PERIODS[0], **how)
