"""Output formats: one file each with `render(answer) -> str`, found by its file name, for every command.

A command builds an Answer (_answer.py); a format renders the parts of it that it supports, and raises an
InputError if it supports none.
"""

from __future__ import annotations

from importlib import import_module

from ..answer import Estimate
from ..errors import unknown
from ..found import modules
from ..named import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._answer import Answer


def names() -> tuple[str, ...]:
    """The names of all formats, sorted."""
    return modules(__path__[0])


def parts(found: Any, by: str = "") -> Answer:
    """What formats render of an estimate (with a breakdown), or of an answer that names its own `report`."""
    if isinstance(found, Estimate):
        from ._estimate import answer

        return answer(found, by)
    own: Answer = import_module(f"{__name__}.{found.report}").answer(found)
    return own


def render(found: Any, name: str, by: str = "") -> str:
    """An Answer, an estimate with a breakdown, or several estimates, in a format.

    Raises InputError for an unknown format.
    """
    from ._answer import Answer

    if name not in names():
        raise unknown("format", name, names())
    whole = found if isinstance(found, Answer) else parts(found, by)
    text: str = import_module(f"{__name__}.{name}").render(whole)
    return text


def show(found: Any, what: str) -> Any:
    """An answer in a format, as the `body` of a page, as its `records`, or as the `dict` of JSON."""
    if what == "body":
        from .html import body

        return body(parts(found))
    if what == "records":
        from .csv import records

        return records(parts(found))
    if what == "dict":
        return parts(found).data()
    return render(found, what)
