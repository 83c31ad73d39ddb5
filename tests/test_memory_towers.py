"""Peaks of training text behind towers, against the storages of real small tensors: classes look at them.

MemTracker's hooks would keep what a layer makes that nobody reads, as the last one of LLaVA-NeXT's tower.
"""

from copy import deepcopy
from unittest.mock import patch

import differential_inputs as given
import pytest
import torch
import transformers
from differential import usual
from differential_counts import without_looks
from oracles.memory import _frozen_to_buffers, gpus_sdpa
from oracles.techniques import Walk

from budget import estimate

BATCH, SEQ, SECONDS = 6, 32, 5
TEXT = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 800, "max_position_embeddings": 4096, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
EARS = {"d_model": 192, "encoder_layers": 3, "encoder_attention_heads": 3, "encoder_ffn_dim": 768,
        "num_mel_bins": 40, "max_source_positions": 250}  # fmt: skip
EYES = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 3, "num_attention_heads": 3,
        "image_size": 112, "patch_size": 14}  # fmt: skip
WITHOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
QFORMER = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 384}
CASES = {
    "qwen2_audio": {"text_config": TEXT, "audio_token_index": 799, "audio_config": EARS},
    "granite_speech": {
        "text_config": {**TEXT, "model_type": "granite"}, "audio_token_index": 799,
        "encoder_config": {"num_layers": 2, "hidden_dim": 192, "num_heads": 3, "dropout": 0.0},
        "projector_config": {**QFORMER, **WITHOUT, "encoder_hidden_size": 192},
    },
    "idefics2": {
        "text_config": {**TEXT, "model_type": "mistral"}, "image_token_id": 799, "vision_config": EYES,
        "perceiver_config": {"resampler_n_latents": 32, "resampler_depth": 2, "resampler_n_heads": 4,
                             "resampler_head_dim": 32, "num_key_value_heads": 2},
    },
    "llava_next": {
        "text_config": {**TEXT, "model_type": "llama"}, "image_token_index": 799,
        "image_grid_pinpoints": [[112, 224], [224, 112]],
        "vision_config": {**EYES, "model_type": "clip_vision_model"},
    },
}  # fmt: skip


def peak(kind):
    """Bytes at the peak of the second step, in bfloat16."""
    config = transformers.AutoConfig.for_model(kind, **deepcopy(CASES[kind]))
    config.use_cache = config.get_text_config().use_cache = False
    cls = getattr(transformers, usual(kind))
    module = cls._from_config(config, attn_implementation="sdpa", dtype=torch.bfloat16).eval()
    module.tie_weights()
    with patch.multiple(given, BATCH=BATCH, SEQ=SEQ, SECONDS=SECONDS):
        inputs = given.with_sound(module) if given.hears(kind) else given.among_words(module)
    inputs = {k: t.bfloat16() if t.is_floating_point() else t for k, t in inputs.items()}
    inputs["labels"] = inputs["input_ids"].clone()
    _frozen_to_buffers(module)
    step = torch.optim.AdamW(module.parameters(), foreach=True)
    tracker = Walk()
    tracker.track(*module.parameters(), *module.buffers(), *inputs.values())
    with tracker:
        for _ in range(2):
            module(**inputs).loss.backward()
            step.step()
            step.zero_grad()
    return tracker.most


@pytest.fixture(autouse=True)
def narrow():
    torch.set_default_dtype(torch.bfloat16)
    with gpus_sdpa(), without_looks():
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", CASES)
def test_sound_tiles_and_a_resampler(kind):
    sizes = {"sound": SECONDS} if given.hears(kind) else {"image": 112}
    if kind == "llava_next":
        sizes["image"] = given.SIZE * 112 // 8
    how = {"dtype": "bf16", "execution": "eager", "attention": "fused", "precision": "pure"}
    e = estimate({"model_type": kind, **CASES[kind]}, batch=BATCH, seq=SEQ, **how, **sizes)
    assert e.memory.peak == pytest.approx(peak(kind), rel=0.03)
