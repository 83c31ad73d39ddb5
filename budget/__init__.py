"""What a neural network costs, before a GPU-hour is spent.

import budget
answer = budget.estimate("llama-3-8b", batch=4, seq=8192, device="h100")
answer.params.total, answer.flops.forward, answer.memory.peak, answer.times.step
print(answer)               # the table; notebooks show the picture, too
answer.to_dict()            # JSON; also .to_frame(), .plot()
budget.compare("gpt2", "bert-base", device=["a100", "h100"])
budget.fit("llama-3-8b", device="4090")                # what would make it fit
budget.plan("llama-3-70b", 64, device="h100")          # layouts, the best first
budget.serve("llama-3-8b", context=8192, device="h100")
budget.scale(usd=1e6, device="h100")                   # backwards from a budget
budget.sensitivity(usd=1e6); budget.goodput(1024)
budget.fit_law("runs.csv").law.optimum(1e24)           # a law of your own runs
budget.presets(), budget.devices(), budget.stacks()    # names
"""

from __future__ import annotations

import gc
import os
import sys

# No garbage collection during imports, a twentieth of a start: what they make stays. Afterwards it is moved
# to the oldest generation, where it would be by then: freeze and unfreeze do that, in CPython.
collecting = gc.isenabled()
gc.disable()
try:
    from .answer import Estimate
    from .answer.face import Shown
    from .errors import InputError
    from .estimate import estimate, plan
except KeyboardInterrupt:
    if os.path.basename(sys.argv[0]) not in ("-m", "budget"):
        raise
    sys.stderr.write("budget: interrupted\n")  # the command, which is still being loaded: as __main__.py
    sys.exit(130)
finally:
    if collecting:
        if hasattr(gc, "freeze") and not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _show(answer: object, what: str) -> object:
    from .report import show

    return show(answer, what)


Shown.rendered = _show

TYPE_CHECKING = False  # true to type checkers, whoever defines it
if TYPE_CHECKING:
    from .comparison import compare as compare
    from .device import names as devices
    from .fitting.largest import fit as fit
    from .read.preset import names as presets
    from .runs.failures import goodput as goodput
    from .scaling.backwards import scale as scale
    from .scaling.fitted import fit_law as fit_law
    from .scaling.levers import sensitivity as sensitivity
    from .serving.requests import serve as serve
    from .stack import names as stacks

    __version__: str

# Names whose files are imported when someone asks for them: name -> (module, its name there).
LATER = {
    "compare": ("comparison", "compare"),
    "devices": ("device", "names"),
    "fit": ("fitting.largest", "fit"),
    "fit_law": ("scaling.fitted", "fit_law"),
    "goodput": ("runs.failures", "goodput"),
    "presets": ("read.preset", "names"),
    "serve": ("serving.requests", "serve"),
    "scale": ("scaling.backwards", "scale"),
    "sensitivity": ("scaling.levers", "sensitivity"),
    "stacks": ("stack", "names"),
}
__all__ = [
    "Estimate",
    "InputError",
    "__version__",
    "compare",
    "devices",
    "estimate",
    "fit",
    "fit_law",
    "goodput",
    "plan",
    "presets",
    "scale",
    "sensitivity",
    "serve",
    "stacks",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("compute-budget")
        except PackageNotFoundError:
            return "0 (not installed)"
    if name not in LATER:
        has = ", ".join(__all__)
        raise AttributeError(f"module 'budget' has no attribute {name!r}; it has {has}; all else is typed")
    from importlib import import_module

    module, own = LATER[name]
    return getattr(import_module(f".{module}", __name__), own)


def __dir__() -> list[str]:
    return __all__
