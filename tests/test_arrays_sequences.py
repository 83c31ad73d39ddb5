"""Settings and workloads of sequence models as arrays and symbols: equal, element by element, to numbers."""

import numpy as np
import pytest
import sympy

from budget import arch as architectures
from budget.config import Workload, make
from budget.fold.count import flops, params
from budget.plan.backward import backward

RECOMMENDERS = ("dlrm", "wide_deep")
IMAGES = ("vit", "dit")
SEQUENCES = (
    "conformer", "deepspeech2", "encoder_decoder", "hybrid", "mamba", "rnn", "seq2seq", "whisper",
)  # fmt: skip
MODES = ("train", "prefill", "decode")
LSTM_ONLY, VERSIONS = ("proj_size",), ("version", "mamba_version", "tables")
MAMBA2 = {"heads": {"version": 2}, "groups": {"version": 2}, "chunk": {"version": 2}}
HYBRID2 = {"mamba_heads": {"mamba_version": 2}, "groups": {"mamba_version": 2}, "chunk": {"mamba_version": 2}}
VIT = {"projection": {"pooling": "class_norm"}, "kv_heads": {"heads": 256}}
BESIDE = {"mamba": MAMBA2, "hybrid": HYBRID2, "vit": VIT}
SETTINGS = [
    (name, field.name, field.default)
    for name in (*RECOMMENDERS, *IMAGES, *SEQUENCES)
    for field in architectures.load(name).Config.fields.values()
    if field.type == "int" and field.name not in VERSIONS and (name, field.name) != ("hybrid", "layers")
]


def counted(name, config, workload):
    model = backward(architectures.load(name).build(config, workload))
    return (params(model).total, *flops(model)[:4])


def equal(array, numbers):
    for found, expected in zip(array, zip(*numbers, strict=True), strict=True):
        np.testing.assert_array_equal(np.broadcast_to(found, len(expected)), np.array(expected, dtype=float))


@pytest.mark.every(3)
@pytest.mark.parametrize(("name", "field", "default"), SETTINGS)
def test_a_setting(name, field, default):
    config = architectures.load(name).Config
    beside = BESIDE.get(name, {}).get(field, {})
    values = [default or 64, 2 * (default or 64)]
    seq = 0 if name in (*RECOMMENDERS, *IMAGES) else 16
    make_one = lambda v: counted(name, make(config, {field: v, **beside}), Workload("train", 2, seq))  # noqa: E731
    equal(make_one(np.array(values)), [make_one(v) for v in values])


@pytest.mark.every(3)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*RECOMMENDERS, *IMAGES, *SEQUENCES])
def test_a_batch(name, mode):
    config = architectures.load(name).Config()
    numbers = [counted(name, config, Workload(mode, b)) for b in (1, 3, 8)]
    equal(counted(name, config, Workload(mode, np.array([1.0, 3.0, 8.0]))), numbers)
    symbol = sympy.Symbol("b", positive=True, integer=True)
    formula = counted(name, config, Workload(mode, symbol))
    assert [sympy.sympify(f).subs(symbol, 3) for f in formula] == list(numbers[1])


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_length(name):
    config = architectures.load(name).Config()
    numbers = [counted(name, config, Workload("train", 2, s)) for s in (64, 100, 257)]
    equal(counted(name, config, Workload("train", 2, np.array([64.0, 100.0, 257.0]))), numbers)
