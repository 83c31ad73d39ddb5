"""The loss behind a network's logits, as torch computes it."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir import LOSS, Op, op


def cross_entropy(
    logits: str = "",
    *,
    upcast: bool = False,
    name: str = "loss",
    tag: str = LOSS,
    states: tuple[str, ...] = ("x",),
) -> Iterator[Op]:
    """From logits, classes on their last axis, to `name: 1`; language models upcast to float32 first.

    tag: LOSS, or "" for a loss beside the network's own (an auxiliary head's). Variables hold the logits and
    the hidden states while it runs.
    """
    x, held = f"{logits}:" if logits else "", (*states, logits)
    if upcast:
        yield op(f"{name}.upcast", f"{x} -> {name}.logits/float32:", "cast", tag)._replace(callers=held)
        x = ""
    yield op(f"{name}.log_softmax", f"{x} -> {name}.logp:", "log_softmax", tag)._replace(callers=held)
    # A language model's labels are padded, and copied one position further. Source: transformers.
    beside = (2, 0) if upcast else (0, 0)
    yield op(f"{name}.nll", f"-> {name}: 1", "nll", tag)._replace(beside=beside, callers=held)
