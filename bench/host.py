"""The host's time before a kernel starts: `python -m budget.bench.host`, on a processor, without a GPU.

Microseconds of this thread for one call of a public function, on tensors of the processor that are taken for
a GPU's, with Hopper's settings; nothing is compiled, and the launch itself is a function that does nothing.
The least of --rounds averages counts: on a shared machine everything above it is due to other programs.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from budget.kernels.attention import attention
from budget.kernels.attention_cached import attention_cached
from budget.kernels.lint import CompilerDriver
from budget.kernels.matmul import matmul
from budget.kernels.rms_norm import rms_norm
from budget.kernels.sample_launches import random, tensors_on
from budget.kernels.softmax import softmax
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from budget.kernels import launch, settings

CALLS = 200  # in a round, which is their average


# Functions that run during the measurement are no mocks: mocks take longer than what they replace.
def _yes(_tensor: torch.Tensor) -> bool:
    return True


def _hoppers(_device: torch.device) -> int:
    return 132


def _run(*_: Any, **__: Any) -> Any:
    """A compiled kernel whose launch does nothing."""
    return SimpleNamespace(run=lambda *_: None, function=None, packed_metadata=())


@contextlib.contextmanager
def pretended() -> Iterator[None]:
    """Tensors of the processor are launched on, and the launch does nothing."""
    modules = [
        m for n, m in sys.modules.items() if n.startswith("budget.kernels") and hasattr(m, "runs_triton")
    ]
    target = CompilerDriver(GPUTarget("cuda", 90, 32))
    target.get_current_device = lambda: -1  # that of a processor's tensor
    launch.forget()
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "runs_triton", _yes))
        stack.enter_context(mock.patch.object(launch, "keeps_plans", _yes))
        stack.enter_context(mock.patch.object(settings, "processors", _hoppers))
        stack.enter_context(mock.patch.object(JITFunction, "run", _run))
        stack.enter_context(settings.compiling_for("sm90"))
        driver.set_active(target)
        yield
    launch.forget()


def calls() -> dict[str, Callable[[], Any]]:
    """What is timed."""
    x, row = random(64, 1024), random(1024)
    a, weight, bias = random(256, 512), random(1024, 512).mT, random(1024)
    q, k, v = (random(2, 8, 256, 128) for _ in range(3))
    one, key, value = random(4, 32, 1, 128), random(4, 8, 512, 128), random(4, 8, 512, 128)
    lengths = torch.full((4,), 300, dtype=torch.int32)
    leaves = [t.clone().requires_grad_() for t in (a, weight, bias)]
    heads = [t.clone().requires_grad_() for t in (q, k, v)]

    def both(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], Any]:
        grad = torch.empty_like(function(*inputs).detach())
        return lambda: torch.autograd.grad(function(*inputs), inputs, grad)

    return {
        "softmax 64 x 1024": lambda: softmax(x),
        "RMSNorm 64 x 1024": lambda: rms_norm(x, row),
        "matmul 256 x 512 x 1024, bias, GELU": lambda: matmul(a, weight, bias, activation="gelu"),
        "attention 2 x 8 x 256 x 128, causal": lambda: attention(q, k, v, causal=True),
        "attention of a cache, 4 x 32 x 1 of 512": lambda: attention_cached(one, key, value, lengths),
        "matmul, both passes": both(lambda *t: matmul(*t, activation="gelu"), leaves),
        "attention, both passes": both(lambda *t: attention(*t, causal=True), heads),
    }


def measured(function: Callable[[], Any], rounds: int) -> float:
    """Seconds of a call: the least of averages over CALLS."""
    for _ in range(20):
        function()
    averages = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(CALLS):
            function()
        averages.append((time.thread_time() - start) / CALLS)
    return min(averages)


def main() -> int:
    """Print a table; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m budget.bench.host", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help=f"averages over {CALLS} calls (12)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with pretended(), tensors_on("cpu"):
        for name, function in calls().items():
            sys.stdout.write(f"{name:42s} {measured(function, options.rounds) * 1e6:6.1f} us\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
