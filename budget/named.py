"""`NamedTuple`, and names for annotations, without the standard library's typing.

Importing typing and making its tuples takes a tenth of an estimate. Type checkers see its own.
"""

from __future__ import annotations

from collections import namedtuple

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
            fields = body.get("__annotations__", {})
            defaults = [body.pop(field) for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024 - typing's own does
            return type(name, (made,), {"__slots__": (), **body})

    class NamedTuple(metaclass=_Fields):
        """A tuple with named fields, one for each annotation: `class Point(NamedTuple)`."""


__all__ = ["TYPE_CHECKING", "Any", "NamedTuple", "NoReturn"]
