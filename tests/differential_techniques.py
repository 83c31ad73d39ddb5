"""Techniques in random combinations: this package against transformers, peft and torch.optim.

    python tests/differential_techniques.py [--count 300] [--seed 0] [--only bert,t5] [--all]

Draws combinations that go together of at least twelve families, at two shapes, with dropout on and off, eager
and fused attention, and compares trained parameters, FLOPs and the peak of a step. Prints those that differ
(all with --all) and how many there were of each; tests/test_differential_techniques.py runs a few. What one
refuses the other must refuse.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from oracles.technique_families import FAMILIES, Family
from oracles.techniques import Real, measured

from budget import estimate
from budget.errors import InputError

OPTIMIZERS = (*["adamw"] * 4, "adamw_fused", "adamw_loop", "adam", "momentum", "sgd", "adafactor", "muon")
VOCABULARIES = (8000, 500)  # with the second the loss is not the peak
MEMORY = (0.01, 0.05)  # of the peak


class Case(NamedTuple):
    """A network and what is asked about it."""

    name: str
    config: Mapping[str, Any]
    call: Mapping[str, Any]

    @property
    def family(self) -> Family:
        return FAMILIES[self.name]

    @property
    def told(self) -> dict[str, Any]:
        """The call, and the fields of the config that vary."""
        wide = {"vocab": self.config["vocab_size"]} if self.family.size == "seq" else {}
        drops = {"dropout": True} if any(self.config[k] for k in self.family.dropout) else {}
        return {**self.call, **wide, **drops}


def cases(rng: random.Random, names: list[str]) -> Iterator[Case]:
    """Without end."""
    while True:
        name = rng.choice(names)
        family = FAMILIES[name]
        batch, size = rng.choice(family.shapes)
        call = {"batch": batch, family.size: size, **drawn(rng, name, family)}
        fields = dict(family.fields)
        if family.size == "seq":
            fields["vocab_size"] = rng.choice(VOCABULARIES)
        # What torch runs in a kernel's place drops probabilities, which no GPU's kernel keeps.
        if rng.random() < 0.3 and (name != "t5" or call["attention"] == "eager"):
            fields |= family.dropout
        config = {**family.config_class(**fields).to_dict(), "architectures": [family.cls]}
        yield Case(name, config, call)


def drawn(rng: random.Random, name: str, family: Family) -> dict[str, Any]:
    """Techniques that go together."""
    # torch's product of all experts at once has no autocast, and takes bfloat16 only on a processor.
    precision = rng.choice(["pure", "pure", "master", *(["autocast"] if name != "mixtral" else [])])
    call: dict[str, Any] = {
        "precision": precision,
        "optimizer": rng.choice(OPTIMIZERS),
        "attention": rng.choice(["eager", "fused", "sdpa"] if family.attention else ["fused"]),
        "accumulate": rng.choice([1, 1, 2, 3]),
    }
    if name in ("resnet", "mixtral") and call["optimizer"] == "muon":
        call["optimizer"] = "adamw"  # torch's takes no kernels of convolutions, and not all experts at once
    if precision == "master" and rng.random() < 0.4:
        call["grad_dtype"] = "fp32"
    if precision == "pure" and name != "mixtral" and rng.random() < 0.3:
        call["dtype"] = "fp32"
    call |= what_trains(rng, family, call)
    if family.stacks:
        call |= what_runs_again(rng, family, call)
    return {k: v for k, v in call.items() if (k, v) != ("accumulate", 1)}


def what_trains(rng: random.Random, family: Family, call: Mapping[str, Any]) -> dict[str, Any]:
    """Adapters, what is frozen, or neither."""
    how = rng.choice(["all", "all", "lora", "lora", "freeze", "freeze_layers"])
    if how == "lora" and family.targets:
        several = rng.sample(family.targets, rng.choice([1, 2, 2, len(family.targets)]))
        adapters: dict[str, Any] = {"lora_rank": rng.choice([4, 16, 64]), "lora_targets": ",".join(several)}
        if rng.random() < 0.4:
            adapters["lora_dropout"] = 0.05
        if call["precision"] != "autocast" and call.get("dtype") != "fp32" and rng.random() < 0.3:
            adapters["lora_dtype"] = "fp32"
        return adapters
    if how == "freeze":
        return {"freeze": ",".join(rng.sample(sorted(family.parts), rng.choice([1, 2])))}
    if how == "freeze_layers" and family.stacks:
        return {"freeze_layers": rng.choice([1, 2])}
    return {}


def what_runs_again(rng: random.Random, family: Family, call: Mapping[str, Any]) -> dict[str, Any]:
    """A recomputation, or none."""
    how = rng.choice(["none", "none", "full", "full", "selective"])
    if how == "selective" and call["attention"] == "eager":
        return {"recompute": how}
    if how != "full":
        return {}
    some: dict[str, Any] = {"recompute": "full"}
    if rng.random() < 0.2:
        some["recompute_layers"] = rng.choice([1, 2])
    elif rng.random() < 0.25 and len(family.stacks) == 1:
        some["recompute_every"] = rng.choice([2, 3])
    if rng.random() < 0.6:
        some["input_gradients"] = True
    return some


def ours(case: Case) -> Real:
    """This package's answer. Raises InputError."""
    # Where calls are recorded, autograd adds two gradients into a third tensor.
    asked = {"device": "h100", "execution": "eager", "gradient_sums": "new", **case.call}
    found = estimate(case.config, **asked)
    eager = case.call["attention"] == "eager"
    counted = found if eager else estimate(case.config, **{**asked, "attention": "eager"})
    flops = counted.flops.forward, counted.hardware.backward
    return Real(found.params.trainable, *flops, found.memory.peak, found.memory.at)


