"""Families whose class is code on the hub alone: against that code in torch, and what is published."""

import pytest
from oracles import hf, hub_code
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from budget import arch as architectures
from budget import estimate
from budget.config import Workload
from budget.errors import InputError
from budget.fold.count import flops, params
from budget.plan.backward import backward
from budget.read import hf_config, hf_families

FAMILIES = [kind for kind in hf_families.known() if "code" in hf_families.load(kind)]
PLAIN = {
    "hidden_size": 48, "intermediate_size": 70, "num_hidden_layers": 3, "num_attention_heads": 6,
    "vocab_size": 101, "tie_word_embeddings": False, "max_position_embeddings": 64,
}  # fmt: skip
GROUPED = {**PLAIN, "num_key_value_heads": 2}
GLM = {
    "hidden_size": 48, "ffn_hidden_size": 70, "num_layers": 3, "num_attention_heads": 6, "kv_channels": 10,
    "padded_vocab_size": 101, "multi_query_attention": True, "multi_query_group_num": 2,
    "add_qkv_bias": True, "add_bias_linear": False, "seq_length": 64, "rmsnorm": True,
}  # fmt: skip
DEEPSEEK = {
    **PLAIN, "num_key_value_heads": 3, "moe_intermediate_size": 14, "n_routed_experts": 7,
    "n_shared_experts": 2, "num_experts_per_tok": 3, "first_k_dense_replace": 1,
}  # fmt: skip
LING = {
    **GROUPED, "moe_intermediate_size": 14, "num_experts": 8, "num_shared_experts": 2,
    "num_experts_per_tok": 3, "first_k_dense_replace": 0, "head_dim": 10, "use_bias": False,
    "use_qkv_bias": False, "use_qk_norm": False,
}  # fmt: skip
LING2 = {**LING, "first_k_dense_replace": 1, "use_qk_norm": True, "partial_rotary_factor": 0.5}
QWEN = {**PLAIN, "kv_channels": 8, "no_bias": True}
SMALL = [
    ("baichuan", PLAIN),
    ("bailing_moe", LING),
    ("bailing_moe", {**LING2, "num_shared_experts": 0, "use_qkv_bias": True}),
    ("bailing_moe", {**LING2, "architectures": ["BailingMoeV2ForCausalLM"]}),
    ("bailing_moe_v2", LING2),
    ("chatglm", GLM),
    ("chatglm", {**GLM, "multi_query_attention": False, "add_bias_linear": True}),
    ("chatglm", {"hidden_size": 48, "inner_hidden_size": 90, "num_layers": 3, "num_attention_heads": 6,
                 "vocab_size": 101, "max_sequence_length": 64}),
    ("deepseek", DEEPSEEK),
    ("deepseek", {**DEEPSEEK, "first_k_dense_replace": 0, "n_shared_experts": None}),
    ("exaone", {**GROUPED, "num_layers": 2, "num_hidden_layers": 2, "head_dim": 10}),
    ("exaone", {**PLAIN, "num_layers": 2, "num_hidden_layers": 2, "head_dim": 8,
                "tie_word_embeddings": True}),
    ("internlm", {**PLAIN, "bias": True}),
    ("internlm2", {**GROUPED, "bias": False}),
    ("internlm2", {**GROUPED, "bias": True, "tie_word_embeddings": True}),
    ("internlm3", {**GROUPED, "bias": False, "qkv_bias": True, "head_dim": 10}),
    ("internlm3", {**GROUPED, "bias": True, "qkv_bias": False, "head_dim": 10}),
    ("mimo", GROUPED),
    ("minicpm", {**GROUPED, "tie_word_embeddings": True}),
    ("minicpm", {**GROUPED, "num_experts": 5, "num_experts_per_tok": 2}),
    ("qwen", QWEN),
    ("qwen", {**QWEN, "no_bias": False, "kv_channels": 10}),
]  # fmt: skip


