"""`budget completion`: what a shell needs to complete commands, flags and names."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .. import arch as architectures
from .. import device, report, stack
from ..errors import InputError
from ..named import Any
from ..read import preset
from . import load, names
from ._parser import Parser

HELP = "completion of commands, flags and names for bash, zsh and fish"
EXAMPLES = """examples:
  eval "$(budget completion bash)"              in ~/.bashrc
  eval "$(budget completion zsh)"               in ~/.zshrc
  budget completion fish | source               in ~/.config/fish/config.fish
"""
SHELLS = ("bash", "zsh", "fish")
# What a flag's value may be, besides what its own choices say.
VALUES = {
    "arch": architectures.names,
    "device": device.names,
    "format": report.names,
    "stack": stack.names,
}


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("shell", nargs="?", help=", ".join(SHELLS))


def run(args: Namespace) -> int:
    """Print the shell's code."""
    if args.shell not in SHELLS:
        raise InputError("shell", f"got {args.shell or 'nothing'}; allowed: {', '.join(SHELLS)}")
    print(_argcomplete().shellcode(["budget"], shell=args.shell))
    return 0


def complete() -> None:
    """Answer a shell that asks how a command line goes on, and end the process."""
    _argcomplete().autocomplete(whole())


def whole() -> ArgumentParser:
    """One parser of all commands with all their flags."""
    parser = ArgumentParser(prog="budget", add_help=False)
    each = parser.add_subparsers(parser_class=Parser)
    for name in names():
        module = load(name)
        parser_of: Any = each.add_parser(name)
        module.flags(parser_of)
        parser_of.complete()
        if parser_of.open and not parser_of._get_positional_actions():  # noqa: SLF001 # words of its own
            parser_of.add_argument("model", nargs="*").completer = lambda **_: preset.names()
        for action in parser_of._actions:  # noqa: SLF001 # argparse tells them nowhere else
            if action.dest in VALUES:
                action.completer = lambda values=VALUES[action.dest], **_: values()
    return parser


def _argcomplete() -> Any:
    try:
        import argcomplete
    except ImportError:
        raise InputError(
            "completion", "needs argcomplete: pip install 'compute-budget[completion]'"
        ) from None
    return argcomplete
