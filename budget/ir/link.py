"""Linking turns what an architecture file writes (short names, names used again, dimensions left out) into a
program in which every tensor has one name, every operator knows its sizes, and every block knows what it
hands from one repetition to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..config import Settings, Workload
from ..dtype import FLOATING
from ..named import Any, NoReturn
from ..size import Size, is_zero
from .block import Block, Carry, Model, Node
from .line import line
from .op import MIX, Op
from .tensor import FROZEN, INPUT, WEIGHT, Tensor, joint


def model(
    arch: str,
    config: Any,
    workload: Workload,
    nodes: Iterable[Node],
    sizes: Mapping[str, Size],
    *,
    samples: Size = None,
    tokens: Size = 0,
    outputs: Iterable[str] = (),
    uncounted: tuple[str, ...] = (),
    sound: Size = 0,
    seq: Size = 0,
) -> Model:
    """A linked Model of an architecture. In training a loss is taken of `outputs`: names of
    tensors, or the last operator's output where none is given. A sample is one of the batch,
    where nothing else is said. seq: tokens that a sample's cache holds in decode mode.
    """
    linked, ends = link(nodes, sizes, outputs)
    samples = workload.batch if samples is None else samples
    settings = dict(vars(config) if isinstance(config, Settings) else config)
    cached = seq if workload.mode == "decode" else 0
    return Model(arch, arch, linked, settings, ends, samples, tokens, uncounted, sound, cached)


def link(
    nodes: Iterable[Node], sizes: Mapping[str, Size], outputs: Iterable[str] = ()
) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """Resolve names, dimensions and sizes of nodes, and the final names of some outputs.

    Raises ValueError for a tensor that nothing makes, for an input with the name of an operator's output, and
    for two operators with one name.
    """
    env: dict[str, str] = {}
    linker = _Linker({"1": 1, **sizes})
    linked = tuple(linker.run(_running(nodes), env, "", set()))
    ends = tuple(linker.end(name, env) for name in outputs or (linker.current,))
    return _pruned(linked, set(ends)), ends


def _pruned(nodes: tuple[Node, ...], wanted: set[str]) -> tuple[Node, ...]:
    """The nodes with blocks that leave only what a later operator, or the next repetition, reads."""
    new: list[Node] = []
    for node in reversed(nodes):
        if isinstance(node, Op):
            wanted.update([t.name for t in node.ins])
        else:
            carry = tuple(c for c in node.carry if c.enter or c.leave in wanted)
            wanted.update([name for c in carry for name in (c.init, c.leave)])
            node = node._replace(body=_pruned(node.body, wanted), carry=carry)  # noqa: PLW2901 - the same node
        new.append(node)
    return tuple(reversed(new))


def _running(nodes: Iterable[Node]) -> Iterator[Node]:
    """Without blocks that run no time: they make nothing that others could read."""
    for node in nodes:
        if isinstance(node, Op):
            yield node
        elif not is_zero(node.count):
            yield node._replace(body=tuple(_running(node.body)))


class _Linker:
    """Keeps what linking needs to know: how often a name was used, and each tensor's dimensions."""

    def __init__(self, sizes: Mapping[str, Size]):
        self.sizes = sizes
        self.used: dict[str, int] = {}
        self.dims: dict[str, tuple[str, ...]] = {}
        self.local: dict[str, Mapping[str, Size]] = {}  # sizes that only some operators have
        self.dtype: dict[str, str] = {}
        self.inputs: set[str] = set()
        self.current = ""
        self.given: tuple[str, ...] = ()  # what the stack of layers is given

    def fail(self, node: Op, path: str, problem: str) -> NoReturn:
        raise ValueError(f"operator {path}{node.name} reads {problem}; line {line(node)!r}")

    def end(self, name: str, env: Mapping[str, str]) -> str:
        if name not in env:
            raise ValueError(f"the network's output {name!r}: no operator makes it")
        return env[name]

    def fresh(self, name: str) -> str:
        n = self.used.get(name, 0)
        self.used[name] = n + 1
        return f"{name}'{n}" if n else name

    def run(self, nodes: Iterable[Node], env: dict[str, str], path: str, names: set[str]) -> Iterator[Node]:
        for node in nodes:
            if node.name in names:
                raise ValueError(f"two operators are called {path}{node.name}")
            names.add(node.name)
            if isinstance(node, Block):
                yield self.block(node, env, path)
            else:
                yield self.op(node, env, path)

    def block(self, node: Block, env: dict[str, str], path: str) -> Block:
        if not node.body:
            raise ValueError(f"block {path}{node.name} has no operators")
        written = set(_written(node.body))
        given = {name for name in _read_first(node.body) if name in env}
        carried = given & written
        inner = dict(env)
        for name in carried:
            inner[name] = self.fresh(f"{name}@{node.name}")
            self.dims[inner[name]] = self.dims[env[name]]
            self.local[inner[name]] = self.local[env[name]]
            self.dtype[inner[name]] = self.dtype.get(env[name], "")
        enter = {name: inner[name] for name in carried}
        if not path:
            self.given = tuple(env[name] for name in sorted(given))
        body = tuple(self.run(node.body, inner, f"{path}{node.name}.", set()))
        if isinstance(last := body[-1], Op) and not (node.shared or node.inline):
            # Variables have a layer's input and what all layers are given until it returns, what its last
            # attention returned, and what the first layer was given.
            outer = (env[name] for name in sorted(given - written))
            held = dict.fromkeys((*enter.values(), *outer, *self.given))
            scores = [o.ins[0].name for o in body if isinstance(o, Op) and o.tag == MIX][-1:]
            body = (*body[:-1], last._replace(callers=(*last.callers, *held, *scores)))
        carry = [
            Carry(env.get(n, "") if n in carried else "", enter.get(n, ""), inner[n]) for n in sorted(written)
        ]
        env.update((name, inner[name]) for name in written)
        return node._replace(body=body, carry=tuple(carry))

    def op(self, node: Op, env: dict[str, str], path: str) -> Op:
        ins = tuple([self.read(node, t, env, path) for t in node.ins])
        local = dict(node.sizes)
        for t, resolved in zip(node.ins, ins, strict=True):
            if not t.dims and (inherited := self.local.get(resolved.name)):
                local = {**inherited, **local}
        callers = tuple([env[name] for name in node.callers if name in env])
        outs = []
        for t in node.outs:
            name = self.fresh(t.name)
            env[t.name] = name
            self.local[name] = local
            dims = self.dims[name] = t.dims or ins[0].dims
            if t.dtype:
                self.dtype[name] = t.dtype
            elif not node.rule.casts and ins[0].dtype in FLOATING:
                self.dtype[name] = ins[0].dtype
            outs.append(Tensor(name, dims, t.role, self.dtype.get(name, ""), t.added))
        self.current = node.outs[0].name
        sizes = {**self.sizes, **local} if local else self.sizes
        if several := joint([t.dims for t in (*ins, *outs)], sizes):
            sizes = {**sizes, **several}
        if node.rule.looks_up and node.rule.stops:  # a table that its class itself freezes (Whisper)
            ins = tuple(t._replace(role=FROZEN) if t.role == WEIGHT else t for t in ins)
        name = path + node.name
        return node._replace(name=name, ins=ins, outs=tuple(outs), sizes=sizes, callers=callers)

    def read(self, node: Op, t: Tensor, env: dict[str, str], path: str) -> Tensor:
        if t.role == WEIGHT:
            own = t.name.startswith(node.name + ".")
            return t._replace(name=path + t.name) if own and path else t
        if t.role == INPUT and t.name not in env:
            new = env[t.name] = self.fresh(t.name)
            self.inputs.add(new)
            self.dims[new], self.local[new], self.dtype[new] = t.dims, node.sizes, t.dtype
            return t._replace(name=new)
        name = env.get(t.name or self.current)
        if t.role == INPUT and name not in self.inputs:
            self.fail(node, path, f"the input {t.name!r}: an operator makes one of that name")
        if name is None:
            self.fail(node, path, f"{t.name or 'the last output'!r}: nothing makes it")
        return Tensor(name, t.dims or self.dims[name], t.role, t.dtype or self.dtype.get(name, ""), t.added)


def _written(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Block):
            yield from _written(node.body)
        else:
            yield from (t.name for t in node.outs)


def _read_first(nodes: Iterable[Node]) -> set[str]:
    """Names that nodes read before they write them."""
    written: set[str] = set()
    read: set[str] = set()
    current = ""
    for node in nodes:
        if isinstance(node, Block):
            read |= _read_first(node.body) - written
            written.update(_written(node.body))
        else:
            read |= {t.name or current for t in node.ins} - written
            written.update(t.name for t in node.outs)
            current = node.outs[0].name
    return read
