"""Tables of inference: requests, prompts and tokens of one batch (inference.csv)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from budget import estimate
from budget.arch import takes_of
from budget.fitting.largest import largest
from budget.named import Any
from budget.read import preset
from budget.read.source import resolve
from budget.stack import load

from . import _versions as versions
from . import diffusion
from ._attention import written_out
from .formats import cache, weights
from .layouts import cluster
from .networks import captured, network, pictures, side
from .rows import Asked, NotCoveredError, Part, before, device, measured, stack, whole
from .software import differs, programs
from .table import Row, text_of

COLUMNS = (
    "id", "source", "model", "gpu", "n_gpus", "engine", "weight_precision", "batch", "input_len",
    "output_len",
)  # fmt: skip
TELLS = ("engine", "weight_precision")
NUMBERS = (
    "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "n_gpus", "tp", "pp", "ep",
    "batch", "input_len", "output_len", "ttft_ms", "tpot_ms", "e2e_latency_ms", "decode_tok_s_total",
    "prefill_tok_s", "output_tok_s_total",
)  # fmt: skip
WORDS = ()
MEASURED = NUMBERS[-6:]
# Tokens of a prompt where a row does not say: those of a question, AccelMark's median. Source: accelmark.
SHORT = 64
FLASH = re.compile(r"\b(?:fa|flash[-_ ]att(?:n|ention))[ =:]*(?:(1|on)|0|off)\b")
# Words for an engine without CUDA graphs (its host starts the kernels), and for torch.compile with them
# (GRAPHS). Source: torch-compile.
NO_GRAPHS = re.compile(r"enforce[-_ ]eager|(?:without|no|disable)[-_ ](?:cuda[-_ ]?)?graph")
# Words for a benchmark without a server.
OFFLINE = re.compile(r"bench_latency|bench_one_batch(?!_server)|offline|text-generation-benchmark")
GRAPHS = re.compile(r"cuda[-_ ]?graph|reduce-overhead|max-autotune")
# A batch whose prompts are not equally long has a mask, with which SDPA takes no grouped heads: they are
# copied. Source: transformers.
PADDED = re.compile(r"\bpadded\b")
# Tokens that llama-bench puts into the cache first. Source: llama-cpp.
DEPTH = re.compile(r"\b(?:llama-bench -d|(?:pp|tg)\d+ ?@ ?d) ?(\d+)\b")

# Tokens at a prompt's beginning that a server kept from an earlier one: a benchmark's random prompts of one
# seed begin alike, whatever their lengths. Source: vllm-random-prompts.
KEPT = re.compile(r"\b([\d,]+) of its tokens are kept\b")


def asked(row: Row) -> Iterator[Asked]:
    """What a row measured, and what predicts it. Raises NotCoveredError."""
    on, gpus, software = device(row["gpu"]), whole(row, "n_gpus"), stack(row)
    software = differs(software).get("serves", software)
    model, config = network(row, software, 0)
    texts = (row["input_len"] or _speaks(row, model)) and _generates(model)
    if texts:
        software = differs(software).get("generates", software)
        software = _as_graph(row, software)
    stages = gpus if load(software).by_layers and whole(row, "tp", 1) == 1 else 1
    if gpus != whole(row, "tp", gpus // stages) * stages:
        raise NotCoveredError("stages on several devices")
    batch = whole(row, "batch")
    form = weights(row["weight_precision"], "weight_precision", software, row["engine"])
    settings = {"device": on, "stack": software, "batch": batch, **form}
    if not form:  # as its files are
        model = _published(model)
    if gpus > stages:
        settings |= {"device": on.id, "layout": {"tp": gpus, "sp": 0}, "cluster": cluster(row)}
    settings |= _kernels(row, software, settings.get("quantize", ""))
    if texts:
        settings |= cache(row, settings)
    else:  # which keeps none
        settings.pop("kv_dtype", None)
    settings |= _graphs(row["engine"].lower(), software)
    settings["config"] = config
    if texts:
        yield from _tokens(row, model, settings, stages)
    elif diffusion.denoiser(model):
        yield from _encoded(row, diffusion.parts(row, model, settings), batch)
    else:
        settings |= {**_exported(row, model, software), "mode": "forward"}
        length = whole(row, "input_len", 0)
        part = Part(model, {**_eight(settings), "seq": length} if length else _pictures(row, settings))
        yield from _encoded(row, (part,), batch)


def _graphs(engine: str, software: str) -> dict[str, Any]:
    """What starts the kernels, where a row says that it is not its software's usual way."""
    compiled = (load(software).serve or {}).get("execution") == "compiled"
    if NO_GRAPHS.search(engine):
        return {} if compiled else {"execution": "fused"}
    return {"execution": "graph"} if compiled and GRAPHS.search(engine) else {}


