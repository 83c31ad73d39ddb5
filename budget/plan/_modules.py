"""What transformers calls the modules of a network's linear layers: by their tag, and by their layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from .. import table
from ..errors import InputError, shown
from ..ir import HEAD, Block, Model, Node, Op, walk
from .fp8 import is_linear

CALLED = "modules.json"  # what they are called, and where layers are
TOWER = "tower"  # the block of arch/vision_language.py
# Words in names of modules that are no linear layers of a text model, or that every format leaves alone.
ASIDE = re.compile(
    r"embed|norm|head|gate|router|score|classifier|qa_outputs|pooler|conv|visual|vision|image|audio"
    r"|projector|connector|merger|mtp|shared_head|eh_proj|indexer|wte|wpe|rotary"
)
MOST = 10_000  # layers that are told apart


def called(arch: str = "") -> Mapping[str, Sequence[str]]:
    """By an operator's tag, the names of its module in several families, or in an architecture's only one."""
    known = table.load(CALLED)
    return {**known["tags"], **known["own"].get(arch.removeprefix("vision_"), {})}


def paths(
    model: Model, skipped: Iterable[str], only: Iterable[str], spelled: Mapping[str, str]
) -> dict[int, list[tuple[str, ...]]]:
    """By operator (its id), what the module of a linear layer may be called in each of its layers.

    skipped, only: regular expressions over such names; spelled: how a config spells them. Where no expression
    distinguishes layers, one layer stands for all.
    Raises InputError for an expression that matches no known module.
    """
    alone = not any(re.search(r"\d", text) for text in (*skipped, *only))
    seen = tuple(node for node in model.nodes if isinstance(node, Block) and node.name == TOWER)
    numbers, total = _numbers(node for node in model.nodes if node not in seen)
    numbers |= _numbers(seen)[0]
    among_seen = {id(o) for o, _ in walk(seen)}
    called_so, where = called(model.arch), table.load(CALLED)
    found = {}
    for o, _ in walk(model.nodes):
        names = called_so.get(o.tag, ()) if is_linear(o, head=True) else ()
        if not names:
            continue
        own = [0] if alone else numbers.get(id(o), [0])
        stacks = ("",) if o.tag == HEAD else where["towers" if id(o) in among_seen else "stacks"]
        found[id(o)] = [tuple(_paths(stacks, names, i)) for i in own]
    known: dict[str, list[str]] = {"": []}
    for path in (path for called in found.values() for names in called for path in names):
        for number in _numbers_in(path):
            known.setdefault(number, []).append(path)
    for text in (*skipped, *(text for text in only if text in spelled)):
        named = any(re.search(text, path) for path in known.get(_number(text), ()))
        if not (ASIDE.search(text) or named or _beyond(text, total)):
            problem = f"{shown(spelled.get(text, text))} names no linear layer that is known of {model.name}"
            raise InputError("quantization_config", f"{problem}; allowed: names of transformers' modules")
    return found


def _paths(stacks: Iterable[str], names: Iterable[str], layer: int) -> Iterator[str]:
    for stack in stacks:
        yield from (f"{stack}.{layer}.{name}" if stack else name for name in names)


def finds(texts: tuple[str, ...], module: str) -> bool:
    """Whether one of these expressions finds a module's name. Lists have hundreds, most of other layers."""
    known = _by_number(texts)
    return any(re.search(text, module) for number in _numbers_in(module) for text in known.get(number, ()))


@lru_cache(maxsize=16)
def _by_number(texts: tuple[str, ...]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        found.setdefault(_number(text), []).append(text)
    return found


def _numbers_in(name: str) -> set[str]:
    """The runs of digits in a name and all parts of them, the empty one included."""
    runs = re.findall(r"\d+", name)
    return {"", *(run[i:j] for run in runs for i in range(len(run)) for j in range(i + 1, len(run) + 1))}


@lru_cache(maxsize=4096)
def _number(text: str) -> str:
    """A number that is in each name which an expression finds; nothing where none is known to be."""
    plain = text.replace(r"(^|\.)", "").replace(r"(\.|$)", "").replace("(?:", "(")
    if re.search(r"[\[{+?]|\d\*|\\[^.]", plain):
        return ""
    numbers = {(re.findall(r"\d+", part) or [""])[0] for part in plain.split("|")}
    return numbers.pop() if len(numbers) == 1 else ""


def _beyond(text: str, total: int) -> bool:
    """Whether a layer is meant that the class does not have: those for predicting several tokens."""
    number = re.search(r"layers\W*(\d{1,9})", text)
    return number is not None and int(number[1]) >= total


def _numbers(nodes: Iterable[Node]) -> tuple[dict[int, list[int]], int]:
    """The numbers of the layers that each linear layer is in, and how many layers there are.

    A block that has linear layers among its own operators is a layer, repeated; others hold layers.
    """
    numbers: dict[int, list[int]] = {}
    first, known = 0, called()
    for node in nodes:
        if not isinstance(node, Block):
            continue
        times = node.count if isinstance(node.count, int) and node.count <= MOST else 1
        if any(isinstance(n, Op) and n.tag in known for n in node.body):
            each = list(range(first, first + times))
            numbers.update({id(o): each for o, _ in walk(node.body)})
            first += times
        else:
            inside, length = _numbers(node.body)
            for o, own in inside.items():
                numbers[o] = [first + turn * length + i for turn in range(times) for i in own]
            first += length * times
    return numbers, first
