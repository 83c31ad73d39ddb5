"""Dividing a program over devices: who has to talk to whom follows from the operators.

Volumes and counts are the papers': Megatron-LM, Korthikanti (sequence parallelism), DeepSpeed-Ulysses, ring
attention, GShard, ZeRO. tests/test_dtensor.py holds the same to what torch does.
"""

from collections import Counter

import pytest

from budget import arch, estimate
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.communication import communications
from budget.ir import elements, walk, weights
from budget.ir.verify import verify
from budget.layout import parse
from budget.plan.backward import backward
from budget.plan.divide import check, divide
from budget.plan.fuse import fuse
from budget.plan.mesh import axes, mesh
from budget.plan.recompute import recompute

B, S, D, L, V, H, K = 2, 32, 64, 3, 96, 4, 16
BYTES = 2  # bf16
X = B * S * D * BYTES  # the residual stream


def network(layers=L, seq=S, **settings):
    module = arch.load("transformer")
    usual = {"d_model": D, "heads": H, "vocab": V, "context": seq}
    config = make(module.Config, {"layers": layers, **usual, **settings})
    return backward(fuse(module.build(config, Workload("train", B, seq)), {"attention"}))


def bytes_sent(model, layout, recomputed="none"):
    """(axis, kind, phase) -> total bytes and number, rows of statistics aside."""
    divided = divide(model, mesh(parse(layout), model))
    verify(divided.model)
    program = recompute(divided.model, recomputed)
    verify(program)
    total, number = Counter(), Counter()
    for c in communications(program.nodes, "bfloat16"):
        if "#" not in c.tensor:
            total[c.axis, c.kind, c.phase] += c.bytes * c.times
            number[c.axis, c.kind, c.phase] += c.times
    return total, number, divided


@pytest.fixture(scope="module")
def gpt():
    return network()


@pytest.fixture(scope="module")
def llama():
    own = {"kv_heads": 2, "gated": True, "activation": "silu", "norm": "rms_norm", "positions": "rotary"}
    return network(**own, fused_qkv=False, qkv_bias=False, out_bias=False, mlp_bias=False, tied=False)


def test_data_parallelism_leaves_every_weight_gradient_a_sum_and_says_nothing_else(gpt):
    total, _, divided = bytes_sent(gpt, "dp=2")
    assert not total
    assert set(divided.partial) == {t.name for t, _, _ in weights(gpt.nodes)}
    assert {tuple(a.name for a in axes) for axes in divided.partial.values()} == {("dp",)}


def test_tensor_parallelism_is_megatron_s_two_all_reduces_a_layer_and_pass(gpt):
    total, number, _ = bytes_sent(gpt, "tp=2,sp=0")
    # The embedding by vocabulary adds one forward, the head one backward. Source: megatron-lm.
    assert number == {("tp", "all_reduce", "forward"): 2 * L + 1, ("tp", "all_reduce", "backward"): 2 * L + 1}
    assert total == {("tp", "all_reduce", phase): (2 * L + 1) * X for phase in ("forward", "backward")}


def test_heads_with_sinks_need_nothing_of_other_devices():
    """A softmax's row is its keys, of which each device has all for its heads; a sink is one more score."""
    model = network(sinks=True)
    found = communications(divide(model, mesh(parse("tp=4,sp=0"), model)).model.nodes, "bfloat16")
    assert not [c.tensor for c in found if "attn.softmax" in c.tensor]


def test_sequence_parallelism_is_the_same_as_gathers_and_scatters(gpt):
    total, number, divided = bytes_sent(gpt, "tp=2")
    # Forward 2 gathers and 2 scatters a layer, backward the same with 2 more gathers of what was not kept.
    # Embedding: scattered forward, gathered backward; head: gathered, gathered again, scattered.
    assert number == {
        ("tp", "all_gather", "forward"): 2 * L + 1, ("tp", "reduce_scatter", "forward"): 2 * L + 1,
        ("tp", "all_gather", "backward"): 4 * L + 2, ("tp", "reduce_scatter", "backward"): 2 * L + 1,
    }  # fmt: skip
    assert all(total[key] == n * X for key, n in number.items())
    norms = [name for name, axes in divided.partial.items() if axes]
    assert norms
    assert all("norm" in name or name.endswith((".bias", "wpe")) for name in norms)


def test_full_recomputation_repeats_its_communication(gpt):
    _, plain, _ = bytes_sent(gpt, "tp=2,sp=0")
    _, again, _ = bytes_sent(gpt, "tp=2,sp=0", "full")
    # A checkpoint stops behind the last tensor that is needed: the second all-reduce is not.
    more = again["tp", "all_reduce", "backward"] - plain["tp", "all_reduce", "backward"]
    assert more == L


@pytest.mark.parametrize(("kv_heads", "backward"), [(0, 4), (2, 4)])
def test_ring_attention_gathers_keys_and_values(kv_heads, backward):
    model = network(kv_heads=kv_heads, fused_qkv=False)
    total, number, _ = bytes_sent(model, "cp=2")
    keys = B * S * (kv_heads or H) * K * BYTES
    # Forward K and V; backward both again, as they are not kept, and their gradients scattered.
    assert number["cp", "all_gather", "forward"] == 2 * L
    assert number["cp", "all_gather", "backward"] + number["cp", "reduce_scatter", "backward"] == backward * L
    assert total["cp", "all_gather", "forward"] == 2 * L * keys
    assert total["cp", "reduce_scatter", "backward"] == 2 * L * keys


