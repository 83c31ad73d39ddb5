"""docs/compared.md: what other tools print, against the answer for the same network."""

from __future__ import annotations

import pytest

import budget

MIB, GIB = 2**20, 2**30


def test_calflops_counts_the_same():
    """Source: calflops' README, llama2-7b, (1, 128): 6,738,415,616 parameters, 1,700.06 GFLOP forward."""
    e = budget.estimate("llama-2-7b", mode="forward", seq=128)
    assert e.params.total == 6_738_415_616
    assert e.flops.forward == pytest.approx(1700.06e9, rel=5e-5)


def test_multiply_adds_are_half_the_flops():
    """Source: torchinfo's README, ResNet-50: 25,557,032 parameters, 4.09 G mult-adds."""
    e = budget.estimate("resnet50", mode="forward", batch=1)
    assert e.params.total == 25_557_032
    assert e.flops.forward / 2e9 == pytest.approx(4.09, abs=0.005)


def test_megatron_s_formula_is_the_step():
    """Source: Efficient Large-Scale Language Model Training on GPU Clusters, equation 3; 72 for its 96, as
    nothing is recomputed.
    """
    e = budget.estimate("gpt3-175b", batch=3)
    b, s, layers, h, vocab = 3, 2048, 96, 12288, 50257
    formula = 72 * b * s * layers * h**2 * (1 + s / (6 * h) + vocab / (12 * layers * h))
    assert e.flops.forward + e.flops.backward == pytest.approx(formula, rel=1e-12)


def test_accelerate_s_estimates_are_the_states():
    """Source: accelerate's documentation, Model memory estimator: 413.18 MB, with Adam 1.61 GB (binary)."""
    e = budget.estimate("bert-base-cased", precision="pure", dtype="fp32", optimizer="adam", seq=1)
    held = e.memory.at_peak
    assert held["parameters"] / MIB == pytest.approx(413.18, abs=0.05)
    states = held["parameters"] + held["gradients"] + held["optimizer"]
    assert states / GIB == pytest.approx(1.61, abs=0.005)


@pytest.mark.parametrize(("precision", "each"), [("autocast", 16), ("master", 16), ("pure", 8)])
def test_adamw_s_bytes_a_parameter(precision, each):
    """Source: ZeRO's paper: 16 bytes of mixed precision with Adam."""
    e = budget.estimate("gpt2-xl", precision=precision, seq=1)
    held = e.memory.at_peak
    states = held["parameters"] + held["gradients"] + held["optimizer"]
    assert states == pytest.approx(each * e.params.total, rel=1e-3)


def test_llama_cpp_prints_the_same_sizes():
    """Source: llama.cpp's log, a 7B in Q4_0 on a V100: buffers of 70.31 and 3,577.56 MiB, KV size 256."""
    settings = {"mode": "decode", "stack": "llama.cpp", "quantize": "q4_0", "device": "v100"}
    e = budget.estimate("llama-2-7b", seq=512, **settings)
    assert e.memory.at_peak["parameters"] / MIB == pytest.approx(70.31 + 3577.56, rel=5e-4)
    assert e.memory.kv_cache / MIB == 256


def test_six_n_d_of_llama_3_and_chinchilla_s_size():
    """Sources: The Llama 3 Herd of Models, 3.8e25; Training Compute-Optimal Large Language Models, 5.76e23
    for 70B and 1.4T.
    """
    assert budget.scale(params=405e9, tokens=15.6e12).compute == pytest.approx(3.8e25, rel=0.01)
    best = budget.scale(compute=5.76e23)
    assert (best.params, best.tokens) == (pytest.approx(70e9, rel=0.05), pytest.approx(1.4e12, rel=0.06))
