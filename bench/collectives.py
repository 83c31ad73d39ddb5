"""Collectives between devices: NCCL on GPUs, gloo on processors, into the same records as the suites.

    torchrun --nproc-per-node 8 -m budget.bench.collectives [--quick] [--results FOLDER]

Rank 0 writes; each record is on disk as soon as it is measured, and an interrupted run goes on. A collective
takes as long as its slowest rank: each round's time is the largest over the ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import torch
import torch.distributed as dist
from budget.bench.journal import Journal
from budget.bench.record import source_hash, versions

from budget import device as devices
from budget import files
from budget.device import profile as profiles
from budget.errors import InputError
from budget.measured import record as records

SIZES = {
    "quick": [2**n for n in (10, 14, 18, 22)],
    "full": [2**n for n in range(10, 31, 2)],
}  # bytes of a rank
ROUNDS = {"quick": 10, "full": 30}
HELD = 1  # every other size is held out
# Bytes that cross a link in one direction for each byte of a rank's buffer, n ranks in a ring: as the
# benchmarks of NCCL count what they call bus bandwidth. Source: nccl-tests.
CROSSED: dict[str, Callable[[int], float]] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "send_receive": lambda n: 1.0,
}


def operation(name: str, size: int, where: torch.device) -> Callable[[], None]:
    """One collective whose whole buffer has `size` bytes; verified before it is returned."""
    rank, n = dist.get_rank(), dist.get_world_size()
    count = max(n, size // 4 // n * n)
    whole, part = (
        torch.full((count,), float(rank + 1), device=where),
        torch.full((count // n,), float(rank + 1), device=where),
    )
    total = n * (n + 1) / 2
    if name == "all_reduce":
        run, result, expected = lambda: dist.all_reduce(whole, dist.ReduceOp.MAX), whole, float(n)
    elif name == "all_gather":
        run, result, expected = lambda: dist.all_gather_into_tensor(whole, part), whole[-1:], float(n)
    elif name == "reduce_scatter":
        run, result, expected = lambda: dist.reduce_scatter_tensor(part, whole), part, total
    elif name == "all_to_all":
        other = torch.empty_like(whole)
        run, result, expected = lambda: dist.all_to_all_single(other, whole), other[-1:], float(n)
    else:
        run, result, expected = _ring(whole, rank, n)
    run()
    assert bool((result == expected).all()), f"{name}: wrong result"
    return run


def _ring(whole: torch.Tensor, rank: int, n: int):
    """Every rank sends to the next and receives from the one before."""
    other = torch.empty_like(whole)

    def run() -> None:
        ends = [dist.P2POp(dist.isend, whole, (rank + 1) % n), dist.P2POp(dist.irecv, other, (rank - 1) % n)]
        for request in dist.batch_isend_irecv(ends):
            request.wait()

    return run, other, float((rank - 1) % n + 1)


def seconds(run: Callable[[], None], rounds: int, where: torch.device) -> list[float]:
    """Seconds of each round, the slowest rank's."""
    taken = []
    for _ in range(rounds):
        dist.barrier()
        if where.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            taken.append(begin.elapsed_time(end) * 1e-3)
        else:
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    slowest = torch.tensor(taken, device=where, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return slowest.tolist()


def supported(name: str, where: torch.device) -> bool:
    """Whether this backend has the collective, the same answer on every rank."""
    try:
        operation(name, 1024, where)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return True


def entry(
    name: str, size: int, index: int, taken: list[float], where: torch.device, device: devices.Device
) -> dict:
    """A record in pytest-benchmark's form."""
    n = dist.get_world_size()
    typical = "min" if where.type == "cpu" else "median"
    stats = {
        "min": min(taken),
        "max": max(taken),
        "mean": statistics.fmean(taken),
        "median": statistics.median(taken),
        "stddev": statistics.stdev(taken),
        "rounds": len(taken),
        "iterations": 1,
    }
    crossed = size * CROSSED[name](n)
    info = {
        "schema": records.SCHEMA,
        "device": profiles.key(device),
        "suite": "collectives",
        "case": f"{name}-{size}x{n}",
        "split": "held" if index % 2 == HELD else "fit",
        "dtype": "float32",
        "implementation": dist.get_backend(),
        "statistic": typical,
        "method": "wall clock" if where.type == "cpu" else "CUDA events",
        "workload": {
            "collective": name,
            "bytes": size,
            "ranks": n,
            "nodes": n // int(os.environ.get("LOCAL_WORLD_SIZE", n)),
        },
        "bytes": crossed,
        "gb_s": crossed / stats[typical] / 1e9,
        "n": len(taken),
        "versions": versions(),
        "source_hash": source_hash(),
    }
    full = f"bench/collectives.py::{name}[{size}x{n}-{info['implementation']}]"
    return {
        "group": name,
        "name": full.partition("::")[2],
        "fullname": full,
        "params": None,
        "param": None,
        "extra_info": info,
        "options": {},
        "stats": stats,
    }


def measure(mode: str, folder: str, where: torch.device, device: devices.Device) -> list[dict]:
    """All records, those of an interrupted run from its journal."""
    fingerprint = {"versions": versions(), "source": source_hash(), "ranks": dist.get_world_size()}
    journal = Journal(os.path.join(folder, f"unfinished-collectives-{mode}.jsonl"), fingerprint)
    for name in CROSSED:
        if not supported(name, where):
            continue
        for index, size in enumerate(SIZES[mode]):
            known = [f"{name}/{size}" in journal.groups]
            dist.broadcast_object_list(known)  # rank 0 has the journal
            if not known[0]:
                taken = seconds(operation(name, size, where), ROUNDS[mode], where)
                if dist.get_rank() == 0:
                    journal.add(f"{name}/{size}", entry(name, size, index, taken, where, device))
    if dist.get_rank() == 0:
        save(list(journal.groups.values()), folder, device)
        journal.remove()
    return list(journal.groups.values())


def save(entries: list[dict], folder: str, device: devices.Device) -> str:
    """Write a results file of its own, replaced only when all of it is written."""
    content = {
        "machine_info": {
            "device": {"key": profiles.key(device), "name": device.name},
            "versions": versions(),
        },
        "commit_info": {},
        "benchmarks": entries,
        "datetime": datetime.now(UTC).isoformat(),
        "version": "collectives",
    }
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"collectives-{dist.get_world_size()}.json")
    files.replace(path, json.dumps(content, indent=1))
    return path


