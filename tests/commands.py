"""A command in this process."""

from budget.__main__ import main


def run(capsys, *args):
    """A command's exit status, its output and its errors."""
    status = main(list(args))
    return status, *capsys.readouterr()
