"""Times of arrays are those of single calls, element by element."""

import numpy as np
import pytest

from budget import estimate

BITS = {"mode": "decode", "seq": 128, "device": "4090"}


@pytest.mark.parametrize(
    ("model", "size", "values", "settings"),
    [
        ("mobilenet-v2", "batch", [256, 512], {"device": "a100", "dtype": "fp32"}),  # depthwise
        ("regnet-y-400mf", "batch", [256, 512], {"device": "a100"}),  # groups that are products apart
        ("resnet50", "image", [224, 448], {"device": "v100", "dtype": "fp32", "batch": 8}),  # Winograd's
        ("llama-3-8b", "batch", [1, 16], {**BITS, "quantize": "awq", "stack": "autoawq"}),
        ("llama-3-8b", "batch", [2, 16], {**BITS, "quantize": "nf4", "stack": "transformers"}),
        ("llama-3-8b", "batch", [1, 16], {**BITS, "quantize": "q4_k_m"}),
        ("mixtral-8x7b", "batch", [1, 16], {"mode": "decode", "seq": 128, "device": "h100"}),
    ],
)
def test_what_a_kernel_is_depends_on_sizes_alike(model, size, values, settings):
    together = estimate(model, **{size: np.array(values)}, **settings).times.step
    alone = [estimate(model, **{size: value}, **settings).times.step for value in values]
    np.testing.assert_allclose(together, alone, rtol=1e-9)


@pytest.mark.parametrize("device", ["h200", "cpu"])
@pytest.mark.parametrize("model", ["gpt2", "resnet50", "rnn", "dlrm"])
def test_arrays_equal_single_calls(model, device):
    batches = np.array([1, 3, 8, 64])
    settings = {"device": device, "dtype": "fp32", "execution": "eager"}
    together = estimate(model, batch=batches, **settings).times.step
    alone = [estimate(model, batch=int(b), **settings).times.step for b in batches]
    assert together == pytest.approx(alone, rel=1e-12)
