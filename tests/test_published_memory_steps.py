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
        # Blocks of 32 numbers are 16 bytes of four bits and a scale of two.
        ("Llama-3.1-8B", {"precision": "q4_0", "source": "llama.cpp"}, 2 * 32 * 8 * 128 // 32 * 18),
        # Every second layer sees 128 tokens, and vLLM counts all of them.
        ("gpt-oss-20b", {"precision": "2 bytes"}, 2 * 24 * 8 * 64 * 2),
    ],
)
def test_a_token_in_the_cache_of_all_layers(model, told, size):
    row = {"scenario": "kv cache per token", "source": "vLLM", "measured_gb": "1", "metric": "GB"}
    asked = memory_asked(model=model, **{**row, **told})
    assert asked.of([run(part) for part in asked.parts]) == size


@pytest.mark.parametrize(("notes", "piece"), [("", 2048), ("pieces of 512", 512)])
def test_a_long_prompt_is_read_in_pieces_beside_what_the_cache_holds_by_then(notes, piece):
    """mlx_lm.generate's --prefill-step-size. The last piece comes on top of keys and values of all before."""
    row = {"scenario": "inference", "source": "a page (mlx-lm)", "model": "llama-2-7b", "precision": "fp16"}
    row |= {
        "input_len": "8000",
        "output_len": "1",
        "metric": "GB peak",
        "measured_gb": "1",
        "gpu": "M2 Ultra",
    }
    asked = memory_asked(**row, micro_batch="1", notes=notes)
    assert [(p.settings["mode"], p.settings["seq"]) for p in asked.parts] == [
        ("decode", 8000), ("prefill", piece),
    ]  # fmt: skip
    token, last = (run(part) for part in asked.parts)
    of_a_token = 2 * 32 * 4096 * 2  # bytes of keys and values in 32 layers of 4,096
    before = of_a_token * (8000 - piece)
    assert asked.of([token, last]) == max(token.memory.peak, last.memory.peak + before)
    assert len(memory_asked(**{**row, "input_len": str(piece)}, micro_batch="1", notes=notes).parts) == 1
