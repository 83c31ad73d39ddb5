"""Networks whose memory is measured on fake tensors, and what budget is told about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import transformers as hf
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from budget import estimate
from budget.answer import Estimate
from budget.read import hf_config
from budget.read.torch_file import constructing

from .images import GoogLeNet, maxvit
from .memory_networks import Case, conformer, dit, dlrm, lstm, own_images, unet

Inputs = Callable[[Any, int, int], dict[str, Any]]
hf.logging.set_verbosity_error()


def tokens(config: Any, batch: int, seq: int) -> dict[str, Any]:
    """The inputs of a language model."""
    ids = torch.zeros(batch, seq, dtype=torch.int64)
    return {"input_ids": ids, "labels": ids, **({"use_cache": False} if hasattr(config, "use_cache") else {})}


def pairs(config: Any, batch: int, seq: int) -> dict[str, Any]:
    return {**tokens(config, batch, seq), "decoder_input_ids": torch.zeros(batch, seq, dtype=torch.int64)}


def pixels(config: Any, batch: int, side: int) -> dict[str, Any]:
    labels = torch.zeros(batch, dtype=torch.int64)
    return {"pixel_values": torch.zeros(batch, 3, side, side), "labels": labels}


def speech(config: Any, batch: int, seq: int) -> dict[str, Any]:
    ids = torch.zeros(batch, seq, dtype=torch.int64)
    mel = torch.zeros(batch, config.num_mel_bins, 2 * config.max_source_positions)
    return {"input_features": mel, "decoder_input_ids": ids, "labels": ids, "use_cache": False}


def samples(config: Any, batch: int, seq: int) -> dict[str, Any]:
    return {"input_values": torch.zeros(batch, seq), "labels": torch.zeros(batch, dtype=torch.int64)}


def family(
    name: str, cls: Any, inputs: Inputs, *shapes: tuple[int, int], attention: str = "sdpa", **fields: Any
) -> Case:
    """One of transformers' own models."""
    is_image = inputs is pixels
    wanted = {"attn_implementation": attention} if attention else {}
    if is_image:
        fields = {"num_labels": 1000, "problem_type": "single_label_classification", **fields}

    def config() -> Any:
        return cls.config_class(**fields)

    def build(batch: int, size: int) -> tuple[nn.Module, dict[str, Any]]:
        c = config()
        # What the numbers are doesn't matter: of weights, and of how often a layer is dropped in training.
        rates = patch.multiple(FakeTensor, tolist=lambda t: [0.0] * len(t), item=lambda t: 0.0)
        with patch.object(hf.PreTrainedModel, "initialize_weights"), rates:
            return cls._from_config(c, **wanted), inputs(c, batch, size)

    table = {"model": {**config().to_dict(), "architectures": [cls.__name__]}}
    if attention == "eager":
        table["attention"] = "eager"
    return Case(name, build, table, shapes, "image" if is_image else "seq")


def without_dropout(model: Any) -> dict[str, Any]:
    """Settings of a network in eval mode, as the oracle has it: a config's dropout is for training mode."""
    if not isinstance(model, Mapping):
        return {}
    _, config = hf_config.read(model)
    return {"config": {name: 0.0 for name in config.fields if name.endswith("dropout")}}


def answer(case: Case, batch: int, size: int) -> Estimate:
    """What budget says of a case, as torch runs it: eagerly, with AdamW's foreach loop."""
    # On fake tensors transformers never drops its mask.
    settings = {
        "attention": "fused",
        "precision": "pure",
        **without_dropout(case.settings["model"]),
        **case.settings,
    }
    if callable(settings["model"]):
        return estimate(**{**settings, "model": settings["model"](batch, size)}, optimizer="adamw")
    sizes = {"batch": batch, case.size: size} if case.size else {"batch": batch}
    return estimate(**settings, **sizes, optimizer="adamw", execution="eager")


