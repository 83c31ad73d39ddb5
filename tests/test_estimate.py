"""What `estimate` takes and refuses, and what its answer can do."""

import pytest

from budget import InputError, estimate
from budget.arch import mlp
from budget.config import Workload

MODEL = mlp.build(mlp.Config(), Workload("forward", 4))

UNUSED = [
    (MODEL, {"batch": 64}, "batch: a Model has its own"),
    (MODEL, {"seq": 1024}, "seq: a Model has its own"),
    (MODEL, {"config": {"bias": False}}, "bias: a Model has its own"),
    ("resnet50", {"seq": 512}, "seq: resnet50 has no seq; allowed: batch, image"),
    ("gpt2", {"image": 512}, "image: gpt2 has no image; allowed: batch, seq"),
    ("mlp", {"seq": 512}, "seq: mlp has no seq; allowed: batch$"),
    ("resnet50", {"mode": "decode"}, "mode: resnet50 has no decode; allowed: train, forward"),
    ("vit-b-16", {"mode": "prefill"}, "mode: vit-b-16 has no prefill"),
    ("conformer", {"mode": "decode"}, "mode: conformer has no decode"),
    ("gpt2", {"mode": "forward", "optimizer": "nonsense"}, "optimizer: unknown name 'nonsense'"),
    ("gpt2", {"dtype": "int4"}, "dtype: got 'int4'; allowed: fp64, fp32, tf32, bf16, fp16, fp8"),
    ("gpt2", {"dtype": "int64", "mode": "forward"}, "dtype: got 'int64'"),
    ("gpt2", {"lora_rank": 8, "lora_dropout": 7.0}, "lora_dropout: got 7.0; allowed: from 0 to below 1"),
]


@pytest.mark.parametrize(("model", "settings", "problem"), UNUSED)
def test_what_would_not_be_used_is_refused(model, settings, problem):
    with pytest.raises(InputError, match=f"^{problem}"):
        estimate(model, **settings)


def test_sizes_that_are_used():
    assert estimate(MODEL).model.samples == 4
    assert estimate("video_resnet", seq=8, image=64).flops.forward > 0
    assert estimate("gpt2", seq=512, dtype="fp8", mode="decode").memory.kv_cache > 0
