"""The translator with attention against the same network in torch."""

import pytest
import torch
from oracles.flops import count_flops, count_params
from oracles.gnmt import Gnmt

from budget.arch.seq2seq import Config, build
from budget.config import Workload
from budget.fold.count import flops, params
from budget.plan.backward import backward


@pytest.mark.parametrize(
    ("vocab", "d", "encoder", "decoder", "batch", "seq"),
    [(50, 8, 4, 4, 3, 5), (30, 6, 2, 3, 2, 4), (30, 7, 5, 2, 1, 1)],
)
def test_equals_torch(vocab, d, encoder, decoder, batch, seq):
    with torch.device("meta"):
        real = Gnmt(vocab, d, encoder, decoder)
        tokens = torch.empty(seq, batch, dtype=torch.long)
        expected = count_flops(real, tokens, tokens)
    config = Config(d_model=d, encoder_layers=encoder, decoder_layers=decoder, vocab=vocab)
    ours = backward(build(config, Workload(batch=batch, seq=seq)))
    assert params(ours).total == count_params(real)
    assert flops(ours)[:2] == expected


def test_mlperf_has_160_million_parameters():
    assert round(params(build(Config(), Workload())).total, -6) == 161_000_000


def test_decode_leaves_the_encoder_out():
    decode, whole = (build(Config(), Workload(mode, seq=20)) for mode in ("decode", "forward"))
    assert params(decode) == params(whole)
    assert flops(decode).forward * 20 < flops(whole).forward
