"""Bad input is refused before any launch, by a TypeError or ValueError that begins with the argument."""

import math

import pytest
import torch
from budget.kernels.attention import attention, attention_packed
from budget.kernels.attention_cached import attention_cached
from budget.kernels.linear_cross_entropy import linear_cross_entropy
from budget.kernels.matmul import matmul
from budget.kernels.rms_norm import add_rms_norm, rms_norm
from budget.kernels.rope import rope, rope_
from budget.kernels.softmax import cross_entropy, log_softmax, softmax
from cases import DEVICE


def full(*shape, dtype=torch.float32, device=DEVICE):
    return torch.ones(shape, dtype=dtype, device=device)


A, B = full(4, 8), full(8, 6)
HALF = full(8, 6, dtype=torch.float16)
FP8 = full(4, 8, dtype=torch.float8_e4m3fn), full(8, 6, dtype=torch.float8_e4m3fn)
Q, K = full(2, 4, 5, 32), full(2, 2, 7, 32)
ROWS, BOUNDS = full(5, 2, 16), torch.tensor([0, 5], dtype=torch.int32, device=DEVICE)
ANGLES = full(5, 16)
LENGTHS = torch.tensor([1, 2], dtype=torch.int32, device=DEVICE)
TABLE = torch.zeros(2, 3, dtype=torch.int32, device=DEVICE)
HEAD = full(20, 9)
LOGITS, TARGET = full(3, 9), torch.zeros(3, dtype=torch.int64, device=DEVICE)

