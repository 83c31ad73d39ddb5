"""`budget goodput`: the part of a run's time that is training, when devices fail."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import InputError, unknown
from ..goodput import CHECKPOINT_S, DEVICE_MTBF_S, RESTART_S, Goodput, goodput, young
from ..report._answer import Answer, Column, Table
from ..report._units import seconds
from ._model import output_flags, write

HELP = "the part of a long run that is training: failures, checkpoints"
EXAMPLES = """examples:
  budget goodput --devices 16384              devices fail as often as Llama 3's
  budget goodput --devices 1024 --checkpoint 120 --restart 1800
  budget goodput --devices 1024 --interval 3600            a checkpoint an hour
"""
SCHEMA = "budget.goodput/1"


def flags(parser: ArgumentParser) -> None:
    """Add the command's flags."""
    add = parser.add_argument
    add("--devices", metavar="N", default="1024", help="devices of the job (1024)")
    add(
        "--mtbf",
        metavar="HOURS",
        help=f"of a device between failures ({DEVICE_MTBF_S / 3600:,.0f}: Llama 3's)",
    )
    add("--checkpoint", metavar="S", help=f"training stands still for one ({CHECKPOINT_S:g}, assumed)")
    add("--restart", metavar="S", help=f"from a failure to training again ({RESTART_S:g}, assumed)")
    add("--interval", metavar="S", help="of training between two checkpoints (the best)")
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the goodput."""
    if rest:
        raise unknown("flag", rest[0], ("--devices", "--mtbf", "--checkpoint", "--restart", "--interval"))
    hours = _number("--mtbf", args.mtbf)
    found = goodput(
        int(_number("--devices", args.devices) or 0),
        device_mtbf_s=DEVICE_MTBF_S if hours is None else hours * 3600,
        checkpoint_s=_or(_number("--checkpoint", args.checkpoint), CHECKPOINT_S),
        restart_s=_or(_number("--restart", args.restart, least=0), RESTART_S),
        interval_s=_number("--interval", args.interval),
    )
    write(_answer(int(args.devices), found, "" if hours else "a device's failures: Llama 3's"), args)
    return 0


def _number(flag: str, text: str | None, least: float = 1e-9) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < 1e15 or (flag == "--devices" and value % 1):
        raise InputError(
            flag, f"got {text[:40]!r}; allowed: {'whole ' if flag == '--devices' else ''}numbers above 0"
        )
    return value


def _or(value: float | None, usual: float) -> float:
    return usual if value is None else value


def _answer(devices: int, g: Goodput, foot: str) -> Answer:
    rows = [
        ("training", g.fraction),
        ("checkpoints", g.checkpoints),
        ("lost and done again", g.lost),
        ("restarts", g.restarts),
    ]
    table = Table((Column("what", "what"), Column("fraction", "of the time", lambda x: f"{x:.1%}")), rows)
    often = f"a failure every {seconds(g.mtbf_s)}, {g.failures_per_day:,.3g} a day"
    usual = seconds(young(g.checkpoint_s, g.mtbf_s))
    best = f"a checkpoint every {seconds(g.interval_s)} of training (Young's formula: {usual})"
    return Answer(
        data=lambda: {
            "schema": SCHEMA,
            "devices": devices,
            "failures_per_day": g.failures_per_day,
            **g._asdict(),
        },
        records=lambda: table,
        text=lambda: f"goodput {g.fraction:.1%} on {devices:,} devices\n{often}\n{best}",
        tables=lambda: (table,),
        foot=foot,
    )
