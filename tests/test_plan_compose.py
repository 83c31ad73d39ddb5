"""Techniques together, by `estimate` and by the command line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import budget
from budget.__main__ import main
from budget.config import Techniques
from budget.errors import InputError
from budget.plan import fields

SMALL = {"layers": 6, "d_model": 64, "heads": 4, "vocab": 300, "context": 64}
GATED = {**SMALL, "norm": "rms_norm", "gated": True, "activation": "silu", "positions": "rotary"}


def estimate(**changes):
    values = {"batch": 2, "seq": 32, "device": "h100", "config": GATED, **changes}
    return budget.estimate("transformer", **values)


CHOICES = {
    "precision": ["pure", "autocast", "master", "fp8", "fsdp"],
    "grad_dtype": ["", "fp32"],
    "accumulate": [1, 3, 6],
    "recompute": ["none", "selective", "full"],
    "activation_inputs": ["none", "fp8"],
    "recompute_every": [1, 2, 4],
    "recompute_layers": [0, 2, 5],
    "recompute_modules": ["", "mlp", "layernorm,act"],
    "fuse": ["", "norm", "mlp,cross_entropy", "norm,chunked_cross_entropy", "loss"],
    "freeze": ["", "embed", "norm*", "mlp.up"],
    "freeze_layers": [0, 2],
    "lora_rank": [0, 4],
    "lora_dtype": ["", "fp32"],
    "lora_dropout": [0, 0.1],
    "adapters": [0, 8],
    "prompts": [0, 3],
    "prompts_from": [0, 1],
    "rescale": [False, True],
    "quantize": ["none", "nf4", "nf4-dq", "int8"],
    "quantize_half": [False, True],
    "quantize_keeps": ["none", "pass", "loss"],
    "loss_chunk": [0, 8, 1000],
    "loss_parallel": ["none", "in_place", "native"],
    "hold_logits": ["none", "step", "next", "compiled"],
    "output_dtype": ["", "bf16", "fp32"],
    "sparse": ["", "mlp"],
    "offload": ["none", "activations", "optimizer", "activations,optimizer"],
    "optimizer": [
        "adamw",
        "adamw_fused",
        "adamw_loop",
        "sgd",
        "adamw_8bit",
        "adafactor",
        "lion",
        "muon",
        "shampoo",
    ],
    "attention": ["sdpa", "fused", "causal", "flash", "per_head", "eager"],
}


NEEDS = {  # what makes sense only with another one
    "recompute_every": ("recompute", "full"),
    "recompute_layers": ("recompute", "full"),
    "lora_dtype": ("lora_rank", 4),
    "lora_dropout": ("lora_rank", 4),
    "prompts_from": ("prompts", 3),
    "rescale": ("prompts", 3),
    "quantize_half": ("quantize", "nf4"),
    "quantize_keeps": ("quantize", "nf4"),
    "quantize": ("lora_rank", 4),
}


@st.composite
def techniques(draw):
    names = draw(st.lists(st.sampled_from(sorted(CHOICES)), unique=True, max_size=6))
    chosen = {name: draw(st.sampled_from(CHOICES[name])) for name in names}
    return {**chosen, **{NEEDS[n][0]: NEEDS[n][1] for n in names if n in NEEDS and draw(st.integers(0, 9))}}


def answer_or_reason(chosen):
    """An estimate, or the one line that says why there is none."""
    try:
        return estimate(**chosen)
    except InputError as error:
        known = error.field in {*CHOICES, "lora_targets", "adapter_targets"}
        text = str(error)
    assert known, text
    assert "allowed" in text or "did you mean" in text
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.slow
@given(techniques())
@settings(deadline=None, max_examples=150)
def test_any_techniques_compose_or_say_in_one_line_why_not(chosen):
    e = answer_or_reason(chosen)
    if isinstance(e, str):
        return
    m = e.memory
    assert sum(m.at_peak.values()) == m.peak
    assert 0 <= e.params.trainable <= e.params.total
    assert e.flops.backward <= e.hardware.backward or chosen.get("sparse")
    assert m.curve[-1].live["activations"] <= m.activations
    assert all(x >= 0 for moment in m.curve for x in moment.live.values())
    added = ("lora_rank", "adapters", "prompts", "prompts_from", "rescale")
    one = estimate(**{k: chosen[k] for k in added if chosen.get(k)})
    assert e.params.total == one.params.total
    assert e.flops.forward == chosen.get("accumulate", 1) * one.flops.forward
    assert e.times.step > 0


def test_without_techniques_nothing_changes():
    plain, neutral = estimate(precision="pure"), estimate(**{f.name: f.default for f in fields().values()})
    assert plain.task.techniques == Techniques()
    assert Techniques().used == {}
    assert plain.to_dict() == neutral.to_dict()


def test_a_step_of_micro_batches_works_through_all_of_them():
    one, four = estimate(), estimate(accumulate=4)
    assert four.model.tokens == 4 * one.model.tokens
    assert four.flops.backward == 4 * one.flops.backward
    assert 3 * one.times.step < four.times.step < 4.1 * one.times.step


def test_the_host_s_link_bounds_a_step():
    usual, slow = estimate(batch=64), estimate(batch=64, offload="activations,optimizer")
    assert slow.memory.host > 0
    assert slow.times.step > usual.times.step
    assert slow.times.step >= 2 * slow.memory.host / 50e9


def test_float8_and_sparse_products_are_faster():
    wide = {"batch": 8, "seq": 2048, "config": {**GATED, "d_model": 4096, "heads": 32, "context": 2048}}
    usual = estimate(**wide, precision="pure").times.step
    assert estimate(**wide, precision="fp8").times.step < usual
    assert (
        estimate(**wide, device="b200", precision="nvfp4").times.step
        < estimate(**wide, device="b200", precision="fp8").times.step
    )
    assert estimate(**wide, sparse="mlp").times.step < usual


def test_a_teacher_is_a_preset():
    student = budget.estimate("gpt2", batch=1, seq=128, precision="pure")
    both = budget.estimate("gpt2", batch=1, seq=128, precision="pure", teacher="gpt2-medium")
    teacher = budget.estimate("gpt2-medium", batch=1, seq=128, mode="forward")
    assert both.flops.forward == student.flops.forward + teacher.flops.forward
    assert both.params == student.params
    assert both.memory.parameters == student.memory.parameters + teacher.memory.parameters


def test_llama_3_8b_with_lora_trains_what_peft_says():
    e = budget.estimate("llama-3-8b", batch=1, seq=128, lora_rank=16)
    assert e.params.trainable == 6_815_744


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"mode": "forward", "recompute": "full"}, "recompute"),
        ({"mode": "decode", "accumulate": 2}, "accumulate"),
        ({"mode": "prefill", "offload": "activations"}, "offload"),
        ({"dtype": "fp32", "precision": "fp8"}, "precision"),
        ({"reduce_dtype": "fp32", "precision": "autocast"}, "reduce_dtype"),
        ({"precision": "int3"}, "precision"),
        ({"lora_rank": 4, "lora_targets": "nothing"}, "lora_targets"),
        ({"lora_targets": "mlp.up"}, "lora_targets"),
        ({"lora_rank": 4, "adapters": 4}, "adapters"),
        ({"lora_rank": -1}, "lora_rank"),
        ({"recompute_every": 2}, "recompute_every"),
        ({"recompute": "selective", "recompute_every": 2}, "recompute_every"),
        ({"recompute_layers": 2}, "recompute_layers"),
        ({"quantize": "nf4"}, "quantize"),
        ({"fuse": "everything"}, "fuse"),
        ({"offload": "gradients"}, "offload"),
        ({"optimizer": "adamm"}, "optimizer"),
        ({"teacher": "gtp2"}, "teacher"),
        ({"grad_dtype": "int8"}, "grad_dtype"),
        ({"sparse": "mlp", "dtype": "fp32"}, "sparse"),
        ({"sparse": "mlp", "precision": "fp8"}, "sparse"),
        ({"lora": 4}, "lora"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_what_contradicts_is_named_in_one_line(chosen, field):
    with pytest.raises(InputError) as caught:
        estimate(**chosen)
    assert caught.value.field == field
    assert len(str(caught.value).splitlines()) == 1


def test_settings_are_flags_and_json(capsys):
    flags = ["--precision", "autocast", "--lora-rank", "8", "--lora-targets", "attn.o", "--accumulate", "2"]
    command = ["estimate", "gpt2", "--batch", "1", "--seq", "64", *flags]
    assert main([*command, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    used = {"precision": "autocast", "accumulate": 2, "lora_rank": 8, "lora_targets": "attn.o"}
    assert answer["workload"]["techniques"] == used
    assert answer["params"]["trainable"] == 12 * 8 * (768 + 768)
    assert main(command) == 0
    assert "with        accumulate 2, lora_rank 8, lora_targets attn.o" in capsys.readouterr().out
    assert main(["estimate", "gpt2", "--freeze", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("budget: freeze: 'nothing' matches no operator; allowed: ")


# A value of each setting that is not its default.
ON = {
    "accumulate": 2, "activation_inputs": "fp8", "adalora_rank": 4, "adapter_bias": "all",
    "adapter_dtype": "fp32",
    "adapter_targets": "mlp", "adapters":
    8, "attention": "eager", "boft_block_size": 4, "boft_dropout": 0.1, "cache_implementation": "dynamic",
    "documents": 8, "dtype": "fp32", "dummy_gradients": True,
    "execution": "compiled", "freeze": "embed", "freeze_layers": 1, "frozen_dtype": "bf16",
    "fsdp_root": "parts", "fuse": "norm", "grad_dtype":
    "fp32", "gradient_accumulation_fusion": True, "gradient_sums": "new",
    "hold_checkpoints": True, "hold_logits": "step", "ia3":
    True, "input_gradients": True, "kv_dtype": "fp8", "loha_rank": 4, "lokr_rank": 4, "lora_dropout":
    0.1, "lora_dtype": "fp32", "lora_rank": 4, "lora_targets": "attn.q", "loss_chunk": 8,
    "loss_logits": "own", "loss_parallel": "in_place", "mode":
    "decode", "memory_format": "channels_first", "module_dropout": 0.1, "modules_to_save": "head",
    "norms": "exported",
    "offload": "optimizer", "oft_block_size": 4, "optimizer":
    "muon", "output_dtype": "fp32", "p_tuning": 4, "p_tuning_hidden": 16, "precision": "master",
    "prefix_tuning": 4, "prompt_logits": "fp32", "prompt_tuning": 4, "prompts": 4, "prompts_from": 1,
    "quantize": "nf4",
    "quantize_weights": "step", "quantize_half": True, "quantize_head": True, "quantize_keeps": "pass",
    "quantize_own": True,
    "rank_dropout": 0.1, "rank_pattern": "attn.q=2",
    "recompute": "full", "recompute_every": 2,
    "recompute_layers": 1, "recompute_modules": "mlp", "reduce_dtype": "fp32",
    "rescale": True, "scatter_gather": True, "sparse": "mlp", "target_modules": "attn.q", "teacher":
    "gpt2", "use_dora": True, "use_rslora": True, "vera_dropout": 0.1, "vera_rank": 4,
}  # fmt: skip
TWO_HEADED = {**GATED, "fused_qkv": False, "tied": False}
# Adapters leave weights in 16 bits, which then have gradients in no other dtype: the message says so.
ALSO_NAMES = {"grad_dtype": "precision", "frozen_dtype": "precision"}


def refusal(**asked):
    """What an answer's refusal says; nothing where there is an answer."""
    try:
        budget.estimate("transformer", batch=2, seq=32, device="h100", config=TWO_HEADED, **asked)
    except InputError as error:
        return str(error)
    return ""


