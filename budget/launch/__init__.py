"""Launch files of trainers and servers, to the arguments of `estimate`: one file a format, found by its name.

A format's file has
- `is_mine(table)`: whether a file's table is of this format
- `STACK`: the software that it is for, `--stack` of its run unless the file names another
- `FIELDS`: by a field's path (`training.seq_len`), what it means: a name of `estimate`'s arguments, or a
  function of its value that gives some
- `SILENT`: beginnings of the fields that change neither counts nor bytes: logs, paths, learning rates
- `finish(run)`, where there is one: settings that follow from several fields, and `unsaid`, a list of
  what no field says

Nothing of a file is run, and no tag constructs an object. A field that is neither in FIELDS nor SILENT is
named in the answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType

from ..errors import InputError, shown, some
from ..found import modules
from ..layout import Layout
from ..named import Any, NamedTuple
from ..read import preset
from ._shared import Beside
from ._table import called, is_command, load
from ._unread import why

CALLER = ("nnodes", "nproc_per_node", "gradient_accumulation_steps")  # a script's caller often sets these
ROOTS = ("/", ".", "~", "$")  # beginnings of a path, and of no name on the hub
FILE = re.compile(r"([-.]fp?16)?(-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)  # the end of a file's name
FILES = ("deepspeed", "config_file")  # fields that are paths of other launch files
CONFIGURES = ("config", "extra_llm_api_options")  # a server's fields that are paths of files of its flags
PROGRAMS = ("stack", "model", "mode", "batch", "global")  # settings of such a file that are the program's own
AUTO = ("auto", None, "null", "none", "")  # left to the framework, or not used


class Run(NamedTuple):
    """What a launch file asks for.

    model: a preset's or an architecture's name, a path, a hub's name, or "". config: settings of it.
    settings: arguments of `estimate`. layout: degrees as the file has them: fsdp is dp with zero 3,
    devices all of them. global_batch: samples of all devices in a step. serving: an engine's bounds on many
    requests: the places of a replica, and the share of memory that it takes.
    """

    form: str
    model: str
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    layout: Mapping[str, int]
    read: tuple[str, ...]
    left: tuple[str, ...]
    global_batch: int | None = None
    serving: Mapping[str, Any] = {}

    def spread(self, asked: Mapping[str, Any], devices: Any = None) -> dict[str, Any]:
        """The settings of a Layout. Settings that are asked for win; where the file has a layout, so does a
        number of devices. Without `dp` where nothing sets it.
        """
        table = dict(self.layout)
        if table and isinstance(devices, int):
            table["devices"] = devices
        devices, inner = table.pop("devices", None), table.pop("fsdp", None)
        if inner is not None:
            copies = table.pop("dp", 1)
            table["zero"] = 3
            if inner > 0:
                table |= {"dp": copies * inner} | ({"shard": inner} if copies > 1 else {})
        table |= asked
        if devices and "dp" not in table:
            others = table.get("tp", 1) * table.get("pp", 1) * table.get("cp", 1)
            table["dp"] = max(devices // others, 1)
        return table


def read(path: str) -> Run:
    """The run of a launch file, or of a command in its place. Raises InputError that names its own field."""
    form, settings, known, left = _read(path)
    return _run(form, settings, known, left)


def _read(path: str, *, whole: bool = True) -> tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """A launch file's format, its settings, and the fields that are read and that are left. whole: with the
    files that it names. Raises InputError.
    """
    table = _configured(_plain(load(path)), path)
    form, module = next(((name, m) for name, m in _formats() if m.is_mine(table)), ("", None))
    if module is None:
        kind = "neither a file that is here nor a known command" if is_command(path) else "of no known format"
        said = why(path) or f"is {kind}; allowed: {some(n for n, _ in _formats())}"
        raise InputError("--run", f"{called(path)} {said}")
    if whole:
        table |= _beside(table, path)
    settings: dict[str, Any] = {}
    known, left = [], []
    for field, value in _flat(table):
        meaning = module.FIELDS.get(field)
        if meaning is None:
            if not field.startswith(module.SILENT) and value not in (*AUTO, False, [], {}):
                left.append(field)
            continue
        if value is None or (isinstance(value, str) and value.lower() in AUTO):
            continue
        if "$" in str(value).rpartition("/")[2] and (field in CALLER or "serves" in table):
            left.append(f"{field} (its caller's)")
            continue
        known.append(f"{field} {shown(value, 30)}")
        if isinstance(value, Beside):
            known += value.known
            left += value.left
        try:
            _add(settings, {meaning: value} if isinstance(meaning, str) else meaning(value))
        except InputError as error:
            problem = str(error).removeprefix(f"{error.field}: ")
            raise InputError(field, problem) from None
        except (TypeError, ValueError, AttributeError):
            raise InputError(field, f"got {shown(value)}, which is not of its kind") from None
    if hasattr(module, "finish"):
        settings = module.finish(settings)
    left += settings.pop("unsaid", ())
    settings = {"stack": module.STACK, **settings}
    return form, settings, tuple(known), tuple(left)


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).replace("-", "_"): value for name, value in table.items()}


def _here(value: Any, path: str) -> str | None:
    """The path of a file that a launch file names, from its folder or this one; None where there is none."""
    if not isinstance(value, str) or not value.endswith((".json", ".yaml", ".yml")):
        return None
    return next(filter(os.path.isfile, (os.path.join(os.path.dirname(path), value), value)), None)


def _configured(table: dict[str, Any], path: str) -> dict[str, Any]:
    """A server's flags, with those that its file has: flags win over vLLM's --config, and TensorRT-LLM's
    extra options over flags. Sources: vllm-serve, trtllm-serve.
    """
    for field in CONFIGURES if "serves" in table else ():
        if place := _here(table.get(field), path):
            table = {name: value for name, value in table.items() if name != field}
            from_file = _plain(load(place))
            table = {**from_file, **table} if field == "config" else {**table, **from_file}
    return table


def _beside(table: Mapping[str, Any], path: str) -> dict[str, Beside]:
    """The fields that name a launch file that is here (from the file's folder or this one), and its
    settings.
    """
    files: dict[str, Beside] = {}
    for name in FILES:
        if place := _here(table.get(name), path):
            other = files[name] = Beside(table[name])
            other.form, settings, other.known, other.left = _read(place, whole=False)
            other.settings = {field: x for field, x in settings.items() if field not in PROGRAMS}
    return files


def _add(settings: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add one more field's settings; several fields may each name some fused kernels."""
    if "fuse" in settings and "fuse" in more:
        more = {**more, "fuse": f"{settings['fuse']},{more['fuse']}"}
    settings |= more


def _run(form: str, flat: Mapping[str, Any], known: tuple[str, ...], left: tuple[str, ...]) -> Run:
    parts: dict[str, dict[str, Any]] = {"config": {}, "layout": {}, "serving": {}}
    settings: dict[str, Any] = {}
    for name, value in flat.items():
        head, _, rest = name.partition(".")
        if rest:
            parts[head][rest] = value
        elif value not in AUTO:
            settings[name] = value
    model, whole = str(settings.pop("model", "")), settings.pop("global", None)
    usual = {name: field.default for name, field in Layout.fields.items()}
    layout = {
        axis: n
        for axis, n in parts["layout"].items()
        if axis == "sp" or n not in (0, None, usual.get(axis, 1))
    }
    settings = {"mode": "train", **settings}
    model, few = _at_hand(model)
    settings = {**few, **settings}
    return Run(form, model, parts["config"], settings, layout, known, left, whole, parts["serving"])


def _at_hand(model: str) -> tuple[str, dict[str, str]]:
    """A model's name as it can be found here: for a path on another machine the preset with the name of its
    last part; and the format in few bits that a name contains.
    """
    if os.path.exists(model) or (preset.known(model) and not model.startswith(ROOTS)):
        return model, {}
    last = FILE.sub("", model.rstrip("/").rpartition("/")[2])
    for name in (last, last.partition("_")[2]):  # bartowski's files begin with the owner's name
        if preset.known(name) and (model.startswith(ROOTS) or model.endswith(".gguf")):
            return name, {}
        if named := preset.few_bits(name):
            return named[0], {"quantize": named[1]}
    return model, {}


def _flat(table: Mapping[str, Any], path: str = "", deep: int = 0) -> Iterator[tuple[str, Any]]:
    """Fields by their paths: tables are walked, lists are values."""
    for name, value in table.items():
        if isinstance(value, Mapping) and value and deep < 8:
            yield from _flat(value, f"{path}{name}.", deep + 1)
        else:
            yield f"{path}{name}", value


def _formats() -> Iterator[tuple[str, ModuleType]]:
    names = (name for name in modules(__path__[0]) if not name.startswith("_"))
    return ((name, import_module(f"{__name__}.{name}")) for name in names)
