"""Which modules a checkpoint in few bits leaves as they are: by name, layer and expression."""

import pytest
from quantized import ATTENTION, LLAMA, MATRICES, REST, compressed, of_transformers, stored
from transformers.integrations.finegrained_fp8 import replace_with_fp8_linear
from transformers.utils.quantization_config import FineGrainedFP8Config

from budget import ir
from budget.errors import InputError
from budget.plan._modules import _number, called

DENSE_FIRST = {"model_type": "deepseek_v3", "hidden_size": 256, "intermediate_size": 384,
               "moe_intermediate_size": 128, "num_hidden_layers": 3, "first_k_dense_replace": 1,
               "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2,
               "topk_group": 1, "num_experts_per_tok": 2, "vocab_size": 1000, "kv_lora_rank": 64,
               "q_lora_rank": 64, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32,
               "dtype": "bfloat16"}  # fmt: skip
WINDOWS = {**LLAMA, "model_type": "gemma2", "head_dim": 64, "num_hidden_layers": 4}
EACH = [f"model.layers.{i}.self_attn" for i in range(4)]


@pytest.mark.parametrize(
    ("table", "left"),
    [
        (DENSE_FIRST, ["model.layers.0.mlp"]),
        (DENSE_FIRST, ["model.layers.1.mlp.shared_experts", "model.layers.2.mlp.shared_experts"]),
        (DENSE_FIRST, ["model.layers.61.eh_proj", "kv_a_proj_with_mqa"]),
        (WINDOWS, EACH),
        (WINDOWS, ["model.layers.1.mlp.up_proj", "model.layers.3.mlp.up_proj", *EACH]),
    ],
)
def test_layers_are_numbered_as_in_transformers(table, left):
    how = {"modules_to_not_convert": ["lm_head", *left],
           "quantization_config": FineGrainedFP8Config(weight_block_size=[64, 64])}  # fmt: skip
    expected = of_transformers(table, replace_with_fp8_linear, **how)
    config = {"weight_block_size": [64, 64], "modules_to_not_convert": ["lm_head", *left]}
    assert stored(table, quant_method="fp8", **config) == expected


def test_names_of_modules_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="names no linear layer that is known of llama"):
        stored(LLAMA, quant_method="fp8", modules_to_not_convert=["encoder.block.0.layer"])


@pytest.mark.parametrize("name", ["model.layers.1.mixing*", "re:.*mixing.*"])
def test_names_are_refused_as_they_are_spelled(name):
    """Not as the expressions that they stand for."""
    table = {"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": [name]}
    if name.startswith("re:"):
        table = compressed("float-quantized", num_bits=8, type="float", strategy="tensor", ignore=[name])
    with pytest.raises(InputError) as refused:
        stored(LLAMA, **table)
    assert str(refused.value).startswith(f"quantization_config: {name!r} names no linear layer")


def mixed(attention, mlp):
    """ModelOpt's table of a mix: each module of each layer with its algorithm; what is not in it is plain."""
    own = {**dict.fromkeys(ATTENTION, attention), **dict.fromkeys(["mlp.gate_proj", "mlp.up_proj"], mlp)}
    layers = {f"model.layers.{i}.{x}": {"quant_algo": a} for i in range(3) for x, a in own.items()}
    return {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}


