"""Requests to a server, and how many have room in its memory beside weights and a step of prompts."""

from __future__ import annotations

from collections.abc import Mapping

from ..answer import Estimate
from ..dtype import BYTES
from ..errors import InputError, shown
from ..estimate import estimate
from ..ir import BATCH, HEAD, elements, walk
from ..named import Any, NamedTuple
from ..size import NUMBER
from .served import SHARES

# An engine that takes a share of the memory measures its peak with the most sequences that it takes at once,
# whoever comes, and samples of all of them: beside a logit are three float32, itself, its probability and a
# number that is drawn. Sources: vllm-sampler, llm-d-planner.
DRAWN = 3 * BYTES["float32"]


class Requests(NamedTuple):
    """Answers of so many tokens to prompts of `context`, by a network with settings of budget.estimate."""

    model: object
    settings: Mapping[str, Any]
    context: int
    answer: int
    places: int | None = None  # of a replica, where its memory has room for more
    step_tokens: int | None = None  # of prompts, where it is not the usual
    price: Any = None  # dollars an hour and device, or which one
    share: float = 1  # of a device's memory
    cache_share: float = 1  # of what weights and activations leave

    def on(self, layout: Mapping[str, Any] | None) -> Requests:
        """These requests on a layout."""
        return self._replace(settings={**self.settings, "layout": layout})

    def within(self, share: Any) -> Requests:
        """These requests within a share of the device's memory; None: the software's default."""
        if self.settings.get("reserve") is not None:
            return self
        one = self.decode(1)
        share = _share("--share", one.stack.share if share is None else share)
        reserve = one.reserve.bytes + round((1 - share) * one.device.usable_bytes)
        return (
            self._replace(settings={**self.settings, "reserve": reserve}, share=share) if share < 1 else self
        )

    def caching(self, share: Any) -> Requests:
        """The same with so much of the free memory for the cache; None: what its software takes by itself."""
        share = self.decode(1).stack.cache_share if share is None else share
        return self._replace(cache_share=_share("--cache-share", share))

    def cached(self, full: Estimate) -> int:
        """How many sequences as long as those of `full` have room in the cache's share, beside what a step of
        prompts holds; 0: none.
        """
        cache, batch = full.memory.kv_cache, int(full.task.workload.batch)
        if not cache:
            return batch
        more = max(0, _beside(self.step(full)) - _beside(full), self.sampled(full) - _passing(full))
        if self.cache_share == 1 and not more:
            return batch
        free = full.device.usable_bytes - (full.needed - cache) - more
        return min(batch, int(self.cache_share * max(0, free) * batch / cache))

    def sampled(self, one: Estimate) -> float:
        """Bytes that sampling of the most sequences holds, on each device, where an engine measures it: of as
        many as it was given places, or of its default.
        """
        if self.share == 1:
            return 0
        heads = (o for o, _ in walk(one.model.nodes) if o.tag == HEAD)
        logits = max((elements(o.out, {**o.sizes, BATCH: 1}) for o in heads), default=0)
        most = self.places or one.stack.sequences_on(one.device.generation, one.device.usable_bytes)
        return float(most * logits * (BYTES[one.task.dtype] + DRAWN))

    def step(self, full: Estimate) -> Estimate:
        """The most prompts, or the longest part of one, that the engine of `full` takes in one step."""
        device = full.device
        most = self.step_tokens or full.stack.step_tokens_on(device.generation, device.usable_bytes)
        return self.prefill(min(self.context, most), max(1, most // self.context))

    def prefill(self, tokens: int, prompts: int = 1) -> Estimate:
        """A step over so many tokens of each of so many prompts."""
        return estimate(self.model, **self.settings, mode="prefill", batch=prompts, seq=tokens)

    def decode(self, batch: int, **more: Any) -> Estimate:
        """A step that generates a token of each of so many sequences."""
        return self.priced(estimate(self.model, **self.settings, mode="decode", batch=batch, **more))

    def priced(self, step: Estimate) -> Estimate:
        """The step at one's own price, where there is one."""
        return step if self.price is None else step.priced(price=self.price)


def _beside(step: Estimate) -> int:
    """What a step holds at its peak beside the cache: weights and activations, in bytes."""
    return int(step.memory.peak - step.memory.kv_cache)


def _passing(step: Estimate) -> float:
    """What a step holds beside the cache and weights."""
    return _beside(step) - float(step.memory.parameters)


def _share(field: str, share: Any) -> float:
    """A share as it is. Raises InputError."""
    number = isinstance(share, NUMBER)
    if not (number and 0 < share <= 1):
        raise InputError(field, f"got {f'{share:g}' if number else shown(share)}; allowed: {SHARES}")
    return float(share)
