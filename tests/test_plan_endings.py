"""What ends a product's kernel, against the modules of transformers' own networks and what they hand on."""

import pytest
import torch
import transformers
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut

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


def test_batch_norms_are_folded_into_convolutions():
    """Weights and products are those of torch's own folding; each bias is a kernel where a norm was one."""
    with torch.device("meta"):
        network = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)).eval()
        for m in network.modules():
            if isinstance(m, ResNetConvLayer | ResNetShortCut):
                m.convolution = fuse_conv_bn_eval(m.convolution, m.normalization)
                m.normalization = torch.nn.Identity()
    plain, e = (estimate("resnet50", **{**FUSED, "execution": "eager"}, fuse=f) for f in ("", "batch_norm"))
    assert e.params.total == sum(p.numel() for p in network.parameters())
    assert [o for o, _ in walk(e.program.nodes) if o.kind == "batch_norm"] == []
    assert sum(_launches(e, k) for k in ("conv", "pointwise", "reduction", "matmul")) == sum(
        _launches(plain, k) for k in ("conv", "pointwise", "reduction", "matmul")
    )


def test_yolo_as_it_predicts():
    """What Ultralytics prints of the network that predicts (`YOLOv8n summary (fused)`; recalled)."""
    assert estimate("yolov8n", mode="forward", fuse="batch_norm").params.total == 3_151_904


@pytest.mark.parametrize("name", ["conv", "batch_norm"])
def test_it_is_of_inference(name):
    with pytest.raises(InputError, match=f"fuse: {name} is of inference"):
        estimate("resnet50", mode="train", fuse=name)


@pytest.mark.parametrize("name", ["tensorrt", "onnxruntime"])
def test_stacks_have_it(name):
    e = estimate("resnet50", mode="forward", stack=name, device="t4")
    assert _launches(e, "pointwise") == 2
