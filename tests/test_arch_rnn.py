"""RNN, LSTM and GRU against torch's own."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from torch import nn

from budget.arch.rnn import Config, build
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward

CASES = [
    ({"cell": "lstm", "input_size": 256, "hidden_size": 512, "layers": 2}, 8, 9),
    ({"cell": "gru", "input_size": 12, "hidden_size": 16, "layers": 3}, 3, 7),
    ({"cell": "rnn", "input_size": 12, "hidden_size": 17, "layers": 1, "bias": False}, 3, 7),
    ({"cell": "lstm", "input_size": 12, "hidden_size": 16, "layers": 3, "proj_size": 5}, 3, 7),
    (
        {
            "cell": "lstm",
            "input_size": 9,
            "hidden_size": 16,
            "layers": 2,
            "proj_size": 5,
            "bidirectional": True,
        },
        2,
        5,
    ),
    ({"cell": "gru", "input_size": 12, "hidden_size": 16, "layers": 2, "bidirectional": True}, 3, 1),
    ({"cell": "rnn", "input_size": 1, "hidden_size": 1, "layers": 4, "bidirectional": True}, 1, 2),
]


@pytest.mark.parametrize(("config", "batch", "seq"), CASES)
def test_equals_torch(config, batch, seq):
    names = {"cell": None, "layers": "num_layers"}
    kwargs = {names.get(k, k): v for k, v in config.items() if k != "cell"}
    with torch.device("meta"):
        real = getattr(nn, config["cell"].upper())(batch_first=True, **kwargs)
        expected = count_flops(real, torch.empty(batch, seq, config["input_size"]))
    ours = backward(build(Config(**config), Workload(batch=batch, seq=seq)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def test_golden():
    ours = backward(build(Config(), Workload(batch=8)))
    assert params(ours).total == 3_678_208
    assert (flops(ours).forward, sum(flops(ours)[:2])) == (7_516_192_768, 21_441_282_048)


def test_language_model_equals_torch():
    class LanguageModel(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.rnn, self.head = nn.Embedding(50, 8), nn.LSTM(8, 12, 2), nn.Linear(12, 50)

        def forward(self, ids):
            return self.head(self.rnn(self.embed(ids))[0])

    with torch.device("meta"):
        real = LanguageModel()
        expected = count_flops(real, torch.empty(6, 2, dtype=torch.long))
    ours = backward(build(Config(vocab=50, input_size=8, hidden_size=12), Workload(batch=2, seq=6)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def test_decode_runs_one_step():
    one = flops(build(Config(), Workload("decode", batch=4, seq=1000))).forward
    assert one * 128 == flops(build(Config(), Workload("prefill", batch=4, seq=128))).forward


def test_projection_is_an_lstms():
    with pytest.raises(InputError, match="proj_size"):
        Config(cell="gru", proj_size=3)
    with pytest.raises(InputError, match="proj_size"):
        Config(hidden_size=8, proj_size=8)