def test_a_family_says_where_its_class_is():
    """In transformers, or in the code of a repository: never in both, never in neither."""
    for kind in hf_families.known():
        assert ("code" in hf_families.load(kind)) == (kind not in CONFIG_MAPPING), kind
    assert set(FAMILIES) == set(hub_code.CODE) == {kind for kind, _ in SMALL}


@pytest.mark.parametrize(("kind", "fields"), SMALL)
def test_the_code_counts_the_same(kind, fields):
    name, config = hf_config.read({"model_type": kind, **fields})
    model = backward(architectures.load(name).build(config, Workload("train", 2, 21)))
    total = flops(model)
    ours = params(model).total, total.forward, total.backward
    assert ours == hf.step(hub_code.build(kind, fields), 2, 21)


SEVEN = {"hidden_size": 4096, "num_attention_heads": 32}
SILU = {"hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
INTERNLM2 = {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "bias": False,
             "num_key_value_heads": 8, "vocab_size": 92544,
             "max_position_embeddings": 32768, **SILU}  # fmt: skip
CHATGLM = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "add_bias_linear": False,
           "add_qkv_bias": True, "ffn_hidden_size": 13696, "kv_channels": 128, "multi_query_attention": True,
           "multi_query_group_num": 2, "rmsnorm": True, "post_layer_norm": True, **SEVEN}  # fmt: skip
