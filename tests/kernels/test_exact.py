"""The judge of tuned settings: right results pass, wrong ones do not, whatever is in force."""

import math

import pytest
import torch
from budget.kernels.exact import EXACT, distance, exact, is_right
from cases import DEVICE

from budget.kernels import sample_launches

SMALL = {
    "matmul": lambda: sample_launches.matmul(40, 48, 32, save=True),
    "gated": lambda: sample_launches.matmul(40, 48, 32, activation="silu", gated=True, save=True),
    "softmax": lambda: sample_launches.softmax(3, 2, 9, 33, masked=True),
    "softmax backward": lambda: sample_launches.softmax_backward(9, 33),
    "rms norm": lambda: sample_launches.rms_norm(9, 100),
    "rms norm backward": lambda: sample_launches.rms_norm_backward(9, 100),
    "attention": lambda: sample_launches.attention(16, length=9, has_bias=True, has_sinks=True),
    "attention backward": lambda: sample_launches.attention(16, length=9, has_bias=True, backward=True),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_launch_is_right_and_zeros_are_not(name):
    with sample_launches.tensors_on(DEVICE):
        launch = SMALL[name]()
    values = exact(launch)
    outputs = launch()
    assert len(values) == len(outputs)
    pairs = [pair for pair in zip(outputs, values, strict=True) if pair[1] is not None]
    assert all(is_right(*pair) for pair in pairs), [distance(*pair) for pair in pairs]
    assert not any(is_right(torch.zeros_like(ours), right) for ours, right in pairs)
    assert not any(is_right(ours * 1.1, right) for ours, right in pairs)


def test_every_launch_function_of_the_calls_has_a_judge():
    assert {name for name in vars(sample_launches) if name.startswith("launch_")} == set(EXACT)


def test_not_a_number_is_wrong():
    right = torch.ones(3, dtype=torch.float64)
    assert distance(torch.tensor([1.0, math.nan, 1.0]), right) == math.inf
    assert not is_right(torch.tensor([1.0, math.nan, 1.0]), right)
