"""The tuples of budget.named against typing's own."""

from __future__ import annotations

import copy
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


def test_copies():
    assert pickle.loads(pickle.dumps(Ours(1))) == Ours(1)  # noqa: S301 - our own
    assert type(copy.deepcopy(Ours(1))) is Ours


def test_attributes_cannot_be_set():
    with pytest.raises(AttributeError):
        Ours(1).z = 3
