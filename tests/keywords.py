"""budget/keywords.py: `python tests/keywords.py` writes it anew from the settings of budget/plan/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from budget.comparison import LISTS
from budget.estimate import CHOICES
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
    lines = "\n".join(f"    {key}: {kind}" for key, kind in types.items())
    return f'class {name}({base}, total=False):\n    """{about}"""\n\n{lines}\n'


def written() -> str:
    """The whole file."""
    names = "\n".join(f"{name.capitalize()} = {literal(choices)}" for name, choices in CHOICES.items())
    techniques = {f.name: literal(f.choices) if f.choices else f.type for f in fields().values()}
    lists = {
        name: f"{kind} | Sequence[{kind}]" if name in LISTS else kind
        for name, kind in {**techniques, **TYPES}.items()
    }
    classes = (
        typed("Techniques", "TypedDict", "Settings of the techniques (docs/techniques.md).", techniques),
        typed("Settings", "Techniques", "All that `estimate` takes besides the model.", TYPES),
        typed("Lists", "TypedDict", "The same for `compare`: some may be lists.", lists),
    )
    return "\n\n".join([f"{HEAD}\n{names}\n", *classes])


if __name__ == "__main__":
    FILE.write_text(written(), "utf-8")
