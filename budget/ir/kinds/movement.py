"""Contractions, and what moves data: copies, views, sums, look-ups."""

from __future__ import annotations

from .rule import ANSWERS_SINGLE, LOW, SAME, Rule, X

RULES: dict[str, Rule] = {
    "contract": Rule(sums=True, gradient="contract", autocast=(LOW, LOW)),
    "view": Rule(view=True),
    "copy": Rule(
        torch=tuple(
            """
            _assert_async _copy_from _index_put_impl _to_copy _unsafe_index _unsafe_index_put
            _upsample_nearest_exact2d alias arange as_strided_scatter cat channel_shuffle clone col2im
            constant_pad_nd contiguous copy diag_embed diagonal_backward diagonal_scatter embedding_renorm
            empty empty_like empty_permuted empty_strided expand_copy eye fill flip full full_like gather
            im2col index index_add index_copy index_fill index_put index_select index_select_backward
            lift_fresh lift_fresh_copy linspace masked_fill masked_scatter masked_select max_unpool2d
            native_channel_shuffle new_empty new_empty_strided new_full new_ones new_zeros nonzero_static
            one_hot ones ones_like permute_copy pixel_shuffle pixel_unshuffle reflection_pad1d
            reflection_pad1d_backward reflection_pad2d reflection_pad2d_backward repeat repeat_interleave
            replication_pad1d replication_pad2d replication_pad3d resize roll scalar_tensor scatter
            scatter_add scatter_reduce select_backward select_scatter slice_backward slice_scatter
            split_copy split_with_sizes_copy stack trace_backward tril tril_indices triu triu_indices
            unfold_backward unsafe_split upsample_nearest1d upsample_nearest2d upsample_nearest2d_backward
            upsample_nearest3d value_selecting_reduction_backward view_copy zero zeros zeros_like
            """.split()  # noqa: SIM905 - two hundred quotes less
        )
    ),
    "copy_": Rule(walks="first", inplace=True),  # into what is there
    "merge": Rule(saves=(X,)),  # a copy of a kernel's output, which the kernel's own backward pass reads
    "slice": Rule(view=True, gradient="pad"),
    "split": Rule(view=True),  # into parts, all of them read
    "join": Rule(back=1),  # several tensors beside each other, the smaller ones repeated
    "repeat": Rule(back=1),  # each element several times; its gradients are added up
    "expand": Rule(view=True),  # a sum's gradient, the same one for all that was added
    "broadcast": Rule(back=1),  # the same, left to the product that reads it
    "step": Rule(view=True, gradient=SAME),  # one time step of a sequence
    "store": Rule(walks="first", updates=True, part=True),  # one time step's gradient into the sequence's
    "pad": Rule(),
    "cat": Rule(),
    "zero_pad": Rule(saves_all=True),  # copied between zeros
    "add": Rule(flops=1, linear=True, gradient="reduce"),
    "add_": Rule(flops=1, linear=True, inplace=True, plain="add"),
    "accumulate": Rule(1, 1, linear=True, updates=True),
    "gather": Rule(saves=(X,), sums=True, looks_up=True),
    "frozen_gather": Rule(stops=True, looks_up=True),  # from a table that is not trained
    "embedding_bag": Rule(1, 1, (X,), looks_up=True, torch=("_embedding_bag",)),  # rows of a table, added up
    "reduce": Rule(1, 1, walks="first", sums=True, gradient="expand", autocast=(ANSWERS_SINGLE, "")),
    "cast": Rule(casts=True),
    "cache": Rule(part=True),
    "fill": Rule(stops=True),  # zeros, a recurrence's first state
    "table": Rule(4, stops=True, launches=6),  # made from positions: rotary cosines, ALiBi slopes, masks
}
