"""A small transformer over several devices."""

import budget

SMALL = {"layers": 4, "d_model": 64, "heads": 4, "vocab": 96, "context": 64}


def small(layout=None, batch=2, **settings):
    own = settings.pop("config", {})
    pure = {} if "stack" in settings else {"precision": "pure"}
    settings = {**pure, "device": "h100", **settings}
    return budget.estimate(
        "transformer", batch=batch, seq=64, config={**SMALL, **own}, layout=layout, **settings
    )