class Verdict(NamedTuple):
    """How near an answer is: peak within 1 %, within 5 %, worse, refused by both, or FAILURE."""

    peak: str
    error: float = 0.0
    trainable: bool = True
    flops: bool = True
    why: str = ""


def judge(case: Case) -> Verdict:
    theirs, found, refused, why = None, None, "", ""
    try:
        theirs = measured(case.family, case.config, case.call)
    except Exception as error:  # noqa: BLE001 - whatever it is, torch does not run it
        refused = f"{type(error).__name__}: {error}"
    try:
        found = ours(case)
    except InputError as error:
        why = str(error)
    if theirs is None or found is None:
        both = theirs is None and found is None
        text = f"torch: {refused or 'runs'}; budget: {why or 'answers'}"
        return Verdict("refused" if both else "FAILURE", why=text)
    error = found.peak / theirs.peak - 1
    near = next((f"within {x:.0%}" for x in MEMORY if abs(error) <= x), "worse")
    flops = found[1:3] == theirs[1:3]
    trained = found.trainable == theirs.trainable
    why = f"{found.peak - theirs.peak:+,} at {theirs.at}, ours {found.at}"
    if not flops:
        why += f" FLOPs {found.forward / theirs.forward:.4f} {found.backward / theirs.backward:.4f}"
    if not trained:
        why += f" trained {found.trainable:,} for {theirs.trainable:,}"
    return Verdict(near, error, trained, flops, why)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--all", action="store_true", help="print those that are equal, too")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    names = args.only.split(",") if args.only else list(FAMILIES)
    found: Counter[str] = Counter()
    start = time.monotonic()
    for i, case in enumerate(islice(cases(random.Random(args.seed), names), args.count)):
        v = judge(case)
        found[v.peak] += 1
        found["FLOPs differ"] += not v.flops
        found["trained parameters differ"] += not v.trainable
        if args.all or v.peak != "within 1%" or not v.flops or not v.trainable:
            print(f"{i:4} {case.name:9}{v.error:+8.2%} {v.why} {case.told}", flush=True)
    print(dict(found), f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
