"""Conformer and Deep Speech 2 against the same networks in torch."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from oracles.speech import Conformer, DeepSpeech2

from budget.arch import conformer, deepspeech2
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward


@pytest.mark.parametrize(
    ("layers", "d", "heads", "kernel", "mels", "vocab", "batch", "frames"),
    [(3, 48, 4, 31, 80, 99, 2, 100), (1, 21, 3, 5, 13, 2, 2, 7), (2, 16, 1, 1, 7, 5, 3, 42)],
)
def test_conformer_equals_torch(layers, d, heads, kernel, mels, vocab, batch, frames):
    with torch.device("meta"):
        real = Conformer(layers, d, heads, kernel, mels, vocab)
        expected = count_flops(real, torch.empty(batch, frames, mels))
    config = conformer.Config(layers=layers, d_model=d, heads=heads, kernel=kernel, mels=mels, vocab=vocab)
    ours = backward(conformer.build(config, Workload(batch=batch, seq=frames)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


@pytest.mark.parametrize(
    ("cell", "layers", "n", "frequencies", "channels", "vocab", "batch", "frames"),
    [("gru", 3, 20, 161, 32, 29, 2, 21), ("lstm", 1, 7, 40, 3, 5, 1, 11), ("rnn", 2, 9, 41, 4, 5, 3, 18)],
)
def test_deepspeech2_equals_torch(cell, layers, n, frequencies, channels, vocab, batch, frames):
    with torch.device("meta"):
        real = DeepSpeech2(cell, layers, n, frequencies, channels, vocab)
        expected = count_flops(real, torch.empty(batch, frequencies, frames))
    config = deepspeech2.Config(
        cell=cell, layers=layers, hidden_size=n, frequencies=frequencies, channels=channels, vocab=vocab
    )
    ours = backward(deepspeech2.build(config, Workload(batch=batch, seq=frames)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def test_bad_input_names_the_field():
    with pytest.raises(InputError, match="heads"):
        conformer.Config(heads=7)
    with pytest.raises(InputError, match="seq"):
        conformer.build(conformer.Config(), Workload(seq=6))
