"""Pointwise FLOPs and bytes moved, against the calls that torch makes of the same network, captured.

Per kind: the kernels that torch starts for what transformers writes out, and the tensors that they move.
Per family: the sums of a whole network, forward and backward.
"""

import math
import warnings
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn

from budget.fold._bytes import tensor_bytes
from budget.fold.count import modelled
from budget.fold.kernels import works
from budget.ir import RULES, Model, elements, link, op, pointwise_flops, walk
from budget.ir.verify import verify
from budget.plan.backward import backward
from budget.read.torch_module import capture

pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oracles.memory_cases import SMALL, answer, captured, deepseek_v3
    from oracles.written_out import KINDS, Function, x

pytestmark = pytest.mark.usefixtures("quiet")
PHASES = ("forward", "backward")
ACTIVATIONS = ("relu", "gelu", "silu")  # of others, torch's code writes some out
CLOSE = 0.07  # of bytes, and of pointwise FLOPs outside of attention's kernel
NEAR = 0.04  # of the captured network's peak memory
# Where torch's code does more than a family's operators say: the tolerances of bytes, and what it does.
LOOSER = {
    "bloom": (0.08, "queries, keys and values are sliced out of one tensor and copied; ALiBi's products"),
    "mixtral": (0.1, "tokens are sorted by expert, gathered and scattered"),
    "deepseek_v3": (0.1, "the same"),
    "gpt_oss": (0.16, "the same, backwards more: each product is masked; biases' gradients are put by index"),
    "qwen3_next": (0.1, "the same; a chunk's gradient is taken out of a copy of the whole"),
    "swin": (0.08, "windows are cut out and put back by several copies"),
    "unet": (0.08, "gradients of joined tensors are sliced"),
}
MODELLED = {  # what is a model of torch's code, and says so (budget.fold.count.modelled)
    "mamba": "scans", "mamba2": "scans", "jamba": "scans", "bamba": "scans", "lstm": "recurrent cells",
}  # fmt: skip
# On a processor SDPA has no kernel for values that are narrower than keys, as a GPU has.
EAGER = {"deepseek_v3": deepseek_v3((8, 256), attention="eager")}


def named(program):
    """{(phase, kind): elements} of norms and activations that are one call of torch."""
    found = Counter()
    for o, times in walk(program.nodes):
        kind = o.kind.rstrip("_").removesuffix("_plain")  # in place; without weights
        if o.phase in PHASES and (
            kind in ACTIVATIONS or (RULES[kind].torch and RULES[kind].family == "norm")
        ):
            found[o.phase, kind] += elements(o.out, o.sizes) * times
    return found


def moved(nodes, dtype):
    """{phase: (bytes, pointwise FLOPs outside of attention's kernel)}."""
    sums = {phase: [0, 0] for phase in PHASES}
    for w in works(nodes, dtype):
        if w.phase in sums:
            sums[w.phase][0] += w.bytes * w.times
            sums[w.phase][1] += w.pointwise * w.times * (w.kind != "attention")
    return sums


