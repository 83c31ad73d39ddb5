"""The verifier: clean over everything that can be asked for, and able to find what it is for."""

import contextlib
import re

import pytest
from test_plan_compose import ON, TARGETS, TWO_HEADED

import budget
from budget import arch
from budget.config import Workload
from budget.errors import InputError
from budget.ir import INPUT, Block, Model, Op, block, link, op, rewrite, walk
from budget.ir.verify import ProgramError, stage_of, verify
from budget.layout import parse
from budget.plan import fields, files
from budget.plan.backward import backward
from budget.plan.divide import divide
from budget.plan.fuse import fuse
from budget.plan.mesh import mesh
from budget.read import preset

# Beside one value of each setting (ON): others, and some together.
TECHNIQUES = [
    {"recompute": "selective"},
    *({"precision": name} for name in ("autocast", "fp8")),
    {"precision": "master", "grad_dtype": "fp32", "accumulate": 3},
    *({"fuse": name} for name in ("mlp", "cross_entropy", "chunked_cross_entropy")),
    {"offload": "activations"},
    {"hold_logits": "next", "output_dtype": "fp32"},
    {"lora_rank": 4, "lora_dtype": "fp32", "lora_dropout": 0.1, "quantize": "nf4", "quantize_keeps": "loss"},
    *({"optimizer": name} for name in ("adamw_fused", "adamw_8bit", "adafactor", "shampoo")),
]
SHARES = 12  # of the presets, so that some of the slow tests are of these
ATTENTIONS = ("eager", "sdpa", "fused", "causal", "flash")


WITH = {  # what a setting means nothing, or is refused, without
    "adapter_dtype": {"vera_rank": 4}, "target_modules": {"vera_rank": 4}, "adapter_targets": {"adapters": 8},
    "modules_to_save": {"lora_rank": 4}, "quantize": {"lora_rank": 4},
    "lora_dropout": {"lora_rank": 4}, "adapter_bias": {"lora_rank": 4},
    "module_dropout": {"loha_rank": 4}, "rank_dropout": {"loha_rank": 4},
    "activation_inputs": {"recompute_modules": "act"},
    "documents": {"attention": "flash"},
    "kv_dtype": {"mode": "decode"}, "cache_implementation": {"mode": "decode"},
    "prompt_logits": {"mode": "prefill"}, "quantize_weights": {"precision": "fp8"},
    "norms": {"mode": "forward", "execution": "graph"},
    "hold_checkpoints": {"recompute": "full"}, "reduce_dtype": {"precision": "fsdp"},
    "recompute_every": {"recompute": "full"}, "recompute_layers": {"recompute": "full"},
    **{name: {"seq": 96} for name in ("prefix_tuning", "prompt_tuning", "p_tuning")},
}  # fmt: skip


def settings_of_each():
    """Every technique's settings at a value of ON, with what each means nothing without."""
    needs = {name: others for file in files() for name, others in getattr(file, "NEEDS", {}).items()}
    for name in (*fields(), "recompute_every", "recompute_layers"):
        others = [other for other in needs.get(name, ()) if other in ON]
        beside = {k: v for other in (name, *others) for k, v in WITH.get(other, {}).items()}
        yield {name: ON[name], **{other: ON[other] for other in others}, **beside}


def programs(name, **settings):
    """The network and the program of an estimate; none where a network cannot have one of these settings."""
    try:
        e = budget.estimate(name, batch=3, **settings)
    except InputError as error:
        if error.field not in (*settings, *TARGETS):
            raise
        return ()
    return e.model, e.program


def modes(name):
    return getattr(arch.load(name), "MODES", arch.MODES)


