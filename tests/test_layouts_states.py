"""State spaces and the delta rule on tp: by heads and groups, as Megatron-LM and vLLM divide them.

The oracle is the transformers module: a device has a module of fewer heads and groups, whose outputs add up
to a whole one's. Sources: megatron-lm (core/ssm/mamba_mixer.py), vllm (layers/mamba/mamba_mixer2.py).
"""

import pytest

import budget
from budget import arch
from budget.config import Workload, make
from budget.errors import InputError
from budget.fold.communication import communications
from budget.ir import SCALE, SSM_IN, WEIGHTS, contraction_flops, elements, letters, walk
from budget.ir.verify import verify
from budget.layout import parse
from budget.plan.backward import backward
from budget.plan.divide import divide
from budget.plan.mesh import mesh
from budget.plan.packed import packed
from budget.plan.packings import NAMED

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

D, HEADS, WIDTH, STATE, B, S, LAYERS = 64, 16, 8, 12, 2, 60, 3  # S is no multiple of a chunk


def program(layout, groups, version=2, mode="train", packing=None, **own):
    """The program of one device of a network of mixers alone."""
    own = {
        "layers": LAYERS, "d_model": D, "pattern": "M" * LAYERS, "mamba_version": version,
        "mamba_heads": HEADS, "mamba_head_dim": WIDTH, "groups": groups,
        "state_size": STATE, "vocab": 96, "chunk": 16, "mamba_norm_grouped": True, **own,
    }  # fmt: skip
    module = arch.load("hybrid")
    model = module.build(make(module.Config, own), Workload(mode, B, S))
    model = packed(model, packing, "bfloat16") if packing else model
    model = backward(model) if mode == "train" else model
    return divide(model, mesh(parse(layout), model)).model


def mixer(heads, groups, version=2, width=WIDTH):
    """transformers' mixer with so many heads and groups."""
    if version == 2:
        from transformers.models.nemotron_h.configuration_nemotron_h import NemotronHConfig
        from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHMamba2Mixer

        config = NemotronHConfig(
            hidden_size=D, mamba_num_heads=heads, mamba_head_dim=width, n_groups=groups, ssm_state_size=STATE,
            chunk_size=16, layers_block_type=["mamba"],
        )  # fmt: skip
        return NemotronHMamba2Mixer(config, 0)
    from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    config = Qwen3NextConfig(
        hidden_size=D, linear_num_value_heads=heads, linear_num_key_heads=groups, linear_key_head_dim=STATE,
        linear_value_head_dim=width, num_hidden_layers=1, layer_types=["linear_attention"],
    )  # fmt: skip
    return Qwen3NextGatedDeltaNet(config, 0)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("groups", "tp"), [(8, 8), (8, 2), (4, 8), (1, 8), (2, 4)])
