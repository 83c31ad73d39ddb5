"""From the files that people have to the table of a config: a folder, config.json, .json.gz, .safetensors,
.gguf.

Files of weights are read up to the end of their headers, within bounds. Pickles (.pt, .bin) run code when
they are loaded: they are refused.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Mapping
from functools import cache

from ..errors import InputError, as_path
from ..named import TYPE_CHECKING, Any
from .hf_fields import has_few_bits

if TYPE_CHECKING:
    from typing import BinaryIO

LARGEST = 10_000_000  # bytes of a config; one has a few thousand
HEADER = 100_000_000  # bytes of a header of weights: safetensors' own bound. Source: safetensors
# Files that have flags of their own, and one that nothing here reads.
ELSEWHERE = {
    ".py": "--module FILE:FACTORY",
    ".yaml": "--run FILE",
    ".yml": "--run FILE",
    ".toml": "--run FILE",
    ".sh": "--run FILE",
    ".onnx": "the torch module that it was made of, --module FILE:FACTORY",
}
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
INDEX = "model.safetensors.index.json"


def load(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The config that a file, a folder or standard input (`-`) holds. Raises InputError."""
    text = os.path.expanduser(os.fspath(path))
    try:
        return _read(text)
    except EOFError:
        raise InputError("config", f"{as_path(text)} ends too early") from None
    except OSError as error:
        raise InputError("config", f"{as_path(text)}: {error.strerror or 'cannot be read'}") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("config", f"{as_path(text)} is not JSON: {_reason(error)}") from None
    except RecursionError:
        raise InputError("config", f"{as_path(text)} is not JSON: nested too deeply") from None


def _read(text: str) -> Mapping[str, Any]:
    """The table that a path leads to, read by its ending. Raises InputError, and what the file's reader
    raises.
    """
    if os.path.basename(text) == "-" and not os.path.exists(text):
        return _table(_standard_input(), "standard input")
    if os.path.isdir(text):
        return _folder(text)
    check(text)
    about = os.stat(text)
    if not stat.S_ISREG(about.st_mode):
        raise InputError("config", f"{as_path(text)} is not a file")
    with open(text, "rb") as file:
        if text.endswith(".gguf"):
            from .gguf_file import config

            return config(file, about.st_size, as_path(text))
        if text.endswith(".safetensors"):
            _safetensors(file, about.st_size, text)
            return _beside(text)
        if text.endswith(INDEX):
            return _folder(os.path.dirname(text) or ".")
        if about.st_size > LARGEST:
            much = f"{as_path(text)} has {about.st_size:,} bytes"
            raise InputError("config", f"{much}; allowed: to {LARGEST:,}")
        if text.endswith(".gz"):
            return _table(_unzipped(file, text), as_path(text))
        values = _table(file.read(LARGEST), as_path(text))
    if os.path.basename(text) == "config.json":
        return _as_stored(values, os.path.dirname(text))
    return _config(values)


def _unzipped(file: BinaryIO, text: str) -> bytes:
    """The contents of a gzip file, up to a bound. Raises InputError."""
    import gzip
    import zlib

    try:
        return gzip.GzipFile(fileobj=file).read(LARGEST + 1)
    except zlib.error as error:
        raise InputError("config", f"{as_path(text)} is not what gzip writes: {error}") from None


def check(text: str) -> None:
    """Raise an InputError for a file that is no config, by its ending."""
    if text.endswith(PICKLES):
        raise InputError("config", f"{as_path(text)} is a pickle, which runs code when loaded; {_WAY}")
    ending = re.search(r"(\.\w+)(:\w+)?$", text)
    if ending is not None and (way := ELSEWHERE.get(ending[1])):
        raise InputError("config", f"{as_path(text)} is no config; allowed: {way}")


@cache
def _standard_input() -> bytes:
    """Standard input, read once, however often it is asked for."""
    return sys.stdin.buffer.read(LARGEST + 1)


_WAY = "allowed: the config.json beside it, or weights saved as .safetensors"


