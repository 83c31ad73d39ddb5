"""Numbers with units as people type them."""

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget.errors import InputError
from budget.quantity import COUNT, DAYS, FLOPS, KWH, SHARE, USD, WATTS, read

WRITTEN = [
    ("2 EFLOP", FLOPS, 2e18),
    ("1e24", FLOPS, 1e24),
    ("5e23 FLOPs", FLOPS, 5e23),
    ("3640 PF-days", FLOPS, 3640e15 * 86400),
    ("1 PFLOP/s-day", FLOPS, 86400e15),
    ("4M-tokens", COUNT, 4e6),
    ("15T", COUNT, 15e12),
    ("7 billion", COUNT, 7e9),
    ("70b", COUNT, 70e9),
    ("$1e6", USD, 1e6),
    ("$2.5M", USD, 2.5e6),
    ("1,000,000", USD, 1e6),
    ("30d", DAYS, 30),
    ("6 weeks", DAYS, 42),
    ("12h", DAYS, 0.5),
    ("1.2 GWh", KWH, 1.2e6),
    ("400 MWh", KWH, 4e5),
    ("40%", SHARE, 0.4),
    ("1.7 kW", WATTS, 1700),
    (3, COUNT, 3),
]


NO_QUANTITIES = [
    "",
    "x",
    "-1",
    "0",
    "nan",
    "inf",
    "1e400",
    "4 parsecs",
    "$",
    "1 2",
    "--",
    None,
    True,
    [],
    {},
    "٣",
]


@pytest.mark.parametrize(("text", "kind", "value"), WRITTEN)
def test_units_that_people_type(text, kind, value):
    assert isclose(read("field", text, kind), value)


@pytest.mark.parametrize("kind", [COUNT, FLOPS, USD, DAYS, KWH, SHARE])
@pytest.mark.parametrize("text", NO_QUANTITIES)
def test_what_is_no_quantity_is_refused(text, kind):
    with pytest.raises(InputError, match=r"^field: got .*; allowed: "):
        read("field", text, kind)


@given(text=st.text(max_size=20))
def test_any_text_is_a_number_or_an_error(text):
    try:
        value = read("field", text, COUNT)
    except InputError:
        return
    assert value > 0
