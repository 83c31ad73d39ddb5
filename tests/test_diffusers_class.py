"""Networks of diffusers by their config.json, against diffusers itself on the meta device."""

import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from budget import estimate
from budget.errors import InputError
from budget.read import diffusers_class, preset

diffusers = pytest.importorskip("diffusers")
attention_processor = pytest.importorskip("diffusers.models.attention_processor")

FLUX = {"num_layers": 2, "num_single_layers": 3, "num_attention_heads": 4, "attention_head_dim": 32,
        "joint_attention_dim": 64, "pooled_projection_dim": 48, "axes_dims_rope": [8, 12, 12]}  # fmt: skip
SD3 = {"sample_size": 32, "num_layers": 3, "num_attention_heads": 4, "attention_head_dim": 16,
       "caption_projection_dim": 64, "joint_attention_dim": 48, "pooled_projection_dim": 40}  # fmt: skip
UNET = {"sample_size": 16, "block_out_channels": [32, 64], "cross_attention_dim": 24, "attention_head_dim": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}  # fmt: skip
SDXL = {**UNET, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80, "transformer_layers_per_block": [1, 2]}  # fmt: skip
LTX = {"num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 32, "cross_attention_dim": 128,
       "caption_channels": 64, "in_channels": 16, "out_channels": 16}  # fmt: skip
QWEN = {"num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 32, "joint_attention_dim": 64,
        "axes_dims_rope": [8, 12, 12]}  # fmt: skip
COG = {"num_layers": 2, "num_attention_heads": 3, "attention_head_dim": 16, "text_embed_dim": 24,
       "time_embed_dim": 20, "max_text_seq_length": 9}  # fmt: skip
COG_5B = {**COG, "use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False}
HUNYUAN_VIDEO = {"num_layers": 1, "num_single_layers": 2, "num_attention_heads": 3, "attention_head_dim": 16,
                 "text_embed_dim": 24, "pooled_projection_dim": 20, "rope_axes_dim": [4, 6, 6]}  # fmt: skip
MOCHI = {"num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 16, "text_embed_dim": 24,
         "pooled_projection_dim": 32}  # fmt: skip
WAN = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 30, "text_dim": 20}
HUNYUAN_DIT = {"num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 16, "hidden_size": 32,
               "in_channels": 4, "patch_size": 2, "cross_attention_dim": 24, "cross_attention_dim_t5": 32,
               "text_len": 7, "text_len_t5": 9, "pooled_projection_dim": 20, "sample_size": 16}  # fmt: skip
PIXART = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24,
          "caption_channels": 20, "sample_size": 128, "use_additional_conditions": True}  # fmt: skip
Z_IMAGE = {"n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "dim": 32, "cap_feat_dim": 24,
           "axes_dims": [4, 6, 6]}  # fmt: skip
SVD = {"block_out_channels": [32, 64], "num_attention_heads": [2, 4], "cross_attention_dim": 24,
       "num_frames": 9, "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
       "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"]}  # fmt: skip
COGVIEW = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "text_embed_dim": 24,
           "time_embed_dim": 20, "condition_dim": 8}  # fmt: skip