def captured(case: Case, batch: int, size: int) -> Estimate:
    """What budget says of a case's real module, made and captured on fake tensors, in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with constructing():
            module, inputs = case.build(batch, size)
    finally:
        torch.set_default_dtype(before)
    return estimate(module.eval(), inputs=inputs, optimizer="adamw", execution="eager")


LM = {"num_hidden_layers": 2}
EXPERTS = {"experts_implementation": "grouped_mm"}
deepseek_v3 = partial(
    family, "deepseek_v3", hf.DeepseekV3ForCausalLM, tokens, **LM, **EXPERTS, hidden_size=1024,
    intermediate_size=3584, n_routed_experts=16, n_group=4, topk_group=2, num_attention_heads=16,
    num_key_value_heads=16, first_k_dense_replace=1,
)  # fmt: skip
SMALL = (
    family("gpt2", hf.GPT2LMHeadModel, tokens, (2, 1024), (16, 256), n_layer=3),
    family("llama", hf.LlamaForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("mistral", hf.MistralForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("qwen3", hf.Qwen3ForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("gemma2", hf.Gemma2ForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("gemma3", hf.Gemma3ForCausalLM, tokens, (1, 2048), (8, 512), **LM),
    family("olmo2", hf.Olmo2ForCausalLM, tokens, (8, 512), **LM),
    family("apertus", hf.ApertusForCausalLM, tokens, (8, 512), **LM),
    family("cohere2", hf.Cohere2ForCausalLM, tokens, (8, 512), num_hidden_layers=4,
           hidden_size=1024, num_attention_heads=8, intermediate_size=3584, vocab_size=32000),
    family("opt", hf.OPTForCausalLM, tokens, (2, 1024), (16, 256), **LM),
    family("gpt_neox", hf.GPTNeoXForCausalLM, tokens, (1, 1024), (16, 1024), **LM),
    family("falcon", hf.FalconForCausalLM, tokens, (1, 1024), (8, 512), **LM),
    family("phi", hf.PhiForCausalLM, tokens, (1, 1024), (8, 512), **LM),
    family("bloom", hf.BloomForCausalLM, tokens, (1, 1024), (8, 512), attention="eager",
           n_layer=2, hidden_size=1024, n_head=16),
    family("mixtral", hf.MixtralForCausalLM, tokens, (1, 1024), (16, 1024), **LM, **EXPERTS,
           hidden_size=1024, intermediate_size=3584),
    family("qwen2_moe", hf.Qwen2MoeForCausalLM, tokens, (1, 1024), (8, 256), **LM, **EXPERTS, num_experts=16),
    deepseek_v3((1, 1024), (8, 256)),
    family("gpt_oss", hf.GptOssForCausalLM, tokens, (1, 1024), (8, 256), attention="eager", **EXPERTS, **LM,
           hidden_size=1024, intermediate_size=1024, num_local_experts=8, num_attention_heads=16,
           num_key_value_heads=4, vocab_size=5000),
    family("bert", hf.BertForMaskedLM, tokens, (4, 512), (32, 128), num_hidden_layers=3),
    family("roberta", hf.RobertaForMaskedLM, tokens, (4, 500), (32, 128), num_hidden_layers=3),
    family("distilbert", hf.DistilBertForMaskedLM, tokens, (4, 512), (32, 128), n_layers=3),
    family("albert", hf.AlbertForMaskedLM, tokens, (4, 512), (32, 128), num_hidden_layers=3, hidden_size=768,
           num_attention_heads=12, intermediate_size=3072),
    family("t5", hf.T5ForConditionalGeneration, pairs, (4, 512), (32, 128), num_layers=2,
           num_decoder_layers=2),
    family("bart", hf.BartForConditionalGeneration, pairs, (4, 512), (32, 128), encoder_layers=2,
           decoder_layers=2),
    family("whisper", hf.WhisperForConditionalGeneration, speech, (4, 400), (16, 100), encoder_layers=2,
           decoder_layers=2),
    family("vit", hf.ViTForImageClassification, pixels, (8, 224), (64, 224), num_hidden_layers=3),
    family("wav2vec2", hf.Wav2Vec2ForSequenceClassification, samples, (2, 16_000), num_hidden_layers=3,
           mask_time_prob=0.0),
    family("segformer", hf.SegformerForImageClassification, pixels, (2, 256)),
    family("swin", hf.SwinForImageClassification, pixels, (4, 224), (16, 224), attention="eager",
           depths=[2, 2, 2, 2]),
    family("swinv2", hf.Swinv2ForImageClassification, pixels, (4, 256), (16, 256), attention="eager",
           window_size=8, image_size=256, depths=[2, 2, 2, 2]),
    family("resnet", hf.ResNetForImageClassification, pixels, (8, 224), (64, 160), attention="",
           depths=[2, 2, 2, 2]),
    family("convnext", hf.ConvNextForImageClassification, pixels, (8, 224), (64, 160), attention="",
           depths=[2, 2, 2, 2]),
    family("mobilenet_v2", hf.MobileNetV2ForImageClassification, pixels, (8, 224), (64, 160), attention=""),
    family("efficientnet", hf.EfficientNetForImageClassification, pixels, (4, 224), (16, 160), attention="",
           width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=224),
    family("mamba", hf.MambaForCausalLM, tokens, (4, 64), (8, 64), attention="", **LM),
    family("mamba2", hf.Mamba2ForCausalLM, tokens, (1, 512), (2, 256), attention="", **LM, vocab_size=5000,
           hidden_size=1024, num_heads=32, n_groups=1),
    family("jamba", hf.JambaForCausalLM, tokens, (1, 32), (64, 16), num_hidden_layers=3, attn_layer_period=3,
           attn_layer_offset=1, hidden_size=512, intermediate_size=1024, num_attention_heads=8,
           num_key_value_heads=4, num_experts=4, use_mamba_kernels=False, **EXPERTS),
    family("bamba", hf.BambaForCausalLM, tokens, (1, 512), (2, 256), num_hidden_layers=3,
           attn_layer_indices=[1], hidden_size=1024, intermediate_size=2048, num_attention_heads=16,
           num_key_value_heads=4, mamba_n_heads=32, mamba_d_head=64, vocab_size=5000),
    family("qwen3_next", hf.Qwen3NextForCausalLM, tokens, (1, 1024), (8, 128), num_hidden_layers=4,
           hidden_size=512, num_attention_heads=8, num_key_value_heads=2, head_dim=64,
           linear_num_key_heads=4, linear_num_value_heads=8, linear_key_head_dim=64,
           linear_value_head_dim=64, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=256,
           shared_expert_intermediate_size=256, vocab_size=5000, **EXPERTS),
    family("llama4", hf.Llama4ForCausalLM, tokens, (1, 1024), (8, 128), num_hidden_layers=4, hidden_size=512,
           intermediate_size=512, intermediate_size_mlp=1024, num_attention_heads=8, num_key_value_heads=2,
           head_dim=64, num_local_experts=4, interleave_moe_layer_step=2, vocab_size=5000, pad_token_id=0),
    family("gemma4", hf.Gemma4ForCausalLM, tokens, (1, 1024), (8, 128), num_hidden_layers=6, hidden_size=512,
           intermediate_size=1024, num_attention_heads=8, num_key_value_heads=2, head_dim=64,
           global_head_dim=128, vocab_size=5000, vocab_size_per_layer_input=5000,
           hidden_size_per_layer_input=64, sliding_window=128, num_kv_shared_layers=3,
           layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2),
    lstm((4, 64), (32, 32)),
    conformer((4, 256), (16, 128)),
    dlrm((128, 0), (2048, 0)),
    unet((1, 256), (4, 256)),
    dit((4, 256), (64, 256)),
    own_images("googlenet", lambda side: GoogLeNet(), (8, 224), (32, 224)),
    own_images("maxvit", lambda side: maxvit((1, 1, 1, 1)), (4, 224), (16, 224), depths=(1, 1, 1, 1)),
)  # fmt: skip
GPT2_XL = {"n_layer": 48, "n_embd": 1600, "n_head": 25}
LLAMA_3_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256,
}  # fmt: skip
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
T5_LARGE = {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 16}
FULL = (
    family("GPT-2 XL", hf.GPT2LMHeadModel, tokens, (1, 1024), (16, 512), **GPT2_XL),
    family("Llama-3-8B", hf.LlamaForCausalLM, tokens, (1, 4096), (16, 1024), **LLAMA_3_8B),
    family("BERT-large", hf.BertForMaskedLM, tokens, (8, 512), (64, 128), **LARGE),
    family("ViT-L/16", hf.ViTForImageClassification, pixels, (16, 224), (128, 224), **LARGE),
    family("ResNet-152", hf.ResNetForImageClassification, pixels, (16, 224), (64, 224), attention="",
           depths=[3, 8, 36, 3]),
    family("T5-large", hf.T5ForConditionalGeneration, pairs, (4, 512), (32, 128), **T5_LARGE),
    family("Mixtral-8x7B", hf.MixtralForCausalLM, tokens, (1, 4096), (32, 1024), **EXPERTS),
    family("Mamba-130M", hf.MambaForCausalLM, tokens, (4, 32), (8, 64), attention="", num_hidden_layers=24),
    lstm((20, 35), (64, 128), layers=4, width=1024, vocab=33278),
)  # fmt: skip
