"""What a neural network costs, before a GPU-hour is spent.

import budget
answer = budget.estimate("llama-3-8b", batch=4, seq=8192, device="h100")
answer.params.total, answer.flops.forward, answer.memory.peak, answer.times.step
answer.to_dict()
"""

from __future__ import annotations

from .answer import Estimate
from .errors import InputError
from .estimate import estimate

__all__ = ["Estimate", "InputError", "estimate"]