FRAMES = [9, 128, 128]
VIDEO = {
    "CogVideoXTransformer3DModel": (COG, lambda: {
        "hidden_states": torch.zeros(2, 3, 16, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "timestep": torch.zeros(2)}),
    "CogVideoXTransformer3DModel of 5B": (COG_5B, lambda: {
        "hidden_states": torch.zeros(2, 4, 16, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "timestep": torch.zeros(2), "image_rotary_emb": (torch.zeros(2 * 64, 16), torch.zeros(2 * 64, 16))}),
    "HunyuanVideoTransformer3DModel": (HUNYUAN_VIDEO, lambda: {
        "hidden_states": torch.zeros(2, 16, 3, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "encoder_attention_mask": torch.ones(2, 9), "pooled_projections": torch.zeros(2, 20),
        "timestep": torch.zeros(2), "guidance": torch.zeros(2)}),
    "MochiTransformer3DModel": (MOCHI, lambda: {
        "hidden_states": torch.zeros(2, 12, 2, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "encoder_attention_mask": torch.ones(2, 9), "timestep": torch.zeros(2)}),
    "WanTransformer3DModel": (WAN, lambda: {
        "hidden_states": torch.zeros(2, 16, 3, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 20),
        "timestep": torch.zeros(2)}),
    "LTXVideoTransformer3DModel of frames": (LTX, lambda: {
        "hidden_states": torch.zeros(2, 2 * 4 * 4, 16), "encoder_hidden_states": torch.zeros(2, 9, 64),
        "encoder_attention_mask": torch.zeros(2, 9), "timestep": torch.zeros(2),
        "num_frames": 2, "height": 4, "width": 4}),
    "UNetSpatioTemporalConditionModel": (SVD, lambda: {
        "sample": torch.zeros(2, 9, 8, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "timestep": torch.zeros(2), "added_time_ids": torch.zeros(2, 3)}),
}  # fmt: skip
CASES = {
    **{name: ({**fields, "video": FRAMES}, inputs) for name, (fields, inputs) in VIDEO.items()},
    "HunyuanDiT2DModel": (HUNYUAN_DIT, lambda: {
        "hidden_states": torch.zeros(2, 4, 16, 16), "timestep": torch.zeros(2),
        "encoder_hidden_states": torch.zeros(2, 7, 24), "text_embedding_mask": torch.ones(2, 7),
        "encoder_hidden_states_t5": torch.zeros(2, 9, 32), "text_embedding_mask_t5": torch.ones(2, 9),
        "image_meta_size": torch.zeros(2, 6), "style": torch.zeros(2, dtype=torch.int64),
        "image_rotary_emb": (torch.zeros(64, 16), torch.zeros(64, 16))}),
    "PixArtTransformer2DModel": (PIXART, lambda: {
        "hidden_states": torch.zeros(2, 4, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 20),
        "timestep": torch.zeros(2),
        "added_cond_kwargs": {"resolution": torch.zeros(2, 2), "aspect_ratio": torch.zeros(2, 1)}}),
    "ZImageTransformer2DModel": (Z_IMAGE, lambda: {
        "x": list(torch.zeros(2, 16, 1, 16, 16)), "t": torch.zeros(2),
        "cap_feats": list(torch.zeros(2, 9, 24))}),
    "CogView4Transformer2DModel": (COGVIEW, lambda: {
        "hidden_states": torch.zeros(2, 16, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "timestep": torch.zeros(2), "original_size": torch.zeros(2, 2), "target_size": torch.zeros(2, 2),
        "crop_coords": torch.zeros(2, 2)}),
    "LTXVideoTransformer3DModel": (LTX, lambda: {
        "hidden_states": torch.zeros(2, 4 * 4, 16), "encoder_hidden_states": torch.zeros(2, 9, 64),
        "encoder_attention_mask": torch.zeros(2, 9), "timestep": torch.zeros(2),
        "num_frames": 1, "height": 4, "width": 4}),
    "QwenImageTransformer2DModel": (QWEN, lambda: {
        "hidden_states": torch.zeros(2, 8 * 8, 64), "encoder_hidden_states": torch.zeros(2, 9, 64),
        "timestep": torch.zeros(2), "img_shapes": [[(1, 8, 8)]] * 2}),
    "FluxTransformer2DModel": (FLUX, lambda: {
        "hidden_states": torch.zeros(2, 8 * 8, 64), "encoder_hidden_states": torch.zeros(2, 9, 64),
        "pooled_projections": torch.zeros(2, 48), "timestep": torch.zeros(2),
        "img_ids": torch.zeros(8 * 8, 3), "txt_ids": torch.zeros(9, 3)}),
    "SD3Transformer2DModel": (SD3, lambda: {
        "hidden_states": torch.zeros(2, 16, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 48),
        "pooled_projections": torch.zeros(2, 40), "timestep": torch.zeros(2)}),
    "UNet2DConditionModel": (UNET, lambda: {
        "sample": torch.zeros(2, 4, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "timestep": torch.zeros(2)}),
    "UNet2DConditionModel of SDXL": (SDXL, lambda: {
        "sample": torch.zeros(2, 4, 16, 16), "encoder_hidden_states": torch.zeros(2, 9, 24),
        "timestep": torch.zeros(2),
        "added_cond_kwargs": {"text_embeds": torch.zeros(2, 32), "time_ids": torch.zeros(2, 6)}}),
    "AutoencoderKL": ({"sample_size": 128}, lambda: {"sample": torch.zeros(2, 3, 128, 128)}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("quiet")
def test_equals_diffusers(name, tmp_path):
    fields, inputs = CASES[name]
    table = {"_class_name": name.split()[0], "_diffusers_version": "0.30.0", **fields}
    (tmp_path / "config.json").write_text(json.dumps(table))
    found = estimate(tmp_path / "config.json", mode="train", batch=2, seq=9, image=128)
    fields = {k: v for k, v in fields.items() if k != "video"}
    where = "cpu" if name.startswith("Mochi") else "meta"  # it asks which words are not hidden
    with torch.device(where), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        real = getattr(diffusers, name.split()[0]).from_config(fields).to(where)
        out = real(**inputs()).sample
        out = sum(o.sum() for o in out) if isinstance(out, list) else out
        forward = counter.get_total_flops()
        out.sum().backward()
    assert found.params.total == sum(p.numel() for p in real.parameters())
    assert found.params.trainable == sum(p.numel() for p in real.parameters() if p.grad is not None)
    assert found.flops.forward == forward
    assert found.flops.backward == counter.get_total_flops() - forward


@pytest.mark.usefixtures("quiet")
def test_a_pipeline_s_autoencoder_goes_from_latents_to_a_picture():
    fields = {k: v for k, v in preset.find("sd-vae").items() if k not in ("source", "note", "part")}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        real = diffusers.AutoencoderKL.from_config(fields)
        assert real.decode(torch.zeros(2, 4, 16, 16)).sample.shape == (2, 3, 128, 128)
    found = estimate("sd-vae", mode="forward", batch=2, image=128)
    assert found.params.total == sum(p.numel() for p in real.parameters())
    assert found.flops.forward == counter.get_total_flops()


@pytest.mark.usefixtures("quiet")
def test_eager_attention_is_diffusers_own_before_sdpa():
    """Its softmaxes read and write the scores that AttnProcessor makes, its FLOPs are the same."""
    shape = {"batch": 2, "seq": 9, "image": 128}
    table, inputs = {"_class_name": "UNet2DConditionModel", **UNET}, CASES["UNet2DConditionModel"][1]
    scores = []
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        real = diffusers.UNet2DConditionModel.from_config(UNET)
        real.set_attn_processor(attention_processor.AttnProcessor())
        for part in real.modules():
            if isinstance(part, attention_processor.Attention):
                part.get_attention_scores = _noted(part.get_attention_scores, scores)
        real(**inputs())
    found, kernels = (
        estimate(table, **shape, mode="forward", dtype="fp32", execution="eager", attention=attention)
        for attention in ("eager", "sdpa")
    )
    softmaxes = [k.work for k in found.times.kernels if k.work.own == "softmax"]
    assert [w.bytes for w in softmaxes] == [2 * 4 * n for n in scores]
    assert not [k for k in found.times.kernels if k.work.own == "empty"]
    assert found.flops.forward == counter.get_total_flops() == kernels.flops.forward
    assert found.memory.peak > kernels.memory.peak


def _noted(call, scores):
    def noted(*given):
        scores.append((found := call(*given)).numel())
        return found

    return noted


@pytest.mark.parametrize(
    ("table", "attention", "problem"),
    [
        ({"_class_name": "UNet2DConditionModel", **UNET}, "flash", "got 'flash'; allowed for a network of"),
        ({"_class_name": "FluxTransformer2DModel", **FLUX}, "eager", "has its own; allowed: sdpa"),
    ],
)
def test_attention_that_no_class_has(table, attention, problem):
    with pytest.raises(InputError, match=f"^attention: .*{problem}"):
        estimate(table, mode="forward", attention=attention)


def test_a_class_is_captured_once():
    table = {"_class_name": "UNet2DConditionModel", **UNET}
    first = diffusers_class.program(table, "forward", "fp16", batch=2, seq=9, image=128)
    assert diffusers_class.program({**table}, "forward", "fp16", batch=2, seq=9, image=128) is first
    assert diffusers_class.program(table, "forward", "fp16", batch=3, seq=9, image=128) is not first


@pytest.mark.slow
def test_weights_that_stay_in_float32():
    table = {"_class_name": "WanTransformer3DModel", "num_layers": 1, "num_attention_heads": 2,
             "attention_head_dim": 12, "ffn_dim": 30, "text_dim": 20}  # fmt: skip
    found = estimate(table, mode="forward", seq=9, image=64, dtype="bf16")
    assert 2 * found.params.total < found.memory.parameters < 4 * found.params.total


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"_class_name": "FluxTransformer2DModel", "num_layers": 10**9}, "num_layers"),
        ({"_class_name": "FluxTransformer2DModel", "num_layers": "a"}, "config"),
        ({"_class_name": "WanTransformer3DModel", "num_layers": 1, "video": 81}, "video"),
        ({"_class_name": "WanTransformer3DModel", "num_layers": 1, "video": [81, 0, 832]}, "height"),
        ({"model_type": "t5gemma", "encoder": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
    ],
)
def test_what_cannot_be_built_is_one_line(table, field):
    with pytest.raises(InputError) as error:
        estimate(table, mode="forward")
    assert error.value.field == field
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize("name", ["FluxPipeline", "os", "Nonsense", 3])
def test_what_is_no_network_is_refused(name):
    with pytest.raises(InputError, match=r"^_class_name: got .*which is no network of diffusers"):
        estimate({"_class_name": name}, mode="forward")


@pytest.mark.parametrize("dtype", ["fp8", "int8"])
def test_a_dtype_that_torch_makes_no_weights_of_is_one_line(dtype):
    table = {"_class_name": "FluxTransformer2DModel", **FLUX}
    with pytest.raises(InputError, match=f"^dtype: got {dtype}; allowed for a captured class: bf16"):
        estimate(table, mode="forward", dtype=dtype)


@pytest.mark.slow
def test_the_autoencoder_of_flux_has_its_published_parameters():
    """ae.safetensors of FLUX.1 has 83.8 M parameters, and Stable Diffusion's autoencoder 83.7 M."""
    for name, millions in (("flux-vae", 83.8), ("sd-vae", 83.65)):
        config = {k: v for k, v in preset.find(name).items() if k not in (*preset.ABOUT, "part")}
        made = diffusers.AutoencoderKL.from_config(config)
        assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
