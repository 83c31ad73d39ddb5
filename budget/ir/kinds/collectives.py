"""What devices say to each other: an operator each, whose axis names the group that takes part.

plan/divide.py, shard.py and stage.py write them, fold/communication.py lists them, fold/collective.py has
their seconds. They are no kernels of a device: fold/kernels.py passes them by.
"""

from __future__ import annotations

from .rule import Rule

FAMILY = "collective"

RULES: dict[str, Rule] = {
    # What is gathered for one reader is not kept for the backward pass, which gathers it again.
    "all_gather": Rule(lost=True, family=FAMILY),
    "reduce_scatter": Rule(family=FAMILY),
    "all_reduce": Rule(inplace=True, family=FAMILY),
    "all_to_all": Rule(family=FAMILY),
    # Between the stages of a pipeline: the gradient of what was sent is received, and the other way round.
    "send": Rule(view=True, gradient="receive", family=FAMILY),
    "receive": Rule(gradient="send", family=FAMILY),
    "remote": Rule(family=FAMILY),  # what another stage has: nothing of it is here
}