@pytest.mark.slow
@pytest.mark.parametrize("name", arch.names())
def test_every_architecture_mode_and_technique(name):
    attends = any(o.group == "attention" for o, _ in walk(programs(name, mode="forward")[0].nodes))
    attentions = ATTENTIONS if attends else ("flash",)
    asked = [{"mode": mode, "attention": a} for mode in modes(name) for a in attentions]
    asked += [*settings_of_each(), *TECHNIQUES]
    found = [programs(name, **settings) for settings in asked]
    if name == "transformer":  # by default GPT-2, which has one product of q, k and v, and no head of its own
        refused = [settings for settings, answer in zip(asked, found, strict=True) if not answer]
        assert {next(iter(settings)) for settings in refused} == {"target_modules", "quantize_head"}
        found += [programs(name, **settings, config=TWO_HEADED) for settings in refused]
        assert found[-1]
        assert found[-2]
    assert {stage_of(program) for answer in found for program in answer} >= {"network", "program"}
    for program in (program for answer in found for program in answer):
        verify(program)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_every_preset(share):
    for name in preset.names()[share::SHARES]:
        for mode in ("train", "forward"):
            found = programs(name, mode=mode)
            assert found
            for program in found:
                verify(program)


AXES = ("dp=2", "tp=2,sp=0", "tp=2", "cp=2", "cp=2,cp_kind=ulysses", "dp=2,ep=2", "tp=2,cp=2,dp=2")


def divided(model):
    """One device's program of a network and its backward pass, on each axis that it can have."""
    for layout in AXES:
        with contextlib.suppress(InputError):
            yield layout, divide(model, mesh(parse(layout), model)).model


@pytest.mark.every(3)
@pytest.mark.parametrize("name", arch.names())
def test_every_architecture_on_every_axis(name):
    module = arch.load(name)
    model = backward(module.build(module.Config(), Workload("train", 2)))
    found = dict(divided(model))
    assert "dp=2" in found
    for program in found.values():
        verify(program)


@pytest.mark.slow
def test_every_preset_on_every_axis():
    """Degrees that do not divide a network's heads or sequence are refused, others make sound programs. Every
    sixth preset: all of them passed on 2026-11-28, in 40 seconds.
    """
    found = set()
    for name in preset.names()[::6]:
        model = backward(fuse(budget.estimate(name, batch=2, mode="forward").model, {"attention", "scan"}))
        for layout, program in divided(model):
            verify(program)
            found.add((layout, model.arch))
    assert len(found) > 100


@pytest.mark.parametrize(
    "name", ["llama-3-8b", "gemma-2-2b", "deepseek-v3", "t5-small", "mamba2-130m", "gnmt"]
)
def test_a_cache_is_as_large_when_it_is_read(name):
    for mode in ("prefill", "decode"):
        for attention in ATTENTIONS:
            for program in programs(name, mode=mode, attention=attention):
                verify(program)


LAYER = (
    op("norm", "x:, *d, +*d -> n:", "layer_norm"),
    op("up", "n: b d, *d f -> u: b f"),
    op("act", "u: -> u:", "gelu"),
    op("down", "u: b f, *f d -> m: b d"),
    op("add", "x:, m: -> x:", "add"),
)
SIZES = dict(b=3, c=2, d=5, f=7)


def network(nodes=None, **sizes):
    nodes = nodes or (
        op("in", "!raw: b c, *c d -> x: b d"),
        block("layers", LAYER, 4),
        op("out", "x: -> y:", "scale"),
    )
    linked, ends = link(nodes, {**SIZES, **sizes})
    return Model("t", "t", linked, {}, ends)


def changed(name, **fields):
    """The network with one operator changed behind the linker's back."""
    change = lambda o: (o._replace(**fields) if o.name == name else o,)  # noqa: E731
    good = network()
    verify(good)
    return good._replace(nodes=rewrite(good.nodes, change))


def tensor(name, *dims):
    return network().nodes[0].out._replace(name=name, dims=dims)


def fails(model, *words):
    with pytest.raises(ProgramError) as error:
        verify(model)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    for word in words:
        assert word in text


def test_the_error_names_operator_operand_dimension_and_line():
    fails(changed("layers.up", sizes=dict(b=3, d=4, f=7)), "layers.up", "operand n (b d)", "12 elements",
          "15 as (b d)", "n: b d, *layers.up.weight: d f -> u: b f")  # fmt: skip
    fails(changed("layers.up", sizes=dict(b=3, d=5)), "layers.up", "'f' without a size")


