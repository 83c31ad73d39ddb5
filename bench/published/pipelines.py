"""Memory of a pipeline of diffusers: all of its networks' weights, and what the largest pass has besides.

The text's encoders run once, on few tokens: their weights count alone. With model offload a network at a time
is on the device. Sources: diffusers, diffusers-pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

from budget.answer import Estimate
from budget.named import Any, NamedTuple

from . import diffusion
from .rows import NotCoveredError, Part
from .software import toml
from .table import Row, text_of


class Together(NamedTuple):
    """A size of memory of a pipeline: `of` of its largest pass, with the other networks' weights.

    beside: bytes of each network that runs in no pass. offload: networks that do not run are off the device.
    """

    of: Any
    beside: tuple[int, ...] = ()
    offload: bool = False

    def __call__(self, estimates: Sequence[Estimate]) -> float:
        """Bytes, of the estimates of the passes."""
        if self.offload:
            return max(self.of(estimates), *map(float, self.beside))
        weights = [float(e.memory.parameters) for e in estimates]
        others = sum(weights) + sum(self.beside)
        return max(self.of([e]) + others - own for e, own in zip(estimates, weights, strict=True))


@cache
def _known() -> Mapping[str, Any]:
    return toml("pipelines.toml")


def is_one(row: Row, model: Any) -> bool:
    """Whether a row is of a denoiser with all that its pipeline loads: it does not say that this is alone.

    Raises NotCoveredError for a pipeline whose other networks are not known.
    """
    text = text_of(row, "notes")
    if "alone" in text or "of the denoiser" in text or not diffusion.denoiser(model):
        return False
    if model not in _known()["loaded"]:
        raise NotCoveredError(f"which networks the pipeline of {model} has")
    return True


def parts(row: Row, model: str, how: Mapping[str, Any], of: Any) -> tuple[tuple[Part, ...], Together]:
    """A pass of the denoiser and the autoencoder's, and what is asked of them. Raises NotCoveredError."""
    text = text_of(row, "notes")
    if "quantize" in how:
        raise NotCoveredError("which networks of a pipeline are in few bits")
    if "sequential" in text or "tiny autoencoder" in text or "tiling" in text:
        raise NotCoveredError("a pipeline in parts")
    engine = {**row, "engine": row["source"], "steps": "1"}
    passes, decode = diffusion.parts(engine, model, dict(how))
    wide = model in _known()["widened"]["denoisers"] and how["dtype"] == "fp16"
    own = {
        **({"dtype": "fp32"} if wide else {}),
        **({"batch": 1} if re.search("vae[ _]slicing", text) else {}),
    }
    networks = (_known()["networks"][name] for name in _known()["loaded"][model])
    beside = tuple(n * (4 if how["dtype"] == "fp32" else 2) for n in networks)
    both = (passes, Part(decode.model, {**decode.settings, **own}))
    return both, Together(of, beside, "offload" in text)
