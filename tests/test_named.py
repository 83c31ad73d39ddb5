"""The tuples of budget.named against typing's own."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing

import pytest

from budget.named import NamedTuple


class Ours(NamedTuple):
    """A point."""

    x: int
    y: int = 2

    @property
    def sum(self) -> int:
        return self.x + self.y


class Theirs(typing.NamedTuple):
    """A point."""

    x: int
    y: int = 2

    @property
    def sum(self) -> int:
        return self.x + self.y


def test_the_same_as_typing():
    ours, theirs = Ours(1), Theirs(1)
    assert ours == theirs == (1, 2)
    assert (ours.sum, ours._asdict(), ours._replace(x=5)) == (3, theirs._asdict(), (5, 2))
    assert list(Ours.__annotations__) == list(Theirs.__annotations__)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    for name in ("_fields", "_field_defaults", "__doc__", "__slots__", "__module__"):
        assert getattr(Ours, name) == getattr(Theirs, name), name


def test_wrong_fields_are_errors():
    for make in (Ours, Theirs):
        for values, named in (((), {}), ((1, 2, 3), {}), ((1,), {"z": 3}), ((1,), {"x": 3})):
            with pytest.raises(TypeError):
                make(*values, **named)
        with pytest.raises(TypeError):
            make._make([1])
        with pytest.raises(ValueError, match="z"):
            make(1)._replace(z=3)
    with pytest.raises(TypeError, match="default"):
        type(NamedTuple)("Wrong", (NamedTuple,), {"__annotations__": {"x": int, "y": int}, "x": 1})


def test_patterns_and_signatures():
    match Ours(1, 5):
        case Ours(x, y):
            assert (x, y) == (1, 5)
    assert str(inspect.signature(Ours)) == "(x, y=2)"


def test_copies():
    assert pickle.loads(pickle.dumps(Ours(1))) == Ours(1)  # noqa: S301 - our own
    assert type(copy.deepcopy(Ours(1))) is Ours


def test_attributes_cannot_be_set():
    with pytest.raises(AttributeError):
        Ours(1).z = 3