BAICHUAN = {"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], **SILU}
LING_MINI = {
    "model_type": "bailing_moe", "architectures": ["BailingMoeV2ForCausalLM"], "attention_dropout": 0.0,
    "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 5120, "head_dim": 128,
    "max_position_embeddings": 32768, "moe_intermediate_size": 512, "num_experts": 256,
    "num_shared_experts": 1, "num_attention_heads": 16, "num_experts_per_tok": 8, "norm_topk_prob": True,
    "num_hidden_layers": 20, "num_key_value_heads": 4, "use_bias": False, "use_qkv_bias": False,
    "use_qk_norm": True, "partial_rotary_factor": 0.5, "vocab_size": 157184, "score_function": "sigmoid",
    "moe_router_enable_expert_bias": True, **SILU,
}  # fmt: skip
# A preset, the fields of its config.json, and its parameters: Baichuan's from its README, the others from the
# checkpoints' headers as MTEB, chatllm.cpp, calflops and others print them (read 2026-11-30).
PUBLISHED = [
    ("internlm2.5-1.8b", {**INTERNLM2, "hidden_size": 2048, "intermediate_size": 8192,
                          "num_hidden_layers": 24, "num_attention_heads": 16}, 1_889_110_016),
    ("internlm2.5-7b", {**INTERNLM2, **SEVEN, "intermediate_size": 14336, "num_hidden_layers": 32},
     7_737_708_544),
    ("internlm2.5-20b", {**INTERNLM2, "hidden_size": 6144, "intermediate_size": 16384,
                         "num_hidden_layers": 48, "num_attention_heads": 48}, 19_861_149_696),
    ("chatglm3-6b", {**CHATGLM, "num_layers": 28, "padded_vocab_size": 65024, "seq_length": 8192,
                     "pre_seq_len": None}, 6_243_584_000),
    ("glm-4-9b", {**CHATGLM, "num_layers": 40, "padded_vocab_size": 151552, "seq_length": 131072},
     9_399_951_360),
    ("baichuan-7b", {**BAICHUAN, **SEVEN, "architectures": ["BaiChuanForCausalLM"],
                     "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 64000,
                     "max_position_embeddings": 4096},
     7_000_559_616),
    ("baichuan-13b", {**BAICHUAN, "hidden_size": 5120, "intermediate_size": 13696, "num_attention_heads": 40,
                      "num_hidden_layers": 40, "vocab_size": 64000, "model_max_length": 4096},
     13_264_901_120),
    ("minicpm-2b", {"model_type": "minicpm", "architectures": ["MiniCPMForCausalLM"], "hidden_size": 2304,
                    "intermediate_size": 5760, "num_attention_heads": 36, "num_hidden_layers": 40,
                    "num_key_value_heads": 36, "vocab_size": 122753, "max_position_embeddings": 4096,
                    "scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4}, 2_724_880_896),
    ("qwen-7b", {"model_type": "qwen", "architectures": ["QWenLMHeadModel"], **SEVEN, "kv_channels": 128,
                 "intermediate_size": 22016, "num_hidden_layers": 32, "vocab_size": 151936, "no_bias": True,
                 "max_position_embeddings": 32768, "seq_length": 8192}, 7_721_324_544),
    ("deepseek-moe-16b", {"model_type": "deepseek", "architectures": ["DeepseekForCausalLM"],
                          "first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944,
                          "max_position_embeddings": 4096, "moe_intermediate_size": 1408, "moe_layer_freq": 1,
                          "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": False,
                          "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
                          "num_key_value_heads": 16, "scoring_func": "softmax", "vocab_size": 102400, **SILU},
     16_375_728_128),
    # whose checkpoint has a bias for each of 256 experts in 19 layers, which is a buffer
    ("ling-mini-2.0", LING_MINI, 16_255_643_392 - 256 * 19),
]  # fmt: skip


@pytest.mark.parametrize(("preset", "table", "total"), PUBLISHED)
def test_a_published_config_is_its_preset_and_has_its_parameters(preset, table, total):
    told, named = (estimate(one, mode="forward", seq=512) for one in (table, preset))
    assert told.params.total == named.params.total == total
    assert told.flops.forward == named.flops.forward


def test_the_first_chatglm_is_its_preset():
    table = {"model_type": "chatglm", "hidden_size": 4096, "inner_hidden_size": 16384, "num_layers": 28,
             "max_sequence_length": 2048, "num_attention_heads": 32, "vocab_size": 130528,
             "position_encoding_2d": True}  # fmt: skip
    assert estimate(table).params == estimate("chatglm-6b").params


def test_baichuan_has_rotated_positions_where_it_says_how_many():
    for field, positions in (("max_position_embeddings", "rotary"), ("model_max_length", "alibi")):
        _, config = hf_config.read({"model_type": "baichuan", field: 123})
        assert (config.positions, config.context) == (positions, 123)


def test_routers_of_the_second_generation_are_sigmoids():
    table = {"model_type": "bailing_moe", **LING}
    assert hf_config.read(table)[1].router == "softmax"
    for told in (
        {"score_function": "sigmoid"},
        {"architectures": ["BailingMoeV2ForCausalLM"]},
        {"model_type": "bailing_moe_v2"},
    ):
        assert hf_config.read({**table, **told})[1].router == "sigmoid"


def test_what_the_code_has_beside_is_named():
    for table, what in (
        ({"model_type": "mimo", "num_nextn_predict_layers": 1}, "layers that guess further tokens"),
        ({"model_type": "chatglm", "vision_config": {"depth": 3}}, "vision tower"),
        (
            {"model_type": "bailing_moe", **LING, "norm_head": True},
            "the head's rows divided by their lengths",
        ),
    ):
        assert what in hf_config.uncounted(table)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"model_type": "chatglm", "rmsnorm": False}, "rmsnorm"),
        ({"model_type": "chatglm", "pre_seq_len": 128}, "pre_seq_len"),
        ({"model_type": "bailing_moe", **LING, "use_bias": True}, "use_bias"),
        ({"model_type": "bailing_moe"}, "intermediate_size"),
        ({"model_type": "deepseek", "moe_layer_freq": 2}, "moe_layer_freq"),
        ({"model_type": "deepseek", "n_routed_experts": 8}, "num_experts_per_tok"),
        ({"model_type": "qwen", "intermediate_size": 1}, "intermediate_size"),
        ({"model_type": "internlm2", "architectures": ["InternLM2ForRewardModel"]}, "architectures"),
    ],
)
def test_what_the_code_has_otherwise_is_refused(table, field):
    with pytest.raises(InputError, match=rf"^{field}: ") as error:
        hf_config.read(table)
    assert "\n" not in str(error.value)
