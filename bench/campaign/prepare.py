"""Prepare the files that a campaign takes along: `python -m budget.bench.campaign prepare`, without a GPU.

The folder (bench/prepared, which git ignores) has

    ptxas.xz   an assembler that is newer than the one in Triton, out of NVIDIA's wheel
    cache.zip  every kernel of the plan, compiled with it and with Triton's own plan.json  the sources and
    versions for which these are valid
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from typing import Any, TextIO

from .refused import RefusedError

AT = " @ "  # in the name of a candidate for settings (tune.py)
WHEEL = "nvidia-cuda-nvcc==13.4.92"
PTXAS = "nvidia/cu13/bin/ptxas"
LARGEST = 40 * 2**20  # bytes of the folder, which travels with a checkout
SPILLED, SHARED = 64, 227 * 1024  # bytes that a candidate may have on its stack, and share
ENVIRONMENT = {"TRITON_STORE_BINARY_ONLY": "1"}  # cubins and their facts, nothing that people read


def main(options: argparse.Namespace) -> int:
    """The command: the exit status."""
    try:
        print(prepare(options.prepared, options.nvcc_wheel, options.triton, options.jobs))
    except subprocess.CalledProcessError as error:
        raise RefusedError(f"{' '.join(error.cmd[:4])} ... ended with status {error.returncode}") from None
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise RefusedError(f"cannot fill {options.prepared}: {error}") from None
    return 0


def prepare(folder: str, wheel: str = "", triton: str = "", jobs: int = 0) -> str:
    """Fill the folder, keeping what is valid; returns one line about the result.

    wheel: NVIDIA's, else it is fetched with pip. triton: that of the machine to come, a version (fetched
    with pip) or a wheel; "": the one that is installed.
    """
    os.makedirs(folder, exist_ok=True)
    packed, archive = (os.path.join(folder, name) for name in ("ptxas.xz", "cache.zip"))
    with tempfile.TemporaryDirectory(prefix="campaign-") as scratch:
        cache, assembler = (os.path.join(scratch, name) for name in ("cache", "ptxas"))
        if wheel or not os.path.exists(packed):
            _take_assembler(wheel or _fetched(scratch), packed)
        unpack(folder, cache, assembler, sys.stderr)
        base = _with_triton(triton, scratch) if triton else dict(os.environ)
        pieces = []
        for name, path in (("newest", assembler), ("bundled", "")):
            pieces += _compiled(name, environment(base, cache, path), jobs)
        keys = {key for piece in pieces for key in piece.pop("keys")}
        kernels = _zipped(cache, keys, archive)
        versions = _versions(base)
    dropped = [p["piece"] for p in pieces if AT in p["piece"] and p["assembler"] == "newest" and _unfit(p)]
    with open(os.path.join(folder, "plan.json"), "w", encoding="utf-8") as file:
        json.dump({"pieces": pieces, "dropped": dropped, **versions}, file, indent=1)
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    failed = [p["piece"] for p in pieces if p["error"] and p["piece"] not in dropped]
    large = f"; LARGER than the {LARGEST / 2**20:.0f} MB allowed" if size > LARGEST else ""
    return (
        f"{kernels} kernels, {size / 2**20:.1f} MB{large}; candidates dropped: {len(dropped)};"
        f" pieces that failed: {failed or 'none'}"
    )


def _unfit(piece: Mapping[str, Any]) -> bool:
    """Whether a candidate for a kernel's settings does not compile, spills, or takes too much memory."""
    spilled, shared = (max((used[i] for used in piece["used"]), default=0) for i in (1, 2))
    return bool(piece["error"]) or spilled > SPILLED or shared > SHARED


def environment(base: Mapping[str, str], cache: str, assembler: str = "") -> dict[str, str]:
    """That of a process that compiles or runs kernels: its cache, its assembler (Triton's own)."""
    found = {**base, **ENVIRONMENT, "TRITON_CACHE_DIR": cache}
    found.pop("TRITON_PTXAS_PATH", None)
    return found | ({"TRITON_PTXAS_PATH": assembler} if assembler else {})


