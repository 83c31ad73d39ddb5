"""What an adapter adds to one linear layer, operator by operator, and which layers have one.

An adapter's file says what its layers run; here is what they share: the layer's dimensions, names of what
is new, the sum with the layer's own result, casts to the adapters' dtype. Source: peft.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .. import table
from ..config import Task
from ..dtype import full_name
from ..errors import InputError
from ..ir import (
    ACTIVATION,
    GATED,
    QKV,
    ROUTER,
    SCALE,
    SUMMAND,
    WEIGHT,
    Model,
    Op,
    Tensor,
    is_picked,
    letters,
    rewrite,
    walk,
)
from ..size import Size, product
from ._names import chosen, matching, operands, untrained
from .fp8 import is_linear
from .freeze import frozen

ALL = "all-linear"  # peft's name for every linear layer but the head
FIELD = "target_modules"
Tensors = tuple[Tensor, ...]
OURS = {  # products by the names of transformers' modules, where a name means the same in all of them
    "q": "q", "k": "k", "v": "v", "o": "attn.o,cross.o",  # T5's
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "query": "q", "key": "k", "value": "v",
    "o_proj": "attn.o,cross.o", "out_proj": "attn.o,cross.o",
    "qkv_proj": "attn.qkv", "query_key_value": "attn.qkv", "c_attn": "attn.qkv", "Wqkv": "attn.qkv",
    "gate_proj": "mlp.gate", "up_proj": "mlp.up", "gate_up_proj": "mlp.gate_up", "down_proj": "mlp.down",
    "wi": "mlp.up", "wi_0": "mlp.gate", "wi_1": "mlp.up", "wo": "mlp.down",
    "fc1": "mlp.up", "fc2": "mlp.down", "c_fc": "mlp.up", "fc_in": "mlp.up", "fc_out": "mlp.down",
    "lm_head": "head", "embed_tokens": "embed", "wte": "embed", "embed_in": "embed",
    "word_embeddings": "embed",
    "dense_h_to_4h": "mlp.up", "dense_4h_to_h": "mlp.down",
}  # fmt: skip


class Product:
    """A product y = W x and the operators that an adapter puts beside it, in `ops`, as they run.

    x, w: its input and its weight; of a table, numbers of rows and the rows. fan_in, fan_out: the weight's
    dimensions; experts: the one that counts them; rest: the others of the output. sizes: of the dimensions
    that the adapter adds. dtype: of its weights and of what is made of them, where it is not the model's own.
    callers: tensors that variables of the code around hold. Raises InputError for a product of two inputs.
    """

    callers: tuple[str, ...] = ()

    def __init__(self, o: Op, field: str, dtype: str = "", **sizes: Size):
        self.op, self.dtype, self.sizes = o, dtype, {**o.sizes, **sizes}
        self.x, self.w = operands(o, field)
        read, picked = {*letters(self.x.dims)}, tuple(d for d in self.w.dims if is_picked(d))
        if o.rule.looks_up:  # by its rows' numbers
            read, picked = {*read, *picked}, ()
        self.experts = picked
        self.fan_in = tuple(d for d in self.w.dims if d in read)
        self.rest = tuple(d for d in o.out.dims if d in read)
        self.fan_out = tuple(d for d in o.out.dims if d not in self.rest)
        self.ops: list[Op] = []

    @property
    def inputs(self) -> Size:
        """Features of its input."""
        return product(self.sizes[d] for d in self.fan_in)

    @property
    def outputs(self) -> Size:
        """Features of its output."""
        return product(self.sizes[d] for d in self.fan_out)

    def weight(self, label: str, *dims: str) -> Tensor:
        """A trained weight of the adapter."""
        return Tensor(f"{self.op.name}.{label}", dims, WEIGHT, self.dtype)

    def given(self, label: str, *dims: str) -> Tensor:
        """What lies beside the weights, and is no parameter."""
        return Tensor(f"{self.op.name}.{label}", dims, SCALE, self.dtype)

    def do(self, label: str, kind: str, ins: Tensors, dims: tuple[str, ...]) -> Tensor:
        """What one more operator makes, in the adapters' dtype."""
        return self.put(label, kind, ins, Tensor(f"{self.op.out.name}~{label}", dims, dtype=self.dtype))

    def single(self, label: str, kind: str, ins: Tensors, dims: tuple[str, ...]) -> Tensor:
        """What one more operator makes, in float32."""
        return self.put(label, kind, ins, Tensor(f"{self.op.out.name}~{label}", dims, dtype="float32"))

    def plain(self, label: str, kind: str, ins: Tensors, dims: tuple[str, ...]) -> Tensor:
        """What one more operator makes, in the layer's own dtype."""
        return self.put(label, kind, ins, Tensor(f"{self.op.out.name}~{label}", dims, dtype=self.x.dtype))

    def put(self, label: str, kind: str, ins: Tensors, out: Tensor) -> Tensor:
        """A tensor that one more operator makes."""
        self.ops.append(Op(f"{self.op.name}.{label}", kind, ins, (out,), self.sizes, callers=self.callers))
        return out

    def summand(self, label: str) -> Tensor:
        """What is added up to the layer's result, in the adapters' dtype."""
        out = self.op.out
        return out._replace(name=f"{out.name}~{label}", dtype=self.dtype, part=SUMMAND, of=out.name)

    def cast(self, x: Tensor) -> Tensor:
        """A tensor in the adapters' dtype."""
        return self.do(f"cast_{x.label}", "cast", (x,), x.dims) if x.dtype != self.dtype else x

    def rows_dropped(self, delta: Tensor, *, scaled: bool) -> Tensor:
        """A weight's change with some of its rows dropped, in place; scaled: the others grow to make up."""
        left = self.do("rank_mask", "fill", (), self.fan_out)
        dropped = self.do("rank_dropout", "mask_rows", (delta, left), delta.dims)
        # The mask is sampled on the host, copied, and divided by its mean.
        self.ops[-1] = self.ops[-1]._replace(beside=(3 if scaled else 1, 0))
        return dropped

    def own(self) -> Tensor:
        """The layer's own result: of W, without its adapter."""
        result = self.summand("base")._replace(dtype=self.op.out.dtype)
        self.ops.append(self.op._replace(outs=(result,)))
        return result

    def of(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """The layer's result for another input; its caller holds the layer's own input."""
        ins = tuple(x._replace(dims=t.dims) if t is self.x else t for t in self.op.ins)
        self.ops.append(self.op._replace(ins=ins, outs=(out or self.op.out,)))
        self.keep(self.x)
        return out or self.op.out

    def keep(self, *tensors: Tensor) -> None:
        """Tensors that live until here, and whose gradients come from elsewhere."""
        last = tensors[0]
        self.put("keep", "detach", tensors, last._replace(name=f"{self.op.out.name}~kept", role=ACTIVATION))

    def uncast(self, x: Tensor) -> Tensor:
        """A tensor in the layer's own dtype."""
        return self.plain(f"uncast_{x.label}", "cast", (x,), x.dims) if x.dtype != self.x.dtype else x

    def without_bias(self, own: Tensor, kind: str, *more: Tensor) -> None:
        """The end of an adapter that acts on W x alone: the bias is subtracted before, and added
        afterwards.
        """
        if not self.bias:
            self.end(kind, own, *more)
            return
        self.end("add", self.do("scaled", kind, (self.unbiased(own), *more), own.dims), *self.bias)

    @property
    def bias(self) -> Tensors:
        """Its bias, if it has one."""
        return tuple(t._replace(added=False) for t in self.op.weights if t.added)

    def unbiased(self, own: Tensor) -> Tensor:
        """W x, without the bias."""
        return self.plain("unbiased", "add", (own, *self.bias), own.dims) if self.bias else own

    def end(self, kind: str, *ins: Tensor) -> None:
        """The last operator, whose result is the layer's, in the model's dtype."""
        out = self.op.out
        if not self.dtype:
            self.put(f"adapter_{kind}", kind, ins, out)
            return
        wide = out._replace(name=f"{out.name}~wide", dtype=self.dtype)
        self.put("adapter_uncast", "cast", (self.put(f"adapter_{kind}", kind, ins, wide),), out)


class Layer(Product):
    """A product that is a plain linear layer. Raises InputError for any other one."""

    def __init__(self, o: Op, field: str, dtype: str = "", **sizes: Size):
        if not is_linear(o, head=True):
            raise InputError(
                field, f"{o.name} is no plain linear layer; allowed: attn.q, mlp.up and the like"
            )
        super().__init__(o, field, dtype, **sizes)
        if self.experts:
            raise InputError(field, f"{o.name} is of experts; allowed: attn.q, mlp.up and the like")


def adapt(model: Model, names: Collection[str], change: Callable[[Op], Iterable[Op]]) -> Model:
    """The model with everything frozen, and the named products replaced."""
    untrained(model, FIELD)
    nodes = rewrite(frozen(model, None).nodes, lambda o: change(o) if o.name in names else (o,))
    return model._replace(nodes=nodes)


def adapter(
    setting: str,
    change: Callable[[Op, Size, str, bool], Iterable[Op]],
    *,
    dropout: str = "",
    plain: bool = False,
) -> Callable[[Model, Task], Model]:
    """What peft makes of a model by an adapter's setting: `change` has an operator, the setting's value, the
    adapters' dtype and whether the setting `dropout` drops something. plain: see `targets`.
    """

    def apply(model: Model, task: Task) -> Model:
        names = targets(model, task, setting.partition("_")[0], plain=setting if plain else "")
        how = getattr(task.techniques, setting), wide(task), bool(dropout) and drops(task, dropout)
        return adapt(model, names, lambda o: change(o, *how))

    return apply


def targets(model: Model, task: Task, method: str, *, plain: str = "") -> frozenset[str]:
    """Names of the products that are adapted: those requested, or peft's default ones. Raises InputError.

    plain: the setting's name, where peft has the adapter for torch's own linear layers alone.
    """
    if plain and task.family in table.load("peft.json")["conv1d"]:
        problem = f"{task.family} has transformers' Conv1D, for which peft has no such adapter"
        raise InputError(plain, f"{problem}; allowed: lora_rank, adalora_rank, ia3, vera_rank")
    return resolved(model, FIELD, task.techniques.target_modules or usual(model, task, method))


def resolved(model: Model, field: str, text: str, more: Collection[str] = ()) -> frozenset[str]:
    """Names of products by patterns, by transformers' names of modules, or all linear layers.

    more: other names that a pattern may mean. Raises InputError.
    """
    if text.strip() == ALL:
        return linear_layers(model, field)
    return chosen(model, field, in_ours(model, text), products=True, more=more)


def in_ours(model: Model, text: str) -> str:
    """Patterns by commas, those that are transformers' names of modules as ours."""
    patterns = [p.strip() for p in text.split(",")]
    return ",".join(_ours(model, p) if p in OURS else p for p in patterns)


def _ours(model: Model, name: str) -> str:
    """Our patterns of a module's name that match something; the name itself where none does."""
    return ",".join(p for p in OURS[name].split(",") if matching(model, p, tables=True)) or name


def linear_layers(model: Model, field: str) -> frozenset[str]:
    """Every linear layer but the head. Raises InputError where there is none, and for experts, in which
    versions of peft differ; that error names the layers that all versions adapt.
    """
    linear = [o for o, _ in walk(model.nodes) if is_linear(o)]
    if not linear:
        problem = f"{model.name} has no linear layer but its head"
        raise InputError(field, f"got {ALL}, and {problem}; allowed: names of products, as *.conv or head")
    if any(o.tag == ROUTER for o, _ in walk(model.nodes)):
        dense = (
            o for o in linear if o.tag != ROUTER and not any(is_picked(d) for w in o.weights for d in w.dims)
        )
        names = ",".join(dict.fromkeys(".".join(o.name.split(".")[-2:]) for o in dense))
        names = f"names of products, as {names} (with experts.*, the experts' too)"
        raise InputError(field, f"got {ALL} with experts, of which peft's versions differ; allowed: {names}")
    return frozenset(o.name for o in linear)


def usual(model: Model, task: Task, method: str) -> str:
    """peft's default targets of a method for the config's family; for other families those of LoRA's paper:
    queries and values, or the fused projection that makes both.
    """
    family = table.load("peft.json")["families"].get(task.family, {})
    # peft knows modules by their names, and a gated MLP's (T5 1.1) are called otherwise.
    gated = any(o.tag == GATED for o, _ in walk(model.nodes))
    names = family.get(f"{method}, gated" if gated else method, family.get(method, family.get("lora")))
    if names is not None:
        return ",".join(p for p in names.split(",") if matching(model, p))
    fused = any(o.tag == QKV for o, _ in walk(model.nodes))
    if not fused and not matching(model, "attn.q"):
        linear = any(is_linear(o) for o, _ in walk(model.nodes))
        way = f"{ALL}, or " * linear + "names of products, as --by operator has them"
        field = "lora_targets" if method == "lora" else FIELD
        raise InputError(field, f"missing, as {model.name} has no queries; allowed: {way}")
    return "attn.qkv" if fused else "attn.q,attn.v"


def matched(model: Model, patterns: str) -> frozenset[str]:
    """Names of the products that any of the patterns matches."""
    return frozenset[str]().union(*(matching(model, p) for p in patterns.split(",")))


def drops(task: Task, field: str) -> bool:
    """Whether part of something is dropped: only in training."""
    return bool(task.workload.mode == "train" and getattr(task.techniques, field) > 0)


def wide(task: Task) -> str:
    """The dtype of adapters, in full; "" is the model's own."""
    dtype = task.techniques.adapter_dtype
    full = full_name(dtype) if dtype else ""
    return "" if full == task.dtype else full
