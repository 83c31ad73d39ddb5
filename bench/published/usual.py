"""What a source leaves out and its software says by itself: defaults and recipes, in the words of its tables.

A recipe is a file of the software at that release, for a network, a device and a number format; the last that
fits counts. What a row states is never replaced, and what neither states stays empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from budget.named import NamedTuple

from .names import likely, named
from .table import Row

EMPTY = ("", "-", "n/a", "na")
BRIDGE = "megatron-bridge"
# A container of NVIDIA's: a year, a month, and a patch.
RELEASE = r"(?<![\d.])(2\d)\.(0[1-9]|1[0-2])(?:\.(\d\d?))?(?![\d.])|\bnemo(2\d)(0[1-9]|1[0-2])\b"
NEVER = (99,)


class Usual(NamedTuple):
    """Columns that a row has where it states nothing: a row of the software; of one of the networks, devices,
    formats and kinds of row, where they are given; and of a release from `since` on and before `until`.
    """

    software: str  # a word of the source, or a stack
    columns: Mapping[str, str]
    models: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: tuple[int, ...] = ()
    until: tuple[int, ...] = NEVER


V3, LATENT = ("deepseek-v3",), ("deepseek-v3", "kimi-k2")
QWEN, SMALL_QWEN, OSS = ("qwen3-235b-a22b",), ("qwen3-30b-a3b",), ("gpt-oss-120b",)
NANO, SUPER = ("nemotron-3-nano-30b-a3b",), ("nemotron-3-super-120b-a12b",)
ONE = {"tp": "1", "pp": "1", "cp": "1", "ep": "1"}
# Of experts: DeepEP's or HybridEP's kernels, or an all-to-all; beside another micro-batch or not.
TOKENS, COPIES, BESIDE = {"ep_kind": "tokens"}, {"ep_kind": "copies"}, {"ep_overlap": "1"}


def _recipe(
    columns: Mapping[str, str], models: tuple[str, ...], *which: str, **when: tuple[int, ...]
) -> Usual:
    """A recipe of Megatron Bridge, for devices and formats."""
    formats = tuple(f for f in FORMATS if f in which)
    return Usual(BRIDGE, columns, models, tuple(d for d in which if d not in formats), formats, (), **when)


def _again(what: str, models: tuple[str, ...], *which: str, **when: tuple[int, ...]) -> Usual:
    """The modules that a recipe recomputes; what has no recipe recomputes nothing."""
    return _recipe({"recompute": what}, models, *which, **when)


FORMATS = ("nvfp4", "mxfp8", "fp8", "bf16")  # the first that a row's word has
# NeMo 1's recipes of large networks run tp's collectives beside products (ub_tp_comm_overlap), but for these.
APART = ("gpt3-175b", "nemotron-4-340b", "llama-2-13b", "llama-2-7b", "llama-3-8b", "mixtral-8x7b")
LAUNCHER = "nvidia/nemo@"  # pages of NeMo 1, whose recipes are NeMo-Framework-Launcher's
# Sources: megatron-bridge-recipes, nemo-launcher, maxtext-defaults, torchtitan-defaults.
USUAL = (
    Usual(BRIDGE, {"recompute": "none", "zero_stage": "dist-opt (zero1)", "vpp": "1"}),
    _again("mla_up_proj", LATENT),
    _again("mla_up_proj,mlp", LATENT, "h100-sxm"),
    _again("moe_act", V3, "gb300", "bf16"),
    _again("moe_act", V3, "gb300", until=(26, 2)),
    _again("mlp", V3, "gb200", "fp8", "nvfp4", since=(26, 4)),
    _again("mlp", V3, "gb200", "mxfp8", since=(26, 4), until=(26, 6)),
    _again("none", V3, "gb300", "mxfp8", since=(26, 6)),
    _again("mla_up_proj,mlp", V3, "b200", "mxfp8", since=(26, 4, 1)),
    _again("mla_up_proj,layernorm,moe_act", V3, "b200", "nvfp4", since=(26, 4, 1)),
    _again("layernorm,moe_act", OSS, "b200", "gb200", "h100-sxm"),
    _again("none", OSS, "gb200", "mxfp8", since=(26, 6)),
    _again("moe,layernorm", NANO, "h100-sxm", "bf16"),
    _again("moe,layernorm,core_attn,moe_act", NANO, "h100-sxm", "fp8"),
    _again("moe_act,moe,layernorm,core_attn", SUPER, "b200", "bf16"),
    _again("moe_act,layernorm", SUPER, "b200", "mxfp8"),
    _again("moe_act,layernorm", SUPER, "b300", "bf16", "nvfp4"),
    _recipe({"tp_overlap": "1"}, ("llama-3-70b", "llama-3.1-405b", "gpt3-175b")),
    _recipe(TOKENS, (*LATENT, *QWEN, *SMALL_QWEN, *NANO, *SUPER)),
    _recipe(COPIES, V3, "b200", until=(26, 2)),
    _recipe(COPIES, ("kimi-k2",), "b200", "b300", "h100-sxm"),
    _recipe(COPIES, QWEN, "b200", "h100-sxm"),
    _recipe(COPIES, QWEN, "b300", until=(26, 2, 1)),
    _recipe(COPIES, QWEN, "b300", since=(26, 4), until=(26, 4, 1)),
    _recipe(COPIES, SMALL_QWEN, "b200", until=(26, 2, 1)),
    _recipe(TOKENS, OSS, "b300", since=(26, 4)),
    _recipe(TOKENS, OSS, "gb200", "gb300", "mxfp8", since=(26, 6)),
    _recipe(BESIDE, V3, "h100-sxm", until=(26, 2)),
    _recipe(BESIDE, V3, "b200", "mxfp8", "nvfp4", since=(26, 4, 1)),
    _recipe(BESIDE, (*V3, *QWEN, *SMALL_QWEN, *OSS), "gb200", "gb300", "mxfp8", since=(26, 6)),
    _recipe(BESIDE, SMALL_QWEN, "b300", "mxfp8", since=(26, 6)),
    _recipe(BESIDE, SMALL_QWEN, "h100-sxm", until=(26, 2, 1)),
    _recipe(BESIDE, QWEN, "h100-sxm"),
    _recipe(BESIDE, QWEN, "b200", until=(26, 2)),
    _recipe(BESIDE, QWEN, "b300", until=(26, 2, 1)),
    _recipe(BESIDE, OSS, "gb200", since=(26, 4)),
    Usual(LAUNCHER, {"recompute": "none", "zero_stage": "dist-opt (zero1)"}, until=(25,)),
    Usual(LAUNCHER, {"vpp": "10"}, ("llama-2-13b",), kinds=("llm_train", "llm_sft"), until=(25,)),
    Usual(LAUNCHER, {"vpp": "20"}, ("llama-2-70b",), kinds=("llm_train", "llm_sft"), until=(25,)),
    Usual(LAUNCHER, {"vpp": "1"}, kinds=("llm_lora",), until=(25,)),
    Usual(LAUNCHER, {"tp_overlap": "1"}, kinds=("llm_train",), until=(25,)),
    Usual(LAUNCHER, {"tp_overlap": "0"}, APART, until=(25,)),
    Usual(LAUNCHER, {"tp_overlap": "1"}, ("llama-2-70b",), kinds=("llm_sft", "llm_lora"), until=(25,)),
    Usual("deeplearningexamples", {"zero_stage": "none (DDP)", "recompute": "none"}, kinds=("cnn_train",)),
    Usual("maxtext", {**ONE, "zero_stage": "fsdp", "recompute": "full"}),
    Usual("/torchtitan", {**ONE, "zero_stage": "fsdp", "recompute": "selective (per-op SAC)"}),
)  # fmt: skip


def filled(row: Row, software: str, device: str) -> Row:
    """The row with what its software says where it states nothing."""
    told = {column: text for column, text in row.items() if text.strip().lower() not in EMPTY}
    if "differ" in told.get("recompute", ""):  # some recipes do, which ones the source does not say
        del told["recompute"]
    empty = dict.fromkeys(row.keys() - told.keys(), "")
    word = row.get("precision", "").lower()
    kind = next((name for name in FORMATS if name in _plain(word)), "")
    name, source, when = row.get("model", "").strip(), row["source"].lower(), release(row)
    model = named(name) or likely(name)
    own: dict[str, str] = {}
    for u in USUAL:
        mine = (u.software == software or u.software in source) and u.since <= when < u.until
        given = ((u.models, model), (u.devices, device), (u.formats, kind), (u.kinds, row.get("kind", "")))
        if mine and all(not wanted or has in wanted for wanted, has in given):
            own |= u.columns
    return {**empty, **own, **told}


def release(row: Row) -> tuple[int, ...]:
    """The container that a row was measured in, as its source or notes say; the newest where they don't."""
    for column in ("engine_version", "source", "notes"):
        if found := re.search(RELEASE, row.get(column, "").lower()):
            return tuple(int(n) for n in found.groups() if n)
    return (98,)


def _plain(word: str) -> str:
    """`fp8-mx` is `mxfp8`."""
    return re.sub(r"fp8[-_ (]*mx", "mxfp8", word)