def _as_graph(row: Row, software: str) -> str:
    """The stack for a row that says that a token is one graph of compiled code, which needs a static cache.
    Source: transformers-static-cache.
    """
    words = text_of(row, "engine", "notes")
    graph = GRAPHS.search(words) and not NO_GRAPHS.search(words)
    return load(software).graphs or software if graph else software


def _published(model: Any) -> Any:
    """The preset of a network in the few bits in which it is published; else the network."""
    known = preset.known(model) if isinstance(model, str) else None
    return known[1].get("published", model) if known else model


def _attends(row: Row, software: str) -> dict[str, Any]:
    """Whether the attention of prompts is a kernel or writes its scores to memory, in software that can do
    both: as the row says, else as was usual in its month.
    """
    since, flag = differs(software).get("flash"), FLASH.search(row["engine"].lower())
    if not since:
        return {}
    kernel = bool(flag[1]) if flag else not before(row, software, tuple(since))
    return {"attention": "flash" if kernel else "eager"}


def _kernels(row: Row, software: str, form: str) -> dict[str, Any]:
    """Settings for kernels of a format's weights that are not its software's usual ones, by a row's words or
    version.
    """
    for way in differs(software).get("kernels", {}).get(form, ()):
        words, engine = way.get("words"), f"{row['engine']} {row['weight_precision']}".lower()
        if re.search(words, engine) if words else before(row, software, tuple(way["before"])):
            return dict(way["settings"])
    return {}


