"""`NamedTuple`, and names for annotations, without the standard library's typing.

Importing typing and making its tuples takes a tenth of an estimate. Type checkers see its own. The tuples are
as `collections.namedtuple` makes them; here it takes a third of the time, as what they share is made once.
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined] # what namedtuple reads its fields by
from collections.abc import Iterable
from functools import cache
from types import CodeType, FunctionType

TYPE_CHECKING = False  # true to type checkers, whoever defines it
if TYPE_CHECKING:
    from typing import Any, NamedTuple, NoReturn
else:
    Any = NoReturn = object

    class _Fields(type):
        """Makes a class's annotations the fields of a tuple."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body.pop(field) for field in fields if field in body}
            if any(field not in defaults for field in fields[len(fields) - len(defaults) :]):
                raise TypeError(f"{name}: a field without a default follows one with a default")
            code = _new_of(len(fields)).replace(co_name="__new__", co_varnames=("_cls", *fields))
            new = FunctionType(code, {"_new": tuple.__new__}, "__new__", tuple(defaults.values()))
            getters = {field: _tuplegetter(i, None) for i, field in enumerate(fields)}
            own = {"_fields": fields, "_field_defaults": defaults, "__match_args__": fields, "__new__": new}
            return type(name, (_Tuple,), {"__slots__": (), **own, **getters, **body})

    _new = tuple.__new__
    # A tuple's __new__, by the number of its fields: written out where there are few, as compiling it takes
    # longer than all else here.
    NEW = (
        lambda _cls: _new(_cls, ()),
        lambda _cls, a: _new(_cls, (a,)),
        lambda _cls, a, b: _new(_cls, (a, b)),
        lambda _cls, a, b, c: _new(_cls, (a, b, c)),
        lambda _cls, a, b, c, d: _new(_cls, (a, b, c, d)),
        lambda _cls, a, b, c, d, e: _new(_cls, (a, b, c, d, e)),
        lambda _cls, a, b, c, d, e, f: _new(_cls, (a, b, c, d, e, f)),
        lambda _cls, a, b, c, d, e, f, g: _new(_cls, (a, b, c, d, e, f, g)),
        lambda _cls, a, b, c, d, e, f, g, h: _new(_cls, (a, b, c, d, e, f, g, h)),
        lambda _cls, a, b, c, d, e, f, g, h, i: _new(_cls, (a, b, c, d, e, f, g, h, i)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j: _new(_cls, (a, b, c, d, e, f, g, h, i, j)),
    )

    @cache
    def _new_of(number: int) -> CodeType:
        """The code of a tuple's __new__, of so many fields."""
        if number < len(NEW):
            return NEW[number].__code__
        names = ", ".join(f"_{i}" for i in range(number))
        return eval(f"lambda _cls, {names}: _new(_cls, ({names},))").__code__  # noqa: S307 # no one's text

    class _Tuple(tuple):
        """What all tuples with named fields have."""

        __slots__ = ()
        _fields = ()

        @classmethod
        def _make(cls, values: Iterable[Any]) -> Any:
            made = tuple.__new__(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"expected {len(cls._fields)} values, got {len(made)}")
            return made

        def _replace(self, /, **changes: Any) -> Any:
            made = tuple.__new__(type(self), map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"got unexpected field names: {list(changes)!r}")
            return made

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            values = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({', '.join(values)})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    class NamedTuple(metaclass=_Fields):
        """A tuple with named fields, one for each annotation: `class Point(NamedTuple)`."""


__all__ = ["TYPE_CHECKING", "Any", "NamedTuple", "NoReturn"]
