"""`budget formula`: parameters and FLOPs as closed formulas of batch, length and chosen settings."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from .. import arch as architectures
from ..config import Field, Settings, Workload, check
from ..errors import InputError, unknown
from ..fold.count import flops, params
from ..named import Any
from ..plan.backward import backward
from ._model import DEFAULT_ARCH, architecture_flags

HELP = "closed formulas for parameters and FLOPs"
EXAMPLES = """examples:
  budget formula --arch transformer
  budget formula --arch transformer --free layers,d_model,vocab
  budget formula --arch rnn --free hidden_size,layers

--free names the settings that stay symbols; all others take their values.
Batch, length and image are always symbols where the architecture has them.
"""


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--arch", default=DEFAULT_ARCH, metavar="A", help=f"an architecture ({DEFAULT_ARCH})")
    parser.add_argument("--free", metavar="NAMES", help="settings that stay symbols, by commas")


def run(args: Namespace, rest: list[str]) -> int:
    """Print one formula a line."""
    try:
        import sympy
    except ImportError:
        raise InputError("formula", "needs SymPy: pip install 'compute-budget[symbolic]'") from None
    module = architectures.load(args.arch)
    fixed = architecture_flags(module.Config, args, rest)
    free = args.free.split(",") if args.free else []
    config = _config(module.Config, fixed, free, sympy)
    batch, seq, image = sympy.symbols("batch seq image", positive=True, integer=True)
    try:
        forward = module.build(config, Workload("forward", batch, seq, image))
        trained = backward(module.build(config, Workload("train", batch, seq, image)))
    except (TypeError, ValueError) as error:
        raise InputError(
            "--free", f"these settings cannot stay symbols here: {', '.join(free)} ({error})"
        ) from None
    for name, value in (
        ("parameters", params(forward).total),
        ("forward FLOPs", flops(forward).forward),
        ("step FLOPs", flops(trained).forward + flops(trained).backward),
    ):
        print(f"{name} = {sympy.factor_terms(sympy.expand(value))}")
    return 0


def _config(cls: type[Settings], fixed: dict[str, Any], free: list[str], sympy: Any) -> Any:
    """A Config with some fields as symbols. Checks of values do not apply to symbols."""
    fields = cls.fields
    for name in free:
        if name not in fields:
            raise unknown("--free", name, fields)
        if fields[name].type != "int":
            raise InputError("--free", f"{name} is not a size; allowed: {', '.join(_sizes(fields))}")
    values = {name: check(fields[name], value) for name, value in fixed.items()}
    symbols = {name: sympy.Symbol(name, positive=True, integer=True) for name in free}
    return cls(**{**values, **symbols})


def _sizes(fields: Mapping[str, Field]) -> list[str]:
    return [name for name, f in fields.items() if f.type == "int"]
