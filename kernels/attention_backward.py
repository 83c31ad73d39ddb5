"""Attention backward: dK and dV by blocks of keys, dQ by blocks of queries (the bias: attention_bias.py).

Both kernels recompute the probabilities of a tile from the logits and the forward pass's log
of the sum. Two kernels compute the logits twice, but need no atomics: every gradient is the
same in every run, and a program's accumulators fit the registers. Grouped heads: a program of
the first kernel walks over all the query heads that share its keys.

With dz the gradient of a natural logit: p = exp(z - log_sum), delta = sum(out * dout),
dz = p * (dout . v - delta), dv += p^T dout, dk += dz^T q * scale, dq += dz k * scale.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from .attention_backward_keys import attention_backward_keys_kernel
from .attention_backward_queries import attention_backward_queries_kernel
from .attention_bias import launch_backward_bias
from .attention_packing import clear_rest
from .attention_rules import (
    Packing,
    Rules,
    cu_seqlens,
    find_settings,
    loadable,
    longest,
    row_numbers,
    sink_gradient,
    sources,
    strides,
    with_room,
)
from .attention_tile import VARYING, load_rows, offset, place
from .launch import Prepared, launch


@triton.jit(do_not_specialize=VARYING)
def _delta_kernel(
    out, dout, delta, out_strides, dout_strides, delta_strides, blocks, heads, seq_q,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """delta = sum(out * dout) over the head dimension."""
    batch, head, block = place(heads, blocks)
    start = block * BLOCK_M
    out += offset(out_strides, batch, head, 0, False)
    dout += offset(dout_strides, batch, head, 0, False)
    delta += offset(delta_strides, batch, head, 0, False)
    o = load_rows(out, out_strides[2], batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D, True,
                  False)  # fmt: skip
    do = load_rows(dout, dout_strides[2], batch, head, start, seq_q, BLOCK_M, HEAD_DIM, BLOCK_D, True,
                   False)  # fmt: skip
    row = start + tl.arange(0, BLOCK_M)
    tl.store(delta + row, tl.sum(o.to(tl.float32) * do.to(tl.float32), 1), mask=row < seq_q)


def launch_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_sum: torch.Tensor,
    bias: torch.Tensor | None,
    sinks: torch.Tensor | None,
    packing: Packing | None,
    dq: torch.Tensor,
    dk: torch.Tensor,
    dv: torch.Tensor,
    dbias: torch.Tensor | None,
    dsinks: torch.Tensor | None,
    rules: Rules,
) -> None:
    """Fill dq, dk and dv; where given, dbias as launch_backward_bias() does, and dsinks, float32 [heads]."""
    if q.numel() == 0 or k.numel() == 0:
        for gradient in (dq, dk, dv, dbias, dsinks):
            if gradient is not None:
                gradient.zero_()
        return
    log_sum, delta = with_room(log_sum), row_numbers(q)
    _launch_delta(out, dout, delta)
    inputs = (q, k, v, bias, dout, log_sum, delta)
    rich = bias is not None or rules.softcap > 0
    both = {"dk": dk, "dv": dv}
    # Where dK and dV do not fit the registers together, two launches have one accumulator each, and compute
    # the scores once more.
    apart = find_settings("attention_backward_keys", q, packing, rich)["APART"]
    for outputs in ({"dk": None, "dv": dv}, {"dk": dk, "dv": None}) if apart else (both,):
        _launch_gradients("attention_backward_keys", inputs, packing, outputs, rules)
    _launch_gradients("attention_backward_queries", inputs, packing, {"dq": dq}, rules)
    if dbias is not None:
        launch_backward_bias(inputs, dbias, rules)
    if sinks is not None and dsinks is not None:
        dsinks.copy_(sink_gradient(sinks, log_sum, delta))
    if packing is not None:
        clear_rest(dq, packing.cu_seqlens_q, packing.longest_q)
        for gradient in (dk, dv):
            clear_rest(gradient, packing.cu_seqlens_k, packing.longest_k)


def _launch_delta(out: torch.Tensor, dout: torch.Tensor, delta: torch.Tensor) -> None:
    def prepare() -> Prepared:
        chosen = find_settings("attention_delta", out)
        batch, heads, seq_q, _ = out.shape
        blocks = triton.cdiv(seq_q, chosen["BLOCK_M"])
        names = ("out_strides", "dout_strides", "delta_strides")
        rest = dict(zip(names, strides(*tensors), strict=True)) | chosen
        del rest["PRECISION"]
        return (batch * heads * blocks,), tensors, rest | {"blocks": blocks, "heads": heads, "seq_q": seq_q}

    tensors = (out, dout, delta)
    launch(_delta_kernel, tensors, None, prepare)


def _launch_gradients(
    kernel: str,
    inputs: tuple[Any, ...],
    packing: Packing | None,
    outputs: dict[str, torch.Tensor | None],
    rules: Rules,
) -> None:
    """Launch one of the two kernels; both take the same inputs and rules."""
    of_keys = kernel == "attention_backward_keys"
    tensors = (*inputs, *outputs.values(), *cu_seqlens(packing))

    def prepare() -> Prepared:
        q, k, v, bias, dout, log_sum, _ = inputs
        chosen = find_settings(kernel, q, packing, bias is not None or rules.softcap > 0)
        q, k, v, dout = loadable(chosen, packing, q, k, v, dout)
        (heads, seq_q), (kv_heads, seq_k) = q.shape[1:3], k.shape[1:3]
        sequences, lengths = q.shape[0], (seq_q, seq_k)
        if packing is not None:
            sequences, lengths = packing.sequences, longest(packing)
        loaded = ((q, "BLOCK_M"), (k, "BLOCK_N"), (v, "BLOCK_N"), (dout, "BLOCK_M"))
        described, (*sources_qkv, source_dout) = sources(chosen, packing, *loaded)
        rest: dict[str, Any] = {f"{name}_strides": strides(t)[0] for name, t in outputs.items()}
        names = ("q_strides", "k_strides", "v_strides", "bias_strides", "dout_strides", "log_sum_strides")
        rest |= dict(zip(names, strides(q, k, v, bias, dout, log_sum), strict=True))
        rest |= {"group": heads // kv_heads, "seq_q": seq_q, "seq_k": seq_k}
        rest |= {"BIAS": bias is not None, "PACKED": packing is not None}
        rest |= rules.arguments() | chosen | {"DESCRIPTORS": described}
        if of_keys:
            blocks, rows = triton.cdiv(lengths[1], chosen["BLOCK_N"]), kv_heads
            rest |= {"kv_heads": kv_heads, "DK": outputs["dk"] is not None, "DV": outputs["dv"] is not None}
            del rest["APART"]
        else:
            blocks, rows = triton.cdiv(lengths[0], chosen["BLOCK_M"]), heads
            rest["heads"] = heads
        arguments = (*sources_qkv, bias, source_dout, *tensors[5:])
        return (sequences * rows * blocks,), arguments, rest | {"blocks": blocks}

    code = attention_backward_keys_kernel if of_keys else attention_backward_queries_kernel
    launch(code, tensors, (rules, longest(packing)), prepare)
