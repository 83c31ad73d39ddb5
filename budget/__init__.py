"""What a neural network costs, before a GPU-hour is spent.

import budget
answer = budget.estimate("llama-3-8b", batch=4, seq=8192, device="h100")
answer.params.total, answer.flops.forward, answer.memory.peak, answer.times.step
print(answer)               # the table; notebooks show the picture, too
answer.to_dict()            # JSON; also .to_frame(), .plot()
budget.compare("gpt2", "bert-base", device=["a100", "h100"])
budget.scale(usd=1e6, device="h100")    # backwards from a budget
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
    from .face import Shown
finally:
    if collecting:
        if hasattr(gc, "freeze") and not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _show(found: object, what: str) -> object:
    from .report import show

    return show(found, what)


Shown.show = _show

TYPE_CHECKING = False  # true to type checkers, whoever defines it
if TYPE_CHECKING:
    from .backwards import scale as scale
    from .comparison import compare as compare
    from .device import names as devices
    from .fitting import fit as fit
    from .read.preset import names as presets
    from .serving import serve as serve
    from .stack import names as stacks

    __version__: str

# Names whose files are imported when someone asks for them: name -> (module, its name there).
LATER = {
    "compare": ("comparison", "compare"),
    "devices": ("device", "names"),
    "fit": ("fitting", "fit"),
    "presets": ("read.preset", "names"),
    "serve": ("serving", "serve"),
    "scale": ("backwards", "scale"),
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
    "presets",
    "scale",
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
        raise AttributeError(f"module 'budget' has no attribute {name!r}")
    from importlib import import_module

    module, own = LATER[name]
    return getattr(import_module(f".{module}", __name__), own)


def __dir__() -> list[str]:
    return __all__
