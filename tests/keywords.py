"""budget/keywords.py: `python tests/keywords.py` writes it anew from the settings of budget/plan/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from budget.comparison import LISTS
from budget.defaults import CHOICES
from budget.plan import fields

FILE = Path(__file__).parents[1] / "budget" / "keywords.py"
HEAD = '''"""The keywords of `budget.estimate`, `fit` and `compare`, for type checkers and editors.

Written by `python tests/keywords.py` from the settings of plan/; a test holds it to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from .device import Device
from .layout import Layout
from .size import Size
from .stack import Stack
'''
# What `estimate` takes besides the techniques, with the types of one value.
TYPES = {
    "batch": "Size", "seq": "Size", "image": "Size", "sound": "Size", "mode": "Mode", "dtype": "str",
    "optimizer": "Optimizer", "recompute": "Recompute", "attention": "Attention", "execution": "Execution",
    "stack": "str | Stack",
    "device": "str | Device", "reserve": "float | str", "layout": "str | Mapping[str, Any] | Layout",
    "devices": "int", "cluster": "Any", "global_batch": "Size", "micro_batch": "Size",
    "config": "Mapping[str, Any]", "inputs": "Any",
}  # fmt: skip


def literal(choices: tuple[str, ...]) -> str:
    return f"Literal[{', '.join(map(repr, choices))}]".replace("'", '"')


def typed(name: str, base: str, about: str, types: Mapping[str, str]) -> str:
    """A TypedDict; None says nothing, and may be said of each."""
    nothing = {"Any": "", "Size": ""}
    lines = "\n".join(f"    {key}: {kind}{nothing.get(kind, ' | None')}" for key, kind in types.items())
    return f'class {name}({base}, total=False):\n    """{about}"""\n\n{lines}\n'


def written() -> str:
    """The whole file."""
    named = {**CHOICES, **{f.name: f.choices for f in fields().values() if f.choices and f.name in LISTS}}
    names = "\n".join(f"{name.capitalize()} = {literal(choices)}" for name, choices in named.items())
    techniques = {f.name: literal(f.choices) if f.choices else f.type for f in fields().values()}
    techniques |= {name: name.capitalize() for name in named if name in techniques}
    lists = {name: f"{kind} | Sequence[{kind}]" for name, kind in {**techniques, **TYPES}.items()}
    (alone, one_of), (others, another_of) = _by_lists(techniques), _by_lists(TYPES)
    devices = {"devices": another_of.pop("devices")}
    classes = (
        typed("_Alone", "TypedDict", "The techniques of which `compare` takes one.", alone),
        typed("Techniques", "_Alone", "Settings of the techniques (docs/techniques.md).", one_of),
        typed("_Others", "TypedDict", "What else `compare` takes one of.", others),
        typed("Each", "Techniques, _Others", "All that `plan` takes besides these two.", another_of),
        typed("Settings", "Each", "All that `estimate` takes besides the model.", devices),
        typed("Lists", "_Alone, _Others", "The same for `compare`: some may be lists.", _by_lists(lists)[1]),
    )
    return "\n\n".join([f"{HEAD}\n{names}\n", *classes])


def _by_lists(types: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """What may not be a list, and what may."""
    first, second = ({n: k for n, k in types.items() if (n in LISTS) is may} for may in (False, True))
    return first, second


if __name__ == "__main__":
    FILE.write_text(written(), "utf-8")
