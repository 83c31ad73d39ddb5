"""`python -m budget COMMAND ...`: answers on standard output, one line on standard error if not.

Exit status: 0 answered; 1 asked a yes-or-no question and the answer is no; 2 bad usage or input.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from .errors import InputError, unknown
from .named import NoReturn

INTRO = """What a network costs before it runs: parameters, FLOPs, memory, time, money.

commands:
{commands}

examples:
  budget estimate --arch transformer
  budget estimate llama-3-8b --batch 4 --seq 8192 --device h100
  budget estimate --config config.json --mode decode --batch 32
  budget compare resnet50 vit-b-16 convnext-tiny
  budget COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks how a command line goes on
        from .command.completion import complete

        complete()
    try:
        status = _run(args)
        sys.stdout.flush()  # here, so that a closed pipe is noticed here
    except InputError as error:
        print(f"budget: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:  # of standard output: its reader is gone, or its disk is full
        if error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        if isinstance(error, BrokenPipeError):
            return 0
        print(f"budget: output: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("budget: interrupted", file=sys.stderr)
        return 130
    return status


def _run(args: list[str]) -> int:
    if sys.stdout is None:
        raise InputError("output", "standard output is closed; allowed: an open one")
    from . import command  # here, where Ctrl-C is one line
    from .command._parser import Parser

    if args[:1] == ["help"] and len(args) > 1:
        args = [args[1], "--help"]
    if not args or args[0] in ("-h", "--help", "help"):
        lines = (f"  {name:<12}{command.load(name).HELP}" for name in command.names())
        print(INTRO.format(commands="\n".join(lines)))
        return 0
    if args[0] in ("--version", "-V", "version"):
        from . import __version__

        print(f"compute-budget {__version__}")
        return 0
    if args[0] not in command.names():
        raise unknown("command", args[0], command.names(), _way(args[0]))
    module = command.load(args[0])
    parser = Parser(
        prog=f"budget {args[0]}",
        description=module.HELP[0].upper() + module.HELP[1:] + ".",
        epilog=module.EXAMPLES,
    )
    module.flags(parser)
    known, rest = parser.parse_known_args(args[1:])
    if rest and not parser.open:
        from .command._left_over import left_over

        raise left_over(rest, parser.flags(), f"allowed: those of budget {args[0]} --help")
    status: int = module.run(known, rest) if parser.open else module.run(known)
    return status


def _way(name: str) -> str:
    """What to type for a model that stands where a command does; else nothing."""
    from .read import preset

    try:
        preset.look_up(name)
    except InputError:
        return ""
    return f"a model's name follows a command: budget estimate {name}"


def program() -> NoReturn:
    """The process: `main`, without what takes a tenth of one as short as this: looking for garbage on the
    way, and tidying up at the end.
    """
    gc.set_threshold(200_000)
    status = main()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    program()
