"""A kernel of attention computes as many numbers of a head as its tiles hold."""

import pytest

from budget import estimate

HEADS = 16
# FlashAttention-2's round_multiple(head_size, 32), flash_api.cpp.
PADDED = {40: 64, 64: 64, 72: 96, 80: 96, 96: 96, 128: 128}


def _attention(head, **how):
    config = {"d_model": HEADS * head, "heads": HEADS, "layers": 1, "context": 4096}
    e = estimate("transformer", config=config, batch=4, seq=4096, mode="forward", device="a100-80gb", **how)
    [kernel] = [k for k in e.times.kernels if k.work.kind == "attention"]
    assert kernel.bound == "compute"
    return float(kernel.seconds)


@pytest.mark.parametrize("head", PADDED)
def test_a_head_takes_as_long_as_the_one_that_it_is_padded_to(head):
    assert _attention(head, stack="torch-compile") == pytest.approx(
        _attention(PADDED[head], stack="torch-compile")
    )


def test_other_kernels_have_heads_as_they_are():
    short, long = (_attention(head, stack="tensorrt-llm") for head in (40, 64))
    assert short < 0.8 * long


@pytest.mark.parametrize("depth", [4096, 32768])
def test_rdna_4_attends_on_matrix_units_to_heads_of_up_to_128(depth):
    """How much longer llama-bench's 1,024 tokens of a Llama of 8B take on an RX 9060 XT behind so many others
    than behind 16,384. Source: llama-cpp-heads.
    """
    rates = {4096: 2031.68, 16384: 1196.08, 32768: 787.39}

    def behind(others):
        settings = {"mode": "prefill", "stack": "llama.cpp", "device": "rx-9060-xt", "quantize": "q4_0"}
        whole, first = (
            sum(float(k.seconds) for k in e.times.kernels if k.work.kind == "attention")
            for e in (estimate("llama-3-8b", seq=seq, **settings) for seq in (others + 1024, others))
        )
        return whole - first

    more = 1024 / rates[depth] - 1024 / rates[16384]
    assert behind(depth) - behind(16384) == pytest.approx(more, rel=0.3)
