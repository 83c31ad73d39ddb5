"""Prompt tuning: virtual tokens before each sequence, whose embeddings are learned; all else is frozen.

Source: peft.
"""

from __future__ import annotations

from ..config import Task, setting
from ..ir import Model
from ._beside import wide
from ._virtual import fits, virtual_tokens

SETTINGS = {
    "prompt_tuning": setting(
        0, "virtual tokens that are learned (prompt tuning); all else is frozen", least=0
    )
}
NEEDS = {"prompt_tuning": ("train",)}
ADAPTER = {"prompt_tuning": ""}


def apply(model: Model, task: Task) -> Model:
    """The model with its virtual tokens."""
    n = task.techniques.prompt_tuning
    fits(model, "prompt_tuning", n)
    return virtual_tokens(model, "prompt_tuning", n, wide(task), lambda rows, _: ([], rows))


STAGES = {"adapt": apply}
