"""Norms, softmax, losses, pooling, choices and scans: what works along an axis."""

from __future__ import annotations

from .rule import (
    ANSWERS_SINGLE,
    AS_INPUT,
    INPUT,
    MEAN,
    NORMED,
    NORMED_FLOAT32,
    OUT,
    OUTPUT,
    RSTD,
    SCALED_BY,
    SINGLE,
    UPCAST,
    Rule,
    Save,
    X,
    Y,
)

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
    "normalize": Rule(
        2,
        7,
        (X, Save("sum", row=True)),
        reduces=1,
        passes=True,
        launches=2,
        back_launches=7,
        moves=(3, 0),
        back_moves=(15, 0),
    ),
    "unit": Rule(
        2,
        9,
        (X, Save("length", row=True), Save("least", row=True)),  # and no length is below 1e-12
        reduces=1,
        launches=3,
        back_launches=14,
        moves=(4, 0),
        back_moves=(24, 0),
    ),  # rows / lengths
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
    "instance_norm": Rule(8, 12, (X,), passes=True, family="norm", autocast=(AS_INPUT, AS_INPUT)),
    "layer_norm": Rule(
        8,
        12,
        (X, MEAN, RSTD),
        reduces=2,
        family="norm",
        autocast=(SINGLE, AS_INPUT),
        measured=True,
        torch=("native_layer_norm", "_fused_rms_norm"),
    ),
    "rms_norm": Rule(
        4,
        11,
        (UPCAST, SCALED_BY, NORMED),
        narrow=(2, 2),
        launches=8,
        back_launches=16,
        most=(0, 2),
        back_most=(0, 6),
        reduces=1,
        family="norm",
        fused="fused_rms_norm",
        moves=(4, 7),
        back_moves=(8, 20),
    ),
    "fused_rms_norm": Rule(5, 9, (X, RSTD), reduces=1, family="norm", measured=True),
    "rms_norm_keep": Rule(  # T5's: what is multiplied is not the upcast but the input, which is kept too
        4,
        11,
        (INPUT, UPCAST, SCALED_BY, NORMED._replace(like=OUT)),
        narrow=(2, 2),
        launches=8,
        back_launches=17,
        most=(0, 2),
        back_most=(1, 5),
        reduces=1,
        family="norm",
        fused="fused_rms_norm",
        moves=(5, 6),
        back_moves=(13, 17),
    ),
    "rms_norm_float32": Rule(  # the weight is applied before the cast back
        4,
        11,
        (UPCAST, SCALED_BY, NORMED_FLOAT32),
        narrow=(2, 2),
        launches=8,
        back_launches=17,
        most=(1, 3),
        back_most=(0, 6),
        reduces=1,
        family="norm",
        fused="fused_rms_norm",
        moves=(2, 9),
        back_moves=(2, 26),
    ),
    "rms_norm_plain": Rule(  # without a weight
        3,
        8,
        (UPCAST, SCALED_BY),
        launches=7,
        back_launches=12,
        most=(0, 2),
        back_most=(0, 6),
        reduces=1,
        family="norm",
        moves=(2, 7),
        back_moves=(2, 20),
    ),
    "layer_norm_float32": Rule(  # written out, without a bias: the difference from the mean is made twice
        7,
        17,
        (Save("square", dtype="float32", passed=True), UPCAST, SCALED_BY, NORMED_FLOAT32),
        narrow=(2, 2),
        launches=12,
        back_launches=24,
        back_most=(0, 6),
        reduces=2,
        family="norm",
        moves=(2, 14),
        back_moves=(2, 37),
    ),
    "layer_norm_plain": Rule(6, 10, (X, MEAN, RSTD), reduces=2, family="norm", autocast=(SINGLE, "")),
    "response_norm": Rule(  # channels times their lengths over the grid, these over the mean of them
        5,
        11,
        (X, Save("scaled", trained=True)),
        launches=8,
        back_launches=21,
        family="norm",
        moves=(10, 0),
        back_moves=(25, 0),
    ),
    "batch_norm": Rule(
        8,
        10,
        (X,),
        passes=True,
        tracks=1,
        family="norm",
        autocast=(AS_INPUT, AS_INPUT),
        measured=True,
        torch=(
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "batch_norm",
            "cudnn_batch_norm",
        ),
    ),
    "group_norm": Rule(
        8,
        12,
        (X,),
        passes=True,
        family="norm",
        autocast=(SINGLE, AS_INPUT),
        torch=("native_group_norm",),
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
# Gemma's weight is 1 + w, which is cast and added each time.
RULES["rms_norm_plus_one"] = RULES["rms_norm_float32"]._replace(launches=10, narrow=(3, 3))
# A loss whose eager kernels overwrite what they read, and one whose backward pass makes the logits' gradient
# of a tensor of classes, the exponentials and the sum of both (plan/loss_parallel.py).
RULES["log_softmax_"] = RULES["log_softmax"]._replace(
    inplace=True, upcasts=False, measured=False, torch=(), launches=5, moves=(6, 0)
)
RULES["nll_"] = RULES["nll"]._replace(updates=True, torch=())
RULES["nll_parallel"] = RULES["nll"]._replace(
    temps=(Save("exponential", like=OUT), Save("sum", like=OUT)), torch=(), back_launches=5, back_moves=(6, 0)
)
