"""What a launch file asks for, as the arguments of `estimate`, and as lines below an answer."""

from __future__ import annotations

from argparse import Namespace

from ..device import several
from ..errors import InputError, shown
from ..launch import read
from ..layout import settings as layout_settings
from ..named import Any
from ..read.source import resolve
from ..report._answer import Answer
from ._model import settings_from, source, words


def launched(args: Namespace, rest: list[str]) -> tuple[Any, dict[str, Any]]:
    """What a launch file trains and how; flags beside it win. Raises InputError where the two contradict."""
    if not args.run:
        raise InputError("--run", "got ''; allowed: a launch file, a command, or an adapter's folder")
    run = args.run = read(args.run)
    bare, _ = words(rest)
    if args.module is not None:
        raise InputError("--run", "a file's module has no launch file; allowed: a preset, --arch or --config")
    named = bool(bare or args.arch or args.config)
    if not (named or run.model):
        raise InputError("--run", f"{run.form} names no model; allowed: with a preset, --arch or --config")
    model, rest = source(args, rest) if named else (run.model, rest)
    asked = settings_from(model, args, rest)
    asked["device"], asked["devices"] = several(asked["device"], asked["devices"])
    preset = resolve(model, {})[2] if named and run.config else None
    for name, value in run.config.items():
        if preset is not None and getattr(preset, name, value) not in (value, 0):
            problem = f"has {name} {shown(value)}, and {shown(model)} {shown(getattr(preset, name))}"
            raise InputError("--run", f"{problem}; allowed: one of the two")
    unsaid = {name for name in ("mode", "recompute", "device") if getattr(args, name) is None}
    given = {k: v for k, v in asked.items() if v not in (None, {}) and k not in unsaid}
    config = {} if named else dict(run.config)
    settings = {**asked, **run.settings, **given, "config": {**config, **asked["config"]}}
    if (run.settings["mode"] == "train") != (settings["mode"] == "train") and not asked["stack"]:
        settings["stack"] = None  # the file's is for the other
    args.spread = table = run.spread(layout_settings(asked["layout"] or ""), asked["devices"])
    if table:
        settings["layout"] = table
    single = settings["global_batch"] is None and settings.get("accumulate", 1) == 1
    if single and "dp" in table:
        settings["global_batch"] = run.global_batch
    return model, settings


def with_launch_file(shown: Answer, args: Namespace) -> Answer:
    """The answer with what its launch file says, and what of it is not modelled; a list in JSON as it is."""
    run, text = args.run, shown.text
    layout = tuple(f"{axis} {n}" for axis, n in run.layout.items())
    unsaid = "" if "dp" in args.spread else "; dp is not said: --layout dp=N"
    lines = [f"run         {run.form}: {', '.join(run.read)}"]
    if layout:
        lines.append(f"in the file {', '.join(layout)}{unsaid}")
    if run.serving:
        lines.append(f"for serving {', '.join(f'{name} {value}' for name, value in run.serving.items())}")
    if run.left:
        lines.append(f"not modelled  {', '.join(run.left)}")
    about = {
        "form": run.form, "read": list(run.read), "layout": dict(run.layout), "serving": dict(run.serving),
        "left": list(run.left),
    }  # fmt: skip

    def data() -> Any:
        answer = shown.data()
        return answer if isinstance(answer, list) else {**answer, "run": about}

    return shown._replace(text=lambda: "\n".join([text(), *lines]), data=data)