def test_a_device_has_the_weights_of_a_module_of_fewer_heads(version, groups, tp):
    """Groups that are fewer than the devices are each device's own, as vLLM extends them."""
    found = {
        t.name: elements(t, o.sizes)
        for o, _ in walk(program(f"tp={tp},sp=0", groups, version).nodes)
        for t in o.ins
        if t.role in WEIGHTS and ".ssm." in t.name and not t.part
    }
    with torch.device("meta"):
        one = mixer(HEADS // tp, max(1, groups // tp), version)
    assert sum(found.values()) == sum(p.numel() for p in one.parameters())


@pytest.mark.parametrize("quantize", ["nvfp4", "w4a16", "w8a8", "fp8-row"])
@pytest.mark.parametrize(("version", "groups", "tp"), [(2, 8, 2), (2, 1, 4), (3, 8, 8), (3, 2, 4)])
def test_a_device_has_the_scales_of_the_weights_that_it_has(quantize, version, groups, tp):
    """As a module of fewer heads has them: numbers of outputs, or blocks of inputs, lie where these do."""
    kinds, width = NAMED[quantize], 64  # so that no block of inputs is on two devices
    found = {
        t.name: elements(t, o.sizes)
        for o, _ in walk(
            program(f"tp={tp},sp=0", groups, version, "decode", kinds, mamba_head_dim=width).nodes
        )
        for t in o.ins
        if t.role == SCALE
    }
    with torch.device("meta"):
        one = mixer(HEADS // tp, max(1, groups // tp), version, width)
    shapes = [m.weight.shape for m in one.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(found.values()) == sum(numbers(part, *shape) for part in kinds.parts for shape in shapes)


def numbers(part, outs, ins):
    """Numbers beside a weight [outs, ins]."""
    blocks = [-(-n // size) if size else 1 for n, size in ((outs, part.outs), (ins, part.ins))]
    return part.fixed or blocks[0] * blocks[1]


def test_the_outputs_of_two_devices_add_up_to_the_whole():
    """Nothing else is said between them: a group's norm is of its own heads. So one all-reduce is enough."""
    torch.manual_seed(0)
    whole, halves = mixer(HEADS, 4), (mixer(HEADS // 2, 2), mixer(HEADS // 2, 2))
    inner, shared = HEADS * WIDTH, 4 * STATE
    rows = torch.arange(2 * inner + 2 * shared + HEADS).split((inner, inner, shared, shared, HEADS))
    with torch.no_grad():
        for p in whole.parameters():
            p.uniform_(-1, 1)
        for i, half in enumerate(halves):
            take = [part.chunk(2)[i] for part in rows]
            convolved = torch.cat(take[1:4]) - inner
            half.in_proj.weight.copy_(whole.in_proj.weight[torch.cat(take)])
            half.conv1d.weight.copy_(whole.conv1d.weight[convolved])
            half.conv1d.bias.copy_(whole.conv1d.bias[convolved])
            half.out_proj.weight.copy_(whole.out_proj.weight[:, take[0]])
            half.norm.weight.copy_(whole.norm.weight[take[0]])
            for name in ("A_log", "D", "dt_bias"):
                getattr(half, name).copy_(getattr(whole, name).chunk(2)[i])
        x = torch.randn(B, S, D)
        torch.testing.assert_close(sum(half(x) for half in halves), whole(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", [0, 2, 3])
@pytest.mark.parametrize(("sp", "kinds"), [(0, ["all_reduce"]), (1, ["all_gather", "reduce_scatter"])])
def test_a_mixer_says_what_column_and_row_parallel_layers_say(version, sp, kinds):
    """Each once forward and once backward, of the whole stream; what is gathered again is another step."""
    model = program(f"tp=4,sp={sp}", 8, version)
    verify(model)
    layers = [c for c in communications(model.nodes, "bfloat16") if c.times == LAYERS]
    assert sorted(c.kind for c in layers) == sorted(2 * kinds)
    assert {c.bytes for c in layers} == {2 * B * S * D}
    assert sorted(c.phase for c in layers) == sorted(("backward", "forward") * len(kinds))


def test_a_norm_over_all_groups_needs_the_other_devices():
    """vLLM adds up the squares of its rows; of several groups, on devices of their own, nothing."""
    for groups, grouped, rows in ((1, False, 1), (8, False, 1), (8, True, 0), (2, True, 1)):
        model = program("tp=8,sp=0", groups, mamba_norm_grouped=grouped)
        sums = [c for c in communications(model.nodes, "bfloat16") if c.tensor.endswith("norm#tp0")]
        assert [c.bytes for c in sums] == [4 * B * S * rows] * (2 if rows else 0)


@pytest.mark.parametrize("mode", ["prefill", "decode"])
@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_states_are_divided_too(mode, version):
    one, four = (program(layout, 4, version, mode) for layout in ("tp=1", "tp=4,sp=0"))
    verify(four)
    caches = [
        sum(elements(t, o.sizes) for o, _ in walk(m.nodes) for t in (*o.ins, *o.outs) if t.role == "cache")
        for m in (one, four)
    ]
    assert caches[0] == 4 * caches[1] > 0


@pytest.mark.parametrize(("cp", "groups"), [(2, 8), (4, 8), (4, 2), (4, 1)])
def test_context_parallel_state_spaces_trade_the_sequence_for_heads(cp, groups):
    """Megatron-LM's mamba_context_parallel.py: gate, u, B, C and step size go there (a group's B and C to all
    devices that have its heads), y comes back, and the other way round in the backward pass.
    """
    model, one = program(f"cp={cp}", groups), program("cp=1", groups)
    verify(model)
    layers = [c for c in communications(model.nodes, "bfloat16") if c.times == LAYERS]
    said = {
        phase: sorted(c.bytes for c in layers if (c.kind, c.phase) == ("all_to_all", phase))
        for phase in ("forward", "backward")
    }
    rows, inner, shared = B * S // cp, HEADS * WIDTH, 2 * STATE * max(groups, cp)
    there = [2 * rows * inner, 2 * rows * (inner + shared), 2 * rows * HEADS]
    assert said["forward"] == said["backward"] == sorted([*there, 4 * rows * inner])  # y is float32
    flops = [sum(contraction_flops(o) * n for o, n in walk(m.nodes)) for m in (model, one)]
    assert flops[0] * cp == flops[1] or groups < cp  # else each device has B and C of its own


@pytest.mark.parametrize(("cp", "groups"), [(2, 8), (4, 4), (4, 2)])
def test_context_parallel_delta_rules_trade_the_sequence_for_heads(cp, groups):
    """Megatron-LM's gated_delta_net/gdn.py: queries, keys, values, gate, strength, decay go there, what the
    gate leaves comes back in the dtype of activations.
    """
    model, one = program(f"cp={cp}", groups, 3), program("cp=1", groups, 3)
    verify(model)
    layers = [c for c in communications(model.nodes, "bfloat16") if c.times == LAYERS]
    rows, values, keys = 2 * B * S // cp, HEADS * WIDTH, STATE * max(groups, cp)
    expected = sorted(rows * n for n in (values + 2 * keys, values, HEADS, HEADS, values))
    for phase in ("forward", "backward"):
        assert sorted(c.bytes for c in layers if (c.kind, c.phase) == ("all_to_all", phase)) == expected
    elsewhere = [c for c in communications(model.nodes, "bfloat16") if c.kind != "all_to_all"]
    shared = [("all_reduce", "backward", LAYERS)] * 2  # gradients of queries and keys that devices share
    assert [(c.kind, c.phase, c.times) for c in elsewhere] == shared * (groups < cp)
    flops = [sum(contraction_flops(o) * n for o, n in walk(m.nodes)) for m in (model, one)]
    assert flops[0] * cp == flops[1] or groups < cp  # else each device has keys of its own


@pytest.mark.parametrize("precision", ["autocast", "master", "fsdp"])
@pytest.mark.parametrize("version", [2, 3])
def test_casts_are_where_what_they_cast_is(version, precision):
    """In mixed precision nothing else moves, neither states, in every chunk, nor gradients of weights."""
    own = {
        "layers": 3, "pattern": "M" * 3, "mamba_version": version, "mamba_heads": 8, "groups": 4,
        "mamba_head_dim": 8, "d_model": D, "vocab": 96, "heads": 8,
    }  # fmt: skip
    e = budget.estimate("hybrid", layout="cp=2", batch=1, seq=128, config=own, precision=precision)
    (rank,) = e.spread.ranks
    verify(rank.program)
    kinds = {c.kind for c in communications(rank.program.nodes, "bfloat16") if c.axis == "cp" and not c.once}
    assert kinds == {"all_to_all"}


def test_heads_that_do_not_divide_are_named():
    with pytest.raises(InputError, match=r"layout.tp: 3 does not divide heads, 16; allowed: 2, 4"):
        program("tp=3", 8)
    with pytest.raises(InputError, match=r"layout.cp: .* is of a state space"):
        program("cp=2", 8, 1)  # channels, which no heads group


def test_an_axis_may_be_several():
    o = next(o for o, _ in walk(program("tp=1", 4).nodes) if o.tag == SSM_IN)
    axis = o.out.dims[-1]
    assert o.sizes[axis] == 2 * HEADS * WIDTH + 2 * 4 * STATE + HEADS
    assert letters((axis,)) >= {"G", "H", "k", "n"}
