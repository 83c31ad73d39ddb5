"""Layer norms as torch's exporter writes them, against its own operators one by one."""

import numpy
import pytest
import torch

from budget import InputError, estimate

GRAPH = {"mode": "forward", "execution": "graph", "dtype": "fp16", "device": "t4", "attention": "eager"}
# What native_layer_norm becomes (torch.onnx, opset 9), pointwise neighbours joined: reads and writes of each.
KERNELS = (("x", ""), ("x", "d q"), ("q", ""), ("d", "y"))


def _norms(e):
    return [k.work for k in e.times.kernels if numpy.any(k.work.again)]


def test_its_kernels_move_what_the_operators_move():
    """Each of BERT's 25 norms moves its rows seven times, and a kernel that holds a row twice."""
    moved = sum(len(f"{reads} {writes}".split()) for reads, writes in KERNELS)
    assert moved == 7
    plain, written = (
        estimate("bert-base", **GRAPH, batch=4, seq=128, norms=n) for n in ("kernel", "exported")
    )
    more = sum(float(numpy.sum(w.again * w.times)) for w in _norms(written))
    rows = torch.empty(4, 128, 768, dtype=torch.float16, device="meta")
    assert more == 25 * (moved - 2) * rows.nbytes
    assert not _norms(plain)
    assert written.flops == plain.flops
    assert written.params == plain.params
    assert written.times.step > plain.times.step


def test_the_exporter_has_no_other_operators():
    """What the differences, their squares and the two means make, is the norm."""
    x, w, b = torch.randn(3, 5, 64), torch.randn(64), torch.randn(64)
    d = x - x.mean(-1, keepdim=True)
    y = d / torch.sqrt((d**2).mean(-1, keepdim=True) + 1e-5) * w + b
    torch.testing.assert_close(y, torch.nn.functional.layer_norm(x, (64,), w, b))


def test_it_is_of_graphs():
    with pytest.raises(InputError, match="norms: got exported in mode forward, execution eager"):
        estimate("bert-base", mode="forward", device="t4", execution="eager", norms="exported")
    with pytest.raises(InputError, match="norms: got exported in mode train"):
        estimate("bert-base", mode="train", norms="exported")
