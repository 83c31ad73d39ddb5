"""Small networks of transformers, diffusers, peft and timm, by name: what builds (module, inputs)."""

from __future__ import annotations

import importlib.util
import inspect

import torch
from torch import nn

CAUSAL = (
    "Llama Mistral Mixtral Qwen2 Qwen3 Qwen2Moe Gemma Gemma2 Phi Phi3 GPT2 GPTNeoX Bloom Falcon OPT XLNet "
    "Mamba Mamba2 Olmo2 GptOss StableLm Starcoder2 Granite Cohere CTRL BioGpt CodeGen Biogpt Persimmon"
).split()
ENCODERS = (
    "Bert Roberta Albert Electra DebertaV2 Deberta ConvBert MobileBert Nystromformer RoFormer ModernBert "
    "XLMRoberta Camembert Funnel BigBird Longformer Ernie MPNet SqueezeBert Splinter"
).split()
PAIRS = "Bart MBart T5 Pegasus Marian LED BlenderbotSmall ProphetNet M2M100 PegasusX UMT5".split()
PICTURES = "ViT DeiT Beit ConvNext ConvNextV2 Dinov2 ResNet RegNet Swinv2 MobileViT PoolFormer CvT".split()
TIMM = (
    "resnet18 resnetv2_50 regnetx_002 efficientnet_b0 mobilenetv3_small_100 mobilenetv4_conv_small vit_tiny_patch16_224 "
    "deit3_small_patch16_224 beit_base_patch16_224 eva02_tiny_patch14_224 swin_tiny_patch4_window7_224 "
    "swinv2_tiny_window8_256 convnext_atto convnextv2_atto mixer_s16_224 resmlp_12_224 gmlp_s16_224 poolformer_s12 "
    "coatnet_nano_rw_224 maxvit_nano_rw_256 cait_xxs24_224 xcit_nano_12_p8_224 levit_128s mobileone_s0 repvgg_a0 "
    "densenet121 dla34 hrnet_w18_small ghostnet_100 edgenext_xx_small"
).split()
SMALL = {
    "vocab_size": 200, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embedding_size": 32,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_encoder_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2, "n_inner": 64,
    "intermediate_size": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_ff": 64, "dff": 64, "d_kv": 8,
    "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8, "pad_token_id": 0,
    "image_size": 32, "patch_size": 8, "state_size": 8, "max_position_embeddings": 64, "rotary_dim": 8,
    "num_heads": 4, "d_inner": 64, "encoder_layerdrop": 0.1, "decoder_layerdrop": 0.1,
}  # fmt: skip


