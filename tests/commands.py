"""A command in this process."""

from budget.__main__ import main


def run(capsys, *args):
    """Its exit status, what it says and its errors."""
    status = main(list(args))
    return status, *capsys.readouterr()
