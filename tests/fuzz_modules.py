"""Random modules against torch: `python tests/fuzz_modules.py --cases 1500 --seed 7`.

Each module's FLOPs, gradients and peak memory are held against what torch runs (oracles/counts.py), and the
module against itself: what it computes after an estimate is what it computed before.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings

import pytest
import torch
from oracles.counts import as_on_a_gpu, measured
from oracles.random_modules import made
from torch._subclasses.fake_tensor import FakeTensor

import budget
from budget import InputError
from budget.read.torch_module import MIXED


def outcome(module, inputs):
    """The results of a real forward and backward pass: the output, gradients, buffers."""
    torch.manual_seed(1)
    out = module(*inputs)
    (out if out.dim() == 0 else out.float().sum()).backward()
    return [out, *(p.grad for p in module.parameters()), *(t.grad for t in inputs), *module.buffers()]


def facts(module):
    """The facts of a module that an estimate may not change."""
    own = [(n, id(p), p.requires_grad, p._version, id(p.grad)) for n, p in module.named_parameters()]
    flags = [(m.training, sorted(vars(m)), len(m._forward_hooks)) for m in module.modules()]
    state = (torch.get_rng_state().tolist(), random.getstate(), torch.get_default_dtype())
    return own, flags, state, [id(b) for b in module.buffers()], torch.is_grad_enabled()


def touched(build, mode="train"):
    """What an estimate has changed of a module, and its answer."""
    expected = outcome(*build())
    module, inputs = build()
    before = facts(module)
    answer = budget.estimate(module, inputs=inputs, optimizer="none", mode=mode)
    if facts(module) != before:
        return "the module is not as it was", answer
    now = outcome(module, inputs)
    for a, b in zip(expected, now, strict=True):
        if isinstance(b, FakeTensor) or (a is None) != (b is None):
            return "fake tensors are left", answer
        if a is not None and not torch.equal(a.nan_to_num(), b.nan_to_num()):
            return "it computes something else", answer
    return "", answer


def problems(seed):
    """The errors in the estimate of a seed's module; none if it is right."""
    found = []
    try:
        outcome(*made(seed))
    except RuntimeError:  # torch cannot run it either
        return found
    wrong, answer = touched(lambda: made(seed))
    if wrong:
        found.append(wrong)
    return found + differences(answer, measured(lambda: made(seed)))


def differences(answer, torch_s):
    """How an estimate differs from what torch runs."""
    found = []
    if answer.flops[:2] != torch_s[:2]:
        found.append(f"FLOPs {answer.flops[:2]}, torch {torch_s[:2]}")
    if answer.memory.gradients != torch_s.gradients:
        found.append(f"gradients {answer.memory.gradients}, torch {torch_s.gradients}")
    if abs(answer.memory.peak - torch_s.peak) > max(64, torch_s.within * torch_s.peak):
        found.append(f"peak {answer.memory.peak}, torch {torch_s.peak}")
    if flagged := set(answer.model.uncounted) - {MIXED}:
        found.append(f"flagged {sorted(flagged)}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    wrong, refused, start = 0, 0, time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        as_on_a_gpu(patch)
        for seed in range(args.seed, args.seed + args.cases):
            try:
                found = problems(seed)
            except InputError as error:
                found, refused = [f"refused: {error}"], refused + 1
            except Exception as error:  # noqa: BLE001 - all of them are reported
                found = [f"{type(error).__name__}: {str(error)[:200]}"]
            wrong += bool(found)
            for text in found:
                print(f"seed {seed}: {text}", flush=True)
    print(f"{args.cases} modules, {wrong} differ ({refused} refused), {time.monotonic() - start:.0f} s")
    return wrong > 0


if __name__ == "__main__":
    raise SystemExit(main())
