"""The argument parser of all commands: one-line errors, help 79 columns wide, and flags added on demand."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

from ..errors import InputError
from ..named import Any, NoReturn

# argparse has its headings translated by gettext, which takes as long to import as argparse itself.
PLAIN: Any = SimpleNamespace(gettext=str, ngettext=lambda one, many, n: one if n == 1 else many)
known = sys.modules.setdefault("gettext", PLAIN)
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter  # noqa: E402

if known is PLAIN:
    del sys.modules["gettext"]


class Help(RawDescriptionHelpFormatter):
    """Help of a fixed width: argparse would import shutil to ask the terminal."""

    def __init__(self, prog: str):
        super().__init__(prog, width=79)


class Several(Action):
    """A flag whose value is a list by commas; given again, its values follow."""

    def __call__(self, _: Any, args: Namespace, value: Any, _flag: str | None = None) -> None:
        """Keep the value."""
        before = getattr(args, self.dest, self.default)
        setattr(args, self.dest, value if before is self.default else f"{before},{value}")


class Parser(ArgumentParser):
    """A parser that adds some of its flags only if needed: for help, or if a flag was not recognized.

    later: the function that adds them. Importing what defines them would slow every command down.
    settled: whether arguments that were not recognized are no such flags. open: whether the command takes
    these: models, and the flags of their architectures. lists: whether its flags take lists, as compare's do.
    """

    later: Callable[[Parser], None] | None = None
    settled: Callable[[Namespace, list[str]], bool]
    open = False
    lists = False

    def __init__(self, **settings: Any):
        # argparse asks a formatter about each flag that is added: one is enough, without compiled patterns.
        bare = cache(lambda prog: Help.__new__(Help))
        super().__init__(formatter_class=bare, allow_abbrev=False, **settings)
        self._negative_number_matcher = re.compile(r"-[\d.$]")  # -128k is a value, too

    def flags(self) -> list[str]:
        """All flags."""
        return list(self._option_string_actions)

    def meanings(self) -> dict[str, str]:
        """What each long flag means, without its dashes, in its help's words."""
        self.complete()
        return {
            flag[2:]: a.help
            for a in self._actions
            for flag in a.option_strings
            if a.help and flag[:2] == "--"
        }

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Namespace, list[str]]:  # type: ignore[override] # no namespace but argparse's
        """As argparse's; if a flag is not recognized, all flags are added and the arguments parsed again."""
        known, rest = super().parse_known_args(args, namespace)
        if self.later and any(word.startswith("--") for word in rest) and not self.settled(known, rest):
            self.complete()
            return super().parse_known_args(args, namespace)
        return known, rest

    def format_help(self) -> str:
        """As argparse's, with all flags."""
        self.complete()
        self.formatter_class = Help
        return super().format_help()

    def complete(self) -> None:
        """Add the flags that are added on demand."""
        later, self.later = self.later, None
        if later:
            later(self)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        message = re.sub(
            r"the following arguments are required: (.+)", rf"\1: missing; see {self.prog} --help", message
        )
        field, _, problem = message.removeprefix("argument ").partition(": ")
        problem = re.sub(r"invalid choice: (.+) \(choose from (.+)\)", r"got \1; allowed: \2", problem)
        if problem.startswith("expected") and (allowed := self.meanings().get(field[2:])):
            problem = f"{problem}: {allowed}"
        raise (
            InputError(field, problem)
            if problem
            else InputError("usage", f"{message}; see {self.prog} --help")
        )
