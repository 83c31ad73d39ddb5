"""The tuples of budget.named against typing's own."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing

import pytest

from budget.ir import Op
from budget.named import NEW, NamedTuple, Record


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


def test_an_operator_is_made_the_quick_way():
    assert len(Op._fields) < len(NEW)


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


MANY = [f"f{i}" for i in range(len(NEW) + 3)]  # fields, more than any tuple's that is written out


def test_many_fields():
    body = {"__module__": __name__, "__annotations__": dict.fromkeys(MANY, int), **dict.fromkeys(MANY[5:], 7)}
    many = type(NamedTuple)("Many", (NamedTuple,), dict(body))
    same = typing.NamedTuple("Same", [(name, int) for name in MANY])
    same.__new__.__defaults__ = (7,) * (len(MANY) - 5)
    for values, named in ((range(5), {}), (range(len(MANY)), {}), (range(3), {"f4": 4, "f3": 3, "f9": 1})):
        assert many(*values, **named) == same(*values, **named)
    wrong = [((1, 2, 3, 4), {}), (range(99), {}), (range(5), {"z": 1}), (range(5), {"f0": 1})]
    for values, named in wrong:
        for make in (many, same):
            with pytest.raises(TypeError):
                make(*values, **named)


def test_a_record_has_its_class_s_defaults():
    class Row(Record):
        x: int = 1
        y: int = 2

    assert (Row(5).x, Row(5).y, Row(y=3).x, Row(5)._replace(y=4).x) == (5, 2, 1, 5)
    with pytest.raises(TypeError, match="z"):
        Row(z=1)
    with pytest.raises(TypeError):
        Row(1, 2, 3)
    with pytest.raises(TypeError):
        Row(1, x=2)


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
