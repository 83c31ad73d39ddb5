"""A stack from the table of its file, checked (budget/data/README.md has the keys)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .. import checked, table
from ..dtype import SHORT
from ..named import Any
from ._fields import all_reduce, by_format, by_memory, few_bits, interval, one_of, tensor_units
from ._names import names
from ._stack import AXES, BESIDES, CALLS, CLASSES, USUAL_SEQUENCES, USUAL_STEP, Stack

FIELDS = tuple(field for field in Stack._fields if field != "name")  # the name is the file's
EXPERTS = ("grouped", "fused", "loop", "streams")
# What software may keep in memory during the passes, though the network does not need it: what a stage has
# sent, until its backward pass; gradients in the weights' dtype, where their sums have another one; the
# buckets into which gradients are copied to be added up. Source: torch-ddp.
KEEPS = ("sent", "gradients", "buckets")
# What is allocated on a stream of its own, so that only it can use that memory again: a device's parts of the
# gradients; the buffers into which weights are gathered, or the second of two such units (fold/pools.py).
POOLS = ("gradients", "gathers")
NUMBERS = {  # the greatest value of each
    "unaligned": 1, "dispatch": 1, "context_mib": 1e5, "expandable": 1e9, "behind": 1, "request_ms": 1e3,
    "call_us": 1e3, "share": 1, "cache_share": 1, "states": 10, "captures": 1e9, "blocks": 1,
}  # fmt: skip
FLAGS = ("mmq", "marlin", "awq", "fp4", "counts_experts", "own_networks", "by_layers", "prompts_first")


def parse(about: Any, file: str) -> Stack:
    """A stack from its table. Raises InputError that names the file and the field."""
    at = f"stack: {file}"
    checked.table(at, about, FIELDS, ("about", "source"))
    modes: dict[str, Any] = {
        mode: checked.table(f"{at}: {mode}", about[mode])
        for mode in ("train", "serve", *BESIDES)
        if mode in about
    }
    if same := _other(at, about, "same"):
        fitted = table.load("stacks", f"{same}.json")
        about = {**about, **{key: fitted[key] for key in ("reached", "intervals") if key in fitted}}
    kernels = table.load("kernels.json")["attention"]

    def field(key: str, check: Callable[..., Any], usual: Any, *allowed: Any) -> Any:
        return check(f"{at}: {key}", about.get(key, usual), *allowed)

    return Stack(
        **{"train": None, "serve": None, **{mode: {} for mode in BESIDES}, **modes},
        **{key: field(key, checked.number, None, 0, most) for key, most in NUMBERS.items() if key in about},
        **{key: field(key, checked.flag, False) for key in FLAGS},
        name=file.removesuffix(".json"),
        about=field("about", checked.text, ""),
        source=field("source", checked.sources, ""),
        overlap={
            **dict.fromkeys(AXES, 0.0),
            **field("overlap", checked.numbers, {}, (*AXES, "optimizer"), 0, 1),
        },
        attention={"": "fa2", **field("attention", checked.each, {}, one_of(kernels))},
        tensor_units=field("tensor_units", tensor_units, {}),
        accumulate=field("accumulate", checked.word, "fp32", ("fp16", "fp32")),
        reached=field(
            "reached", checked.each, {}, lambda at, value: checked.numbers(at, value, CLASSES, 0.01, 100)
        ),
        like=_other(at, about, "like"),
        same=same,
        graphs=_other(at, about, "graphs"),
        intervals=field("intervals", checked.each, {}, interval),
        all_reduce=field("all_reduce", checked.each, {}, all_reduce),
        experts={"": "grouped", **field("experts", checked.each, {}, one_of(EXPERTS))},
        step_tokens={**USUAL_STEP, **field("step_tokens", checked.each, {}, by_memory)},
        sequences={**USUAL_SEQUENCES, **field("sequences", checked.each, {}, by_memory)},
        calls=field("calls", checked.numbers, {}, CALLS, 0, 100),
        few_bits=_few_bits(at, about),
        by_format=field("by_format", checked.each, {}, by_format),
        tf32=field("tf32", checked.words, [], ("conv", "matmul")),
        formats=field("formats", checked.texts, []),
        weights=field("weights", checked.word, "", ("", *SHORT)),
        groups=field("groups", checked.numbers, {}, ("", *AXES), 0, 100),
        keeps=field("keeps", checked.words, [], KEEPS),
        allocator=field("allocator", checked.word, "", ("", "torch")),
        pools=field("pools", checked.words, [], POOLS),
        notes=field("notes", checked.text, ""),
        aliases=field("aliases", checked.texts, []),
    )


def _other(at: str, about: Any, key: str) -> str:
    """Another stack's name, or nothing."""
    name = about.get(key, "")
    return checked.word(f"{at}: {key}", name, names()) if name != "" else ""


def _few_bits(at: str, about: Any) -> Mapping[str, Mapping[str, float]]:
    """Its own, by generation, or those of the stack that it names."""
    few = about.get("few_bits", {})
    if isinstance(few, str):
        other = _other(at, about, "few_bits")
        return _few_bits(at, table.load("stacks", f"{other}.json")) if few else {}
    return checked.each(f"{at}: few_bits", few, few_bits)