def test_what_is_read_is_written_before_and_once():
    fails(changed("out", ins=(tensor("nowhere", "b", "d"),)), "operand nowhere", "written by no operator")
    fails(
        changed("out", ins=(tensor("n", "b", "d"),)), "operand n"
    )  # a block's inside is not in reach behind it
    fails(changed("out", outs=(tensor("x", "b", "d"),)), "operand x", "written twice")
    fails(network()._replace(outputs=("z",)), "output 'z'")


def test_an_input_is_no_other_tensor():
    made = network().nodes[0].out._replace(role=INPUT, dims=("b", "d"))
    fails(changed("out", ins=(made,)), "operand x (b d)", "is said to be an input")


def test_blocks_agree_with_what_is_around_them():
    good = network()
    at = next(i for i, n in enumerate(good.nodes) if isinstance(n, Block))
    nodes = lambda **fields: (*good.nodes[:at], good.nodes[at]._replace(**fields), *good.nodes[at + 1 :])  # noqa: E731
    (carry,) = good.nodes[at].carry
    fails(good._replace(nodes=nodes(carry=(carry._replace(leave="gone"),))), "leaves 'gone'")
    fails(good._replace(nodes=nodes(carry=(carry._replace(init="gone"),))), "carries 'gone'")
    fails(good._replace(nodes=nodes(carry=(carry._replace(leave="u'1"),))), 'hands on "u\'1" 21 as (b f)')
    fails(good._replace(nodes=nodes(mirrors="other")), "mirrors 'other'")


def test_an_axis_has_one_letter():
    """Else the gradient of a sum is summed over the one and written as the other."""
    nodes = (op("in", "!raw: b c, *c d -> x: b d"), op("up", "!other: b c, *c e -> y: b e"))
    residual = network((*nodes, op("add", "x: b d, y: b e -> x: b d", "add")), d=4, e=4)
    fails(backward(residual), "one axis with two letters")


def test_phases_are_in_their_stage():
    with pytest.raises(ProgramError, match="phase backward in a network"):
        verify(backward(network()), "network")
    lost = backward(network())
    stray = rewrite(lost.nodes, lambda o: (o._replace(of="nobody") if o.phase == "backward" else o,))
    fails(lost._replace(nodes=stray), "belongs to 'nobody'")


IN = op("in", "!raw: b c, *c d -> x: b d")
WRONG = [  # what an author writes, and what the error names
    ((IN, ("up", "x: b d, *d q -> y: b q")), "operator up: operand up.weight (d q) has a dimension 'q'"),
    ((IN, ("up", "x: b d, *d f -> y: b z")), "operator up: no operand has the output's dimension 'z'"),
    ((IN, ("act", "x: -> y:", "gelou")), "operator act: unknown kind 'gelou'"),
    ((IN, ("up", "xx: b d, *d f -> y: b f")), "operator up reads 'xx': nothing makes it"),
    ((IN, ("act", "x: b f -> y: b f", "gelu")), "operator act: operand x (b f) has 21 elements, in made 15"),
    ((IN, ("up", "x: b d, *d f -> u: b f"), ("add", "u:, x: -> y:", "add")),
     "operator add: operand x (b d) has the dimension 'd', which (b f) lacks"),
    ((IN, ("mix", "x:, !x: b d -> y:", "add")), "operator mix reads the input 'x': an operator makes one"),
    ((IN, ("up", "x: b d, *in.weight: d f -> y: b f")),
     "operator up: operand in.weight (d f) has 35 elements, in reads 10 as (c d)"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "problem"), WRONG)
def test_an_author_reads_which_operator_operand_and_line_is_wrong(lines, problem):
    with pytest.raises(ValueError, match=re.escape(problem)) as error:
        budget.estimate(network([x if isinstance(x, Op) else op(*x) for x in lines]))
    assert "; line '" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("nodes", "outputs", "problem"),
    [
        ((IN,), ("z",), "the network's output 'z': no operator makes it"),
        ((IN, block("layers", (), 3)), (), "block layers has no operators"),
        ((IN, IN), (), "two operators are called in"),
    ],
)
def test_a_network_is_whole(nodes, outputs, problem):
    with pytest.raises(ValueError, match=problem):
        link(nodes, SIZES, outputs)
