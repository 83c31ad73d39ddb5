"""`budget compare`: several networks, devices, batches or lengths side by side."""

from __future__ import annotations

import os
from argparse import Namespace

from .. import device
from ..comparison import compare
from ..errors import InputError
from ..report._comparison import answer
from ._heeded import heeded
from ._model import from_file, module_flag, settings_from, words, workload_flags
from ._output import output_flags, write
from ._parser import Parser, Several
from ._priced import priced, priced_flags

HELP = "several networks, devices, batches or lengths side by side"
EXAMPLES = """examples:
  budget compare resnet50 vit-b-16 convnext-tiny --batch 64
  budget compare llama-3-8b mixtral-8x7b --mode decode --batch 16 --seq 4096
  budget compare resnet50 --device v100,a100,h100 --batch 256
  budget compare llama-3-8b --mode decode --batch 1..256 --seq 8k
  budget compare llama-3-8b --mode decode --quantize q8_0,q4_k_m --device 4090
  budget compare llama-3-8b --device 64xh100,32xb200 --tokens 1T --price 2.1,4.5
  budget compare gpt2 gpt2-medium gpt2-large gpt2-xl --format json
  budget compare gpt2 --module path/file.py:factory --module path/file.py:other
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    parser.usage = f"{parser.prog} [MODEL ...] [--module FILE:FACTORY ...] [flags]"
    module_flag(parser, action="append", default=[])
    workload_flags(parser, lists=Several)
    priced_flags(parser)
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the comparison."""
    models, rest = words(rest)
    models = [name for word in models for name in ([word] if os.path.exists(word) else word.split(","))]
    if any(word.partition("=")[0] == "--run" for word in rest):
        raise InputError("--run", "compare takes models; allowed: budget estimate --run FILE --device A,B")
    if boards := [name for name in models if device.find(name)]:
        problem = "is a device; it has a flag, in one word"
        raise InputError("usage", f"{boards[0]!r} {problem}: --device h100,{boards[0]}")
    if not models and not args.module:
        raise InputError("usage", "name the models to compare")
    if rest and not models:
        raise InputError("--module", "a file's module has no flags of its own")
    named = [(name, settings_from(name, args, rest)) for name in models]
    named += [from_file(spec, args) for spec in args.module]
    estimates = priced([e for model, settings in named for e in compare(model, **settings)], args)
    heeded(args, *estimates)
    write(answer(estimates), args)
    return 0
