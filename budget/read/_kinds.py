"""The kind (ir/kinds/) of every call of torch that is no contraction.

It is found by the call's name, by torch's own tags (pointwise, reduction), by the tags of the call whose
backward or in-place form it is, or by a pattern. Any other call is `unknown`: it may hold a product. Derived:
aten's schemas and tags.
"""

from __future__ import annotations

import re
from functools import cache

import torch

from ..ir import RULES
from ..named import Any

KINDS = {name: kind for kind, rule in RULES.items() for name in rule.torch}

PATTERNS = {  # the first that matches
    "reduction": r"""
        _foreach_(norm|max|powsum)  embedding_renorm  _sparse_(log_)?softmax  (_euclidean_dist|_?[cp]dist).*
        renorm  dist  _?segment_reduce  trace  nanmedian  _?aminmax  native_norm  .*_loss(2d)?  max  min
        median  linalg_vector_norm  _?std  _?var  _is_a(ll|ny)_true  _sparse_sum  _sparse_csr_sum
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

# No products that torch's counter counts, but more arithmetic than one operation an element: named, not
# counted.
ARITHMETIC = re.compile(
    r"_?fft_.*|_?linalg_.*|_?cholesky.*|lu_unpack|ormqr|geqrf|triangular_solve|_spsolve|"
    r"_compute_linear_combination|hash_tensor"
)
UNKNOWN = "unknown"


def kind_of(call: Any, form: str = "") -> str:
    """The kind of a call that is no contraction; `unknown` where a product may be inside.

    form: how it approximates, where it may: a GELU by its tanh.
    """
    return _kind(
        call._schema.name.removeprefix("aten::").removeprefix("prims::"),
        frozenset(tag.name for tag in call.tags),
        form,
    )


@cache
def _kind(name: str, tags: frozenset[str], form: str) -> str:
    base = plain(name)
    names = (base, base.removesuffix("_data").removesuffix("_backward").removesuffix("_forward"))
    if form and (kind := KINDS.get(f"{names[1]}_{form}", "")):
        return kind
    if kind := next(filter(None, map(KINDS.get, names)), "") or _tagged(tags):
        return kind
    matched = (kind for each in names for kind, pattern in MATCHES if pattern.fullmatch(each))
    return next(matched, "") or _tagged(_tags(base) | _tags(names[1])) or UNKNOWN


def plain(name: str) -> str:
    """A call's name without the mark of its in-place form."""
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
