"""Layouts through the public function: what a device holds and says, against formulas and itself."""

import json

import numpy as np
import pytest
from small_layouts import SMALL, small

import budget
from budget.errors import InputError
from budget.ir import EXPERT_DOWN, contraction_flops, elements, walk
from budget.ir.verify import verify
from budget.layout import Group, Level, parse


def test_a_layout_of_one_device_changes_nothing():
    plain, one = small().to_dict(), small("tp=1,dp=1").to_dict()
    assert one.pop("layout")["tp"] == 1
    assert one.pop("communication") == []
    assert json.dumps(plain) == json.dumps(one)


def test_devices_compute_what_one_does():
    one = small(batch=8)
    for layout, batch in (
        ("dp=4", 2),
        ("tp=2,dp=2", 4),
        ("cp=2,dp=2", 4),
        ("pp=2,dp=2", 4),
        ("tp=2,cp=2,pp=2", 8),
    ):
        many = small(layout, batch=batch)
        assert many.params == one.params
        assert many.flops.forward == one.flops.forward, layout
        assert many.flops.backward == one.flops.backward, layout
        assert many.hardware.forward == one.hardware.forward, layout
        assert many.model.samples == 8
        assert many.devices == parse(layout).devices


def test_all_wait_for_a_straggler():
    one, slow = (small(f"dp=4,straggler={x}").times for x in (1, 1.25))
    assert slow.forward == pytest.approx(1.25 * one.forward)
    assert one.step < slow.step <= 1.25 * one.step


def test_the_busiest_experts_have_more_rows():
    own = {"experts": 8, "active_experts": 2, "gated": True, "activation": "silu", "mlp_bias": False}
    even, crowded = (small(f"dp=4,ep=4,imbalance={x}", config=own) for x in (1, 1.5))
    sent = [[c for c in e.to_dict()["communication"] if c["axis"] == "ep"] for e in (even, crowded)]
    assert [c["bytes"] for c in sent[1]] == [c["bytes"] * 1.5 for c in sent[0]]
    assert crowded.memory.parameters == even.memory.parameters
    assert crowded.memory.activations > even.memory.activations
    assert crowded.flops == even.flops
    assert crowded.hardware.forward > even.hardware.forward
    for rank in crowded.spread.ranks:
        verify(rank.program)


def test_stages_are_as_asked_or_as_even_as_they_go():
    assert [r["layers"] for r in small("pp=3").rows("rank")] == [1, 2, 1]
    assert [r["layers"] for r in small("pp=3,stages=2+1+1").rows("rank")] == [2, 1, 1]


def test_both_ends_of_a_pipeline_have_a_tied_embedding_and_add_up_its_gradient():
    tied, own = (small("pp=2", config={"tied": tied}) for tied in (True, False))
    ends = [c for c in tied.to_dict()["communication"] if c["axis"] == "ends"]
    assert [c["bytes"] for c in ends] == [2 * SMALL["vocab"] * SMALL["d_model"]]
    assert tied.memory.parameters == own.memory.parameters
    assert not [c for c in own.to_dict()["communication"] if c["axis"] == "ends"]


@pytest.mark.parametrize(("tokens", "samples"), [("65.5k-tokens", 64), ("8k tokens", 8), ("100 tokens", 4)])
def test_a_global_batch_may_be_tokens(tokens, samples):
    assert budget.estimate("gpt2", layout="dp=4", global_batch=tokens).model.samples == samples
    for wrong in ("4M", "x-tokens", "0 tokens"):
        with pytest.raises(InputError, match="global_batch"):
            budget.estimate("gpt2", layout="dp=4", global_batch=wrong)


