"""argparse as all commands have it: errors of one line, help of one width, and flags made when wanted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable

from ..errors import InputError
from ..named import Any, NoReturn


class Help(RawDescriptionHelpFormatter):
    """Help of a known width: argparse asks the terminal otherwise, which costs an import of shutil."""

    def __init__(self, prog: str):
        super().__init__(prog, width=79)


class Parser(ArgumentParser):
    """A parser of which some flags are made only for its help and where a flag is left over.

    later: adds those flags to the parser. Every answer waits for what is imported for them.
    """

    later: Callable[[Parser], None] | None = None

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=Help, allow_abbrev=False, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Namespace, list[str]]:  # type: ignore[override] # no namespace but argparse's
        """argparse's own, once more with all flags where one is left over."""
        known, rest = super().parse_known_args(args, namespace)
        if self.later and any(word.startswith("--") for word in rest):
            self._complete()
            return super().parse_known_args(args, namespace)
        return known, rest

    def format_help(self) -> str:
        """argparse's own, with all flags."""
        self._complete()
        return super().format_help()

    def _complete(self) -> None:
        later, self.later = self.later, None
        if later:
            later(self)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        field, _, problem = message.removeprefix("argument ").partition(": ")
        raise (
            InputError(field, problem)
            if problem
            else InputError("usage", f"{message}; see {self.prog} --help")
        )
