"""What is said of files that people try and that are not read: Python, and programs that do more than train.

Nothing of them is run.
"""

from __future__ import annotations

import os
import re

PYTHON = "Python, which is never run; allowed: the model and flags, as gpt2 --batch 12 --accumulate 5"
IN_TURN = "generates, scores and trains in turn; allowed: budget serve MODEL, and budget estimate MODEL"
RECIPE = "runs torchtune's own recipe by its name; allowed: its file, by tune cp RECIPE FILE.yaml"
KNOWN = {
    r"\btune run\b": RECIPE,
    r"\bverl\.|\bactor_rollout_ref\b": IN_TURN,
    r"\btrain\.py config/\w+\.py\b": f"has its settings in {PYTHON}",  # nanoGPT
}


def why(path: str) -> str:
    """Why a file or a command of no known format is not read; "" where nothing is known of it."""
    if path.lower().endswith((".py", ".ipynb")):
        return f"is {PYTHON}"
    text = path
    if os.path.isfile(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    return next((says for words, says in KNOWN.items() if re.search(words, text)), "")
