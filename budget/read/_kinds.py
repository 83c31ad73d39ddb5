"""The kind (rule.py) of every call of torch that is no contraction.

By its name, by torch's own tags (pointwise, reduction), by those of what it is the backward or the in-place
form of, or by a pattern. What none of them knows is `unknown`: it may hold a product. Derived: aten's
schemas and tags.
"""

from __future__ import annotations

import re
from functools import cache

import torch

from ..named import Any

KINDS = {
    "_adaptive_avg_pool2d": "avg_pool", "_adaptive_avg_pool3d": "avg_pool", "avg_pool1d": "avg_pool",
    "adaptive_avg_pool3d": "avg_pool", "avg_pool2d": "avg_pool", "avg_pool3d": "avg_pool",
    "_embedding_bag": "embedding_bag", "_embedding_bag_dense": "embedding_bag",
    "_embedding_bag_per_sample_weights": "embedding_bag", "_embedding_bag_forward_only": "embedding_bag",
    "_log_softmax": "log_softmax", "_softmax": "softmax",
    "_safe_softmax": "softmax", "_masked_softmax": "softmax", "nll_loss_forward": "nll",
    "nll_loss2d_forward": "nll", "nll_loss": "nll", "nll_loss2d": "nll",
    "_ctc_loss": "ctc", "binary_cross_entropy_with_logits": "binary_cross_entropy",
    "binary_cross_entropy": "binary_cross_entropy", "mse_loss": "mse", "native_layer_norm": "layer_norm",
    "_fused_rms_norm": "layer_norm", "native_group_norm": "group_norm", "native_batch_norm": "batch_norm",
    "_native_batch_norm_legit": "batch_norm", "_native_batch_norm_legit_no_training": "batch_norm",
    "_batch_norm_with_update": "batch_norm", "_batch_norm_no_update": "batch_norm",
    "batch_norm": "batch_norm", "cudnn_batch_norm": "batch_norm", "native_dropout": "dropout",
    "gelu": "gelu", "silu": "silu", "relu": "relu", "threshold": "relu", "sigmoid": "sigmoid",
    "tanh": "tanh", "softplus": "softplus", "hardswish": "hardswish", "hardsigmoid": "hardsigmoid",
    "exp": "exp", "glu": "glu", "cumsum": "cumsum", "logcumsumexp": "cumsum", "_logcumsumexp": "cumsum",
    "cumprod": "cumsum", "cummax": "cumsum", "cummin": "cumsum", "_cummax_helper": "cumsum",
    "_cummin_helper": "cumsum", "sort": "top_k", "topk": "top_k", "histc": "top_k", "bincount": "top_k",
    "searchsorted": "top_k", "bucketize": "top_k", "kthvalue": "top_k", "mode": "top_k", "histogram": "top_k",
}  # fmt: skip

MOVES = frozenset(
    """
    _assert_async _assert_scalar _chunk_cat _coalesce _coalesced _convert_indices_from_coo_to_csr
    _convert_indices_from_csr_to_coo _copy_from _efficientzerotensor _functional_assert_async
    _functional_assert_scalar _index_put_impl _jagged_to_padded_dense_forward _lazy_clone
    _mkldnn_transpose _pack_padded_sequence _padded_dense_to_jagged_forward _pin_memory _resize_output
    _stack _to_copy _to_dense _to_sparse _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr
    _unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view
    alias arange as_strided_scatter block_diag cat channel_shuffle clone col2im constant_pad_nd contiguous
    copy diag_embed diagonal_backward diagonal_scatter empty empty_like empty_permuted empty_strided eye
    fill flip full full_like gather im2col index index_add index_copy index_fill index_put index_reduce
    index_select index_select_backward isin lift_fresh linspace logspace masked_fill masked_scatter
    masked_select max_unpool2d max_unpool3d native_channel_shuffle new_empty new_empty_strided new_full
    new_ones new_zeros nonzero nonzero_static one_hot ones ones_like pixel_shuffle pixel_unshuffle put
    range record_stream repeat repeat_interleave resize resize_as roll rot90 scalar_tensor scatter
    scatter_add scatter_reduce select_backward select_scatter set slice_backward slice_scatter
    sparse_compressed_tensor sparse_coo_tensor sparse_mask sparse_resize sparse_resize_and_clear stack
    take to_padded_tensor trace_backward tril tril_indices triu triu_indices unfold_backward unsafe_split
    unsafe_split_with_sizes value_selecting_reduction_backward zero zeros zeros_like
    """.split()  # noqa: SIM905 - two hundred quotes less
)

