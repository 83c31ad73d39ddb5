"""Errors on a GPU: whether a process can go on after one, and each as one line."""

# Messages of a driver after which nothing works. A refused launch says "Triton Error", and the process can go
# on.
LOUD = (
    "CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "cudaError", "device-side assert",
    "misaligned address", "illegal memory access", "illegal instruction", "unspecified launch failure",
)  # fmt: skip


def is_fatal(error: BaseException) -> bool:
    """Whether the device's context is lost: every later call in this process would fail, or lie."""
    return type(error).__name__ == "AcceleratorError" or any(word in str(error) for word in LOUD)


def one_line(error: BaseException, most: int = 400) -> str:
    """An error, short enough for a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:most]