@pytest.mark.parametrize("case", [EAGER.get(case.name, case) for case in SMALL], ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_network_moves_what_torch_s_calls_move(case):
    ours, torchs = (ask(case, *case.shapes[-1]) for ask in (answer, captured))
    verify(torchs.program)
    # Ours is held to MemTracker in test_memory_oracle.py, both are in docs/accuracy.md.
    assert torchs.memory.peak == pytest.approx(ours.memory.peak, rel=NEAR)
    if case.name in MODELLED:
        assert MODELLED[case.name] in modelled(ours.program)
        return
    assert set(modelled(ours.program)) <= {"experts"}
    a, b = moved(ours.program.nodes, "bfloat16"), moved(torchs.program.nodes, torchs.task.dtype)
    assert named(ours.program) == named(torchs.program)
    print(case.name, {p: [round(x / y, 3) for x, y in zip(a[p], b[p], strict=True)] for p in PHASES})
    for phase in PHASES:
        assert a[phase][0] == pytest.approx(b[phase][0], rel=LOOSER.get(case.name, (CLOSE, ""))[0])
        assert a[phase][1] == pytest.approx(b[phase][1], rel=CLOSE)


class Written(nn.Module):
    """A function behind leaves that need gradients, as a layer's input does."""

    def __init__(self, part):
        super().__init__()
        self.part, self.lead = part, nn.Parameter(torch.zeros(1))

    def forward(self, *args):
        return self.part(*(t.requires_grad_(t.is_floating_point()) for t in args))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_written_out_kind_starts_torch_s_kernels(kind):
    part, inputs = KINDS[kind]()
    model = capture(Written(part).to(torch.bfloat16), inputs)
    n, rule = inputs[0].numel(), RULES[kind.partition(":")[0]]
    part = inputs[1].shape[-1] / inputs[0].shape[-1] if rule.walks == "part" else 1
    for phase, launches, moves, whole in (
        ("forward", rule.launches, rule.moves, rule.joins[0]),
        ("backward", rule.back_launches, rule.back_moves, rule.joins[1]),
    ):
        ops = [o for o in model.nodes if o.outs and o.phase == phase and "loss" not in (o.name + o.of)]
        sums = {}
        # The sum of the gradients of a part and of the rest, an addition an element, is left out.
        work = (sum(pointwise_flops(o) for o in ops) / n - (part < 1 and phase == "backward")) / part
        assert work == pytest.approx(rule.flops if phase == "forward" else rule.back, abs=0.5)
        for o in ops:
            for t in (*o.ins, *o.outs):
                dtype = "bfloat16" if t.dtype == "bool" else t.dtype
                sums[dtype] = sums.get(dtype, 0) + elements(t, o.sizes) / n / (2 if t.dtype == "bool" else 1)
        assert len(ops) == launches
        assert sums["bfloat16"] == pytest.approx(moves[0] * part + whole, abs=0.1)
        assert sums.get("float32", 0) == pytest.approx(moves[1], abs=0.1)


# The lines of some have other dimensions; a norm over the grid has statistics of its own.
ROWS = [k for k in KINDS if RULES[k].family != "rotation" and k not in ("modulate", "response_norm")]


@pytest.mark.parametrize("kind", ROWS)
def test_a_written_out_kind_keeps_what_autograd_saves(kind):
    """Storages that torch's own hooks see saved, without weights and what is as large as one."""
    part, inputs = KINDS[kind]()
    part = part.to(torch.bfloat16)
    inputs = [torch.randn_like(t).requires_grad_() for t in inputs]
    weights = max((p.numel() for p in part.parameters()), default=1)
    saved = {}

    def keep(t):
        if t.numel() > weights:
            saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        part(*inputs)
    *rest, d = inputs[0].shape
    lines = ["!raw: b c, *c d -> x: b d", "!more: b c, *c d -> z: b d"]
    line = "x:, z: -> y:" if len(inputs) > 1 else "x:, *d -> y:" if weights == d else "x: -> y:"
    nodes = (*(op(f"in{i}", text) for i, text in enumerate(lines)), op("it", line, kind))
    it = link(nodes, {"b": math.prod(rest), "c": 2, "d": d})[0][-1]
    ours = {t.name: tensor_bytes(t, it.sizes, "bfloat16") for t in it.saved({"x", "z"}) if t.role != "weight"}
    assert sum(ours.values()) == sum(saved.values())


NAMED_OTHERWISE = {
    "threshold": nn.functional.relu,
    "gelu_tanh": partial(nn.functional.gelu, approximate="tanh"),
}
CALLS = [kind for kind, rule in RULES.items() if rule.family == "activation" and rule.torch and kind != "glu"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", CALLS)
def test_an_activation_of_one_call_reads_and_writes_what_torch_s_does(kind):
    function = NAMED_OTHERWISE.get(kind) or getattr(nn.functional, kind)
    captured, loss = (
        moved(capture(Written(Function(f)).to(torch.bfloat16), (x(3, 5, 7),)).nodes, "bfloat16")
        for f in (function, lambda t: t + 0)
    )
    linked, ends = link([op("in", "!x: b d, *d d -> y: b d"), op("act", "y: -> z:", kind)], {"b": 15, "d": 7})
    program = backward(Model("t", "t", linked, {}, ends))
    nodes = [o for o in program.nodes if "act" in o.name]
    assert "d:act" in [o.name for o in nodes]
    ours = moved(nodes, "bfloat16")
    loss = moved(
        capture(Written(Function(lambda t: t + 0)).to(torch.bfloat16), (x(3, 5, 7),)).nodes, "bfloat16"
    )
    n = 2 * 3 * 5 * 7
    assert ours["forward"][0] == captured["forward"][0] - loss["forward"][0] + 2 * n
    assert ours["backward"][0] == captured["backward"][0] - loss["backward"][0]
    assert (ours["forward"][1], ours["backward"][1]) == (RULES[kind].flops * n / 2, RULES[kind].back * n / 2)


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_a_bag_reads_every_row_that_it_adds_up(rows):
    """Bags of different rows, by what torch's call is given: numbers, those rows, and what it makes."""
    table, ids = torch.zeros(1000, 8), torch.randperm(1000)[: 20 * rows].view(20, rows)
    out = torch.nn.functional.embedding_bag(ids, table, mode="sum")
    moved = sum(t.numel() * t.element_size() for t in (ids, table[ids.flatten()], out))
    bag = op("bag", "!ids/int64: b l, *~v d -> x: b d", "embedding_bag", b=20, l=rows, v=1000, d=8)
    assert [w.bytes for w in works((bag,), "float32")] == [moved]