def main(argv: list[str]) -> int:
    """Every rank runs this; exit status 2 with one line for what the user got wrong."""
    parser = argparse.ArgumentParser(prog="budget.bench.collectives", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="four sizes, ten rounds")
    parser.add_argument(
        "--results", default=None, help="where records go, a folder for each device (bench/results)"
    )
    parser.add_argument(
        "--on", default="auto", choices=("auto", "cpu", "cuda"), help="NCCL on GPUs or gloo on processors"
    )
    args = parser.parse_args(argv)
    if "RANK" not in os.environ:
        return _refuse("run by: torchrun --nproc-per-node N -m budget.bench.collectives")
    if args.on == "cuda" and not torch.cuda.is_available():
        return _refuse("--on: there is no GPU here that torch can use; allowed: auto, cpu")
    gpu = args.on != "cpu" and torch.cuda.is_available()
    where = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        device = devices.load("auto" if gpu else "cpu")
        folder = os.path.join(args.results or records.results_folder(), profiles.key(device))
        found = measure("quick" if args.quick else "full", folder, where, device)
    except InputError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(
            f"cannot write the records: {error.strerror or error}; what was measured before is kept"
        )
    finally:
        dist.destroy_process_group()
    for one in found:
        info = one["extra_info"]
        print(f"{info['case']:32}{one['stats'][info['statistic']] * 1e6:12.1f} us{info['gb_s']:10.3f} GB/s")
    return 0


def _refuse(why: str) -> int:
    print(f"budget.bench.collectives: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
