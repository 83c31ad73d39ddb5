"""Networks that techniques are tried on: transformers' own, small, and what their parts are called there.

`parts` says for a name of ours, as `freeze` and `lora_targets` take it, which modules it is: a regular
expression that the end of their paths matches. `stacks` are the lists of layers, in order, `below` what lies
before the first layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import transformers as hf

from .memory_cases import pairs, pixels, speech, tokens

Config = Mapping[str, Any]


class Family(NamedTuple):
    """One of transformers' classes, its config, and the names of its parts."""

    cls: str
    fields: Config
    stacks: tuple[str, ...]
    below: tuple[str, ...]
    parts: Mapping[str, str]
    targets: tuple[str, ...]  # parts that may have adapters
    inputs: Callable[[Any, int, int], dict[str, Any]] = tokens
    shapes: tuple[tuple[int, int], ...] = ((1, 96), (8, 512))
    dropout: Config = MappingProxyType(
        {}
    )  # the same fields with dropout, where transformers' usual config has it
    attention: bool = True  # it has one, of which there are an eager and a fused form

    @property
    def size(self) -> str:
        """What the second number of a shape is."""
        return "image" if self.inputs is pixels else "seq"

    @property
    def config_class(self) -> Any:
        return getattr(hf, self.cls).config_class


DECODER = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4}
GATED = {**DECODER, "intermediate_size": 1376, "tie_word_embeddings": False}
BLOCKS = {**DECODER, "intermediate_size": 2048}
STACKED = {
    "d_model": 384, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 6,
    "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
}  # fmt: skip

QKVO = {f"attn.{x}": f"self_attn.{x}_proj" for x in "qkvo"}
MLP = {f"mlp.{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")}
LLAMA = {**QKVO, **MLP, "mlp": "mlp", "embed": "model.embed_tokens", "head": "lm_head"}
HEADS = ("q_proj", "k_proj", "v_proj", "out_proj")
BART = {
    **{f"attn.{x}": f"self_attn.{y}" for x, y in zip("qkvo", HEADS, strict=True)},
    **{f"cross.{x}": f"encoder_attn.{y}" for x, y in zip("qkvo", HEADS, strict=True)},
    "mlp.up": "fc1", "mlp.down": "fc2", "encoder": "model.encoder",
}  # fmt: skip
BERT = {
    **{f"attn.{x}": f"attention.self.{y}" for x, y in zip("qkv", ("query", "key", "value"), strict=True)},
    "attn.o": "attention.output.dense", "mlp.up": "intermediate.dense",
    "mlp.down": r"layer\.\d+\.output.dense", "embed": "embeddings",
}  # fmt: skip
T5 = {
    **{f"attn.{x}": f"SelfAttention.{x}" for x in "qkvo"},
    **{f"cross.{x}": f"EncDecAttention.{x}" for x in "qkvo"},
    "mlp.up": "DenseReluDense.wi", "mlp.down": "DenseReluDense.wo", "encoder": "encoder",
}  # fmt: skip
VIT = {**{f"attn.{x}": f"attention.{x}_proj" for x in "qkvo"}, "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2"}
NEOX = {"attn.qkv": "attention.query_key_value", "attn.o": "attention.dense", "embed": "embed_in",
        "mlp.up": "mlp.dense_h_to_4h", "mlp.down": "mlp.dense_4h_to_h", "mlp": "mlp"}  # fmt: skip
GPT2 = {"attn.qkv": "attn.c_attn", "attn.o": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj",
        "mlp": "mlp"}  # fmt: skip
ALL = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
PLAIN = tuple(name for name in ALL if name != "mlp.gate")
FUSED = ("attn.qkv", "attn.o", "mlp.up", "mlp.down")
CROSS = (*PLAIN, "cross.q", "cross.v")


def decoder(cls: str, parts: Mapping[str, str] = LLAMA, targets: tuple[str, ...] = ALL, **own: Any) -> Family:
    """A decoder whose modules are called as Llama's."""
    return Family(cls, {**GATED, **own}, ("model.layers",), ("model.embed_tokens",), parts, targets)


