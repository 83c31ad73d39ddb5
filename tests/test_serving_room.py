"""How many requests have room in a server's memory, against what servers print."""

from __future__ import annotations

import pytest

import budget
from budget.serving.requests import serve


@pytest.mark.parametrize(
    ("model", "device", "share", "step", "tokens", "off", "settings"),
    [
        # vLLM's logs: Ray's guide to an 8B on an A10G or L4, 3.53 requests of 8,192 tokens; UI-TARS 7B (a
        # Qwen2-VL) on an RTX 3090, 5,102 blocks of 16; vllm-project/vllm, pull request 12569, 1,381 blocks.
        # V0's step is as long as a request may be.
        ("llama-3.1-8b", "a10g", 0.9, 8192, 28918, 0.1, {}),
        ("qwen2-vl-7b", "3090", 0.9, 8192, 81632, 0.05, {}),
        ("llama-3.1-70b", "h100", 0.98, None, 22096, 0.2, {"quantize": "w8a8"}),
        ("qwen3-0.6b", "a100", 0.8, None, 578944, 0.03, {}),  # generative-computing/mellea, pull request 416
        # vLLM 0.19 on an H100, as jgchn/llm-d-planner has it.
        ("codellama-7b", "h100", 0.95, None, 126256, 0.01, {}),
        ("llama-3.1-8b", "h100", 0.95, None, 476016, 0.01, {}),
        ("llama-3.1-8b", "h100", 0.95, None, 952032, 0.01, {"kv_dtype": "fp8"}),
        ("gemma-2-9b", "h100", 0.95, None, 168880, 0.01, {}),
        ("qwen3-30b-a3b", "h100", 0.95, None, 168288, 0.06, {}),
    ],
)
def test_an_engine_s_cache_leaves_room_for_a_step_of_prompts(
    model, device, share, step, tokens, off, settings
):
    """Nothing of it is fitted; without the step the first three were 24 to 45 % too many. The last five have
    1,024 sequences to sample from, without which they were 0.3, 2.0, 2.1, 5.4 and 11 % too many.
    """
    lengths = {"context": 100, "output_tokens": 24, "users": [1]}
    found = serve(model, device=device, share=share, step_tokens=step, **lengths, **settings)
    assert found.cache_tokens == found.to_dict()["cache_tokens"] == pytest.approx(tokens, rel=off)
    assert found.cache_tokens == found.places * 124


@pytest.mark.parametrize(
    ("stack", "device", "tokens"),
    [
        ("vllm", "4090", 2048),
        ("vllm", "a100-80gb", 2048),
        ("vllm", "h100", 8192),
        ("sglang", "3090", 2048),
        ("sglang", "h200", 8192),
        ("sglang", "b200", 16384),
    ],
)
def test_an_engine_s_step_of_prompts_is_its_own(stack, device, tokens):
    """Sources: vllm-batched-tokens, sglang-prefill-size."""
    on = budget.device.load(device)
    assert budget.stack.load(stack).step_tokens_on(on.generation, on.usable_bytes) == tokens


def test_as_many_sequences_are_sampled_from_as_there_are_places():
    """vLLM's dummy sampler runs max_num_seqs of them: 14 bytes a logit in 16 bits. Source: vllm-sampler."""
    asked = {"device": "h100", "context": 8000, "output_tokens": 192, "users": [1], "stack": "vllm"}
    usual, less = (serve("gemma-2-9b", places=n, **asked) for n in (None, 64))
    assert less.places > usual.places
    free = (less.places - usual.places) * usual.full.memory.kv_cache / usual.full.task.workload.batch
    assert 0 < free < (1024 - 64) * 256_000 * 14 * 1.1


def test_a_step_of_prompts_holds_what_vllm_profiled():
    """1.16 GiB beside the weights in 8,192 tokens of UI-TARS 7B, by vLLM's log."""
    fewer, none = (
        serve("qwen2-vl-7b", device="3090", share=1, context=1000, output_tokens=24, users=[1], step_tokens=n)
        for n in (8192, 1)
    )
    held = (none.places - fewer.places) * none.full.memory.kv_cache / none.places
    assert held == pytest.approx(1.16 * 2**30, rel=0.15)


def test_an_engine_takes_its_own_share_of_the_memory():
    """Llama-3.1-8B in vLLM of 2024 on a 3090 of 23.58 GiB has 5.82 GiB for its cache, by its log (prompts in
    pieces, 0.9 of the memory). Source: vllm-project/vllm issue 10517.
    """
    settings = {"device": "3090", "context": 1000, "output_tokens": 24, "users": [1]}
    tokens = 5.82 * 2**30 / (2 * 2 * 8 * 128 * 32)
    assert serve("llama-3.1-8b", stack="vllm-2024", **settings).places * 1024 == pytest.approx(
        tokens, rel=0.05
    )
    less, own = (serve("llama-3.1-8b", **settings, **more) for more in ({"share": 0.8}, {}))
    assert (less.share, own.share) == (0.8, 0.92)
    assert own.places - less.places == pytest.approx(0.12 * 24 / (2 * 2 * 8 * 128 * 32 * 1024 / 2**30), abs=2)
    assert serve("llama-3.1-8b", reserve="2GiB", **settings).share == 1  # as the user says


def test_a_cache_takes_a_share_of_what_is_free():
    """A network of 32 heads and layers, 4,096 wide, in 8 bits (6,683 MiB) in TensorRT-LLM 0.8 on an A100 of
    80 GB, where the cache takes 0.9 of the free memory: 132,608 tokens, by its log (for one request at a
    time). Source: NVIDIA/TensorRT-LLM issue 1400.
    """
    settings = {"device": "a100-80gb", "stack": "tensorrt-llm", "quantize": "w8a8", "users": [1]}
    settings |= {"context": 1000, "output_tokens": 24}
    found = serve("llama-2-7b", **settings)
    assert found.places * 1024 == pytest.approx(132608, rel=0.05)
    assert found.cache_share == found.to_dict()["cache_share"] == 0.9
    half = serve("llama-2-7b", cache_share=0.45, **settings)
    assert half.places == pytest.approx(found.places / 2, abs=1)
    with pytest.raises(budget.errors.InputError, match=r"--cache-share: got 0.001, too little for one"):
        serve("llama-2-7b", cache_share=0.001, **settings)


def test_a_cache_that_requests_share_has_room_for_whole_ones():
    settings = {"device": "h100", "context": 1000, "output_tokens": 24, "users": [1]}
    assert serve("llama-3-8b", shared_tokens=3 * 1024 + 1000, **settings).places == 3
    assert serve("llama-3-8b", shared_tokens=1024, places=4, **settings).places == 1
    with pytest.raises(budget.errors.InputError, match="1,000 tokens and 24 back are more than the 1,023"):
        serve("llama-3-8b", shared_tokens=1023, **settings)
