"""Configs with mutated fields: this package against transformers on the meta device.

    python tests/differential.py [--count 40000] [--jobs 2] [--seed 0] [--only bert,t5] [--seconds 3600]

Each variation is a small config of a covered family and one of its classes, with fields that the class
really reads changed: one at a time, or several. It is equal, equal in its parameters where the class
does not run, refused, or a failure; what transformers itself cannot build is none of these. Prints the
failures, and how many there were of each; tests/test_differential.py runs a few.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import cache
from itertools import islice
from multiprocessing import Pool
from typing import Any
from unittest.mock import patch

import torch
import transformers
from differential_inputs import BATCH, GRID, SAMPLES, SEQ, SIDE, SIZE, among_words, image_field, inputs, sees
from oracle import _convolution_backward
from small_configs import base
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, masking_utils
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget import arch as architectures
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import hf_config
from budget.read.hf_towers import SEEING

transformers.logging.set_verbosity_error()
ROTARY = ("rotary_emb", "patch_positional_embedding")  # whose outer product of frequencies is not counted
ACTS = (
    "gelu",
    "relu",
    "silu",
    "gelu_new",
    "quick_gelu",
    "gelu_pytorch_tanh",
    "relu2",
    "xielu",
    "tanh",
    "mish",
)


PATCHES = 4096  # of a picture at most: some classes look at numbers, and run on the processor


def families() -> list[str]:
    """Those that are networks of their own, or text with a tower of images."""
    table = {kind: hf_config._family(kind) for kind in hf_config.known()}
    return [kind for kind, family in table.items() if "nested" not in family or "tower" in family]


REAL = ("idefics3_vision", "pixtral")  # look for patches that are there


def classes(kind: str) -> list[str]:
    """The classes that a family names, and none."""
    return ["", *hf_config._family(kind).get("classes", {})]


@cache
def usual(kind: str) -> str:
    """The class that a config without one stands for."""
    family = hf_config._family(kind)
    named = family.get("classes", {})
    arch = family["arch"]
    word = family.get("usual") or {
        "transformer": "none" if family.get("set", {}).get("head") == "none" else "lm",
        "encoder_decoder": "lm", "whisper": "lm", "hybrid": "lm", "mamba": "lm",
    }.get(arch, "classifier")  # fmt: skip
    return next((name for name, what in named.items() if what == word), next(iter(named)))


@cache
def read_fields(kind: str, name: str) -> tuple[str, ...]:
    """Fields that a class reads while it is made and run."""
    config = CONFIG_MAPPING[kind](**deepcopy(base(kind)))
    parts = {"": config, **({"vision_config.": config.vision_config} if sees(kind) else {})}
    known = {part + name for part, own in parts.items() for name in type(own)().to_dict()}
    known |= {"head_dim", "num_labels"}
    seen: set[str] = set()
    with ExitStack() as watching:
        for part, own in parts.items():
            watching.enter_context(watched(type(own), part, seen))
        reference(kind, name, base(kind))
    quiet = {"use_cache", "transformers_version", "torch_dtype", "dtype", "return_dict", "architectures",
             "_name_or_path", "output_attentions", "output_hidden_states", "initializer_range",
             "chunk_size_feed_forward",
             "model_type", "is_encoder_decoder", "problem_type", "label2id", "id2label"}  # fmt: skip
    eps = (
        "eps",
        "theta",
        "_std",
        "_min",
        "_max",
        "init",
        "limit",
        "multiplier",
        "factor",
        "scaling",
        "token",
    )
    quiet |= {"text_config", "vision_config", "hidden_size"} if sees(kind) else set()
    alone = (k for k in seen & known if k.rpartition(".")[2] not in quiet or k == "vision_config.hidden_size")
    return tuple(sorted(k for k in alone if not k.endswith(eps)))


@contextmanager
def watched(cls: type, part: str, seen: set[str]) -> Iterator[None]:
    """What is read of a config's class, into `seen`, behind the name of the part that it is."""
    original = cls.__getattribute__

    def watch(self: Any, key: str) -> Any:
        seen.add(part + key)
        return original(self, key)

    with patch.object(cls, "__getattribute__", watch):
        yield


