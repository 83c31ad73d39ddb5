"""Records that a processor of known numbers would have made, for calibration and validation."""

import json
import math

import numpy as np

from budget.device import load, profile
from budget.measured import calibration, record
from budget.measured import workload as workloads

CPU = load("cpu")
NAME = profile.key(CPU)
TRUE = {
    **calibration.START,
    "memory": 3.0,
    "launch_s": 2e-6,
    "forms.matmul.share": 0.6,
    "forms.matmul.edge.0": 7.0,
}


def gemm(m, n, k):
    line = "!x: s d, *d f, +*f -> z: s f"
    return {
        "ops": [["product", line, "contract"]],
        "mode": "forward",
        "sizes": {"s": m, "f": n, "d": k},
        "dtype": "float32",
    }


def copy(s):
    return {
        "ops": [["copy", "!x: s d -> z: s d", "copy"]],
        "mode": "forward",
        "sizes": {"s": s, "d": 256},
        "dtype": "float32",
    }


def mlp(width, mode):
    settings = {
        "attention": "fused",
        "execution": "eager",
        "optimizer": "sgd",
        "dtype": "float32",
        "batch": 8,
    }
    return {"model": "mlp", "config": {"sizes": [width, width, 4]}, "mode": mode, **settings}


def entry(suite, case, split, workload, seconds, **info):
    extra = {
        "schema": record.SCHEMA, "device": NAME, "suite": suite, "case": case, "split": split,
        "dtype": "float32",
        "workload": workload, "implementation": "torch", "statistic": "min", "method": "made up", **info,
    }  # fmt: skip
    return {"fullname": f"{suite}[{case}]", "stats": {"min": seconds}, "extra_info": extra}


def entries(noise=0.0, seed=0):
    """What a device with the numbers of TRUE would have measured."""
    random = np.random.default_rng(seed)
    made = calibration.build(TRUE, CPU, ("float32",), {})
    found = []
    shapes = [(m, n, k) for m in (1, 8, 64, 500) for n in (32, 700) for k in (64, 900)]
    work = [("matmul", f"{s}", gemm(*s)) for s in shapes]
    work += [
        ("memory_bandwidth", f"{s}", copy(s))
        for s in (4, 64, 300, 512, 2000, 4096, 9000, 16384, 30000, 50000)
    ]
    work += [
        ("models", f"mlp{w}-{mode}", mlp(w, mode))
        for w in (8, 16, 20, 40, 64, 100)
        for mode in ("forward", "train")
    ]
    for i, (suite, case, workload) in enumerate(work):
        seconds = workloads.predict(workload, CPU, made) * math.exp(random.normal(0, noise))
        found.append(entry(suite, case, "held" if i % 5 == 2 else "fit", workload, seconds))
    return found


def results(folder, benchmarks):
    path = folder / "results.json"
    path.write_text(json.dumps({"benchmarks": benchmarks}), encoding="utf-8")
    return str(path)
