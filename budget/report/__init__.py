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


def parts(shown: Any, by: str = "") -> Answer:
    """What formats render of an estimate (with a breakdown), or of an answer that names its own `report`."""
    if isinstance(shown, Estimate):
        from ._estimate import answer

        return answer(shown, by)
    own: Answer = import_module(f"{__name__}.{shown.report}").answer(shown)
    return own


def render(answer: Any, name: str, by: str = "") -> str:
    """An Answer, an estimate with a breakdown, or several estimates, in a format.

    Raises InputError for an unknown format.
    """
    from ._answer import Answer

    if name not in names():
        raise unknown("format", name, names())
    whole = answer if isinstance(answer, Answer) else parts(answer, by)
    text: str = import_module(f"{__name__}.{name}").render(whole)
    return text


def show(answer: Any, what: str) -> Any:
    """An answer in a format, as the `body` of a page, as its `records`, or as the `dict` of JSON."""
    if what == "body":
        from .html import body

        return body(parts(answer))
    if what == "records":
        from .csv import records

        return records(parts(answer))
    if what == "dict":
        return parts(answer).data()
    return render(answer, what)