def reference(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[int, int, int]:
    """Parameters, forward and backward FLOPs of the real class; -1 for what does not run.

    Tokens of images are counted by the classes themselves: these run on the processor, not on meta.
    """
    config = AutoConfig.for_model(kind, **deepcopy(fields))
    if train:
        config.use_cache = config.get_text_config().use_cache = False  # in training there is none
    text = config.get_text_config() if sees(kind) else config
    routed = any(hasattr(text, name) for name in ("num_experts_per_tok", "top_k_experts"))
    experts = {"experts_implementation": "batched_mm"} if routed else {}
    with torch.device("cpu" if sees(kind) or kind in REAL else "meta"), without_looks():
        cls = getattr(transformers, name)
        module = cls._from_config(config, attn_implementation="eager", **experts).eval()
        module.tie_weights()
        total = sum(p.numel() for p in module.parameters())
        try:
            given = among_words(module) if sees(kind) else inputs(kind, name, config)
            forward, back = counted(module, given, train, ends(kind, name))
        except Exception:  # noqa: BLE001 - whatever it is, the class does not run
            return total, -1, -1
    return total, forward, back


@contextmanager
def without_looks() -> Iterator[None]:
    """Nothing looks into positions for packed sequences, or into tokens for padding: they have no data."""
    packed = patch.object(masking_utils, "find_packed_sequence_indices", lambda *_, **__: None)
    padded = patch.object(
        transformers.PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_, **__: None
    )
    with packed, padded:
        yield


def ends(kind: str, name: str) -> tuple[str, ...]:
    """How the outputs that are trained are called; what is pooled is one where a family has nothing else."""
    family = hf_config._family(kind)
    pooled = "pooling" in family.get("set", {}) or family.get("classes", {}).get(name) == "projected"
    return ("logits", "embeds", "last_hidden_state", *(("pooler_output",) if pooled else ()))


def counted(module: Any, given: dict[str, Any], train: bool, ends: tuple[str, ...]) -> tuple[int, int]:
    """FLOPs of a forward pass and of the backward pass from the sum of its outputs."""
    grouped = {torch.ops.aten.convolution_backward: _convolution_backward}
    counter = FlopCounterMode(display=False, custom_mapping=grouped)
    with counter, torch.set_grad_enabled(train):
        out = module(**given)
        forward = counter.get_total_flops()
        named = counter.get_flop_counts().items()
        rotary = sum(sum(ops.values()) for path, ops in named if path.endswith(ROTARY))
        if train:
            tensors = [v for k, v in out.items() if isinstance(v, torch.Tensor) and v.requires_grad
                       and k.endswith(ends)]  # fmt: skip
            sum(t.sum() for t in tensors).backward()
    return forward - rotary, counter.get_total_flops() - forward


def ours(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[int, int, int]:
    """The same of this package. Raises InputError."""
    table = {"model_type": kind, **fields, **({"architectures": [name]} if name else {})}
    arch, config = hf_config.read(table)
    if sees(kind) and arch not in SEEING.values():
        raise InputError("vision_config", "its tower is named as not counted")
    images = "seq" not in architectures.load(arch).__dict__.get("TAKES", ())
    side = SIDE if images and "image" not in image_field(kind) else 0
    if sees(kind):
        rotates = getattr(config, "tower_positions", "") == "rotary" and not config.tower_packed
        side = GRID * config.merge * config.pool * config.tower_patch if rotates else config.tower_image
        side = SIZE * side // 8 if getattr(config, "newline", False) else side
    seq = 0 if images else SAMPLES if arch == "wav2vec2" else SEQ
    workload = Workload("train" if train else "forward", BATCH, seq, side)
    model = architectures.load(arch).build(config, workload)
    total = flops(backward(model) if train else model)
    return params(model).total, total.forward, total.backward


def values(name: str, now: Any, rng: random.Random) -> Any:
    """Another value for a field."""
    if "act" in name and isinstance(now, str):
        return rng.choice(ACTS)
    if isinstance(now, bool):
        return rng.choice([not now, not now, None])
    if isinstance(now, int):
        return rng.choice([0, 1, 2, now + 1, now + 2, 2 * now, 3 * now, max(now // 2, 0), now - 1, None])
    if isinstance(now, float):
        return rng.choice([0.0, 0.25, 0.5, 1.0, 2 * now, None])
    if now is None:
        return rng.choice([0, 1, 2, 8, 16, 24, True, False])
    if isinstance(now, list | tuple) and now and all(isinstance(x, int) for x in now):
        return rng.choice(
            [list(now)[:-1], [*now, now[-1]], [2 * x for x in now], [x + 1 for x in now], list(reversed(now))]
        )
    return now


def variations(kinds: list[str], rng: random.Random) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Without end: a family, a class ("" for none), and fields."""
    while True:
        kind = rng.choice(kinds)
        name = rng.choice(classes(kind))
        told = name or usual(kind)
        try:
            names = read_fields(kind, told)
        except Exception as error:  # noqa: BLE001
            print("cannot build", kind, told, str(error)[:200])
            kinds = [k for k in kinds if k != kind]
            continue
        whole = {**CONFIG_MAPPING[kind](**deepcopy(base(kind))).to_dict(), **base(kind)}
        fields = deepcopy(base(kind))
        for path in rng.sample(names, min(len(names), rng.choice([0, 1, 1, 1, 2, 3]))):
            part, _, field = path.rpartition(".")
            table, before = (fields[part], whole[part]) if part else (fields, whole)
            if field in table and field != "image_size" and rng.random() < 0.1:
                del table[field]
                continue
            table[field] = values(field, before.get(field), rng)
        if _patches(fields) <= PATCHES:
            yield kind, name, fields


def _patches(fields: Mapping[str, Any]) -> int:
    """Those of a picture; 0 where there is none, or no such."""
    for table in (fields, fields.get("vision_config")):
        sides = [table.get(name) for name in ("image_size", "patch_size")] if isinstance(table, dict) else []
        if sides and all(isinstance(n, int) and n > 0 for n in sides):
            return (sides[0] // sides[1]) ** 2
    return 0


def judge(kind: str, name: str, fields: dict[str, Any], train: bool = False) -> tuple[str, str]:
    """(equal, parameters equal, refused, unbuildable or FAILURE; what is wrong)."""
    try:
        theirs = reference(kind, name or usual(kind), dict(fields), train)
    except Exception as error:  # noqa: BLE001 - transformers has no such network
        theirs, why = None, str(error)
    try:
        found = ours(kind, name, fields, train)
    except InputError as error:
        return "refused" if theirs else "unbuildable", str(error)
    except Exception as error:  # noqa: BLE001
        return "FAILURE", f"{type(error).__name__}: {error}"
    if theirs is None:
        return "unbuildable", why[:80]
    same = all(a == b or b < 0 for a, b in zip(found, theirs, strict=True))
    if same and -1 in theirs:
        return "parameters equal", "the class does not run"
    return ("equal", "") if same else ("FAILURE", f"{found} for {theirs}")


def judged(task: tuple[str, str, dict[str, Any], bool]) -> tuple[str, str]:
    """The verdict on a variation, and the line to print where it is a failure."""
    kind, name, fields, train = task
    verdict, why = judge(kind, name, fields, train)
    if verdict != "FAILURE":
        return verdict, ""
    changed = {k: v for k, v in fields.items() if base(kind).get(k, "") != v}
    gone = [k for k in base(kind) if k not in fields]
    line = f"{kind} {name or '-'} {json.dumps(changed)} {f'without {gone}' if gone else ''} {why}"
    return verdict, line


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=1, help="processes; the variations are the same")
    parser.add_argument("--train", action="store_true", help="backward passes, too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()  # it tells of fields that it does not take
    kinds = args.only.split(",") if args.only else families()
    found: Counter[str] = Counter()
    start = time.monotonic()
    made = variations(kinds, random.Random(args.seed))
    tasks = ((*one, args.train) for one in islice(made, args.count))
    with Pool(args.jobs, torch.set_num_threads, (1,)) as pool:
        for verdict, line in pool.imap(judged, tasks, chunksize=10):
            found[verdict] += 1
            if line:
                print(line, flush=True)
            if found.total() % 500 == 0:
                print(f"{found.total():,} of {args.count:,}: {dict(found)}", file=sys.stderr, flush=True)
            if time.monotonic() - start > args.seconds:
                break
    print(dict(found), f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
