"""What a device of a layout holds: activations, states, micro-batches that wait."""

import pytest
from small_layouts import SMALL, small

from budget import arch, estimate
from budget.config import Workload, make
from budget.fold.memory import memory
from budget.fold.pipeline import in_flight
from budget.layout import parse
from budget.plan.backward import backward
from budget.plan.divide import divide
from budget.plan.fuse import fuse
from budget.plan.mesh import mesh
from budget.plan.recompute import recompute

# Korthikanti et al. 2022, table 3 and figure 1 (as digitised in calculon): hidden, heads, layers, pipeline,
# stages of a device, micro-batch; GiB of activations with tensor parallelism alone, and with sequence
# parallelism and selective recomputation.
MODELS = [
    (6144, 64, 48, 1, 1, 4, 59.25, 9.5625),
    (12288, 96, 96, 8, 3, 1, 66.8438, 12.3516),
    (20480, 128, 105, 35, 3, 1, 114.023, 23.0762),
    (25600, 160, 128, 64, 1, 1, 131.25, 26.5625),
]


def kept(layers, h, a, b, layout, choice):
    """Activations of a network when its forward pass ends, on one device."""
    own = {
        "d_model": h, "heads": a, "context": 2048, "vocab": 51200, "activation": "gelu", "dropout": 0.1,
        "attention_dropout": 0.1,
    }  # fmt: skip
    module = arch.load("transformer")
    model = module.build(make(module.Config, {"layers": layers, **own}), Workload("train", b, 2048))
    model = backward(fuse(model, {"attention"}, "eager"))
    divided = divide(model, mesh(parse(layout), model)).model
    return memory(recompute(divided, choice), "bfloat16").activations


@pytest.mark.parametrize(("h", "a", "layers", "pp", "vpp", "b", "alone", "both"), MODELS)
@pytest.mark.parametrize("sp", [0, 1])
@pytest.mark.parametrize("choice", ["none", "selective"])
def test_activations_are_korthikanti_s(h, a, layers, pp, vpp, b, alone, both, sp, choice):
    """Table 2: sbh (10 + 24/t + 5as/(ht)), sbh/t (34 + 5as/h), and both without 5as/h."""
    s, t = 2048, 8
    layer = kept(3, h, a, b, f"tp={t},sp={sp}", choice) - kept(2, h, a, b, f"tp={t},sp={sp}", choice)
    scores = 5 * a * s / h if choice == "none" else 0
    formula = s * b * h * ((34 + scores) / t if sp else 10 + (24 + scores) / t)
    assert layer == pytest.approx(formula, rel=1e-3)
    bar = {(0, "none"): alone, (1, "selective"): both}.get((sp, choice))
    if bar:
        live = in_flight(parse(f"pp={pp},vpp={vpp}"), 0, 10**6)
        assert layer * layers / pp * live / 2**30 == pytest.approx(bar, rel=1e-3)


@pytest.mark.parametrize(
    ("layout", "choice", "kept"),
    [
        (None, "none", 34 + 80),
        ("tp=8", "none", (34 + 80) / 8),
        ("tp=8,sp=0", "none", 10 + (24 + 80) / 8),
        ("tp=8", "selective", 34 / 8),
    ],
)
def test_the_stack_of_those_years_keeps_them(layout, choice, kept):
    """The command of docs/layouts.md: table 2 for all of GPT-3's layers; head and loss are beside them."""
    found = estimate(
        "gpt3-175b",
        config={"dropout": 0.1, "attention_dropout": 0.1},
        stack="megatron-2021",
        layout=layout,
        recompute=choice,
    )
    assert found.memory.activations == pytest.approx(96 * kept * 2048 * 12288, rel=0.008)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_zero_divides_states_then_gradients_then_weights(n):
    one = small()
    p = one.params.total
    found = [small(f"dp={n},zero={z}").memory for z in range(4)]
    # bf16 weights, gradients and two states: 2 + 2 + 4 bytes a parameter. Source: zero.
    assert [m.parameters for m in found] == [2 * p, 2 * p, 2 * p, pytest.approx(2 * p / n, rel=0.02)]
    assert [m.gradients for m in found] == [2 * p, 2 * p, *[pytest.approx(2 * p / n, rel=0.02)] * 2]
    assert [m.optimizer for m in found] == [4 * p, *[pytest.approx(4 * p / n, rel=0.02)] * 3]


def test_zero_moves_what_the_paper_says():
    """2 P with stages 0 to 2, 3 P with stage 3, whatever the number of devices. Source: zero."""
    p = 2 * small().params.total
    for zero, times in ((0, 2), (1, 2), (2, 2), (3, 3)):
        sent = small(f"dp=4,zero={zero}").to_dict()["communication"]
        twice = {"all_reduce": 2}
        moved = sum(c["bytes"] * c["times"] * twice.get(c["kind"], 1) for c in sent)
        root = 2 * (SMALL["vocab"] + SMALL["context"] + 2) * SMALL["d_model"]  # gathered once
        assert moved == pytest.approx(times * p - (root if zero == 3 else 0), rel=0.01)


def test_pipelines_keep_more_micro_batches_in_earlier_stages():
    rows = small("pp=4", global_batch=16).rows("rank")
    assert [row["in_flight"] for row in rows] == [4, 3, 2, 1]
    assert [row["layers"] for row in rows] == [1, 1, 1, 1]
    activations = [row["activations_bytes"] for row in rows]
    assert activations[0] > activations[1] > activations[2] > 0
    most = small("pp=4", global_batch=16).memory
    assert most.peak == max(row["peak_bytes"] for row in rows)
    assert most.peak == max(moment.total for moment in most.curve)
    assert most.peak == sum(most.at_peak.values())


def test_dualpipe_holds_two_stages():
    """Twice the parameters, and p + 1 micro-batches of a stage. Source: dualpipe."""
    own = {"tied": False}
    one, two = (small(f"pp=4,schedule={s}", global_batch=16, config=own) for s in ("1f1b", "dualpipe"))
    ones, twos = one.rows("rank"), two.rows("rank")
    for r, row in enumerate(twos):
        assert row["parameters_bytes"] == ones[r]["parameters_bytes"] + ones[3 - r]["parameters_bytes"]
        assert row["activations_bytes"] == ones[r]["activations_bytes"] + ones[3 - r]["activations_bytes"]
    assert two.memory.peak == max(row["peak_bytes"] for row in twos)
