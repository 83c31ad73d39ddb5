"""What a forward pass finds of the step before it, and what a step keeps, by the words of a row of memory."""

import pytest
from budget.bench.published.predict import run
from published_tables import memory_asked

ROW = {
    "scenario": "finetune", "model": "gpt2", "precision": "fp32", "gpu": "A100-80GB", "n_gpus": "2",
    "optimizer": "AdamW", "micro_batch": "4", "seq": "64", "measured_gb": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "times"),
    [
        ({"source": "a page (PyTorch eager 2.1)"}, 1),
        ({"source": "a page (PyTorch eager 2.1)", "notes": "zero_grad behind the forward pass"}, 2),
        ({"source": "a page (PyTorch eager 1.13)"}, 2),
        ({"source": "a page (PyTorch eager 1.13)", "notes": "zero_grad sets to none"}, 1),
        ({"source": "a page (PyTorch eager 1.13)", "optimizer": "no optimizer"}, 1),
        ({"source": "a page of 2022-08 (transformers)"}, 2),
        ({"source": "a page of 2022-08 (transformers)", "zero_stage": "zero2"}, 1),
        ({"source": "a page of 2024-08 (transformers, Lightning)"}, 2),
        ({"source": "a page of 2024-08 (transformers, Lightning Fabric)"}, 1),
        ({"source": "a page of 2024-08 (torchvision references, PyTorch eager)"}, 2),
    ],
)
def test_gradients_of_the_last_step_are_there_as_those_of_a_micro_batch_are(told, times):
    """zero_grad sets to None since torch 2.0; Lightning and torchvision call it before the backward pass."""
    asked = memory_asked(**{**ROW, **told})
    assert asked.parts[0].settings["global_batch"] == 2 * 4 * times


@pytest.mark.parametrize(
    ("told", "setting", "value"),
    [
        ({"recompute": "full, offloaded"}, "offload", "activations"),
        ({"recompute": "full", "optimizer": "paged AdamW"}, "offload", "optimizer"),
        ({"recompute": "full, offloaded", "optimizer": "paged AdamW"}, "offload", "activations,optimizer"),
        ({"notes": "chunked_nll", "source": "a page (trl, transformers)"}, "fuse", "chunked_cross_entropy"),
    ],
)
def test_what_a_step_keeps_and_where(told, setting, value):
    asked = memory_asked(**{**ROW, "source": "a page (PyTorch eager 2.1)", **told})
    assert asked.parts[0].settings[setting] == value


@pytest.mark.parametrize(("word", "zero"), [("fsdp3", 3), ("zero1", 0), ("none", 0)])
def test_fsdp_divides_weights_among_context_s_devices_too(word, zero):
    told = {"source": "a page (torchtitan)", "cp": "2", "dp": "1", "zero_stage": word, "recompute": "none"}
    asked = memory_asked(**ROW, **told)
    assert asked.parts[0].settings["layout"]["zero"] == zero


@pytest.mark.parametrize(
    ("model", "told", "size"),
    [
        # A latent of 512 and a rotary key of 64 in each of 27 layers. Source: deepseek-v2 (27 x 576 x 2)
        ("DeepSeek-V2-Lite", {"precision": "2 bytes"}, 27 * 576 * 2),
        ("Llama-3.1-8B", {"precision": "1 byte"}, 2 * 32 * 8 * 128),
        # Every second layer sees 128 tokens, and vLLM counts all of them.
        ("gpt-oss-20b", {"precision": "2 bytes"}, 2 * 24 * 8 * 64 * 2),
    ],
)
def test_a_token_in_the_cache_of_all_layers(model, told, size):
    row = {"scenario": "kv cache per token", "source": "vLLM", "measured_gb": "1", "metric": "GB"}
    asked = memory_asked(model=model, **row, **told)
    assert asked.of([run(part) for part in asked.parts]) == size
