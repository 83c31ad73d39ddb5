"""Small networks of transformers, diffusers, peft and timm, by name: what builds (module, inputs)."""

from __future__ import annotations

import importlib.util
import inspect

import torch
from torch import nn

CAUSAL = """
    Llama Mistral Mixtral Qwen2 Qwen3 Qwen2Moe Gemma Gemma2 Phi Phi3 GPT2 GPTNeoX Bloom OPT Mamba Mamba2
    Olmo2 GptOss StableLm Starcoder2 Granite Cohere CTRL BioGpt CodeGen Persimmon Olmo Mpt GPTJ GPTBigCode
    Glm Glm4 Helium Cohere2 FalconMamba Lfm2 SmolLM3 Ernie4_5 Exaone4 Apertus Phimoe GraniteMoe DiffLlama
    Doge BitNet OpenAIGPT NanoChat VaultGemma
""".split()  # noqa: SIM905
ENCODERS = """
    Bert Roberta Albert Electra DebertaV2 Deberta ConvBert MobileBert Nystromformer RoFormer ModernBert
    XLMRoberta Camembert BigBird Longformer Ernie MPNet SqueezeBert Splinter XLM MegatronBert LayoutLM
    Data2VecText Yoso Mra RobertaPreLayerNorm EuroBert
""".split()  # noqa: SIM905
PAIRS = """
    Bart MBart Pegasus LED BlenderbotSmall M2M100 PegasusX UMT5 MT5 Blenderbot PLBart BigBirdPegasus NllbMoe
""".split()  # noqa: SIM905
PICTURES = """
    ViT DeiT Beit Dinov2 ResNet RegNet MobileViT PoolFormer
""".split()  # noqa: SIM905
TIMM = """
    resnet18 resnetv2_50 regnetx_002 efficientnet_b0 mobilenetv3_small_100 mobilenetv4_conv_small
    vit_tiny_patch16_224 deit3_small_patch16_224 beit_base_patch16_224 eva02_tiny_patch14_224
    swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 convnext_atto convnextv2_atto mixer_s16_224
    resmlp_12_224 gmlp_s16_224 poolformer_s12 coatnet_nano_rw_224 maxvit_nano_rw_256 cait_xxs24_224
    xcit_nano_12_p8_224 levit_128s mobileone_s0 repvgg_a0 densenet121 dla34 hrnet_w18_small ghostnet_100
    edgenext_xx_small
""".split()  # noqa: SIM905
SMALL = {
    "vocab_size": 200, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embedding_size": 32,
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_encoder_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2, "n_inner": 64,
    "intermediate_size": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_ff": 64, "dff": 64, "d_kv": 8,
    "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8, "pad_token_id": 0,
    "image_size": 32, "patch_size": 8, "state_size": 8, "max_position_embeddings": 64, "rotary_dim": 8,
    "num_heads": 4, "d_inner": 64, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0,
}  # fmt: skip


def hugging_face(kind):
    """A family's usual class, small, in training mode as its constructor leaves it."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    config_class = getattr(transformers, f"{kind}Config")
    usual = config_class()
    kept = {
        name: value for name, value in SMALL.items() if isinstance(getattr(usual, name, None), int | float)
    }
    if usual.model_type == "mamba2":
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
        return module, {
            "pixel_values": torch.zeros(2, 3, side, side),
            "labels": torch.zeros(2, dtype=torch.int64),
        }
    ids = torch.full((2, 16), 5)
    return module, {"input_ids": ids, **({"labels": ids} if "labels" in takes else {})}


def timm(name):
    import timm

    module = timm.create_model(name)
    return module, {"x": torch.zeros(2, *module.default_cfg["input_size"])}


LATENT = {
    "sample_size": 8,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "in_channels": 4,
}
CROSSED = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "norm_num_groups": 8,
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "sample_size": 8,
}  # fmt: skip
CODED = {
    "block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2, "norm_num_groups": 8,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}  # fmt: skip
JOINT = {
    **LATENT, "joint_attention_dim": 32, "caption_projection_dim": 32, "pooled_projection_dim": 16,
    "out_channels": 4, "pos_embed_max_size": 16,
}  # fmt: skip
FLUX = {
    "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32, "pooled_projection_dim": 16, "axes_dims_rope": (4, 6, 6),
    "guidance_embeds": False,
}  # fmt: skip
DIFFUSERS = {  # class -> its settings, and its inputs' sizes
    "UNet2DConditionModel": (
        CROSSED,
        {"sample": (2, 4, 8, 8), "timestep": 0, "encoder_hidden_states": (2, 7, 32)},
    ),
    "AutoencoderKL": (CODED, {"sample": (2, 3, 16, 16)}),
    "SD3Transformer2DModel": (
        JOINT,
        {
            "hidden_states": (2, 4, 8, 8), "encoder_hidden_states": (2, 7, 32),
            "pooled_projections": (2, 16), "timestep": 0,
        },
    ),
    "FluxTransformer2DModel": (
        FLUX,
        {
            "hidden_states": (2, 16, 4), "encoder_hidden_states": (2, 7, 32), "pooled_projections": (2, 16),
            "timestep": 0, "img_ids": (16, 3), "txt_ids": (7, 3),
        },
    ),
    "DiTTransformer2DModel": (
        {**LATENT, "out_channels": 4, "norm_num_groups": 4},
        {"hidden_states": (2, 4, 8, 8), "timestep": 0, "class_labels": 0},
    ),
}  # fmt: skip


def diffusers(name):
    import diffusers

    settings, inputs = DIFFUSERS[name]
    module = getattr(diffusers, name)(**settings)
    return module, {k: torch.zeros(size) if size else torch.tensor([1, 2]) for k, size in inputs.items()}


PEFT = {
    "LoraConfig": {}, "DoRA": {"use_dora": True},
    "AdaLoraConfig": {"total_step": 10},
    "IA3Config": {"target_modules": ["c_attn"], "feedforward_modules": []},
    "VeraConfig": {"target_modules": ["c_proj"]}, "PrefixTuningConfig": {"num_virtual_tokens": 4},
}  # fmt: skip


def peft(name):
    import peft

    module, inputs = hugging_face("GPT2")
    config = getattr(peft, "LoraConfig" if name == "DoRA" else name)
    return peft.get_peft_model(module, config(task_type="CAUSAL_LM", **PEFT[name])), inputs


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
