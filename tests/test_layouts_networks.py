"""Layouts of whole networks: every preset, towers beside text models, and what the commands say."""

import json

import pytest
from small_layouts import SMALL

import budget
from budget import arch, cluster
from budget import stack as stacks
from budget.__main__ import main
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.traffic import moved_bytes
from budget.ir import EXPERTS, SCORES, walk
from budget.ir.verify import verify
from budget.layout import parse
from budget.plan.backward import backward
from budget.plan.divide import divide
from budget.plan.fuse import fuse
from budget.plan.mesh import axes, choice, loops_over, mesh

ALL = (
    "tp=2", "tp=2,sp=0", "cp=2", "cp=2,cp_kind=ulysses", "dp=2", "dp=2,zero=3", "dp=2,ep=2", "pp=2",
    "tp=2,cp=2,pp=2", "tp=2,ep=2,etp=1",
)  # fmt: skip


SOME = (
    "gpt2", "llama-3-8b", "mixtral-8x7b", "deepseek-v2-lite", "t5-small", "bert-base", "resnet50",
    "whisper-tiny",
)  # fmt: skip


def divided_or_refused(name):
    """Every layout of a preset gives programs that verify, or one line that says why not."""
    refused = []
    for layout in ALL:
        try:
            found = budget.estimate(name, layout=layout, device="h100").spread.ranks
        except InputError as why:
            refused.append(str(why))
            continue
        for rank in found:
            verify(rank.program)
    assert all(why.startswith("layout.") for why in refused)
    return len(refused)


@pytest.mark.every(3)
@pytest.mark.parametrize("name", SOME)
def test_presets_are_divided_or_refused(name):
    assert divided_or_refused(name) < len(ALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(budget.presets()) - set(SOME))[::8])  # all, in ten minutes: [::1]
def test_every_preset_is_divided_or_refused(name):
    assert divided_or_refused(name) < len(ALL)  # data parallelism suits all


FLAGS = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()] + ["--seq", "64", "--device", "h100"]