def hugging_face(kind):
    """A family's usual class, small, in training mode as its constructor leaves it."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    config_class = getattr(transformers, f"{kind}Config")
    usual = config_class()
    kept = {name: value for name, value in SMALL.items() if isinstance(getattr(usual, name, None), int | float)}
    if usual.model_type in ("mamba2",):
        kept |= {"num_heads": 8, "head_dim": 8, "n_groups": 1}
    config = config_class(**kept)
    tables = (
        auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES if kind in PICTURES else {},
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if kind in PAIRS else {},
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if kind in CAUSAL else {},
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        auto.MODEL_MAPPING_NAMES,
    )
    name = next(table[usual.model_type] for table in tables if usual.model_type in table)
    module = getattr(transformers, name if isinstance(name, str) else name[0])(config)
    takes = inspect.signature(module.forward).parameters
    if kind in PICTURES:
        side = 32 if kind != "Swinv2" else 64
        return module, {"pixel_values": torch.zeros(2, 3, side, side), "labels": torch.zeros(2, dtype=torch.int64)}
    ids = torch.full((2, 16), 5)
    return module, {"input_ids": ids, **({"labels": ids} if "labels" in takes else {})}


def timm(name):
    import timm

    module = timm.create_model(name)
    return module, {"x": torch.zeros(2, *module.default_cfg["input_size"])}


def diffusers(name):
    import diffusers

    if name == "UNet2DConditionModel":
        module = diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=8,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), norm_num_groups=8,
        )  # fmt: skip
        text = torch.zeros(2, 7, 32)
        return module, {"sample": torch.zeros(2, 4, 8, 8), "timestep": torch.tensor([1, 2]), "encoder_hidden_states": text}
    if name == "AutoencoderKL":
        module = diffusers.AutoencoderKL(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
                                         up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8)  # fmt: skip
        return module, {"sample": torch.zeros(2, 3, 16, 16)}
    if name == "SD3Transformer2DModel":
        module = diffusers.SD3Transformer2DModel(
            sample_size=8, num_layers=2, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=32,
            caption_projection_dim=32, pooled_projection_dim=16, in_channels=4, out_channels=4, pos_embed_max_size=16,
        )  # fmt: skip
        return module, {
            "hidden_states": torch.zeros(2, 4, 8, 8), "encoder_hidden_states": torch.zeros(2, 7, 32),
            "pooled_projections": torch.zeros(2, 16), "timestep": torch.tensor([1, 2]),
        }  # fmt: skip
    if name == "FluxTransformer2DModel":
        module = diffusers.FluxTransformer2DModel(
            in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6), guidance_embeds=False,
        )  # fmt: skip
        return module, {
            "hidden_states": torch.zeros(2, 16, 4), "encoder_hidden_states": torch.zeros(2, 7, 32),
            "pooled_projections": torch.zeros(2, 16), "timestep": torch.tensor([1.0, 2.0]),
            "img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(7, 3),
        }  # fmt: skip
    module = diffusers.DiTTransformer2DModel(num_attention_heads=4, attention_head_dim=8, num_layers=2, sample_size=8,
                                             in_channels=4, out_channels=4, norm_num_groups=4)  # fmt: skip
    return module, {"hidden_states": torch.zeros(2, 4, 8, 8), "timestep": torch.tensor([1, 2]),
                    "class_labels": torch.tensor([1, 2])}  # fmt: skip


DIFFUSERS = ("UNet2DConditionModel", "AutoencoderKL", "SD3Transformer2DModel", "FluxTransformer2DModel",
             "DiTTransformer2DModel")  # fmt: skip
PEFT = ("LoraConfig", "LoHaConfig", "LoKrConfig", "IA3Config", "AdaLoraConfig", "OFTConfig", "VeraConfig", "BOFTConfig",
        "FourierFTConfig", "DoRA")  # fmt: skip


def peft(name):
    import peft

    module, inputs = hugging_face("GPT2")
    if name == "DoRA":
        config = peft.LoraConfig(task_type="CAUSAL_LM", use_dora=True)
    elif name == "IA3Config":
        config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=["c_attn"], feedforward_modules=[])
    elif name == "AdaLoraConfig":
        config = peft.AdaLoraConfig(task_type="CAUSAL_LM", total_step=10)
    else:
        extra = {"target_modules": ["c_proj"]} if name != "LoraConfig" else {}
        config = getattr(peft, name)(task_type="CAUSAL_LM", **extra)
    return peft.get_peft_model(module, config), inputs


NAMES = {
    **{f"transformers-{kind}": (hugging_face, kind) for kind in (*CAUSAL, *ENCODERS, *PAIRS, *PICTURES)},
    **{f"diffusers-{name}": (diffusers, name) for name in DIFFUSERS},
    **{f"peft-{name}": (peft, name) for name in PEFT},
    **{f"timm-{name}": (timm, name) for name in TIMM},
}


class Keywords(nn.Module):
    """A module whose inputs are in order, and whose output is the loss, or the first tensor."""

    def __init__(self, module, names):
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *args):
        out = self.module(**dict(zip(self.names, args, strict=True)))
        loss = getattr(out, "loss", None)
        if loss is not None:
            return loss
        return out if isinstance(out, torch.Tensor) else next(t for t in tensors(out) if t.requires_grad)


def tensors(out):
    values = out.values() if hasattr(out, "values") else out
    return (t for t in values if isinstance(t, torch.Tensor))


def installed(name):
    return importlib.util.find_spec(name.partition("-")[0]) is not None


def made(name):
    """(module, inputs in order) of a name."""
    build, what = NAMES[name]
    torch.manual_seed(0)
    module, inputs = build(what)
    return Keywords(module, tuple(inputs)), tuple(inputs.values())
