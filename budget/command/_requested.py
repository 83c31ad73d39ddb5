"""The model that a command line asks about, of whatever names it, and how it runs."""

from __future__ import annotations

from argparse import Namespace

from ..errors import InputError, shown
from ..named import Any
from ._model import from_file, settings_from, source


def requested(args: Namespace, rest: list[str]) -> tuple[Any, dict[str, Any]]:
    """The requested model, and the arguments of `estimate` for it. Raises InputError."""
    if getattr(args, "run", None) is not None:
        from ._launched import launched

        return launched(args, rest)
    if args.module is None:
        if args.input:
            raise InputError("--input", "sizes of a torch module's input; allowed: with --module")
        model, rest = source(args, rest)
        return model, settings_from(model, args, rest)
    if rest or args.arch is not None or args.config is not None:
        got = shown(rest[0] if rest else "--arch" if args.arch is not None else "--config")
        problem = "a file's module has no preset, --arch, --config or flags of its own"
        raise InputError("--module", f"{problem}; got {got}")
    return from_file(args.module, args)