def test_ulysses_is_four_all_to_alls_forward_and_four_backward():
    model = network(fused_qkv=False)
    total, number, _ = bytes_sent(model, "cp=2,cp_kind=ulysses")
    # Each device has 1/P of the sequence: 4 N h / P in all, forward and backward. Source: ulysses.
    assert number == {("cp", "all_to_all", "forward"): 4 * L, ("cp", "all_to_all", "backward"): 4 * L}
    assert total == {("cp", "all_to_all", p): 4 * L * X // 2 for p in ("forward", "backward")}


@pytest.mark.parametrize("layout", ["dp=4,ep=4", "cp=4,ep=4", "cp=2,dp=4,ep=8", "tp=2,dp=4,ep=4"])
def test_experts_are_two_all_to_alls_forward_and_two_backward(layout):
    settings = {"experts": 8, "active_experts": 2, "expert_d_ff": 48, "gated": True, "activation": "silu"}
    model = network(**settings, mlp_bias=False)
    total, number, divided = bytes_sent(model, layout)
    assert number["ep", "all_to_all", "forward"] == number["ep", "all_to_all", "backward"] == 2 * L
    # Every device sends the rows of its own tokens, for each of the experts that they go to. Source: gshard.
    shares = parse(layout)
    rows = B * S // (shares.tp * shares.cp) * 2 * D * BYTES
    if shares.tp == 1:
        assert total["ep", "all_to_all", "forward"] == 2 * L * rows
    sent = [c for c in communications(divided.model.nodes, "bfloat16") if c.axis == "ep"]
    assert {c.copies for c in sent if "#" not in c.tensor} == {2}
    experts = {name for name in divided.partial if ".experts." in name}
    rest = shares.replicas // shares.ep
    assert all(_ranks(divided.partial[name]) == rest for name in experts)
    assert all(_ranks(divided.partial[n]) == shares.replicas for n in divided.partial if n not in experts)


def _ranks(axes):
    n = 1
    for axis in axes:
        n *= axis.degree if axis.name != "tp" else 1
    return n


def test_each_device_has_its_part_of_the_weights(llama):
    total = sum(elements(t, o.sizes) * n for t, o, n in weights(llama.nodes))
    divided = divide(llama, mesh(parse("tp=2"), llama)).model
    here = {t.name: elements(t, o.sizes) * n for t, o, n in weights(divided.nodes)}
    whole = {t.name: elements(t, o.sizes) * n for t, o, n in weights(llama.nodes)}
    norms = {name for name in whole if "norm" in name}
    assert all(here[name] * (1 if name in norms else 2) == whole[name] for name in whole)
    assert sum(here.values()) < total


def test_more_devices_than_keys_divide_the_queries_of_each(llama):
    divided = divide(llama, mesh(parse("tp=4"), llama)).model
    here = {t.name: elements(t, o.sizes) for t, o, _ in weights(divided.nodes)}
    assert here["layers.attn.q.weight"] == D * H * K // 4
    assert here["layers.attn.k.weight"] == D * 2 * K // 2  # two heads: each on two devices
    verify(divided)


def test_flops_of_all_devices_are_those_of_one(llama):
    from budget.ir import contraction_flops

    def flops(model):
        return sum(contraction_flops(o) * n for o, n in walk(model.nodes))

    for layout in ("tp=2", "tp=2,sp=0", "cp=2", "cp=2,cp_kind=ulysses", "tp=2,cp=2"):
        shares = parse(layout)
        divided = divide(llama, mesh(shares, llama)).model
        assert flops(divided) * shares.tp * shares.cp == flops(llama), layout


def test_a_mesh_of_one_device_has_no_axes():
    assert axes(parse("")) == ()


@pytest.mark.parametrize(
    ("model", "layout", "problem"),
    [
        ({}, "tp=3", "layout.tp: 3 does not divide"),
        ({}, "cp=5", "layout.cp: 5 does not divide seq, 32; allowed: 4, 8"),
        ({}, "dp=2,ep=2", "layout.ep: transformer has no experts"),
        ({"experts": 6}, "dp=4,ep=4", "layout.ep: 4 does not divide experts, 6; allowed: 3, 6"),
    ],
)
def test_what_does_not_divide_is_named_with_the_nearest_that_does(model, layout, problem):
    built = network(**model)

    def divided():
        found = mesh(parse(layout), built)
        check(built, found, divide(built, found).divides)

    with pytest.raises(InputError) as error:
        divided()
    assert problem in str(error.value)


@pytest.mark.parametrize("tp", [2, 4])
def test_stages_send_a_part_each_and_gather_behind(tp):
    """Megatron-LM's scatter/gather: b s d / tp over the network each way, an all-gather of b s d behind."""
    config = {"layers": 4, "d_model": D, "heads": H, "vocab": V, "context": S}
    asked = {"config": config, "seq": S, "batch": B, "global_batch": 8 * B, "device": "h100"}

    def sent(sp, **how):
        e = estimate("transformer", layout={"tp": tp, "sp": sp, "pp": 4}, precision="pure", **asked, **how)
        (inner,) = [r for r in e.ran if 1 in r.rank.stages]
        found = Counter()
        for s in inner.communications:
            found[s.what.axis, s.what.kind] += s.what.bytes * s.what.times / 8
        return found

    whole, parts = sent(0), sent(0, scatter_gather=True)
    assert whole["pp", "send"] == 2 * X
    assert parts["pp", "send"] == 2 * X / tp
    assert parts["tp", "all_gather"] - whole["tp", "all_gather"] == 2 * X
    assert parts["tp", "all_reduce"] == whole["tp", "all_reduce"]
    assert sent(1, scatter_gather=True) == sent(1)  # there the sequence is divided as it is
