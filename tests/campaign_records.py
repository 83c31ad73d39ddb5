"""Records of a campaign, as its tasks leave them."""

import json

from budget.bench.record import source_hash

from budget.measured import record


def line(source="", case="8x16", seconds=(1e-3, 2e-3), **more):
    info = {
        "schema": record.SCHEMA, "device": "h200", "suite": "softmax", "case": case, "split": "fit",
        "dtype": "bfloat16", "implementation": "torch", "statistic": "median", "flops": 1, "bytes": 1,
        "workload": {"ops": [["softmax", "!x: s t -> z: s t", "softmax"]], "mode": "forward", "sizes": {}},
        "tflops": 1.0, "gb_s": 1.0, "ratio_to": {}, **more,
    }  # fmt: skip
    return {
        "task": f"C/softmax/{case}", "stage": "C", "kernel": "softmax", "status": "ok", "assembler": "newest",
        "key": f"softmax/{case}-bfloat16", "group": {"torch": {"seconds": list(seconds), "extra_info": info}},
        "fingerprint": {"source": source or source_hash(), "versions": {"python": "3.12.3"}},
        "device": {"key": "h200", "name": "H200", "type": "cuda"},
    }  # fmt: skip


def folder(path, *lines, end="\n"):
    path.mkdir()
    (path / "records.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines)[:-1] + end)
    return str(path)
