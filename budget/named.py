"""`NamedTuple`, `Any` and other names of typing, without importing typing.

Importing it and making its tuples takes a tenth of an estimate. Type checkers see typing's own. The tuples
behave as those of `collections.namedtuple`, but take a third of the time to make, since what they share is
made once.
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined] # what namedtuple reads its fields by
from collections.abc import Iterable
from types import FunctionType

TYPE_CHECKING = False  # true to type checkers, whoever defines it
if TYPE_CHECKING:
    from typing import Any, NamedTuple, NoReturn
    from typing import NamedTuple as Record
else:
    Any = NoReturn = object

    # The descriptor of a tuple's field, by its index: the same for all tuples.
    GETTERS = tuple([_tuplegetter(i, None) for i in range(64)])

    class _Fields(type):
        """Makes a class's annotations the fields of a tuple."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, object]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body.pop(field) for field in fields if field in body}
            if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default follows one with a default")
            new = _few(fields, defaults) if len(fields) < len(NEW) else _many(name, fields, defaults)
            body |= zip(fields, GETTERS[: len(fields)], strict=True)
            body |= {"_fields": fields, "_field_defaults": defaults, "__match_args__": fields}
            places = dict(zip(fields, range(len(fields)), strict=True))
            return type(name, (_Tuple,), {"__slots__": (), "__new__": new, "_places": places, **body})

    _new = tuple.__new__
    # A tuple's __new__, by the number of its fields, since compiling one takes longer than everything else
    # here.
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
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u)),
        lambda _cls, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u, v:
            _new(_cls, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u, v)),
    )  # fmt: skip

    def _few(fields: tuple[str, ...], defaults: dict[str, object]) -> FunctionType:
        """The __new__ of a tuple with few fields: one of NEW, with these names of parameters."""
        code = NEW[len(fields)].__code__.replace(co_name="__new__", co_varnames=("_cls", *fields))
        return FunctionType(code, {"_new": _new}, "__new__", tuple(defaults.values()))

    def _many(name: str, fields: tuple[str, ...], defaults: dict[str, object]) -> FunctionType:
        """The __new__ of a tuple with many fields; no such tuple is made often."""
        last = tuple(defaults.values())

        def new(_cls: type, /, *values: object, **named: object) -> tuple[object, ...]:
            rest = fields[len(values) :]
            if named:
                known = {**defaults, **named}
                values += tuple([known[field] for field in rest if field in known])
            elif rest:
                values += last[-len(rest) :]
            if len(values) != len(fields) or not named.keys() <= set(rest):
                raise TypeError(f"{name}: got {len(values)} of {len(fields)} fields, and {list(named)}")
            return _new(_cls, values)

        return new

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
            values, places = list(self), self._places
            try:
                for name, value in changes.items():
                    values[places[name]] = value
            except KeyError:
                unknown = [name for name in changes if name not in places]
                raise ValueError(f"got unexpected field names: {unknown!r}") from None
            return _new(type(self), values)

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            values = (f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({', '.join(values)})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    class NamedTuple(metaclass=_Fields):
        """A tuple with named fields, one for each annotation: `class Point(NamedTuple)`."""

    class Record:
        """Named fields as in a NamedTuple, for records of which most fields keep their defaults: these stay
        attributes of the class, so that making a record costs only the fields that are given. It is no tuple,
        and equals only itself.
        """

        def __init__(self, *values: object, **named: object):
            fields, given = self.__annotations__, len(named) + len(values)
            named |= zip(fields, values, strict=False)
            if len(named) != given or [name for name in named if name not in fields]:
                raise TypeError(f"{type(self).__name__}: {given} values for the fields {list(named)}")
            self.__dict__ = named

        def _replace(self, /, **changes: object) -> Record:
            return type(self)(**{**vars(self), **changes})


__all__ = ["TYPE_CHECKING", "Any", "NamedTuple", "NoReturn", "Record"]
