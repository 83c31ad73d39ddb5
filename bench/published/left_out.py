"""Rows predicted by a fit that has not seen them: by fold, pair, publication or stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from budget.named import Any

from .fit import NORMS, ROUGH, Numbers, fit, predictions
from .kernels import batches
from .measured import Case
from .side_by_side import side_by_side


def left_out(
    cases: Sequence[Case], key: Callable[[Case], Any], begin: Numbers, known: Numbers
) -> dict[str, float]:
    """Errors as logarithms, by row and quantity, each predicted from its stack's rows with other keys.

    What all stacks share stays as all rows have it.
    """
    common = {n: v for n, v in known.items() if len(n) == 1}

    def without(k: Any) -> dict[str, float]:
        out = [c for c in cases if key(c) == k]
        concerned = {c.stack for c in out}
        seen = [c for c in cases if key(c) != k and c.stack in concerned]
        warm = {n: v for n, v in known.items() if n[0] in {c.stack for c in seen}}
        near = {**common, **warm}
        numbers = fit(seen, begin, near, shared=False, norms=NORMS[-1:], enough=ROUGH) if seen else common
        wrong = predictions(batches(out), numbers) - np.array([c.measured for c in out])
        return {c.key: float(w) for c, w in zip(out, wrong, strict=True)}

    errors: dict[str, float] = {}
    for of_key in side_by_side(without, sorted({key(c) for c in cases}, key=str)):
        errors |= of_key
    return errors