def _eight(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a text encoder: a calibrating tool multiplies its linear layers int8 by int8."""
    eight = settings.get("quantize") == "int8" and differs(settings["stack"]).get("calibrated")
    return {**settings, "quantize": "w8a8"} if eight else settings


def _pictures(row: Row, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a batch of pictures. Raises NotCoveredError for a decoder without lengths."""
    if row.get("hidden"):
        raise NotCoveredError("lengths are not stated")
    if settings.get("quantize") == "int8" and differs(settings["stack"]).get("calibrated"):
        settings = {k: v for k, v in settings.items() if k != "quantize"} | {"dtype": "int8"}
    pixels = side(row)
    return {**settings, **pictures(row), **({"image": pixels} if pixels else {})}


def _exported(row: Row, model: str, software: str) -> dict[str, Any]:
    """Settings of attention that is written out: in software that runs an exported graph, unless a row says
    that it found a kernel; in torch, where a row says so or its version had no kernel yet. Sources:
    onnxruntime-optimizer, tensorrt-attention, torch-sdpa.
    """
    kernel = differs(software).get("attends")
    if captured(model):
        return {}
    if load(software).allocator == "torch":
        own: dict[str, Any] = next(iter(programs("predicts", text_of(row, "engine", "notes"))), {})
        return own | (versions.EAGER if written_out(row, software, "forward") else {})
    if not kernel or re.search(kernel, text_of(row, "engine", "notes")):
        return {}
    return {**versions.EAGER, **differs(software).get("exported", {})}


def _generates(model: str) -> bool:
    """Whether a network generates text, and is no encoder."""
    _, _, config, *_ = resolve(model, {})
    return getattr(config, "kind", "") != "encoder"


def _speaks(row: Row, model: str) -> bool:
    """Whether a row is about generated tokens although it does not say how long prompts are: its network
    reads tokens, and it says how many are generated or how fast. Raises NotCoveredError where prompts were
    timed.
    """
    if not any(row[column] for column in ("output_len", "tpot_ms", "decode_tok_s_total")):
        return False
    if captured(model) or "seq" not in takes_of(resolve(model, {})[1]):
        return False
    if row["ttft_ms"] or row["prefill_tok_s"]:
        raise NotCoveredError("input_len is not stated")
    return True


def _encoded(row: Row, parts: tuple[Part, ...], batch: int) -> Iterator[Asked]:
    """What a row of pictures or of an encoder measured: the time of a batch, or samples a second."""
    if row["e2e_latency_ms"]:
        yield Asked("step_s", "s", measured(row, "e2e_latency_ms", 1e-3), parts)
    if row["output_tok_s_total"] or not row["e2e_latency_ms"]:
        rate = measured(row, "output_tok_s_total")
        yield Asked("samples_per_s", "samples/s", rate, parts, batch)


def _tokens(row: Row, model: Any, settings: dict[str, Any], stages: int) -> Iterator[Asked]:
    """What a row of generated text measured.

    stages: the devices over which llama.cpp divides the layers: they take turns with each token, while the
    pieces of a prompt follow each other through them. Source: llama-cpp-cublas.
    """
    start, new = whole(row, "input_len", SHORT), whole(row, "output_len", 0)
    batch, software = settings["batch"], settings["stack"]
    if model == "transformer" or "context" in settings["config"]:
        settings = {**settings, "config": {**settings["config"], "context": max(start + new, 1)}}
    engine = row.get("engine", "").lower()
    requests = differs(software).get("requests")
    depth = int(behind[1]) if (behind := DEPTH.search(text_of(row, "engine", "notes"))) else 0
    # From an empty context: halfway there are half of the new tokens.
    empty = requests is not None and not depth and not any(word in engine for word in requests)
    middle = new // 2 + (0 if empty else max(start, depth))
    padded = differs(software).get("as_grouped") and batch > 1 and PADDED.search(text_of(row, "notes"))
    then = {"attention": "fused"} if padded else versions.changed("times", row, software, "decode")
    token = Part(model, {**settings, **then, "mode": "decode", "seq": max(middle, 1)})
    then = {**_attends(row, software), **versions.changed("times", row, software, "prefill")}
    at_once = Part(model, {**settings, **then, "mode": "prefill"})
    kept = int(words[1].replace(",", "")) if (words := KEPT.search(text_of(row, "notes"))) else 0
    fresh = max(start - kept, 1)
    at_a_time = max(piece(engine, software, fresh), 1)
    prompt = tuple(_prompt(at_once, fresh, at_a_time, stages, depth + kept))
    if row["ttft_ms"]:
        yield Asked("ttft_s", "s", measured(row, "ttft_ms", 1e-3), _answered(row, prompt, token))
    if row["tpot_ms"]:
        yield Asked("tpot_s", "s", measured(row, "tpot_ms", 1e-3), (token,))
    elif row["decode_tok_s_total"] and not (row["e2e_latency_ms"] or row["output_tok_s_total"]):
        rate = measured(row, "decode_tok_s_total")
        yield Asked("tpot_s", "s", rate and batch / rate, (token,))
    if (rate := measured(row, "prefill_tok_s")) is not None:
        yield Asked("ttft_s", "s", batch * start / rate, prompt)
    whole_request = (*prompt, *_in_turns(token, start + new, new))
    if row["e2e_latency_ms"]:
        yield Asked("step_s", "s", measured(row, "e2e_latency_ms", 1e-3), whole_request)
    if row["output_tok_s_total"]:
        yield Asked(
            "tokens_per_s", "tokens/s", measured(row, "output_tok_s_total"), whole_request, batch * new
        )
    if not any(row[column] for column in MEASURED):
        yield Asked("tpot_s", "s", None, (token,))


def _in_turns(token: Part, longest: int, new: int) -> tuple[Part]:
    """The tokens of a batch; an engine that queues requests runs as many of them at a time as it has memory
    for. Source: vllm.
    """
    settings = token.settings
    batch, held = settings["batch"], settings["batch"]
    most = {**settings, "seq": longest}
    if batch > 1 and differs(settings["stack"]).get("queues") and not estimate(token.model, **most).fits:
        most.pop("batch")
        held = largest(token.model, "batch", **most)[0] or batch
    return (token._replace(settings={**settings, "batch": held}, times=new * batch / held),)


def _answered(row: Row, prompt: tuple[Part, ...], token: Part) -> tuple[Part, ...]:
    """What passes until a server's first token: the prompt, what a request takes besides, and one more step
    where the host hands tokens out late. Only the prompt where a row's benchmark has no server.
    """
    if OFFLINE.search(text_of(row, "engine", "notes")):
        return prompt
    engine = load(token.settings["stack"])
    since = tuple(differs(engine.name).get("behind", ()))
    late = 0 if before(row, engine.name, since) else engine.behind
    first = prompt[0]._replace(waits=engine.request_ms / 1e3)
    return (first, *prompt[1:], *((token._replace(times=late),) if late else ()))


def piece(engine: str, software: str, start: int) -> int:
    """How many of a prompt's `start` tokens run at once, as the engine's words say or as usual."""
    usual, match = differs(software).get("piece"), re.search(r"ubatch (\d+)", engine)
    return min(start, int(match[1]) if match else usual) if usual else start


def _prompt(part: Part, start: int, piece: int, stages: int, depth: int) -> Iterator[Part]:
    """A prompt in pieces. Each piece reads all weights and attends to all tokens before it, of which `depth`
    were in the cache already. Where scores are written to memory, a piece writes its own; its attention to
    earlier tokens is timed as a kernel.
    """
    pieces = start / piece
    turns = (pieces + stages - 1) / stages

    def of(tokens: int, times: float, kind: str = "") -> Part:
        kernel = {"attention": "flash"} if kind and part.settings.get("attention") else {}
        return part._replace(settings={**part.settings, **kernel, "seq": tokens}, times=times, kind=kind)

    yield of(piece, turns)
    if depth + start > piece:  # in place of each piece's attention to itself, that of all to all before
        yield of(depth + start, turns / pieces, "attention")
        yield of(piece, -turns, "attention")
    if depth:
        yield of(depth, -turns / pieces, "attention")
