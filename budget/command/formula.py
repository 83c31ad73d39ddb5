"""`budget formula`: parameters and FLOPs as closed formulas of batch, length and chosen settings."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from ..config import Field, Settings, Workload, check
from ..errors import InputError, unknown
from ..fold.count import flops, params
from ..ir import Model
from ..named import Any
from ..plan.backward import backward
from ..read.source import resolve
from ._model import DEFAULT_ARCH, architecture_flags, source
from ._parser import Parser

HELP = "closed formulas for parameters and FLOPs"
EXAMPLES = """examples:
  budget formula gpt2
  budget formula --arch transformer --free layers,d_model,vocab
  budget formula --arch rnn --free hidden_size,layers

--free names the settings that stay symbols; all others take their values.
Batch, length and image are always symbols where the architecture has them.
"""


ROUND = 32  # images whose sides are multiples of it have sides without remainders behind strides


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    parser.open = True
    parser.usage = f"{parser.prog} [PRESET | --arch A | --config FILE] [flags]"
    parser.add_argument("--arch", metavar="A", help=f"an architecture ({DEFAULT_ARCH})")
    parser.add_argument("--config", metavar="FILE", help="a config.json")
    parser.add_argument("--free", metavar="NAMES", help="settings that stay symbols, by commas")


def run(args: Namespace, rest: list[str]) -> int:
    """Print one formula a line."""
    try:
        import sympy
    except ImportError:
        raise InputError("formula", "needs SymPy: pip install 'compute-budget[symbolic]'") from None
    model, rest = source(args, rest)
    _, module, settings, *_ = resolve(model, {})
    fixed = {**vars(settings), **architecture_flags(module.Config, args, rest)}
    free = args.free.split(",") if args.free else []
    config = _config(module.Config, fixed, free, sympy)
    formulas = _formulas(module, config, free, sympy, ROUND)
    multiples = not any(value.has(sympy.floor) for value in formulas.values())
    if not multiples:
        formulas = _formulas(module, config, free, sympy, 1)
    for name, value in formulas.items():
        print(f"{name} = {sympy.factor_terms(sympy.expand(value))}")
    if multiples and any(
        value.has(sympy.Symbol("image", positive=True, integer=True)) for value in formulas.values()
    ):
        print(f"for images whose sides are multiples of {ROUND}")
    return 0


def _formulas(module: Any, config: Any, free: list[str], sympy: Any, multiple: int) -> dict[str, Any]:
    """Parameters and FLOPs, for images whose sides are `multiple` times something. Raises InputError."""
    batch, seq, image, part = sympy.symbols("batch seq image part", positive=True, integer=True)
    side = image if multiple == 1 else multiple * part
    try:
        forward = _built(module, config, Workload("forward", batch, seq, side))
        trained = flops(backward(_built(module, config, Workload("train", batch, seq, side))))
    except (TypeError, ValueError) as error:
        raise InputError(
            "--free", f"these settings cannot stay symbols here: {', '.join(free)} ({error})"
        ) from None
    formulas = {
        "parameters": params(forward).total,
        "forward FLOPs": flops(forward).forward,
        "step FLOPs": trained.forward + trained.backward,
    }
    return {name: sympy.sympify(value).subs(part, image / multiple) for name, value in formulas.items()}


def _built(module: Any, config: Any, w: Workload) -> Model:
    """The model; of an image as large as its positions, or of none, where they fix its size."""
    try:
        model: Model = module.build(config, w)
    except InputError as error:
        if error.field != "image":
            raise
        model = module.build(config, w._replace(image=0))
    return model


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
