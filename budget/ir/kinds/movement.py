"""Contractions, and what moves data: copies, views, sums, look-ups."""

from __future__ import annotations

from .rule import ANSWERS_SINGLE, LOW, OUT, SAME, Rule, Save, X, Y

PLACES = Save("mask", like=OUT, dtype="bool", row=True)
RULES: dict[str, Rule] = {
    "contract": Rule(sums=True, gradient="contract", autocast=(LOW, LOW)),
    "view": Rule(view=True),
    "copy": Rule(
        additive=True,
        torch=tuple(
            """
            _assert_async _assert_scalar _chunk_cat _coalesce _coalesced
            _convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo _copy_from
            _efficientzerotensor _functional_assert_async _functional_assert_scalar _index_put_impl
            _jagged_to_padded_dense_forward _lazy_clone _mkldnn_transpose _pack_padded_sequence
            _padded_dense_to_jagged_forward _pin_memory _resize_output _stack _to_copy _to_dense
            _to_sparse _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr _unsafe_index
            _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view
            alias arange as_strided_scatter block_diag cat channel_shuffle clone col2im constant_pad_nd
            contiguous copy diag_embed diagonal_backward diagonal_scatter eye fill flip full full_like
            gather im2col index index_add
            index_copy index_fill index_put index_reduce index_select index_select_backward isin
            lift_fresh linspace logspace masked_fill masked_scatter masked_select max_unpool2d
            max_unpool3d native_channel_shuffle new_full new_ones new_zeros
            nonzero nonzero_static one_hot ones ones_like pixel_shuffle pixel_unshuffle put range
            record_stream repeat repeat_interleave resize resize_as roll rot90 scalar_tensor scatter
            scatter_add scatter_reduce select_backward select_scatter set slice_backward slice_scatter
            sparse_compressed_tensor sparse_coo_tensor sparse_mask sparse_resize sparse_resize_and_clear
            stack take to_padded_tensor trace_backward tril tril_indices triu triu_indices
            unfold_backward unsafe_split unsafe_split_with_sizes value_selecting_reduction_backward zero
            zeros zeros_like
            """.split()  # noqa: SIM905 - two hundred quotes less
        ),
    ),
    "copy_": Rule(walks="first", inplace=True),  # into what is there
    "merge": Rule(
        saves=(X,), additive=True, apart=1
    ),  # a copy of a kernel's output, which the kernel's own backward pass reads
    "slice": Rule(view=True, gradient="pad"),
    "split": Rule(view=True),  # into parts, all of them read
    "join": Rule(back=1, additive=True),  # several tensors beside each other, the smaller ones repeated
    "reorder": Rule(
        back=1, back_launches=2, additive=True
    ),  # rows in another order; their gradients go between zeros
    "reorder_new": Rule(back=1, back_launches=2, temps=(Save("zeros", like=OUT),)),  # the same not in place
    "sum_rows": Rule(
        1, 1, walks="first", sums=True, gradient="repeat", additive=True
    ),  # of neighbours; a gradient is copied
    "repeat": Rule(back=1, additive=True),  # each element several times; its gradients are added up
    "expand": Rule(view=True),  # a sum's gradient, the same one for all that was added
    "broadcast": Rule(back=1, additive=True),  # the same, left to the product that reads it
    "step": Rule(view=True, in_order=True, gradient=SAME),  # one time step of a sequence
    "store": Rule(
        walks="first", updates=True, part=True, additive=True
    ),  # one time step's gradient into the sequence's
    "put": Rule(  # one time step into the sequence's
        walks="first", linear=True, updates=True, part=True, gradient="step"
    ),
    "pad": Rule(additive=True),
    "interpolate": Rule(8, 8),  # bilinear, between four neighbours
    "contiguous": Rule(linear=True, additive=True),  # the same in another layout
    "detach": Rule(view=True, stops=True),
    "empty": Rule(  # memory that nothing is written to
        stops=True,
        view=True,
        torch=("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"),
    ),
    "cat": Rule(additive=True),
    # rows in the place of some of the first input's, by booleans; each input's gradient is its own rows
    "place": Rule(back=1, back_launches=3, saves=(PLACES,)),
    "place_add": Rule(1, 1, launches=5, back_launches=4, saves=(PLACES,)),
    "zero_pad": Rule(saves_all=True),  # copied between zeros
    "add": Rule(flops=1, linear=True, gradient="reduce"),
    "add_": Rule(flops=1, linear=True, inplace=True, plain="add"),
    # Autograd's engine adds gradients up itself: kernels, no operators of the host. Source: torch-accumulate.
    "accumulate": Rule(1, 1, linear=True, updates=True, calls=0),
    "sum_gradients": Rule(1, 1, linear=True, additive=True, calls=0),  # the same into a tensor of its own
    "take": Rule(saves=(X, Y)),  # of each row the entries that an index names
    "gather": Rule(saves=(X,), sums=True, looks_up=True),
    "frozen_gather": Rule(stops=True, looks_up=True),  # from a table that is not trained
    "embedding_bag": Rule(
        1,
        1,
        (X,),
        looks_up=True,
        torch=(
            "_embedding_bag",
            "_embedding_bag_dense",
            "_embedding_bag_forward_only",
            "_embedding_bag_per_sample_weights",
        ),
    ),  # rows of a table, added up
    "reduce": Rule(
        1,
        1,
        walks="first",
        sums=True,
        gradient="expand",
        autocast=(ANSWERS_SINGLE, ""),
        additive=True,
        measured=True,
    ),
    "upcast": Rule(
        casts=True, additive=True, launches=2, narrow=(1, 1)
    ),  # a cast, and a copy that a product of batches needs
    "cast": Rule(casts=True, narrow=(1, 1)),
    "cache": Rule(part=True),
    "fill": Rule(stops=True),  # zeros, a recurrence's first state
    "table": Rule(4, stops=True, launches=9),  # made from positions: rotary cosines, ALiBi slopes, masks
}