FAMILIES = {
    "llama": decoder("LlamaForCausalLM"),
    "qwen2": decoder("Qwen2ForCausalLM"),
    "qwen3": decoder("Qwen3ForCausalLM", head_dim=64),
    "gemma2": decoder("Gemma2ForCausalLM", head_dim=64, query_pre_attn_scalar=64, tie_word_embeddings=True,
                      layer_types=["sliding_attention", "full_attention"] * 2),
    "phi3": decoder("Phi3ForCausalLM", {"attn.qkv": "self_attn.qkv_proj", "attn.o": "self_attn.o_proj",
                    "mlp.gate_up": "mlp.gate_up_proj", "mlp.down": "mlp.down_proj", "mlp": "mlp",
                    "embed": "model.embed_tokens"}, ("attn.qkv", "attn.o", "mlp.gate_up", "mlp.down"),
                    pad_token_id=0, bos_token_id=1, eos_token_id=2),
    "mixtral": decoder("MixtralForCausalLM", {**QKVO, "embed": "model.embed_tokens", "head": "lm_head"},
                       ALL[:4], intermediate_size=1024, num_hidden_layers=3, num_local_experts=4),
    "gpt2": Family("GPT2LMHeadModel", {"n_embd": 512, "n_layer": 4, "n_head": 8, "resid_pdrop": 0.0,
                   "embd_pdrop": 0.0, "attn_pdrop": 0.0, "n_positions": 512}, ("transformer.h",),
                   ("transformer.wte", "transformer.wpe"), GPT2, FUSED,
                   dropout=dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1)),
    "gpt_neox": Family("GPTNeoXForCausalLM", BLOCKS, ("gpt_neox.layers",), ("gpt_neox.embed_in",), NEOX,
                       FUSED),
    "bert": Family("BertForMaskedLM", {**BLOCKS, "hidden_dropout_prob": 0.0,
                   "attention_probs_dropout_prob": 0.0}, ("bert.encoder.layer",), ("bert.embeddings",), BERT,
                   PLAIN, dropout={"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}),
    "t5": Family("T5ForConditionalGeneration", {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 3,
                 "num_decoder_layers": 3, "num_heads": 8, "dropout_rate": 0.0, "decoder_start_token_id": 0},
                 ("encoder.block", "decoder.block"), ("shared",), T5, CROSS, pairs, ((1, 64), (8, 256)),
                 {"dropout_rate": 0.1}),
    "bart": Family("BartForConditionalGeneration", STACKED, ("model.encoder.layers", "model.decoder.layers"),
                   ("model.shared", "model.encoder.embed_positions", "model.encoder.layernorm_embedding"),
                   BART, CROSS, pairs, ((1, 64), (8, 256)), {"dropout": 0.1}),
    "whisper": Family("WhisperForConditionalGeneration", {**STACKED, "max_source_positions": 500,
                      "decoder_start_token_id": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
                      ("model.encoder.layers", "model.decoder.layers"), ("model.encoder.conv1",
                      "model.encoder.conv2"), BART, CROSS, speech, ((1, 60), (8, 200)), {"dropout": 0.1}),
    "vit": Family("ViTForImageClassification", {"hidden_size": 384, "num_hidden_layers": 4,
                  "num_attention_heads": 6, "intermediate_size": 1536, "hidden_dropout_prob": 0.0,
                  "attention_probs_dropout_prob": 0.0, "num_labels": 1000}, ("vit.layers",),
                  ("vit.embeddings",), VIT, PLAIN, pixels, ((2, 224), (32, 224)),
                  {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}),
    "resnet": Family("ResNetForImageClassification", {"hidden_sizes": [64, 128, 256, 512],
                     "depths": [2, 2, 2, 2], "num_labels": 1000}, (), (),
                     {"stem": "resnet.embedder", **{f"stage{i + 1}": f"stages.{i}" for i in range(4)}}, (),
                     pixels, ((2, 64), (32, 160)), attention=False),
    "mamba": Family("MambaForCausalLM", {"hidden_size": 512, "num_hidden_layers": 3, "state_size": 16},
                    ("backbone.layers",), ("backbone.embeddings",),
                    {"ssm.in": "mixer.in_proj", "ssm.x": "mixer.x_proj", "ssm.out": "mixer.out_proj"},
                    ("ssm.in", "ssm.x"), tokens, ((1, 16), (8, 32)), attention=False),
}  # fmt: skip
