"""Repairs of Triton's interpreter: without them TRITON_INTERPRET=1 gives wrong bfloat16 results, silently.

Three faults, in Triton 3.6.0 and 3.7.1: tl.dot reads bfloat16 operands as integers, float32
to bfloat16 truncates instead of rounding to nearest even, and (3.6.0 only) a one-element array
is no longer an index for NumPy 2.4 and later.
"""

import functools

import numpy as np
import torch
import triton.language as tl
from triton.language import standard
from triton.runtime import interpreter


def _to_bfloat16(data: np.ndarray) -> np.ndarray:
    """float32 to bfloat16 bits, rounded to nearest even, by torch."""
    flat = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32).reshape(-1))
    bits = flat.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return bits.reshape(data.shape)


def _from_bfloat16(data: np.ndarray) -> np.ndarray:
    return (data.astype(np.uint32) << 16).view(np.float32)


@functools.cache
def repair() -> None:
    """Patch the interpreter of this process, once; ImportError where only a part of Triton is interpreted."""
    if not hasattr(standard.max, "rewrite"):  # a compiled function
        raise ImportError("TRITON_INTERPRET: set it before triton is imported")
    builder = interpreter.InterpreterBuilder
    cast, fp_to_fp, dot = builder.cast_impl, builder.create_fp_to_fp, builder.create_dot

    def converted(source, target, otherwise):
        pair = (source.dtype.scalar, target.scalar)
        if pair == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(_to_bfloat16(source.data), tl.bfloat16)
        if pair == (tl.bfloat16, tl.float32):
            return interpreter.TensorHandle(_from_bfloat16(source.data), tl.float32)
        return otherwise()

    def widened(operand):
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return interpreter.TensorHandle(_from_bfloat16(operand.data), tl.float32)

    def repaired_dot(self, a, b, d, *options):
        return dot(self, widened(a), widened(b), d, *options)

    def index(self):
        return int(np.asarray(self.handle.data).reshape(-1)[0])

    patch_tensor = interpreter._patch_lang_tensor  # noqa: SLF001 - there is no public way

    def patch_lang_tensor(tensor, *scope):
        patch_tensor(tensor, *scope)
        tensor.__index__ = index

    builder.cast_impl = lambda self, source, target: converted(
        source, target, lambda: cast(self, source, target)
    )
    builder.create_fp_to_fp = lambda self, source, target, mode: converted(
        source, target, lambda: fp_to_fp(self, source, target, mode)
    )
    builder.create_dot = repaired_dot
    interpreter._patch_lang_tensor = patch_lang_tensor  # noqa: SLF001