def test_a_global_batch_is_worked_through_in_micro_batches():
    e = small("dp=2", batch=None, global_batch=16, micro_batch=2)
    assert e.task.techniques.accumulate == 4
    assert e.model.samples == 16
    assert small(batch=2, global_batch=16).task.techniques.accumulate == 8


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"layout": "dp=4", "global_batch": 6},
            "global_batch: got 6; allowed: multiples of dp x micro_batch, 8",
        ),
        ({"layout": "tp=8"}, "layout.tp: 8 does not divide heads, 4; allowed: 4"),
        ({"layout": "tp=6"}, "layout.tp"),
        ({"layout": "pp=5"}, "layout.pp: got 5; allowed: 1 to 4, the layers of transformer"),
        ({"layout": "pp=2,stages=1+2"}, "layout.stages: got 1+2; allowed: 2 numbers that add up to 4 layers"),
        ({"layout": "ep=2"}, "layout.ep"),
        ({"layout": "dp=2,ep=2"}, "layout.ep: transformer has no experts"),
        ({"layout": "dp=4,zero=1,shard=3"}, "layout.shard: got 3; allowed: divisors of dp, 4: 2, 4"),
        ({"layout": "dp=4,shard=2"}, "layout.shard: got 2; allowed: with zero above 0"),
        ({"layout": "vpp=2"}, "layout.vpp: got 2; allowed: with pp above 1"),
        ({"layout": "schedule=gpipe"}, "layout.schedule: got 'gpipe'; allowed: with pp above 1"),
        ({"layout": "pp=2,vpp=2", "mode": "forward"}, "layout.vpp: got 2; allowed: in training"),
        (
            {"layout": "pp=3,schedule=dualpipe"},
            "layout.pp: got 3 with schedule dualpipe; allowed: even numbers",
        ),
        ({"layout": "tp=2,etp=1"}, "layout.etp: transformer has no experts; allowed: 0"),
        ({"layout": "tp=4,etp=3"}, "layout.etp: got 3; allowed: divisors of tp, 4: 2, 4"),
        (
            {"layout": "dp=4,zero=2", "optimizer": "muon"},
            "layout.zero: muon steps whole matrices; allowed: 0, or 1 without ep",
        ),
        ({"layout": "dp=4,zero=1", "optimizer": "shampoo"}, "layout.zero: shampoo steps whole matrices"),
        (
            {"layout": {"tp": np.array([1, 4])}, "config": {"kv_heads": 2}},
            "layout.tp: some degrees divide the 2",
        ),
        ({"layout": {"vpp": np.array([1, 2]), "pp": 2}}, "layout.vpp: got an array"),
        ({"layout": {"pp": np.array([1, 2])}}, "layout.pp: allowed: one number"),
        ({"layout": {"xp": 2}}, "layout.xp"),
        ({"layout": 8}, "layout"),
        ({"layout": "tp=2", "cluster": "tpu-v5e-pod"}, "cluster"),
        (
            {"layout": "dp=512", "device": "tpu-v6e", "batch": 1},
            "layout: got 512; allowed: up to 256",
        ),
        ({"batch": 2, "micro_batch": 4}, "micro_batch: given together with batch"),
    ],
)
def test_what_does_not_go_together_is_named_in_one_line(arguments, problem):
    with pytest.raises(InputError) as error:
        small(**{"batch": 2, **arguments})
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_recurrence_has_no_context_parallelism():
    with pytest.raises(InputError, match="in order"):
        budget.estimate("rnn", seq=32, layout="cp=2")


