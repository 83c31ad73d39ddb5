"""Softmax, losses, pooling, choices and scans: what works along an axis and is no norm."""

from __future__ import annotations

from .rule import ANSWERS_SINGLE, OUT, OUTPUT, SINGLE, Rule, Save, X, Y

RULES: dict[str, Rule] = {
    "softmax": Rule(
        5,
        4,
        (OUTPUT,),
        upcasts=True,
        reduces=2,
        fused="softmax_fused",
        autocast=(ANSWERS_SINGLE, ""),
        measured=True,
        torch=("_softmax", "_safe_softmax", "_masked_softmax"),
    ),
    "softmax_fused": Rule(
        5,
        4,
        (OUTPUT, Save("logsumexp", dtype="float32", row=True)),
        reduces=2,
        autocast=(ANSWERS_SINGLE, ""),
    ),
    "softmax_sink": Rule(
        8, 6, (OUTPUT,), reduces=2, launches=4, back_launches=4, autocast=(ANSWERS_SINGLE, "")
    ),
    "log_softmax": Rule(
        5,
        3,
        (OUTPUT,),
        upcasts=True,
        reduces=2,
        autocast=(ANSWERS_SINGLE, ""),
        measured=True,
        torch=("_log_softmax",),
    ),
    "nll": Rule(  # the logarithm of one class's probability, averaged
        1,
        1,
        (X,),
        family="loss",
        autocast=(SINGLE, SINGLE),
        torch=("nll_loss_forward", "nll_loss2d_forward", "nll_loss", "nll_loss2d"),
    ),
    "ctc": Rule(
        6, 6, (X,), walks="in", launches=2, family="loss", torch=("_ctc_loss",)
    ),  # all alignments of a transcript
    "binary_cross_entropy": Rule(
        8,
        5,
        (X,),
        walks="in",
        launches=2,
        family="loss",
        autocast=(SINGLE, SINGLE),
        torch=("binary_cross_entropy_with_logits", "binary_cross_entropy"),
    ),
    "mse": Rule(3, 2, (X,), walks="in", family="loss", autocast=(SINGLE, SINGLE), torch=("mse_loss",)),
    "kl": Rule(
        4,
        1,
        (Y,),
        temps=(Save("product"), Save("entropy")),
        walks="in",
        launches=5,
        family="loss",
        autocast=(SINGLE, SINGLE),
    ),
    "max_pool": Rule(
        1,
        1,
        (X, Save("index", like=OUT, dtype="int64")),
        walks="in",
        measured=True,
        torch=("adaptive_max_pool2d", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    ),
    "avg_pool": Rule(
        1,
        1,
        (X,),
        walks="in",
        torch=(
            "_adaptive_avg_pool2d",
            "_adaptive_avg_pool3d",
            "adaptive_avg_pool3d",
            "avg_pool1d",
            "avg_pool2d",
            "avg_pool3d",
        ),
    ),
    "mean": Rule(1, 1, walks="in", sums=True),
    "correct": Rule(1, stops=True),  # of scores, before a choice
    "choose": Rule(3, stops=True, launches=6),  # a mask that leaves each row's largest
    "top_k": Rule(
        1,
        0,
        (Save("index", like=OUT, dtype="int64"),),
        walks="in",
        torch=(
            "sort",
            "topk",
            "histc",
            "bincount",
            "searchsorted",
            "bucketize",
            "kthvalue",
            "mode",
            "histogram",
        ),
    ),
    "scan": Rule(
        2, 4, (X, OUTPUT), in_order=True, modelled="scans"
    ),  # state = decay x state + input, an element after the other
    "scan_new": Rule(  # its gradients of slices are added up into a third tensor
        2, 4, (X, OUTPUT), temps=(Save("sum", like=OUT),), modelled="scans"
    ),
    "cumsum": Rule(
        1,
        1,
        autocast=(ANSWERS_SINGLE, ""),
        torch=(
            "cumsum",
            "logcumsumexp",
            "_logcumsumexp",
            "cumprod",
            "cummax",
            "cummin",
            "_cummax_helper",
            "_cummin_helper",
        ),
    ),
    "pairs": Rule(  # the difference of every two steps, but for those ahead
        2, 2, temps=(Save("difference", like=OUT),), launches=3, back_launches=4
    ),
    "solve": Rule(  # a triangular system of the 64 steps of a chunk, by substitution
        64, 64, (X, OUTPUT), solves=True, torch=("linalg_solve_triangular",)
    ),
    "segment_sum": Rule(  # of every pair's steps between
        3, 3, (Save("mask", like=OUT, dtype="bool"),), launches=5, back_launches=4, modelled="scans"
    ),
}
# A loss whose eager kernels overwrite what they read, and one whose backward pass makes the logits' gradient
# of a tensor of classes, the exponentials and the sum of both (plan/loss_parallel.py).
RULES["log_softmax_"] = RULES["log_softmax"]._replace(
    inplace=True, upcasts=False, measured=False, torch=(), launches=5, moves=(6, 0)
)
RULES["nll_"] = RULES["nll"]._replace(updates=True, torch=())
RULES["nll_parallel"] = RULES["nll"]._replace(
    temps=(Save("exponential", like=OUT), Save("sum", like=OUT)), torch=(), back_launches=5, back_moves=(6, 0)
)
