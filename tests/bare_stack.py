"""A stack without its fitted factors: its kernels' rates alone, whatever rows the fit has."""

import json
from pathlib import Path

import budget

FITTED = ("reached", "intervals", "same")


def bare(name, folder):
    """The path of a stack's file without its own factors, in a folder."""
    about = json.loads((Path(budget.__file__).parent / "data" / "stacks" / f"{name}.json").read_text("utf-8"))
    path = folder / f"bare-{name}.json"
    path.write_text(json.dumps({k: v for k, v in about.items() if k not in FITTED}), encoding="utf-8")
    return str(path)
