"""Configs with mutated fields: this package against transformers on the meta device.

    python tests/differential.py [--count 40000] [--jobs 2] [--seed 0] [--only bert,t5] [--seconds 3600]
    python tests/differential.py --config '{"model_type": "bert", ...}' [--train]

Each variation is a small config of a covered family and one of its classes, with fields that the class
really reads changed: one at a time, or several. It is equal, equal in its parameters where the class
does not run, refused, or a failure; what transformers itself cannot build is none of these. Prints the
failures, each as the command that judges it again, and how many there were of each;
tests/test_differential.py runs a few.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import cache
from itertools import islice
from typing import Any
from unittest.mock import patch

import torch
import transformers
from differential_counts import ours, reference
from differential_inputs import tower_fields
from processes import Lost, answers
from small_configs import base
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget.errors import InputError
from budget.read import hf_families

transformers.logging.set_verbosity_error()
ACTS = ("gelu", "relu", "silu", "gelu_new", "quick_gelu", "gelu_pytorch_tanh", "relu2", "xielu", "tanh",
        "mish")  # fmt: skip
PATCHES = 4096  # of a picture at most: some classes look at numbers, and run on the processor


def families() -> list[str]:
    """The families that are networks of their own, or text with a tower of images."""
    table = {kind: hf_families.load(kind) for kind in hf_families.known()}
    table = {kind: family for kind, family in table.items() if "code" not in family}  # transformers has none
    return [kind for kind, family in table.items() if "nested" not in family or "tower" in family]


def classes(kind: str) -> list[str]:
    """The classes that a family names, and none."""
    return ["", *hf_families.load(kind).get("classes", {})]


@cache
def usual(kind: str) -> str:
    """The class that a config without one stands for."""
    family = hf_families.load(kind)
    named = family.get("classes", {})
    arch = family["arch"]
    word = family.get("usual") or {
        "transformer": "none" if family.get("set", {}).get("head") == "none" else "lm",
        "encoder_decoder": "lm", "whisper": "lm", "hybrid": "lm", "mamba": "lm",
        "audio_encoder": "none",
    }.get(arch, "classifier")  # fmt: skip
    return next((name for name, what in named.items() if what == word), next(iter(named)))


@cache
def read_fields(kind: str, name: str) -> tuple[str, ...]:
    """Fields that a class reads while it is made and run."""
    config = CONFIG_MAPPING[kind](**deepcopy(base(kind)))
    towers = tower_fields(kind)
    parts = {"": config, **{f"{tower}.": getattr(config, tower) for tower in towers}}
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
    eps = ("eps", "theta", "_std", "_min", "_max", "init", "limit", "multiplier", "factor", "scaling",
           "token")  # fmt: skip
    quiet |= {"text_config", *towers, "hidden_size"} if towers else set()
    widths = {f"{tower}.hidden_size" for tower in towers}
    alone = (k for k in seen & known if k.rpartition(".")[2] not in quiet or k in widths)
    return tuple(sorted(k for k in alone if not k.endswith(eps)))


@contextmanager
def watched(cls: type, part: str, seen: set[str]) -> Iterator[None]:
    """Record in `seen` the fields that are read of a config's class, behind the name of its part."""
    original = cls.__getattribute__

    def watch(self: Any, key: str) -> Any:
        seen.add(part + key)
        return original(self, key)

    with patch.object(cls, "__getattribute__", watch):
        yield


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
    """Patches of the largest picture; 0 where there is no picture."""
    most = 0
    for table in (fields, *(value for value in fields.values() if isinstance(value, dict))):
        sides = [table.get(name) for name in ("image_size", "patch_size")]
        if all(isinstance(n, int) and n > 0 for n in sides):
            most = max(most, (sides[0] // sides[1]) ** 2)
    return most


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
    """The verdict on a variation, and why."""
    return judge(*task)


def command(kind: str, name: str, fields: dict[str, Any], train: bool) -> str:
    """The command that judges a variation again."""
    table = {"model_type": kind, **({"architectures": [name]} if name else {}), **fields}
    told = shlex.quote(json.dumps(table))
    return f"python tests/differential.py --config {told}{' --train' if train else ''}"


def one(text: str, train: bool) -> None:
    """Print the verdict on a config."""
    table = json.loads(text)
    kind, (name, *_) = table.pop("model_type"), table.pop("architectures", [""])
    print(*judge(kind, name, table, train))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=1, help="processes; the variations are the same")
    parser.add_argument("--train", action="store_true", help="backward passes, too")
    parser.add_argument("--config", default="", help="judge this config.json alone")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()  # it tells of fields that it does not take
    torch.set_num_threads(1)
    if args.config:
        return one(args.config, args.train)
    kinds = args.only.split(",") if args.only else families()
    found: Counter[str] = Counter()
    start = time.monotonic()
    made = variations(kinds, random.Random(args.seed))
    tasks = ((*one, args.train) for one in islice(made, args.count))
    for task, answer in answers(judged, tasks, args.jobs):
        verdict, why = ("FAILURE", answer.why) if isinstance(answer, Lost) else answer
        found[verdict] += 1
        seconds = time.monotonic() - start
        if verdict == "FAILURE":
            print(f"{why}\n  {command(*task)}", flush=True)
        if found.total() % 500 == 0:
            rate = f"{found.total() / seconds:.1f} a second"
            print(f"{found.total():,} of {args.count:,}, {rate}: {dict(found)}", file=sys.stderr, flush=True)
        if seconds > args.seconds:
            break
    print(dict(found), f"{time.monotonic() - start:.0f} s")
    return None


if __name__ == "__main__":
    main()
