"""`budget goodput`: the part of a run's time that is training, when devices fail."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ..errors import wrong
from ..quantity import DEVICES, HOURS, SECONDS, read
from ..report._answer import Answer, Column, Table
from ..report._units import seconds
from ..runs.failures import CHECKPOINT_S, DEVICE_MTBF_S, RESTART_S, Goodput, goodput, young
from ._output import output_flags, write

HELP = "the part of a long run that is training: failures, checkpoints"
EXAMPLES = """examples:
  budget goodput --devices 16384              devices fail as often as Llama 3's
  budget goodput --devices 1024 --checkpoint 2min --restart 30min
  budget goodput --devices 1024 --interval 3600            a checkpoint an hour
"""


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


def run(args: Namespace) -> int:
    """Print the goodput."""
    devices = read("--devices", args.devices, DEVICES)
    if devices % 1:
        raise wrong("--devices", args.devices, "whole numbers above 0")
    useful = goodput(
        int(devices),
        device_mtbf_s=3600 * read("--mtbf", args.mtbf or DEVICE_MTBF_S / 3600, HOURS),
        checkpoint_s=read("--checkpoint", args.checkpoint or CHECKPOINT_S, SECONDS),
        restart_s=read("--restart", args.restart or RESTART_S, SECONDS, zero=True),
        interval_s=None if args.interval is None else read("--interval", args.interval, SECONDS),
    )
    write(_answer(useful, "" if args.mtbf else "a device's failures: Llama 3's"), args)
    return 0


def _answer(g: Goodput, foot: str) -> Answer:
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
        data=g.to_dict,
        records=lambda: table,
        text=lambda: f"goodput {g.fraction:.1%} on {g.devices:,} devices\n{often}\n{best}",
        tables=lambda: (table,),
        foot=foot,
    )
