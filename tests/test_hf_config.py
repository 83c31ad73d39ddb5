"""Hugging Face configs: every family's defaults, and what people get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracles import hf
from transformers import AutoConfig

from budget import arch as architectures
from budget import estimate
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import hf_classes, hf_config, hf_families

FAMILIES = [
    kind
    for kind in hf_families.known()
    if hf_families.load(kind)["arch"] == "transformer"
    and "nested" not in hf_families.load(kind)
    and "code" not in hf_families.load(kind)  # test_hf_hub_code.py
    and kind != "siglip_text_model"  # no AutoModel has it: test_hf_config_stacks.py
]
ENCODERS = [kind for kind in FAMILIES if hf_families.load(kind)["set"].get("kind") == "encoder"]
BODIES = [  # language models that have a head in another one only, and such without any
    kind for kind in FAMILIES
    if all(what == "none" for what in hf_families.load(kind)["classes"].values())
    or hf_families.load(kind)["set"].get("head") == "none"
]  # fmt: skip
FEW_LAYERS = {
    "gpt2": {"n_layer": 2}, "gptj": {"n_layer": 2}, "gpt_bigcode": {"n_layer": 2}, "bloom": {"n_layer": 2},
    "mpt": {"n_layers": 2}, "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "codegen": {"n_layer": 2}, "distilbert": {"n_layers": 2}, "deepseek_v3": {"num_hidden_layers": 4},
}  # fmt: skip
HALF = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
REQUIRED = {  # what has no default, or one with which transformers does not run
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 3},
    "hunyuan_v1_dense": {"head_dim": 128}, "hunyuan_v1_moe": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8}, "glm4v_text": HALF,
    "glm4v_moe_text": {**HALF, "head_dim": 128},
}  # fmt: skip


def counted(config, batch=1, seq=16):
    model = backward(architectures.load("transformer").build(config, Workload("train", batch, seq)))
    total = flops(model)
    return params(model).total, total.forward, total.backward


@pytest.mark.every(4)
@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_with_few_layers_equal_transformers(family):
    fields = {**FEW_LAYERS.get(family, {"num_hidden_layers": 2}), **REQUIRED.get(family, {})}
    head = "none" if family in (*ENCODERS, *BODIES) else "lm"
    _, config = hf_config.read({"model_type": family, **fields})
    assert counted(config, 2, 21) == hf.step(hf.build(family, fields, head), 2, 21, head)


@pytest.mark.parametrize("family", FAMILIES)
def test_missing_fields_are_the_familys_defaults(family):
    """A config that spells out everything transformers would fill in says the same."""
    fields = REQUIRED.get(family, {})
    whole = AutoConfig.for_model(family, **fields).to_dict()
    del whole["architectures"]
    short = {"model_type": family, **fields}
    assert counted(hf_config.read(whole)[1]) == counted(hf_config.read(short)[1])
    assert hf_config.read(whole)[1].context == hf_config.read(short)[1].context


def test_a_file_and_a_table_say_the_same(tmp_path):
    table = {"model_type": "llama", "num_hidden_layers": 3, "torch_dtype": "bfloat16", "rope_scaling": None}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(table))
    assert hf_config.read(path) == hf_config.read(str(path)) == hf_config.read(table)
    assert hf_config.read(path)[1].layers == 3


def test_other_spellings():
    for table in (
        {"model_type": "gpt2", "num_hidden_layers": 3},
        {"model_type": "bloom", "n_embed": 80, "num_attention_heads": 4},
        {"model_type": "qwen3_moe", "num_local_experts": 16},
    ):
        assert hf_config.read(table) != hf_config.read({"model_type": table["model_type"]})


def test_a_nested_text_config():
    inner = {"model_type": "gemma3_text", "num_hidden_layers": 6, "architectures": ["Gemma3TextModel"]}
    outer = {"model_type": "aya_vision", "text_config": inner, "vision_config": {"model_type": "dinov2"}}
    assert hf_config.read(outer) == hf_config.read({**inner, "architectures": ["Gemma3ForCausalLM"]})
    assert hf_config.read({**outer, "architectures": ["AyaVisionModel"]})[1].head == "none"
    assert "vision tower" in estimate(outer).to_dict()["flops"]["uncounted"]
    assert not estimate(inner).model.uncounted
    with pytest.raises(InputError, match=r"^text_config: missing"):
        hf_config.read({"model_type": "llava"})
    with pytest.raises(InputError, match=r"^text_config: allowed"):
        hf_config.read({"model_type": "gemma3", "text_config": [1]})
    with pytest.raises(InputError, match=r"^num_hidden_layers: got 0"):
        hf_config.read({"model_type": "gemma3", "text_config": {"num_hidden_layers": 0}})


@pytest.mark.parametrize(
    ("classes", "head"),
    [
        (["LlamaForCausalLM"], "lm"), (["LlamaModel"], "none"), ([], "lm"), (None, "lm"),
        (["LlamaForSequenceClassification"], "last"), (["LlamaForTokenClassification"], "tokens"),
    ],
)  # fmt: skip
def test_the_class_decides_the_head(classes, head):
    assert hf_config.read({"model_type": "llama", "architectures": classes})[1].head == head


def test_a_masked_model_has_no_pooler():
    assert hf_config.read({"model_type": "bert"})[1].pooler
    assert not hf_config.read({"model_type": "bert", "architectures": ["BertForMaskedLM"]})[1].pooler


def test_an_array_of_widths():
    widths = np.array([512, 1024])
    both = counted(hf_config.read({"model_type": "gpt2", "n_embd": widths, "n_head": 8})[1])
    for i, width in enumerate(widths):
        one = counted(hf_config.read({"model_type": "gpt2", "n_embd": int(width), "n_head": 8})[1])
        assert [total[i] for total in both] == list(one)


LLAMA = {"model_type": "llama"}
BAD = [
    ({}, "model_type", "missing; allowed"),
    ({"model_type": 7}, "model_type", "got 7"),
    ({"model_type": "lama"}, "model_type", "did you mean 'llama'"),
    ({"model_type": "zzzzzzzz"}, "model_type", "budget list families"),
    ({"model_type": "../families/llama"}, "model_type", "unknown name"),
    ({**LLAMA, "hidden_size": [4096]}, "hidden_size", r"got \[4096\]"),
    ({**LLAMA, "hidden_size": "4096"}, "hidden_size", "got '4096'"),
    ({**LLAMA, "hidden_size": {"a": 1}}, "hidden_size", "got {'a': 1}"),
    ({**LLAMA, "hidden_size": None}, "hidden_size", "got null"),
    ({**LLAMA, "hidden_size": True}, "hidden_size", "got True"),
    ({**LLAMA, "hidden_size": 0}, "hidden_size", "got 0"),
    ({**LLAMA, "hidden_size": -4096}, "hidden_size", "got -4096"),
    ({**LLAMA, "hidden_size": 4096.5}, "hidden_size", "got 4096.5"),
    ({**LLAMA, "hidden_size": float("nan")}, "hidden_size", "got nan"),
    ({**LLAMA, "hidden_size": float("inf")}, "hidden_size", "got inf"),
    ({**LLAMA, "hidden_size": 10**16}, "hidden_size", "allowed: whole numbers"),
    ({**LLAMA, "hidden_size": 10**5000}, "hidden_size", "a very large int"),
    ({**LLAMA, "hidden_size": 4095}, "num_attention_heads", "got 32; allowed: divisors of hidden_size"),
    ({**LLAMA, "num_key_value_heads": 5}, "num_key_value_heads", "got 5; allowed: divisors"),
    ({**LLAMA, "hidden_act": "sine"}, "hidden_act", "got 'sine'"),
    ({**LLAMA, "hidden_act": ["silu"]}, "hidden_act", r"got \['silu'\]"),
    ({**LLAMA, "tie_word_embeddings": "yes"}, "tie_word_embeddings", "allowed: true or false"),
    ({**LLAMA, "architectures": "LlamaForCausalLM"}, "architectures", "a list of names"),
    ({**LLAMA, "architectures": [1]}, "architectures", "a list of names"),
    ({**LLAMA, "architectures": ["Qwen2ForRewardModel"]}, "architectures", "allowed for llama: LlamaModel"),
    ({"model_type": "bert", "architectures": ["JinaBertForMaskedLM"]}, "architectures", "BertForMaskedLM"),
    ({"model_type": "t5", "architectures": ["ChronosBolt"]}, "architectures", "T5EncoderModel"),
    ({"model_type": "vit", "architectures": ["Nonsense"]}, "architectures", "ViTForImageClassification"),
    ({"model_type": "bert", "num_labels": 3, "id2label": {"0": "a"},
      "architectures": ["BertForTokenClassification"]}, "num_labels", "id2label has 1"),
    ({"model_type": "mixtral", "num_experts": 4, "num_local_experts": 8}, "num_experts", "num_local_"),
    ({**LLAMA, "intermediate_size": 0}, "intermediate_size", "got 0"),
    ({**LLAMA, "head_dim": 0}, "head_dim", "got 0"),
    ({**LLAMA, "head_dim": 9}, "head_dim", "even numbers"),
    ({"model_type": "helium", "head_dim": 8}, "head_dim", "allowed: hidden_size / num_attention_heads"),
    ({"model_type": "gpt2", "architectures": ["GPT2DoubleHeadsModel"]}, "architectures", "got 'GPT2Double"),
    ({"model_type": "bert", "is_decoder": True}, "is_decoder", "got True; allowed: false"),
    ({"model_type": "albert", "num_hidden_groups": 2}, "num_hidden_groups", "allowed: 1"),
    ({"model_type": "deepseek_v2"}, "num_experts_per_tok", "missing"),
    ({"model_type": "deepseek_v3", "num_experts_per_tok": 300}, "num_experts_per_tok", "got 300"),
    ({"model_type": "deepseek_v3", "n_shared_experts": None}, "n_shared_experts", "got null"),
    ({"model_type": "gemma2", "layer_types": ["full_attention"]}, "layer_types", "has 1 entries"),
    ({"model_type": "gemma2", "layer_types": ["chunked"] * 26}, "layer_types", "allowed: a list of"),
    ({"model_type": "gemma2", "layer_types": {}}, "layer_types", "allowed: a list of"),
    ({"model_type": "gemma3_text", "sliding_window_pattern": 10**9}, "sliding_window_pattern", "up to"),
    ({"model_type": "qwen2", "use_sliding_window": True, "num_hidden_layers": 10**12}, "num_hidden_layers",
     "up to"),
    ({"model_type": "gpt_neo", "attention_types": [[["global"], 10**12]]}, "attention_types", "up to"),
    ({"model_type": "gpt_neo", "attention_types": [3]}, "attention_types", "pairs"),
    ({"model_type": "gpt_neo", "attention_types": 3}, "attention_types", "allowed: a list"),
    ({"model_type": "gpt_neo", "num_layers": 5}, "attention_types", "has 24 entries"),
    ({"model_type": "gpt_neox", "rotary_pct": 3}, "rotary_pct", "allowed: 0 to 1"),
    ({"model_type": "gptj", "rotary_dim": 1000}, "rotary_dim", "at most"),
    ({"model_type": "falcon", "multi_query": 1}, "multi_query", "true or false"),
    ({"model_type": "roberta", "max_position_embeddings": 2}, "max_position_embeddings", "allowed: 3 or"),
    ({"model_type": "qwen3_moe", "mlp_only_layers": [3]}, "mlp_only_layers", "the first layers"),
    ({"model_type": "qwen3_moe", "decoder_sparse_step": 0}, "decoder_sparse_step", "got 0"),
    ({"model_type": "nemotron"}, "num_key_value_heads", "missing"),
    ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, "no_rope_layers", "0 or 1 for each"),
    ({"model_type": "exaone4", "sliding_window_pattern": "LLLG"}, "sliding_window_pattern", "got 'LLLG'"),
    ({"model_type": "olmoe", "clip_qkv": 8.0}, "clip_qkv", "allowed: null"),
    ({"model_type": "phimoe", "num_experts_per_tok": 3}, "num_experts_per_tok", "allowed: 2"),
    ({"model_type": "ernie4_5_moe", "moe_layer_end_index": 9}, "moe_layer_end_index", "allowed: -1, 27"),
    ({"model_type": "ernie4_5_moe", "use_bias": True}, "use_bias", "allowed: false"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "field", "problem"), BAD)
def test_bad_fields_are_named(table, field, problem):
    with pytest.raises(InputError, match=problem) as error:
        hf_config.read(table)
    assert error.value.field == field
    assert "\n" not in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(family=st.sampled_from(hf_families.known()), data=st.data())
def test_whatever_a_config_holds_is_read_or_refused(family, data):
    table = hf_families.load(family)
    names = sorted({*table.get("defaults", {}), *table.get("fields", {}).values(), *table.get("aliases", {}),
                    "architectures", "layer_types", "rope_parameters", "text_config"})  # fmt: skip
    fields = data.draw(st.dictionaries(st.sampled_from(names), JSON, max_size=3))
    try:
        name, config = hf_config.read({"model_type": family, **fields})
        flops(architectures.load(name).build(config, Workload("train")))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right, a traceback is not
    else:
        assert isinstance(config, architectures.load(name).Config)


SAID = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_a_config_says_its_dtype(field):
    for told, expected in (("float32", "float32"), ("torch.float16", "float16"), ("auto", "bfloat16")):
        assert estimate({**SAID, field: told}).task.dtype == expected
    assert estimate({**SAID, field: "float32"}, dtype="bf16").task.dtype == "bfloat16"
    for told in ("banana", 7):
        with pytest.raises(InputError, match=f"{field}: .*allowed: float32, bfloat16, float16"):
            estimate({**SAID, field: told})


def test_a_network_for_images_may_name_its_class():
    for kind, name in (
        ("mobilenet_v2", "MobileNetV2ForImageClassification"),
        ("vit", "ViTForImageClassification"),
    ):
        e = estimate({"model_type": kind, "architectures": [name]})
        assert e.params == estimate({"model_type": kind}).params


def test_the_page_of_accuracy_counts_the_families():
    page = (Path(__file__).parent.parent / "docs" / "accuracy.md").read_text()
    with_class = [kind for kind in hf_families.known() if "code" not in hf_families.load(kind)]
    assert f"{len(with_class)} model_types" in page


def test_a_size_in_another_familys_word_is_refused():
    for kind, field in (("llama", "num_layers"), ("gpt2", "num_layers"), ("opt", "n_head"), ("bert", "dim")):
        with pytest.raises(InputError, match=f"{field}: no field of this model_type"):
            estimate({"model_type": kind, field: 24})


def test_a_class_by_its_earlier_name():
    for kind, earlier, name in (
        ("t5", "T5WithLMHeadModel", "T5ForConditionalGeneration"),
        ("mpt", "MPTForCausalLM", "MptForCausalLM"),
    ):
        tables = ({"model_type": kind, "architectures": [one]} for one in (earlier, name))
        assert len({estimate(table, mode="forward", seq=8).params.total for table in tables}) == 1


def test_the_balancing_loss_is_named_as_not_counted():
    for table in (
        {"model_type": "mixtral", "output_router_logits": True},
        {"model_type": "qwen3_5_moe", "text_config": {"output_router_logits": True}},
    ):
        assert "the routers' balancing loss" in estimate(table, seq=8).model.uncounted


# And of code beside a checkpoint, or in its published config.
CLASSES = {*dir(transformers), "KimiK25ForConditionalGeneration", "Qwen2_5OmniModel"}


@pytest.mark.parametrize("kind", hf_families.known())
def test_a_familys_classes_are_transformers_own_and_set_what_its_architecture_has(kind):
    family = hf_families.load(kind)
    fields = set(architectures.load(family["arch"]).Config.fields)
    if "code" in family:  # which is on the hub alone
        assert not set(family["classes"]) & CLASSES
    else:
        assert set(family["classes"]) <= CLASSES
    for name in family["classes"]:
        assert set(hf_classes.head({"architectures": [name]}, kind, family)) <= fields
