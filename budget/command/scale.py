"""`budget scale`: backwards from a budget."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..quantity import COUNT, read
from ..report._alternatives import Extra
from ..report._scale import answer
from ..scaling.backwards import scale
from ..scaling.chain import Plan
from . import _priced as priced
from ._output import output_flags, write

HELP = "backwards from a budget: what to train, and what it takes"
EXAMPLES = """examples:
  budget scale --usd 1e6 --device h100
  budget scale --compute 1e24 --devices 1024
  budget scale --devices 512 --days 30d --price 2.5
  budget scale --params 8B --tokens 15T --device h100 --mfu 40%
  budget scale --loss 2.0 --device h100
  budget scale --kwh "400 MWh" --grid France
  budget scale --compute "2 EFLOP" --law mine.json      of budget fit-law
  budget scale --usd 1M --inference-tokens 10T --unique-tokens 200B
"""
BUDGETS = {
    "compute": ("FLOPS", "FLOPs of training: 1e24, '2 EFLOP', '3640 PF-days'"),
    "usd": ("$", "dollars: 1e6, 250k"),
    "kwh": ("E", "energy: 400000, '400 MWh'"),
    "loss": ("L", "the loss to reach, in nats a token of the law's data: 2.0"),
    "devices": ("N", "devices, laid out as a search finds best; with --days a budget"),
    "days": ("T", "30, 30d, '6 weeks', 12h"),
    "params": ("N", "parameters: 70B; with a budget, the size to train"),
    "tokens": ("D", "tokens: 15T; with a budget, what to train on"),
}
TERMS = {
    "device": ("D", "a device's name (h100)"),
    "dtype": ("T", "bf16, fp16, fp32 (bf16)"),
    "layout": ("L", "of the devices, as tp=8,pp=4,dp=16: communication is then in the MFU"),
    "global_batch": ("D", "on several devices: tokens of a step (4M)"),
    "law": ("L", "a law of budget/data/laws, or a file of fit-law (chinchilla)"),
    "mfu": ("M", "40%%, of 6 N D; else that of the estimate on one device"),
    **priced.TERMS,
}
ALSO = {
    "inference_tokens": ("D", "tokens that will be generated: what training and serving cost together"),
    "unique_tokens": ("D", "tokens that there are: what repeating them costs"),
    "experts": ("E", "mixtures of up to so many experts, beside a dense network"),
}


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    plan_flags(parser)
    output_flags(parser)


def plan_flags(parser: ArgumentParser) -> None:
    """Add the flags of a plan."""
    for title, group in (("budget", BUDGETS), ("terms", TERMS), ("also", ALSO)):
        added = parser.add_argument_group(title)
        for name, (metavar, text) in group.items():
            added.add_argument("--" + name.replace("_", "-"), metavar=metavar, help=text)


def run(args: Namespace) -> int:
    """Print the plan."""
    plan = planned(args)
    also = _numbers(args)
    write(answer(plan, Extra(also["inference_tokens"], also["unique_tokens"], also["experts"])), args)
    return 0


def planned(args: Namespace) -> Plan:
    """The plan that the flags ask for. Raises InputError."""
    settings = {k: getattr(args, k) for k in (*BUDGETS, *TERMS) if getattr(args, k) is not None}
    also = _numbers(args)
    return scale(**settings, unique_tokens=also["unique_tokens"], experts=also["experts"])


def _numbers(args: Namespace) -> dict[str, float | None]:
    given = {k: getattr(args, k) for k in ALSO}
    return {k: None if v is None else read(f"--{k.replace('_', '-')}", v, COUNT) for k, v in given.items()}