CASES = [
    (TypeError, "a", lambda: matmul([1.0], B)),
    (TypeError, "a", lambda: matmul(A.double(), B.double())),
    (TypeError, "a", lambda: matmul(A.to_sparse(), B)),
    (TypeError, "b", lambda: matmul(A, HALF)),
    (ValueError, "b", lambda: matmul(A, full(7, 6))),
    (ValueError, "a", lambda: matmul(full(8), B)),
    (ValueError, "b", lambda: matmul(A, full(8))),
    (ValueError, "b", lambda: matmul(A, full(8, 6, device="meta"))),
    (ValueError, "b", lambda: matmul(full(2, 4, 8), full(3, 8, 6))),
    (ValueError, "bias", lambda: matmul(A, B, full(5))),
    (ValueError, "bias", lambda: matmul(A, B, full(1))),
    (TypeError, "bias", lambda: matmul(A, B, full(6, dtype=torch.float16))),
    (ValueError, "activation", lambda: matmul(A, B, activation="tanh")),
    (ValueError, "gate", lambda: matmul(A, B, gate=full(8, 5))),
    (TypeError, "gate", lambda: matmul(A, B, gate=HALF)),
    (ValueError, "residual", lambda: matmul(A, B, residual=full(3, 6))),
    (TypeError, "residual", lambda: matmul(A, B, residual=full(4, 6, dtype=torch.float16))),
    (ValueError, "scale_a", lambda: matmul(A, B, scale_a=full(1))),
    (ValueError, "scale_b", lambda: matmul(*FP8, scale_b=full(5))),
    (TypeError, "scale_a", lambda: matmul(*FP8, scale_a=full(1, dtype=torch.float16))),
    (ValueError, "gate", lambda: matmul(*FP8, gate=FP8[1])),
    (TypeError, "out_dtype", lambda: matmul(A, B, out_dtype=torch.float64)),
    (TypeError, "tf32", lambda: matmul(A, B, tf32=1)),
    (TypeError, "x", lambda: softmax(1.0)),
    (TypeError, "x", lambda: softmax(TARGET)),
    (ValueError, "x", lambda: softmax(full())),
    (ValueError, "scale", lambda: softmax(A, scale=math.nan)),
    (ValueError, "scale", lambda: log_softmax(A, scale=math.inf)),
    (TypeError, "scale", lambda: softmax(A, scale="2")),
    (TypeError, "causal", lambda: softmax(A, causal=1)),
    (ValueError, "causal", lambda: softmax(full(4), causal=True)),
    (ValueError, "mask", lambda: softmax(A, mask=full(3, 8))),
    (ValueError, "mask", lambda: softmax(A, mask=full(2, 4, 8))),
    (TypeError, "mask", lambda: softmax(A, mask=full(4, 8, dtype=torch.float16))),
    (ValueError, "mask", lambda: softmax(A, mask=full(4, 8, device="meta"))),
    (TypeError, "logits", lambda: cross_entropy(TARGET, TARGET)),
    (ValueError, "logits", lambda: cross_entropy(full(3, 0), TARGET)),
    (TypeError, "target", lambda: cross_entropy(LOGITS, TARGET.int())),
    (ValueError, "target", lambda: cross_entropy(LOGITS, TARGET[:2])),
    (ValueError, "reduction", lambda: cross_entropy(LOGITS, TARGET, reduction="max")),
    (ValueError, "label_smoothing", lambda: cross_entropy(LOGITS, TARGET, label_smoothing=1.5)),
    (TypeError, "ignore_index", lambda: cross_entropy(LOGITS, TARGET, ignore_index=1.0)),
    (TypeError, "q", lambda: attention_cached(Q.double(), K, K, LENGTHS)),
    (ValueError, "q", lambda: attention_cached(full(2, 4, 33, 32), K, K, LENGTHS)),
    (ValueError, "q", lambda: attention_cached(Q.clone().requires_grad_(), K, K, LENGTHS)),
    (ValueError, "k", lambda: attention_cached(Q, K[:1], K[:1], LENGTHS)),
    (ValueError, "k", lambda: attention_cached(Q, full(2, 2, 32, 7).mT, K, LENGTHS)),
    (TypeError, "lengths", lambda: attention_cached(Q, K, K, LENGTHS.long())),
    (ValueError, "lengths", lambda: attention_cached(Q, K, K, LENGTHS[:1])),
    (TypeError, "table", lambda: attention_cached(Q, K, K, LENGTHS, TABLE.long())),
    (ValueError, "table", lambda: attention_cached(Q, K, K, LENGTHS, TABLE[:1])),
    (ValueError, "window", lambda: attention_cached(Q, K, K, LENGTHS, window=0)),
    (ValueError, "bias", lambda: attention_cached(Q, K, K, LENGTHS, bias=full(1, 1, 1, 3))),
    (ValueError, "sinks", lambda: attention_cached(Q, K, K, LENGTHS, sinks=full(2))),
    (TypeError, "hidden", lambda: linear_cross_entropy(TARGET, HEAD, TARGET)),
    (ValueError, "weight", lambda: linear_cross_entropy(LOGITS, HEAD.mT, TARGET)),
    (ValueError, "weight", lambda: linear_cross_entropy(LOGITS, full(0, 9), TARGET)),
    (TypeError, "weight", lambda: linear_cross_entropy(LOGITS, HEAD.half(), TARGET)),
    (ValueError, "bias", lambda: linear_cross_entropy(LOGITS, HEAD, TARGET, full(1))),
    (TypeError, "bias", lambda: linear_cross_entropy(LOGITS, HEAD, TARGET, full(20).half())),
    (ValueError, "target", lambda: linear_cross_entropy(LOGITS, HEAD, TARGET[:2])),
    (TypeError, "target", lambda: linear_cross_entropy(LOGITS, HEAD, TARGET.int())),
    (ValueError, "softcap", lambda: linear_cross_entropy(LOGITS, HEAD, TARGET, softcap=0.0)),
    (ValueError, "scale", lambda: linear_cross_entropy(LOGITS, HEAD, TARGET, scale=math.inf)),
    (ValueError, "reduction", lambda: linear_cross_entropy(LOGITS, HEAD, TARGET, reduction="max")),
    (TypeError, "x", lambda: rms_norm(A.double())),
    (ValueError, "x", lambda: rms_norm(full())),
    (ValueError, "x", lambda: rms_norm(full(3, 0))),
    (ValueError, "weight", lambda: rms_norm(A, full(7))),
    (ValueError, "weight", lambda: rms_norm(A, full(1, 8))),
    (TypeError, "weight", lambda: rms_norm(A, full(8, dtype=torch.float16))),
    (ValueError, "weight", lambda: rms_norm(A, full(8, device="meta"))),
    (ValueError, "eps", lambda: rms_norm(A, eps=-1e-6)),
    (TypeError, "eps", lambda: rms_norm(A, eps=None)),
    (ValueError, "offset", lambda: rms_norm(A, offset=1.0)),
    (ValueError, "residual", lambda: add_rms_norm(A, full(8))),
    (TypeError, "residual", lambda: add_rms_norm(A, A.half())),
    (TypeError, "x", lambda: rope(Q.double(), ANGLES, ANGLES)),
    (ValueError, "x", lambda: rope(Q[0], ANGLES, ANGLES)),
    (TypeError, "cos", lambda: rope(Q, ANGLES.half(), ANGLES.half())),
    (TypeError, "sin", lambda: rope(Q.half(), ANGLES, ANGLES.half())),
    (ValueError, "sin", lambda: rope(Q, ANGLES, ANGLES[:4])),
    (ValueError, "cos", lambda: rope(Q, ANGLES[:4], ANGLES[:4])),
    (ValueError, "cos", lambda: rope(Q, full(5, 17), full(5, 17))),
    (ValueError, "cos", lambda: rope(Q, full(5), full(5))),
    (ValueError, "cos", lambda: rope(Q, full(3, 5, 16), full(3, 5, 16))),
    (ValueError, "cos", lambda: rope(Q, ANGLES.to("meta"), ANGLES)),
    (ValueError, "cos", lambda: rope(Q, ANGLES.clone().requires_grad_(), ANGLES)),
    (TypeError, "interleaved", lambda: rope(Q, ANGLES, ANGLES, interleaved=None)),
    (TypeError, "positions", lambda: rope(Q, ANGLES, ANGLES, full(5))),
    (ValueError, "positions", lambda: rope(Q, ANGLES, ANGLES, TARGET)),
    (ValueError, "x", lambda: rope_(Q.clone().requires_grad_(), ANGLES, ANGLES)),
    (TypeError, "q", lambda: attention(Q.double(), K.double(), K.double())),
    (TypeError, "k", lambda: attention(Q, K.half(), K)),
    (ValueError, "k", lambda: attention(Q, K.to("meta"), K)),
    (ValueError, "q", lambda: attention(Q[0], K, K)),
    (ValueError, "q", lambda: attention(full(2, 4, 5, 8), full(2, 2, 7, 8), full(2, 2, 7, 8))),
    (ValueError, "q", lambda: attention(full(1, 1, 2, 257), full(1, 1, 2, 257), full(1, 1, 2, 257))),
    (ValueError, "k", lambda: attention(Q, full(2, 3, 7, 32), full(2, 3, 7, 32))),
    (ValueError, "k", lambda: attention(Q, full(2, 0, 7, 32), full(2, 0, 7, 32))),
    (ValueError, "k", lambda: attention(Q, full(1, 2, 7, 32), full(1, 2, 7, 32))),
    (ValueError, "k", lambda: attention(Q, full(2, 2, 7, 16), full(2, 2, 7, 16))),
    (ValueError, "v", lambda: attention(Q, K, full(2, 2, 6, 32))),
    (ValueError, "window", lambda: attention(Q, K, K, window=-1)),
    (ValueError, "window", lambda: attention(Q, K, K, window=0)),
    (TypeError, "window", lambda: attention(Q, K, K, window=2.0)),
    (ValueError, "scale", lambda: attention(Q, K, K, scale=math.inf)),
    (ValueError, "scale", lambda: attention(Q, K, K, scale=0.0)),
    (ValueError, "sinks", lambda: attention(Q, K, K, sinks=full(1, 4))),
    (TypeError, "sinks", lambda: attention(Q, K, K, sinks=full(4).double())),
    (ValueError, "softcap", lambda: attention(Q, K, K, softcap=-1.0)),
    (ValueError, "softcap", lambda: attention(Q, K, K, softcap=math.nan)),
    (TypeError, "causal", lambda: attention(Q, K, K, causal=None)),
    (ValueError, "bias", lambda: attention(Q, K, K, bias=full(5, 8))),
    (TypeError, "bias", lambda: attention(Q, K, K, bias=full(5, 7).half())),
    (TypeError, "cu_seqlens_q", lambda: attention_packed(ROWS, ROWS, ROWS, BOUNDS.long(), BOUNDS, 5, 5)),
    (ValueError, "cu_seqlens_k", lambda: attention_packed(ROWS, ROWS, ROWS, BOUNDS, BOUNDS[:1], 5, 5)),
    (ValueError, "longest_q", lambda: attention_packed(ROWS, ROWS, ROWS, BOUNDS, BOUNDS, -1, 5)),
]


@pytest.mark.parametrize(("error", "argument", "call"), CASES)
def test_refused_by_name(error, argument, call):
    with pytest.raises(error, match=rf"^{argument}: "):
        call()
