"""Tables of published measurements: read and checked, and told apart by their columns."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

from budget.errors import InputError, shown
from budget.found import modules

Row = Mapping[str, str]
# What people call a column, beside its own name in other letters (`Batch size` is `batch_size`). No measured
# one is here: its unit is part of its name.
SPELLED = {
    "batch_size": "batch", "bs": "batch", "num_gpus": "n_gpus", "gpus": "n_gpus", "gpu_count": "n_gpus",
    "device": "gpu", "gpu_name": "gpu", "framework": "engine", "backend": "engine", "isl": "input_len",
    "prompt_len": "input_len", "prompt_tokens": "input_len", "input_tokens": "input_len", "osl": "output_len",
    "gen_len": "output_len", "new_tokens": "output_len", "output_tokens": "output_len", "seq_len": "seq",
    "sequence_length": "seq", "microbatch": "micro_batch", "micro_batch_size": "micro_batch",
    "per_device_batch_size": "micro_batch", "global_batch_size": "global_batch", "model_name": "model",
    "hardware": "gpu", "accelerator": "gpu", "gpu_type": "gpu", "gpu_model": "gpu",
    "number_of_gpus": "n_gpus", "ngpus": "n_gpus", "num_devices": "n_gpus", "software": "engine",
    "runtime": "engine", "inference_engine": "engine", "quantization": "weight_precision",
    "quant": "weight_precision", "weight_dtype": "weight_precision", "input_length": "input_len",
    "prompt_length": "input_len", "output_length": "output_len", "generated_tokens": "output_len",
    "seqlen": "seq", "max_seq_len": "seq", "max_seq_length": "seq", "mbs": "micro_batch",
    "gbs": "global_batch",
}  # fmt: skip
UNNAMED = ("id", "source")  # what a table may lack: rows are numbered then


def text_of(row: Row, *columns: str) -> str:
    """What a row's columns say, in small letters; where none is named, its engine, source and notes."""
    return " ".join(row.get(column, "") for column in columns or ("engine", "source", "notes")).lower()


def read(path: str) -> tuple[ModuleType, list[dict[str, str]]]:
    """The kind of a table, and its rows. Raises InputError that names the file, and its row and column."""
    name = os.path.basename(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = _columns(reader.fieldnames or ())
            columns, rows = tuple(reader.fieldnames), list(reader)
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError("table", f"cannot read {path}: {why}") from None
    kind = _kind(name, columns)
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            raise InputError("table", f"{name}: row {i + 2} does not have {len(columns)} columns")
        for column in kind.NUMBERS:
            _check(f"{name}: row {i + 2}, column {column}", row.get(column, ""), kind.WORDS)
    # What a table lacks is not stated.
    empty = dict.fromkeys((column for one in kinds() for column in (*one.COLUMNS, *one.NUMBERS)), "")
    empty |= {"id": "", "source": ""}
    filled = [{**empty, **row} for row in rows if any(row.values())]
    return kind, [{**row, "id": row["id"] or str(i + 1)} for i, row in enumerate(filled)]


def _columns(names: Sequence[str]) -> list[str]:
    """The columns of a table by the names that they have here; one that nobody knows as it is."""
    own = {column for kind in kinds() for column in (*kind.COLUMNS, *kind.NUMBERS, *kind.TELLS)}
    columns: list[str] = []
    for name in names:
        plain = re.sub(r"[\s/()-]+", "_", name.lower()).strip("_")
        known = plain if plain in own else SPELLED.get(plain, "")
        new = known in own and known not in names and known not in columns
        columns.append(known if new else name)
    return columns


def _check(where: str, text: str, words: tuple[str, ...]) -> None:
    if not text or text in words:
        return
    try:
        right = 0 <= float(text) < 1e30
    except ValueError:
        right = False
    if not right:
        raise InputError("table", f"{where}: got {shown(text)}; allowed: a number from 0 on, or nothing")


@cache
def kinds() -> tuple[ModuleType, ...]:
    """The kinds of tables: the files of this folder that have COLUMNS."""
    folder = os.path.dirname(os.path.abspath(__file__))
    files = (import_module(f"budget.bench.published.{name}") for name in modules(folder))
    return tuple(module for module in files if hasattr(module, "TELLS"))


def _kind(name: str, columns: tuple[str, ...]) -> ModuleType:
    """The kind whose own columns a table has. Raises InputError for none, and for a missing column."""
    known = [kind for kind in kinds() if set(kind.TELLS) <= set(columns)]
    if not known:
        nearest = max(kinds(), key=lambda kind: len({*kind.TELLS, *kind.COLUMNS} & set(columns)))
        lacks = ", ".join(
            c for c in dict.fromkeys((*nearest.TELLS, *nearest.COLUMNS)) if c not in (*columns, *UNNAMED)
        )
        some = "; ".join(", ".join(kind.TELLS) for kind in kinds())
        near = f"; nearest is {nearest.__name__.rpartition('.')[2]}'s, without {lacks}"
        problem = "no known kind of table" + near * any(c in columns for c in nearest.COLUMNS)
        raise InputError("table", f"{name}: {problem}; allowed: one with the columns {some}")
    missing = [column for column in known[0].COLUMNS if column not in (*columns, *UNNAMED)]
    if missing:
        verb = "is missing" if len(missing) == 1 else "are missing"
        raise InputError("table", f"{name}: column{'s' * (len(missing) > 1)} {', '.join(missing)} {verb}")
    return known[0]
