"""What torch runs a module with: FLOPs by its own counter, bytes by a tracker of storages.

The counter has formulas of ours where its own are wrong or missing: the weight's gradient of a grouped
convolution (it takes all channels for connected), attention's kernel for processors, products with a
vector, products in place, three operands. The tracker follows storages, not tensors; MemTracker, which
follows modules too, keeps detached graphs alive by its hooks.
"""

from __future__ import annotations

import weakref
from math import prod
from typing import NamedTuple

import torch
from oracles.flops import _convolution_backward
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import addmm_flop, baddbmm_flop, flop_registry, shape_wrapper

aten = torch.ops.aten


def sdpa_flop(q, k, v, *rest, out_shape=None, **kwargs):
    return 2 * q[0] * q[1] * q[2] * k[2] * (q[3] + v[3])


def grouped_flop(a, b, *rest, out_shape=None, **kwargs):
    return 2 * a[0] * a[1] * b[-1]


def trilinear_flop(a, b, c, expand1, expand2, expand3, summed, *rest, out_shape=None, **kwargs):
    rank = len(a) + len(expand1)
    sizes = dict(zip((i for i in range(rank) if i not in expand1), a, strict=True))
    sizes.update(zip((i for i in range(rank) if i not in expand2), b, strict=True))
    sizes.update(zip((i for i in range(rank) if i not in expand3), c, strict=True))
    return 2 * prod(sizes.values())


def conv_tbc_flop(x, w, *rest, out_shape=None, **kwargs):
    return 2 * prod(out_shape) * w[0] * w[1]


COUNTS = {
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda _, *qkv, **k: 2 * sdpa_flop(*qkv, **k),
    aten._grouped_mm: grouped_flop,
    aten.convolution_backward: _convolution_backward,
    aten.mv: lambda a, x, **k: 2 * prod(a),
    aten.addmv: lambda y, a, x, *rest, **k: 2 * prod(a),
    aten.dot: lambda a, b, **k: 2 * prod(a),
    aten.vdot: lambda a, b, **k: 2 * prod(a),
    aten.addmm_: addmm_flop.__wrapped__,
    aten.baddbmm_: baddbmm_flop.__wrapped__,
    aten.addbmm: lambda y, a, b, **k: 2 * prod(a) * b[2],
    aten._trilinear: trilinear_flop,
    aten.conv_tbc: conv_tbc_flop,
}


# Whose fake kernels leave a transposed input's strides, which real ones do not: its place in the arguments.
BATCH_NORMS = {aten.native_batch_norm.default: 0, aten.native_batch_norm_backward.default: 1}
FORMULAS = {**flop_registry, **{call: shape_wrapper(count) for call, count in COUNTS.items()}}


class Tracker(TorchDispatchMode):
    """FLOPs by torch's formulas, and bytes: of all storages that are alive, and the most that there were.

    FlopCounterMode itself follows modules by hooks, which keep tensors alive.
    """

    def __init__(self, *tensors):
        super().__init__()
        self.alive, self.bytes, self.peak, self.flops = {}, 0, 0, 0
        for t in tensors:
            self.see(t)

    def see(self, t):
        storage = t.untyped_storage()
        size, key = storage.nbytes(), storage._cdata
        if key in self.alive:  # perhaps it has grown
            self.bytes += size - self.alive[key][0]
            self.alive[key] = (size, self.alive[key][1])
        else:
            self.alive[key] = size, weakref.ref(storage, lambda _: self.let_go(key))
            self.bytes += size
        self.peak = max(self.peak, self.bytes)

    def let_go(self, key):
        self.bytes -= self.alive.pop(key)[0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and func._overloadpacket not in FORMULAS:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if func in BATCH_NORMS and isinstance(result[0], FakeTensor):
            laid_out = suggest_memory_format(args[BATCH_NORMS[func]])
            result = (torch.empty_like(result[0], memory_format=laid_out), *result[1:])
        if formula := FORMULAS.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        if func is not torch.ops.prim.device.default:
            for t in tree_leaves((result, args)):
                if isinstance(t, torch.Tensor):
                    self.see(t)
        return result


def gpu_dropout(x, p=0.5, training=True, inplace=False):
    """Dropout as a GPU runs it: one kernel that keeps a mask of booleans."""
    if inplace and training and p:
        return torch.dropout_(x, p, True)
    return torch.native_dropout(x, p, True)[0] if training and p else x


attention = F.scaled_dot_product_attention


def gpu_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, **settings):
    """Attention with dropout as a GPU runs it: the same kernel as without."""
    return attention(query, key, value, attn_mask, 0.0, is_causal, **settings)


def as_on_a_gpu(patch):
    """torch's dropout and attention replaced, by pytest's monkeypatch."""
    patch.setattr(F, "dropout", gpu_dropout)
    patch.setattr(F, "scaled_dot_product_attention", gpu_attention)
    patch.setattr(torch._C, "_get_mkldnn_enabled", torch._C._get_mkldnn_enabled)
    patch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)


class Measured(NamedTuple):
    """What torch ran: FLOPs, peak bytes, bytes of gradients; how far the peak can be trusted."""

    forward: int
    backward: int
    peak: int
    gradients: int
    within: float


def measured(build, *, train=True, real=False):
    """What torch runs of a module that `build` makes: on fake tensors, or where it needs data on real ones,
    whose kernels for processors lay tensors out in ways of their own.
    """
    if real:
        return Measured(*_measured(build, train), within=0)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return Measured(*_measured(build, train), within=1e-3)
    except (DataDependentOutputException, DynamicOutputShapeException, RuntimeError):
        return Measured(*_measured(build, train), within=0.05)


def _measured(build, train):
    module, inputs = build()
    if len({id(getattr(p, "fake_mode", None)) for p in module.parameters()}) > 1:
        raise RuntimeError("torch copies a fake tensor's mode with it: its views then have other storages")
    own = (*module.parameters(), *module.buffers(), *inputs)
    with Tracker(*own) as tracker:
        stages = run(module, inputs, train)
        next(stages)
        forward = tracker.flops
        next(stages, None)
    grads = [p.grad.untyped_storage() for p in module.parameters() if p.grad is not None]
    sizes = {storage._cdata: storage.nbytes() for storage in grads}
    return forward, tracker.flops - forward, tracker.peak, sum(sizes.values())


def run(module, inputs, train):
    """A forward pass, then the backward pass, on torch's own kernels, each product by itself."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.set_grad_enabled(train):
            out = module(*inputs)
            yield
            if train:
                loss = out if out.dim() == 0 else out.float().sum()
                del out
                loss.backward()
    finally:
        torch._C._set_mkldnn_enabled(before)