def unpack(folder: str, cache: str, assembler: str, log: TextIO) -> bool:
    """Unpack the prepared files where the workers look for them; whether there is a newer assembler.

    Files of other sources or versions are not found, and are compiled anew.
    """
    os.makedirs(cache, exist_ok=True)
    try:
        return _unpacked(folder, cache, assembler, log)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, lzma.LZMAError) as error:
        print(
            f"campaign: {folder} is not used, its kernels are compiled anew: {error}",
            file=sys.stderr,
            flush=True,
        )
        shutil.rmtree(cache)
        os.makedirs(cache)
        return False


def _unpacked(folder: str, cache: str, assembler: str, log: TextIO) -> bool:
    archive, packed = (os.path.join(folder, name) for name in ("cache.zip", "ptxas.xz"))
    if os.path.exists(archive) and os.path.exists(os.path.join(folder, "plan.json")):
        with open(os.path.join(folder, "plan.json"), encoding="utf-8") as file:
            of = json.load(file)
        print(f"campaign: prepared for source {of['source']}, {of['versions']}", file=log, flush=True)
        with zipfile.ZipFile(archive) as file:
            file.extractall(cache)
        for key in os.listdir(cache):
            _grouped(os.path.join(cache, key))
        shutil.copy(os.path.join(folder, "plan.json"), cache)
    if not os.path.exists(packed):
        return False
    with lzma.open(packed) as source, open(assembler, "wb") as target:
        shutil.copyfileobj(source, target)
    os.chmod(assembler, 0o700)
    return True


def _grouped(folder: str) -> None:
    """Write the file that tells Triton that a kernel's files are complete, with this machine's paths."""
    names = [name for name in os.listdir(folder) if not name.startswith("__grp__")]
    group = {"child_paths": {name: os.path.join(folder, name) for name in names}}
    for name in names:
        if name.endswith(".json"):
            with open(os.path.join(folder, f"__grp__{name}"), "w", encoding="utf-8") as file:
                json.dump(group, file)


def _fetched(scratch: str, wheel: str = WHEEL) -> str:
    to = os.path.join(scratch, wheel.replace("==", "-"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", to, wheel]
    subprocess.run(command, check=True)  # noqa: S603 - pip of this environment
    return os.path.join(to, next(n for n in os.listdir(to) if n.endswith(".whl")))


def _with_triton(which: str, scratch: str) -> dict[str, str]:
    """This process's environment with another Triton, a version or a wheel."""
    wheel = which if which.endswith(".whl") else _fetched(scratch, f"triton=={which}")
    folder = os.path.join(scratch, "triton")
    with zipfile.ZipFile(wheel) as file:
        for member in file.infolist():
            os.chmod(file.extract(member, folder), 0o700)  # its tools are programs
    return {**os.environ, "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", os.getcwd())])}


def _take_assembler(wheel: str, packed: str) -> None:
    with (
        zipfile.ZipFile(wheel) as file,
        file.open(PTXAS) as source,
        lzma.open(packed, "wb") as target,
    ):
        shutil.copyfileobj(source, target)


def _compiled(name: str, variables: Mapping[str, str], jobs: int) -> list[dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "budget.bench.campaign.precompile",
        "--jobs",
        str(jobs or os.cpu_count() or 1),
        "--assembler",
        name,
    ]
    done = subprocess.run(command, env=dict(variables), stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603
    return [{"assembler": name, **json.loads(line)} for line in done.stdout.splitlines()]


def _zipped(cache: str, keys: Collection[str], path: str) -> int:
    """Put the compiled kernels of these keys into one file; how many there are."""
    count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        for key in sorted(keys):
            for name in sorted(os.listdir(os.path.join(cache, key))):
                if name.endswith((".cubin", ".json")) and not name.startswith("__grp__"):
                    file.write(os.path.join(cache, key, name), f"{key}/{name}")
                    count += name.endswith(".cubin")
    return count


def _versions(environment: Mapping[str, str]) -> dict[str, Any]:
    ask = "import json; from budget.bench.record import *; print(json.dumps([source_hash(), versions()]))"
    answer = subprocess.run(  # noqa: S603
        [sys.executable, "-c", ask], check=True, capture_output=True, text=True, env=dict(environment)
    )
    source, versions = json.loads(answer.stdout)
    return {"source": source, "versions": versions}
