"""A concrete decoder of so many parameters."""

from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import budget
from budget.scaling.shape import shape


@pytest.mark.parametrize("params", [1.35e8, 1.24e9, 8.03e9, 70.6e9, 405.9e9])
def test_a_preset_s_size_gives_that_preset(params):
    found = shape(params)
    assert isclose(found.params, params, rel_tol=0.005)
    usual = budget.estimate(found.preset, mode="forward", batch=1, seq=1)
    assert found.config["d_model"] == usual.model.config["d_model"]


@given(exponent=st.floats(8, 12.5))
@settings(max_examples=25, deadline=None)
def test_a_shape_has_about_the_parameters_that_were_asked_for(exponent):
    found = shape(10**exponent)
    counted = budget.estimate(found.preset, config=found.config, mode="forward", batch=1, seq=1)
    assert counted.params.total == found.params
    assert isclose(found.params, 10**exponent, rel_tol=0.06)
    assert found.config["heads"] % found.config["kv_heads"] == 0
    assert found.config["layers"] % 2 == 0 or found.config["layers"] < 8