def test_every_technique_has_a_value_to_try():
    assert fields().keys() <= ON.keys()


@pytest.mark.slow
@pytest.mark.parametrize("one", sorted(ON))
def test_every_pair_of_settings_is_answered_or_refused_in_a_line(one):
    """The line names what contradicts each other and what is allowed; there is no other error."""
    alone = refusal(**{one: ON[one]})
    for other in sorted(name for name in ON if name > one):
        text = refusal(**{one: ON[one], other: ON[other]})
        assert len(text) <= 300
        assert "\n" not in text
        if not text or alone or refusal(**{other: ON[other]}):
            continue
        assert "allowed" in text
        for name in (one, other):
            assert name in text or ALSO_NAMES.get(text.partition(":")[0], name) in text, text


TARGETS = ("freeze", "sparse", "lora_targets", "adapter_targets", "target_modules", "modules_to_save")
BESIDE = {"adapter_targets": "adapters", "target_modules": "vera_rank"}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_that_matches_nothing_lists_what_is_there(name):
    beside = BESIDE.get(name, "" if name in ("freeze", "sparse") else "lora_rank")
    asked = {beside: ON[beside]} if beside else {}
    text = refusal(**asked, **{name: "no.such"})
    assert text.startswith(f"{name}: 'no.such' matches no operator; allowed: ")
    assert "mlp.up" in text
