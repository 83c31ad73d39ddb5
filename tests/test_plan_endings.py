"""What ends a product's kernel, against the modules of transformers' own networks and what they hand on."""

import pytest
import torch
import transformers

from budget import InputError, estimate
from budget.ir import walk

FUSED = {"mode": "forward", "execution": "graph", "dtype": "fp16", "device": "t4"}


def _launches(e, kind):
    return sum(k.work.launches * k.work.times for k in e.times.kernels if k.work.kind == kind)


def test_convolutions_do_what_is_behind_them():
    """ResNet-50 runs as many kernels as it has convolutions, pools and linear layers, and nothing beside."""
    with torch.device("meta"):
        modules = [*transformers.ResNetForImageClassification(transformers.ResNetConfig()).modules()]
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in modules)
    pools = sum(isinstance(m, torch.nn.MaxPool2d | torch.nn.AdaptiveAvgPool2d) for m in modules)
    e = estimate("resnet50", **FUSED, fuse="conv")
    assert (_launches(e, "conv"), _launches(e, "pointwise")) == (convolutions, pools)


def test_counts_stay_and_traffic_falls():
    plain, fused = (estimate("resnet50", **FUSED, batch=8, fuse=f) for f in ("", "conv"))
    assert fused.flops == plain.flops
    assert fused.params == plain.params
    assert fused.memory.peak <= plain.memory.peak
    # Behind each convolution another kernel read its output once, and of 16 a residual besides.
    assert sum(k.work.bytes * k.work.times for k in fused.times.kernels) < 0.75 * sum(
        k.work.bytes * k.work.times for k in plain.times.kernels
    )


def test_linear_layers_do_their_activation():
    """BERT's twelve GELUs and its pooler's tanh are no kernels any more; sums and norms are."""
    plain, fused = (estimate("bert-base", **FUSED, seq=128, fuse=f) for f in ("", "linear"))
    assert _launches(plain, "pointwise") - _launches(fused, "pointwise") == 13
    assert _launches(plain, "matmul") == _launches(fused, "matmul")


def test_what_another_operator_reads_is_written():
    """DenseNet-121's 58 layers begin with a norm, as its 3 transitions and its end do: no convolution is
    before them. The norm behind each layer's first convolution, and behind the stem's, is part of that one.
    """
    program = estimate("densenet121", **FUSED, fuse="conv").program
    norms = [(bool(o.ends), times) for o, times in walk(program.nodes) if o.kind == "batch_norm"]
    layers = 6 + 12 + 24 + 16
    assert sum(times for ends, times in norms if ends) == layers + 1
    assert sum(times for ends, times in norms if not ends) == layers + 3 + 1


def test_it_is_of_inference():
    with pytest.raises(InputError, match="fuse: conv is of inference"):
        estimate("resnet50", mode="train", fuse="conv")


@pytest.mark.parametrize("name", ["tensorrt", "onnxruntime"])
def test_stacks_have_it(name):
    e = estimate("resnet50", mode="forward", stack=name, device="t4")
    assert _launches(e, "pointwise") == 2
