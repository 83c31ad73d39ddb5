"""What transformers did before a version, for rows of memory: by family, and by the version that a row means.

A row that states none means the one that was new in the month that it states, or when its torch was new.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from budget.named import Any
from budget.read import preset

from .rows import Older, before, month
from .table import Row, text_of

# Attention was written out, caches were tuples; it made all logits of a prompt, and laid those of a loss out
# anew; the last that is older counts. Sources: transformers, transformers-logits, transformers-shift,
# transformers-loss.
EAGER = {"attention": "eager"}
BEFORE: Older = {
    "transformers": {
        (4, 36): {"train": EAGER, "prefill": EAGER, "decode": {**EAGER, "cache_implementation": "tuple"}},
        (4, 45): {"prefill": {"prompt_logits": "fp32"}},
        (4, 49): {"train": {"loss_logits": "shifted"}},
        (4, 46): {"train": {"loss_logits": "replaced"}},
    }
}
# Families whose logits stayed in their dtype, and of these the ones that made all of a prompt's longer;
# encoders, whose loss read them as they are. Source: transformers-families.
UNCAST = {
    "bloom", "codegen", "dbrx", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "mpt", "opt",
    "persimmon", "rwkv", "stablelm", "xglm",
}  # fmt: skip
ALL = {"bloom", "gpt2", "gpt_bigcode", "gptj", "mpt", "opt"}
ENCODERS = {"albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
OF_FAMILIES: tuple[tuple[set[str], Older], ...] = (
    (UNCAST, {"transformers": {(4, 45): {"prefill": {"prompt_logits": "all"}}}}),
    (UNCAST, {"transformers": {(4, 49): {"train": {"loss_logits": "own_shifted"}}}}),
    (ALL, {"transformers": {(5, 0): {"prefill": {"prompt_logits": "all"}}}}),
    (ENCODERS, {"transformers": {(4, 49): {"train": {"loss_logits": "own"}}}}),
)
# Until transformers' layers made checkpoints themselves, these were around FSDP's units. Source: torch-fsdp1.
HELD: Older = {"transformers": {(4, 52): {"train": {"hold_checkpoints": True}}}}
# Months in which these versions, and torch's, came out. Source: transformers-families; torch's are recalled.
RELEASED = {
    "transformers": {
        (4, 36): (2023, 12), (4, 45): (2024, 9), (4, 46): (2024, 10), (4, 49): (2025, 2),
        (4, 52): (2025, 5), (5, 0): (2026, 1),
    },
}  # fmt: skip
TORCH = {
    (1, 13): (2022, 10), (2, 0): (2023, 3), (2, 1): (2023, 10), (2, 2): (2024, 1), (2, 3): (2024, 4),
    (2, 4): (2024, 7), (2, 5): (2024, 10), (2, 6): (2025, 1), (2, 7): (2025, 4), (2, 8): (2025, 8),
    (2, 9): (2025, 10),
}  # fmt: skip
LATER = (9999,)


def older(row: Row, software: str, mode: str, model: Any = "") -> dict[str, Any]:
    """Settings of software before versions, if a row means one that old; its attention if it states one."""
    text = text_of(row)
    known = (BEFORE, *(ways for families, ways in OF_FAMILIES if _family(model) in families))
    found = {name: value for ways in known for name, value in _of(row, software, mode, ways)}
    if "last logits alone" in text:  # a network's own code
        found.pop("prompt_logits", None)
    if "no flash" in text:
        return found | EAGER
    return found | ({"attention": "flash"} if "flash attention" in text else {})


def held(row: Row, software: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What FSDP1 keeps of layers that do not train, and are recomputed."""
    frozen = "lora_rank" in settings and row.get("zero_stage", "").startswith("fsdp")
    return dict(_of(row, software, "train", HELD)) if frozen and settings["recompute"] == "full" else {}


def _of(row: Row, software: str, mode: str, known: Older) -> Iterator[tuple[str, Any]]:
    """The settings of a mode that versions later than a row's changed."""
    for version, ways in known.get(software, {}).items():
        if before(row, software, version) or _when(row, software) < RELEASED[software][version]:
            yield from ways.get(mode, {}).items()


def _when(row: Row, software: str) -> tuple[int, ...]:
    """The month that a row's software is from, if it states no version of it; LATER where nothing tells."""
    text = text_of(row, "engine", "engine_version", "source", "notes")
    if re.search(rf"\b{software} v?\d+\.\d", text) or row.get("engine_version"):
        return LATER
    told = re.search(r"torch v?(\d+)\.(\d+)", text)
    torch = TORCH.get((int(told[1]), int(told[2])), LATER) if told else LATER
    return min(month(row), torch)


def _family(model: Any) -> str:
    """A preset's `model_type`, or nothing."""
    found = preset.known(model) if isinstance(model, str) else None
    return found[1].get("model_type", "") if found else ""
