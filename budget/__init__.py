"""What a neural network costs, before a GPU-hour is spent.

import budget
answer = budget.estimate("llama-3-8b", batch=4, seq=8192, device="h100")
answer.params.total, answer.flops.forward, answer.memory.peak, answer.times.step
answer.to_dict()
"""

from __future__ import annotations

import gc

# No garbage collection during imports, a twentieth of a start: what they make stays. Afterwards it is moved
# to the oldest generation, where it would be by then: freeze and unfreeze do that, in CPython.
collecting = gc.isenabled()
gc.disable()
try:
    from .answer import Estimate
    from .errors import InputError
    from .estimate import estimate
finally:
    if collecting:
        if hasattr(gc, "freeze") and not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()

__all__ = ["Estimate", "InputError", "estimate"]