def test_the_commands_take_a_layout(capsys):
    model = ["--arch", "transformer", *FLAGS]
    asked = ["--layout", "tp=2,pp=2,dp=2", "--global-batch", "8", "--micro-batch", "2"]
    assert main(["estimate", *model, *asked, "--by", "rank"]) == 0
    out = capsys.readouterr().out
    assert "on 8 x H100" in out
    assert "tp=2, pp=2, dp=2; 2 micro-batches" in out
    assert sum(line.startswith("stage ") for line in out.splitlines()) == 3
    assert main(["estimate", *model, *asked, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["layout"]["pp"] == 2
    keys = {"axis", "kind", "phase", "tensor", "bytes", "times", "seconds", "exposed_s"}
    assert all(keys <= c.keys() for c in answer["communication"])
    assert answer["time_s"]["communication"] > 0
    assert answer["time_s"]["bubble"] > 0
    parts = ("forward", "backward", "optimizer", "communication", "bubble", "overhead")
    assert answer["time_s"]["step"] == pytest.approx(sum(answer["time_s"][part] for part in parts))
    assert main(["fit", *model, "--layout", "dp=2,zero=3", "--solve", "batch"]) == 0
    assert main(["compare", "gpt2", "gpt2-medium", "--layout", "dp=2", "--device", "h100"]) == 0
    assert "on 2 x H100" in " ".join(capsys.readouterr().out.split())  # wherever the line breaks
    assert main(["estimate", *model, "--layout", "tp=3"]) == 2
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err == "budget: layout.tp: 3 does not divide heads, 4; allowed: 2, 4\n"


@pytest.mark.parametrize(("batch", "says"), [(2, "(2 micro-batches in 4 stages; --global-batch N"), (4, "")])
def test_a_pipeline_that_is_not_filled_says_so(batch, says):
    """One pass forward and back of 4 stages: 2 micro-batches leave 3 of 5 slots empty, 4 leave 3 of 7."""
    text = str(budget.estimate("gpt2", layout="pp=4", global_batch=batch, micro_batch=1, device="h100"))
    assert says in " ".join(text.split()) and ("micro-batches in" in text) == bool(says)


def test_ten_trillion_parameters_on_a_hundred_thousand_devices():
    e = budget.estimate(
        "transformer", seq=8192, device="h100", layout="tp=8,pp=125,dp=100,zero=1", global_batch=12800,
        config={"layers": 500, "d_model": 40960, "heads": 320, "kv_heads": 8, "d_ff": 163840, "vocab": 2**18,
                "context": 8192},
    )  # fmt: skip
    assert e.params.total > 8e12
    assert e.devices == 100_000
    assert e.flops.forward + e.flops.backward == pytest.approx(6 * e.params.total * e.model.tokens, rel=0.2)
    assert 0 < e.throughput.mfu < 1
    assert isinstance(e.flops.forward, int)


def test_what_hides_communication_gives_it_a_part_of_itself():
    """20 of 132 multiprocessors: of one hidden second 0.15 are lost; on a torus none."""
    from budget.fold.overlap import taken_from

    stack = stacks.load("torchtitan")
    full = stack._replace(overlap={**stack.overlap, "dp": 1.0})
    none = stack._replace(overlap={**stack.overlap, "dp": 0.0})
    settings = {"layout": "dp=16,zero=3", "batch": 4, "seq": 2048, "device": "h100"}
    hidden, shown = (budget.estimate("llama-3-8b", stack=s, **settings) for s in (full, none))
    waits = [e.times.communication for e in (hidden, shown)]
    assert waits[0] == pytest.approx(20 / 132 * waits[1])
    assert taken_from(cluster.load("tpu-v5e-pod")) == 0


def test_a_gather_behind_the_optimizer_waits_where_the_stack_says_so():
    """ZeRO's reduction and gather move as many bytes: of a hidden second 0.15 are lost, of the other all."""
    stack = stacks.load("transformers")
    both = {**dict.fromkeys(stack.overlap, 0.0), "dp": 1.0, "optimizer": 1.0}
    settings = {"layout": "dp=8,zero=2", "batch": 4, "seq": 2048, "device": "h100", "precision": "pure"}
    waits = [
        budget.estimate("llama-3-8b", stack=stack._replace(overlap=o), **settings).times.communication
        for o in (both, {**both, "optimizer": 0.0})
    ]
    assert waits[1] / waits[0] == pytest.approx((20 / 132 + 1) / (2 * 20 / 132), rel=0.03)  # and a norm


def finish(pieces, product, scatter):
    """When a scatter in pieces, each behind its piece of a product and the piece before, has ended."""
    ends = 0.0
    for piece in range(1, pieces + 1):
        ends = max(ends, piece * product / pieces) + scatter / pieces
    return ends


def test_pieces_hide_behind_a_layer_s_products():
    """Written out as events: four pieces of a forward product's scatter leave one; what gathers or scatters
    beside a whole product leaves nothing. What is hidden takes its part of the device.
    """
    settings = {"batch": 4, "seq": 4096, "device": "h100", "stack": "megatron"}
    shown, hidden = (
        budget.estimate("llama-3-8b", layout=f"tp=2,tp_overlap={x}", **settings).to_dict()["communication"]
        for x in (0, 1)
    )
    last = finish(4, 3.0, 1.0) - 3.0
    waited = {"all_reduce": {"forward": 1.0, "backward": 1.0}, "reduce_scatter": {"forward": last}}
    for c, less in zip(shown, hidden, strict=True):
        wait = waited.get(c["kind"], {}).get(c["phase"], 0.0)
        assert less["exposed_s"] == pytest.approx(c["exposed_s"] * (wait + 20 / 132 * (1 - wait)))
    with pytest.raises(InputError, match=r"layout.tp_overlap: got 1; allowed: with sp=1"):
        budget.estimate("llama-3-8b", layout="tp=2,tp_overlap=1,sp=0", **settings)


@pytest.mark.parametrize("layout", ["tp=2", "cp=2", "cp=2,cp_kind=ulysses", "tp=2,cp=2"])
def test_a_tower_s_odd_sequence_stays_whole(layout):
    """LLaVA's 577 patches, beside 2,624 tokens that are divided; with tp, its heads are."""
    one, many = (
        budget.estimate("llava-1.5-7b", batch=2, seq=2048, image=336, layout=x) for x in (None, layout)
    )
    assert many.params == one.params
    (rank,) = many.spread.ranks
    verify(rank.program)
    ops = {o.name: o.sizes for o, _ in walk(rank.program.nodes) if o.tag == SCORES and o.phase == "forward"}
    tower, text = (next(x for name, x in ops.items() if ("tower" in name) == is_tower) for is_tower in (1, 0))
    shares = parse(layout)
    inside = shares.cp if shares.cp_kind == "ulysses" else 1
    assert (tower["s"], tower["h"]) == (577, 16 // shares.tp // inside)
    assert (text["s"], text["h"]) == (2624 // shares.cp * inside, 32 // shares.tp // inside)


def test_experts_apart_have_their_own_tokens_alone():
    """Llama 4's code in transformers runs every expert on every token; no code with experts apart does."""
    own = {**SMALL, "experts": 4, "active_experts": 1, "every_expert": True}
    apart = budget.estimate("transformer", layout="dp=2,ep=2", batch=1, seq=64, config=own)
    routed = budget.estimate("transformer", batch=2, seq=64, config={**own, "every_expert": False})
    every = budget.estimate("transformer", batch=2, seq=64, config=own)
    assert apart.flops.backward == routed.flops.backward < every.flops.backward
    verify(apart.spread.ranks[0].program)


@pytest.mark.parametrize(("precision", "each"), [("fsdp", 4 + 2), ("autocast", 4 + 2), ("fp8", 2 + 1 + 1)])
@pytest.mark.parametrize(("layout", "devices"), [("dp=2", 1), ("dp=2,ep=2", 2), ("dp=2,ep=2,zero=3", 2)])
def test_a_device_casts_all_of_its_own_experts(precision, each, layout, devices):
    """Bytes that are read and made of each weight, whichever of them a token picks."""
    own = {"layers": 2, "d_model": 64, "heads": 4, "vocab": 96, "experts": 4, "active_experts": 2,
           "expert_d_ff": 48, "gated": True, "context": 64, "every_expert": False}  # fmt: skip
    e = budget.estimate("transformer", batch=1, seq=64, config=own, precision=precision, layout=layout)
    program = e.spread.ranks[0].program
    found = [(o, n) for o, n in walk(program.nodes) if o.kind in ("cast", "quantize") and o.weights]
    casts = [(o, n) for o, n in found if EXPERTS in o.ins[0].dims and o.phase == "forward"]
    held = 2 * 4 * 3 * 64 * 48 // devices
    assert sum(n * moved_bytes(t, o, "bfloat16") for o, n in casts for t in (*o.ins, *o.outs)) == each * held


def test_a_tower_and_a_text_model_divide_their_own_heads():
    """As PaliGemma's: 16 heads, and 8 with one key, the queries of which are divided instead."""
    (axis,) = axes(parse("tp=4"), {"h": [16, 1]})
    module = arch.load("transformer")
    for heads, kv_heads, dim in ((16, 16, "h"), (8, 1, "r")):
        own = {**SMALL, "d_model": 128, "heads": heads, "kv_heads": kv_heads}
        model = module.build(make(module.Config, own), Workload("train", 1, 8))
        scores = next(o for o, _ in walk(model.nodes) if o.tag == SCORES)
        assert choice(axis, scores, loops_over(scores)) == dim


PIECES = [
    ("audio_language", {}, {"sound": 45}),
    ("chunk_language", {}, {"sound": 9}),
    ("conformer_language", {}, {"sound": 29}),
    ("vision_language", {"resolutions": (448, 448, 448, 896), "newline": True}, {"image": 448}),
    (
        "vision_language",
        {"tower_window": 4, "tower_extra_tokens": 0},
        {"image": 224},
    ),
]


@pytest.mark.parametrize(("name", "own", "sizes"), PIECES)
def test_pieces_of_a_sample_stay_on_its_device(name, own, sizes):
    """Clips, blocks, tiles and windows: copies of a network send one another no activations."""
    module = arch.load(name)
    model = backward(fuse(module.build(module.Config(**own), Workload("train", 2, **sizes)), {"attention"}))
    program = divide(model, mesh(parse("dp=2"), model)).model
    verify(program)
    assert not [o.name for o, _ in walk(program.nodes) if o.axis == "dp" and o.phase == "forward"]


def test_a_batch_to_serve_is_one_replica_s_and_the_answer_says_both(capsys):
    asked = ["estimate", "gpt2", "--mode", "decode", "--device", "h100", "--seq", "64", "--batch", "4"]
    assert main([*asked, "--layout", "dp=2,tp=2"]) == 0
    assert "decode: batch 8 (4 a replica), 64 tokens" in capsys.readouterr().out
    assert main([*asked, "--layout", "tp=2"]) == 0
    assert "decode: batch 4, 64 tokens" in capsys.readouterr().out