@pytest.mark.every(3)
@pytest.mark.parametrize(
    "technique",
    [
        {"recompute": "full"},
        {"recompute": "selective"},
        {"lora_rank": 4},
        {"lora_rank": 4, "quantize": "nf4"},
        {"precision": "master", "grad_dtype": "fp32"},
        {"precision": "autocast"},
        {"optimizer": "adamw_8bit"},
        {"optimizer": "adafactor"},
        {"accumulate": 4},
        {"freeze_layers": 1},
        {"fuse": "norm,mlp"},
        {"stack": "megatron"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "layout", ["tp=2,cp=2", "dp=4,zero=3", "pp=2,dp=2,zero=1", "tp=2,sp=0,dp=2,zero=2", "cp=2,pp=2,zero=3"]
)
def test_techniques_go_with_layouts(technique, layout):
    if technique.get("optimizer") == "adafactor" and "zero" in layout:
        return
    own = {"gated": True, "activation": "silu", "norm": "rms_norm", "positions": "rotary", "fused_qkv": False}
    e = small(layout, config=own, **technique)
    for rank in e.spread.ranks:
        verify(rank.program)
    assert e.memory.peak > 0
    assert e.times.step > 0


def test_what_several_stages_read_and_pass_on_is_added_up_where_it_is():
    """An encoder's answer goes through all of the decoder's stages: its gradients are sums and sends."""
    e = budget.estimate("t5-small", layout="pp=6", device="h100", global_batch=6)
    assert e.times.step > 0
    said = {(c["kind"], c["axis"]) for c in e.to_dict()["communication"]}
    assert ("send", "pp") in said
    assert {kind for kind, axis in said if axis == "pp"} == {"send"}


@pytest.mark.parametrize("precision", ["pure", "autocast", "master"])
def test_repeated_keys_are_gathered_under_any_precision(precision):
    """Autocast casts keys within the fused kernel: their gradient's partial sum passes through."""
    own = {"positions": "rotary", "norm": "rms_norm", "fused_qkv": False, "kv_heads": 2}
    e = small("cp=2", config=own, precision=precision)
    said = [c["kind"] for c in e.to_dict()["communication"] if c["axis"] == "cp"]
    assert sorted(set(said)) == ["all_gather", "reduce_scatter"]


@pytest.mark.parametrize("mode", ["forward", "prefill", "decode"])
@pytest.mark.parametrize("layout", ["tp=2", "tp=2,pp=2", "dp=2"])
def test_what_serves_is_divided_too(mode, layout):
    one, many = small(mode=mode, batch=4), small(layout, batch=4, mode=mode)
    for rank in many.spread.ranks:
        verify(rank.program)
    shares = parse(layout)
    assert many.flops.forward == one.flops.forward * shares.dp
    if shares.tp > 1:
        assert {c["kind"] for c in many.to_dict()["communication"]} <= {"all_reduce", "send"}
        assert many.memory.kv_cache * shares.tp * shares.pp == one.memory.kv_cache


@pytest.mark.parametrize("layout", ["tp=2,ep=2,etp=1", "tp=4,ep=2,etp=2", "tp=2", "dp=2,ep=2"])
def test_experts_that_decode_have_their_share_of_the_rows(layout):
    """Each token goes to its experts once, wherever they are: products and weights add up to one device's."""
    one, many = (
        budget.estimate("mixtral-8x7b", mode="decode", seq=256, batch=16, device="h100", layout=at)
        for at in ("dp=1", layout)
    )
    shares = parse(layout)
    programs = one.program, many.spread.ranks[0].program
    verify(programs[1])
    downs = [next(o for o, _ in walk(p.nodes) if o.tag == EXPERT_DOWN) for p in programs]
    work, here = (contraction_flops(o) for o in downs)
    weights, stored = (elements(o.weights[0], o.sizes) for o in downs)
    assert here * shares.devices == work * shares.dp
    assert stored * shares.tp * (shares.dp if shares.ep == shares.dp else 1) == weights


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_devices_of_experts_compute_their_share_of_few_choices(batch):
    """A device with an eighth of the experts has an eighth of a token's eight choices, not all of them."""
    programs = [
        budget.estimate("deepseek-v3", mode="decode", seq=256, batch=batch, layout=at).spread.ranks[0].program
        for at in ("tp=8", "tp=8,ep=8,etp=1")
    ]
    verify(programs[1])
    down = [next(o for o, _ in walk(p.nodes) if o.tag == EXPERT_DOWN) for p in programs]
    parts, whole = (o.sizes["b"] * o.sizes["a"] for o in reversed(down))
    assert (parts, whole) == (batch, batch * 8)


@pytest.mark.parametrize("mode", ["prefill", "decode"])
@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3"])
def test_experts_whose_devices_have_all_tokens_are_added_up(model, mode):
    """Two all-reduces a layer, as of divided experts: vLLM adds up what a device's experts
    and its part of the shared one made. Source: vllm.
    """

    def said(layout):
        e = budget.estimate(model, mode=mode, seq=251, batch=16, device="h100", layout=layout)
        verify(e.spread.ranks[0].program)
        return [(c["kind"], c["bytes"], c["times"]) for c in e.to_dict()["communication"]]

    assert said("tp=4,ep=4,etp=1") == said("tp=4")


@pytest.mark.parametrize("precision", ["pure", "autocast", "master"])
@pytest.mark.parametrize("layout", ["pp=2", "pp=2,dp=2,zero=3", "pp=2,tp=2"])
def test_the_part_of_weights_gradients_depends_on_no_precision(layout, precision):
    """Half of a linear layer's backward pass makes weights' gradients, none of attention's does."""
    own = {"layers": 6, "d_model": 64, "heads": 4, "d_ff": 256}
    split = f"{layout},stages=1+5"
    e = small(split, config=own, precision=precision, attention="eager", batch=1, global_batch=8)
    linear, pairs = (
        12 * 64 * 64,
        2 * 64 * 64,
    )  # multiply-adds of a token
    head = SMALL["vocab"] * 64
    expected = (5 * linear + head) / (5 * (2 * linear + 2 * pairs) + 2 * head)
    assert e.ran[-1].weights == pytest.approx(expected, rel=1e-6)


def test_a_mesh_numbers_its_devices_with_neighbours_first():
    layout = parse("tp=2,cp=2,dp=4,pp=2,ep=4")
    assert layout.group("tp") == Group((Level(2, 1),))
    assert layout.group("dp") == Group((Level(8, 2),))  # cp's devices hold the same weights
    assert layout.group("ep") == Group((Level(4, 2),))
    assert layout.group("edp") == Group((Level(2, 8),))
    assert layout.group("pp") == Group((Level(2, 16),))
    far = parse("tp=2,cp=2,dp=4,pp=2,order=tp-cp-ep-pp-dp")
    assert far.group("dp") == Group((Level(2, 2), Level(4, 8)))