def _folder(folder: str) -> Mapping[str, Any]:
    """The config of a folder as transformers saves it; weights that an index names must be there."""
    index = os.path.join(folder, INDEX)
    if os.path.isfile(index):
        _shards(folder, load_json(index))
    path = os.path.join(folder, "config.json")
    if os.path.isfile(path):
        return _as_stored(load_json(path), folder)
    for name in ("params.json", "adapter_config.json"):
        if os.path.isfile(path := os.path.join(folder, name)):
            return _config(load_json(path))
    files = sorted(name for name in os.listdir(folder) if name.endswith(".gguf"))
    if len(files) == 1:
        return load(os.path.join(folder, files[0]))
    if files:
        raise InputError(
            "config", f"{as_path(folder)} has {len(files)} files of .gguf; allowed: one, by its name"
        )
    raise InputError(
        "config", f"{as_path(folder)} has no config.json and no .gguf; allowed: a folder that has one"
    )


def load_json(path: str) -> Mapping[str, Any]:
    """The table in a JSON file of a config's size. Raises InputError."""
    with open(path, "rb") as file:
        return _table(file.read(LARGEST + 1), as_path(path))


def _config(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A table as a config; params.json is another spelling of one. Raises InputError for an adapter."""
    if "peft_type" in values and "model_type" not in values:
        raise InputError("config", "an adapter's settings, of no network; allowed: --run FILE, with its base")
    from . import params_file

    return params_file.config(values) if params_file.is_mine(values) else values


def _shards(folder: str, index: Mapping[str, Any]) -> None:
    """Raise an InputError where a file that an index names is not there."""
    named = index.get("weight_map")
    if not isinstance(named, Mapping) or not all(isinstance(name, str) for name in named.values()):
        raise InputError("config", f"{INDEX} has no weight_map of names")
    files = sorted(set(named.values()))
    missing = [name for name in files if not os.path.isfile(os.path.join(folder, os.path.basename(name)))]
    if missing:
        raise InputError(
            "config", f"{INDEX} names {len(missing)} files that are not there: {missing[0][:80]}"
        )


def _beside(path: str) -> Mapping[str, Any]:
    beside = os.path.join(os.path.dirname(path) or ".", "config.json")
    if not os.path.isfile(beside):
        raise InputError("config", f"{as_path(path)} holds weights and no architecture; {_WAY}")
    return _as_stored(load_json(beside), os.path.dirname(path))


def _as_stored(values: Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    """A config with what NVIDIA's quantizer writes into a file of its own. Source: modelopt."""
    beside = os.path.join(folder, "hf_quant_config.json")
    if has_few_bits(values) or not os.path.isfile(beside):
        return values
    return {**values, "quantization_config": {"quant_method": "modelopt", **load_json(beside)}}


def _safetensors(file: BinaryIO, size: int, path: str) -> None:
    """Raise an InputError for a broken header: its length, its JSON, the tensors' places in the file."""
    name = as_path(path)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(HEADER, size - 8):
        problem = f"{name} tells a header of {length:,} bytes"
        raise InputError("config", f"{problem}; allowed: 2 to {min(HEADER, max(size - 8, 2)):,}")
    header = _table(file.read(length), name, HEADER)
    places = []
    for tensor, about in header.items():
        if tensor == "__metadata__":
            continue
        place = about.get("data_offsets") if isinstance(about, Mapping) else None
        if not (isinstance(place, list) and len(place) == 2 and all(isinstance(n, int) for n in place)):
            raise InputError("config", f"{name}: {tensor[:60]!r} has no data_offsets")
        places.append((*place, tensor))
    end = 0
    for start, stop, tensor in sorted(places):
        if start < end or stop < start or stop > size - 8 - length:
            problem = f"{name}: {tensor[:60]!r} overlaps another tensor, or the file's end"
            raise InputError("config", problem)
        end = stop


def _table(content: bytes, name: str, largest: int = LARGEST) -> Mapping[str, Any]:
    if len(content) > largest:
        raise InputError("config", f"{name} has more than {largest:,} bytes")
    if not content.strip():
        raise InputError("config", f"{name} is empty")
    values = json.loads(content)
    if not isinstance(values, dict):
        raise InputError("config", f"{name} holds no table of settings")
    return values


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}"
    return "not text" if isinstance(error, UnicodeDecodeError) else str(error)[:80]
