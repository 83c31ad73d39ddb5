"""Launches through Triton's own driver and launcher, on a CUDA driver that does nothing but write down.

    LD_LIBRARY_PATH=FOLDER TRITON_LIBCUDA_PATH=FOLDER python fake_driver.py

make(FOLDER) compiles it. Each call is made twice, the second time from a plan. A line of JSON for each:
its name, what was launched both times (kernel, grid, threads, shared memory), how often run() was asked.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

# What is not here returns 0: success.
WRITTEN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long u64;
typedef struct { unsigned grid[3], block[3], shared; } Config;
int cuCtxGetCurrent(void **c) { *c = (void *)1; return 0; }
int cuDeviceGet(int *d, int i) { *d = 0; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = 232448; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = (void *)1; return 0; }
int cuDriverGetVersion(int *v) { *v = 13000; return 0; }
int cuFuncGetAttribute(int *v, int a, void *f) { *v = 1024; return 0; }
int cuGetErrorString(int e, const char **s) { *s = "fake"; return 0; }
int cuModuleGetFunction(void **f, void *m, const char *name) { *f = strdup(name); return 0; }
int cuModuleLoadData(void **m, const void *d) { *m = (void *)1; return 0; }
int cuPointerGetAttribute(void *to, int a, u64 pointer) { memcpy(to, &pointer, 8); return 0; }
int cuTensorMapEncodeTiled(void *map) { memset(map, 0, 128); return 0; }
int cuLaunchKernelEx(const Config *c, void *f, void **parameters, void **extra) {
  FILE *out = fopen(getenv("LAUNCHES"), "a");
  fprintf(out, "%s %u %u %u %u %u\n", (char *)f, c->grid[0], c->grid[1], c->grid[2], c->block[0], c->shared);
  return fclose(out);
}
"""


def make(folder: Path) -> None:
    """Compile it into folder. Raises CalledProcessError, and FileNotFoundError without a compiler."""
    import triton

    header = Path(triton.__file__).parent / "backends" / "nvidia" / "include" / "cuda.h"
    names = set(re.findall(r"CUDAAPI\s+(cu\w+)\(", header.read_text()))
    names |= {f"{name}_v{i}" for name in names for i in (2, 3)}
    rest = sorted(n for n in names if f" {n}(" not in WRITTEN)
    source = folder / "cuda.c"
    source.write_text(WRITTEN + "".join(f"int {n}(void) {{ return 0; }}\n" for n in rest))
    command = [
        "gcc",
        "-shared",
        "-fPIC",
        "-w",
        "-Wl,-soname,libcuda.so.1",
        "-o",
        folder / "libcuda.so.1",
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Make the calls."""
    import torch

    torch.cuda.current_device = lambda: -1
    from triton.backends.nvidia.driver import CudaDriver
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    fake = CudaDriver()
    fake.get_current_device, fake.get_current_stream = (lambda: -1), (lambda _: 0)
    fake.get_device_capability = lambda _: (9, 0)

    from budget.kernels.attention import attention
    from budget.kernels.attention_cached import attention_cached
    from budget.kernels.matmul import matmul
    from budget.kernels.softmax import softmax

    from budget.kernels import launch, settings

    for name, module in list(sys.modules.items()):
        if name.startswith("budget.kernels") and hasattr(module, "runs_triton"):
            module.runs_triton = lambda _: True
    launch.keeps_plans, settings.processors = (lambda _: True), (lambda _: 132)
    driver.set_active(fake)
    asked, run = [], JITFunction.run

    def counted(self, *args, **kwargs):
        asked.append(self.fn.__name__)
        return run(self, *args, **kwargs)

    JITFunction.run = counted

    def random(*shape):
        return torch.randn(shape).bfloat16()

    lengths = torch.tensor([100, 7], dtype=torch.int32)
    calls = {
        "softmax": lambda: softmax(random(64, 1024)),
        "matmul": lambda: matmul(random(256, 512), random(1024, 512).mT, random(1024)),
        "matmul, odd": lambda: matmul(random(256, 513), random(1024, 513).mT),
        "attention": lambda: attention(random(1, 4, 256, 64), *(random(1, 2, 256, 64) for _ in "kv")),
        "cached": lambda: attention_cached(
            random(2, 8, 1, 64), *(random(2, 2, 2048, 64) for _ in "kv"), lengths, sinks=random(8)
        ),
    }
    path = Path(os.environ["LAUNCHES"])
    with settings.compiling_for("sm90"):
        for name, call in calls.items():
            seen = []
            for _ in range(2):
                path.write_text("")
                asked.clear()
                call()
                seen.append((path.read_text().splitlines(), len(asked)))
            print(json.dumps([name, *seen]), flush=True)


if __name__ == "__main__":
    main()