def test_a_mix_has_each_module_in_its_own_format():
    fp8 = sum(n * k + 4 + 4 for n, k in MATRICES[:4])
    fp4 = sum(n * k // 2 + n * k // 16 + 4 for n, k in MATRICES[4:6])
    down = 2 * MATRICES[6][0] * MATRICES[6][1]
    assert stored(LLAMA, **mixed("FP8", "W4A16_NVFP4")) == REST + 3 * (fp8 + fp4 + down)


def test_a_mix_that_names_no_module_of_the_network_is_refused():
    table = mixed("FP8", "NVFP4")
    table["quantized_layers"]["model.layers.0.mixing"] = {"quant_algo": "FP8"}
    with pytest.raises(InputError, match=r"'model\.layers\.0\.mixing' names no linear layer that is known"):
        stored(LLAMA, **table)


@pytest.mark.parametrize(
    ("table", "head", "left"),
    [
        ({"load_in_8bit": True, "llm_int8_skip_modules": ["q_proj"]}, True, 1),
        ({"load_in_8bit": True, "llm_int8_skip_modules": ["lm_head", "model.layers.*.mlp"]}, False, 3),
        ({"load_in_8bit": True, "llm_int8_skip_modules": []}, True, 0),
    ],
)
def test_a_list_of_modules_takes_the_place_of_the_usual_one(table, head, left):
    """transformers leaves the head out where nobody lists any module."""
    matrices = {0: MATRICES, 1: MATRICES[1:], 3: MATRICES[:4]}[left]
    fewer = 3 * sum(n * k - 4 * n for n, k in matrices) + head * (1000 * 256 - 4 * 1000)
    assert stored(LLAMA, **table) == REST + 2 * 3 * sum(n * k for n, k in MATRICES) - fewer


@pytest.mark.parametrize("name", ["llm_int8_skip_modules", "ignore"])
def test_an_expression_that_is_none_is_named(name):
    table = compressed("int-quantized", ignore=["re:(a"], num_bits=8, type="int", strategy="channel")
    table = table if name == "ignore" else {"load_in_8bit": True, name: ["(a"]}
    with pytest.raises(InputError, match=r"quantization_config: got .*\(a.*; allowed: regular expressions"):
        stored(LLAMA, **table)


@pytest.mark.parametrize(
    ("ignore", "kept"),
    [
        (["lm_head", "re:.*mlp.*"], 4),
        (["lm_head", *(f"model.layers.{i}.mlp.down_proj" for i in range(3))], 6),
        (["re:.*lm_head", "re:.*self_attn\\.(q|k)_proj"], None),
    ],
)
def test_ignored_modules_stay(ignore, kept):
    table = compressed("int-quantized", num_bits=8, type="int", strategy="channel", ignore=ignore)
    few = MATRICES[:kept] if kept else MATRICES[2:]
    plain = [m for m in MATRICES if m not in few] if not kept else MATRICES[kept:]
    plain = MATRICES[:2] if kept is None else plain
    expected = REST + 3 * (sum(n * k + 2 * n for n, k in few) + sum(2 * n * k for n, k in plain))
    assert stored(LLAMA, **table) == expected


@pytest.mark.parametrize(
    "name", ["model.layers.{}.mlp.gate_proj", "layers.{}.mlp.*", "re:.*layers.{}.mlp.gate.*"]
)
def test_a_list_of_every_layer_is_one_of_all(name):
    """Hundreds of names: each is looked for among those of its own layer."""
    table = compressed("float-quantized", num_bits=8, type="float", strategy="tensor")
    every = [name.format(i) for i in range(3)]
    assert stored(LLAMA, **{**table, "ignore": every}) == stored(
        LLAMA, **{**table, "ignore": [name.format("*").replace("re:.*layers.*", "re:.*layers.[0-9]+")]}
    )


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        (r"(^|\.)model\.layers\.12\.mlp(\.|$)", "12"),
        (r"^(?:model.layers.0.mlp.gate)|model\.layers\.0\.mlp\.gate$", "0"),
        (r"layers\.(3|4)\.mlp", ""), (r"layers\.[0-9]\.mlp", ""), (r"layers\.\d\.mlp", ""), (r"lm_head", ""),
        (r"layers\.1*\.mlp", ""), (r"layers\.1?\.mlp", ""), (r"layers\.1{2}\.mlp", ""),
    ],
)  # fmt: skip
def test_a_number_is_one_that_every_name_has(expression, number):
    assert _number(expression) == number


@pytest.mark.parametrize("arch", ["", "gemma4", "vision_gemma4"])
def test_modules_are_called_by_tags_that_operators_have(arch):
    assert called(arch).keys() <= {tag for tag in vars(ir).values() if isinstance(tag, str)}