PATTERNS = {  # the first that matches
    "reduction": r"""
        _foreach_(norm|max|powsum)  embedding_renorm  _sparse_(log_)?softmax  (_euclidean_dist|_?[cp]dist).*
        renorm  dist  segment_reduce  trace  nanmedian  _?aminmax  native_norm  .*_loss(2d)?  max  min  median
        linalg_vector_norm  _?std  _?var  _is_a(ll|ny)_true  _sparse_sum  _sparse_csr_sum
        batch_norm_(stats|elemt|update_stats|gather_stats\w*|backward_\w*)
    """,
    "copy": r"""
        _foreach_(copy|clone|zero)  (_?unique|_nested|_sparse_coo_tensor|_sparse_compressed_tensor).*  .*_copy
        (reflection|replication)_pad\dd  _?upsample_nearest.*
    """,
    "max_pool": r".*max_pool\dd(_with_indices)?",
    "pointwise": r"""
        _foreach_(?!mm).*  _fused_(adagrad|adam|adamw|sgd)  _amp_.*  rand\w*  uniform  _philox\w*  dropout
        (bernoulli|binomial|cauchy|exponential|geometric|log_normal|multinomial|normal|poisson)(_functional)?
        _standard_gamma\w*  _sample_dirichlet  _dirichlet_grad  _fused_dropout  _?upsample_.*
        _?grid_sampler.*  affine_grid_generator  .*_window  fft_r?fftfreq  _?weight_norm.*  _masked_scale
        complex  polar  addr  rsub  floor_divide  _?prelu\w*  log_sigmoid  _spdiags  glu_(backward_)?jvp
        rrelu_with_noise\w*  _add_relu  huber  linalg_cross  _thnn_fused_(lstm|gru)_cell(_\w*)?
        _transform_bias_rescale_qkv
        .*fake_quantize.*  _fused_moving_avg_obs_fq_helper.*  quantize_\w+  dequantize  int_repr
    """,
}
MATCHES = tuple((kind, re.compile("|".join(patterns.split()))) for kind, patterns in PATTERNS.items())

# No product that torch's counter counts, and yet more arithmetic than an element each: said, not counted.
ARITHMETIC = re.compile(
    r"_?fft_.*|_?linalg_.*|_?cholesky.*|lu_unpack|ormqr|geqrf|triangular_solve|_spsolve|"
    r"_compute_linear_combination|hash_tensor"
)
UNKNOWN = "unknown"


def kind_of(call: Any) -> str:
    """The kind of a call that is no contraction; `unknown` where a product may be inside."""
    return _kind(call._schema.name.removeprefix("aten::"), frozenset(tag.name for tag in call.tags))


@cache
def _kind(name: str, tags: frozenset[str]) -> str:
    base = plain(name)
    names = (base, base.removesuffix("_data").removesuffix("_backward").removesuffix("_forward"))
    known = ("copy" if each in MOVES else KINDS.get(each, "") for each in names)
    if kind := next(filter(None, known), "") or _tagged(tags):
        return kind
    matched = (kind for each in names for kind, pattern in MATCHES if pattern.fullmatch(each))
    return next(matched, "") or _tagged(_tags(base) | _tags(names[1])) or UNKNOWN


def plain(name: str) -> str:
    """A call's name without what says that it is in place."""
    return name.removesuffix("_") if not name.endswith("__") else name.replace("__i", "__")


def is_arithmetic(name: str) -> bool:
    """Whether a call is known to hold no product that torch's counter counts, but other arithmetic."""
    return ARITHMETIC.fullmatch(name.removeprefix("aten::").removesuffix("_backward")) is not None


def _tagged(tags: frozenset[str]) -> str:
    return "reduction" if "reduction" in tags else "pointwise" if "pointwise" in tags else ""


def _tags(name: str) -> frozenset[str]:
    """The tags of all of a call's forms."""
    packet = getattr(torch.ops.aten, name, None)
    overloads = packet.overloads() if packet is not None else ()
    return frozenset(tag.name for each in overloads for tag in getattr(packet, each).tags)
