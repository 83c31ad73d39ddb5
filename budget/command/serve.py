"""`budget serve`: the time of a request, and how many are answered, for several numbers of users."""

from __future__ import annotations

from argparse import Namespace

from ..errors import InputError, wrong
from ..named import Any
from ..report._serving import answer
from ..serving.requests import serve
from ..serving.served import SHARES
from ._heeded import heeded
from ._lists import sizes
from ._model import source_flags, workload_flags
from ._output import output_flags, write
from ._parser import Parser
from ._priced import TERMS
from ._requested import requested

HELP = "the time of a request, and how many are answered, by the users"
EXAMPLES = """examples:
  budget serve llama-3-8b --device h100 --context 2k --output-tokens 500
  budget serve llama-3-70b --device h100 --layout tp=4 --context 8k --users 1,64
  budget serve llama-3-8b --device l40s --quantize int8 --ttft 1 --tpot 0.05
  budget serve llama-3-8b --device l40s --context 1k --rate 20 --tpot 50ms
  budget serve --run compose.yaml --device h100      or serve.sh: vllm serve ...

--ttft and --tpot are limits (0.2, 200ms): the answer has the most users within,
and for --rate, requests a second, the devices that are needed.
"""


def flags(parser: Parser) -> None:
    """Add the command's flags."""
    source_flags(parser)
    workload_flags(parser)
    add = parser.add_argument
    add("--context", metavar="N", help="tokens of a prompt (4096, or what the network's length leaves)")
    add("--output-tokens", metavar="N", default="256", help="tokens of an answer (256)")
    add(
        "--users", metavar="N", help="requests at a time, as 8, 1,2,4 or 1..64 (as many as there is room for)"
    )
    add("--ttft", metavar="S", help="most seconds to the first token")
    add("--tpot", metavar="S", help="most seconds a token after it")
    add("--rate", metavar="N", help="requests a second that are to be answered, within these limits")
    add("--share", metavar="S", help="part of the memory that the engine takes (vLLM 0.92, others all)")
    add("--cache-share", metavar="S", help="part of what is left then that the cache takes (TensorRT-LLM)")
    add(
        "--step-tokens",
        metavar="N",
        help="most tokens of prompts in one step (2048; from 70 GiB on 8192)",
    )
    add("--price", metavar=TERMS["price"][0], help=TERMS["price"][1])
    output_flags(parser)


def run(args: Namespace, rest: list[str]) -> int:
    """Print the points."""
    model, settings = requested(args, rest)
    users = sizes("--users", args.users)
    if args.run is not None:
        settings = _bounds(args, settings)
    for name in ("share", "cache_share"):
        if (text := getattr(args, name)) is not None:
            settings = {**settings, name: _share(name, text)}
    if args.step_tokens is not None:
        settings = {**settings, "step_tokens": _one("--step-tokens", args.step_tokens)}
    serving = serve(
        model,
        context=None if args.context is None else _one("--context", args.context),
        output_tokens=_one("--output-tokens", args.output_tokens),
        users=() if users is None else users if isinstance(users, list) else [users],
        ttft=args.ttft,
        tpot=args.tpot,
        rate=args.rate,
        price=args.price,
        **settings,
    )
    heeded(args, serving.prefill)
    write(answer(serving), args)
    return 0


def _bounds(args: Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with what a line that starts a server says of many requests."""
    run = args.run
    if run.settings["mode"] == "train":
        raise InputError("--run", f"{run.form} trains; allowed: a line that starts a server")
    length = run.settings.get("seq") if args.seq is None else None
    settings = {**settings, "seq": settings["seq"] if length is None else None, "length": length}
    if settings.get("layout") is None and settings.get("devices") is None:
        settings = {**settings, "devices": 1}  # as the line has it
    given = {name: value for name, value in run.serving.items() if getattr(args, name, None) is None}
    return {**settings, **given}


def _share(name: str, text: str) -> float:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise InputError(f"--{name.replace('_', '-')}", f"got {text!r}; allowed: {SHARES}") from None


def _one(field: str, text: str) -> Any:
    value = sizes(field, text)
    if isinstance(value, list):
        raise wrong(field, text, "one number")
    return value
