"""Derived collectives against torch's own: DTensor and FSDP2, counted by CommDebugMode.

Eight ranks in one process, on the fake process group: nothing is sent, but every collective is called.
"""

from collections import Counter

import pytest

from budget import arch
from budget.config import Workload, make
from budget.fold.communication import communications
from budget.layout import parse
from budget.plan.backward import backward
from budget.plan.divide import divide
from budget.plan.fuse import fuse
from budget.plan.mesh import mesh
from budget.plan.recompute import recompute
from budget.plan.shard import reductions
from budget.plan.units import by_unit

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

from torch import nn  # noqa: E402

# DTensor's hooks say that a network's input needs no gradient, and that an output was summed whole.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")

W, D, F, H, L, V, B, S = 8, 64, 128, 8, 3, 96, 2, 32
OWN = {
    "layers": L, "d_model": D, "heads": H, "d_ff": F, "vocab": V, "context": S, "gated": True,
    "activation": "silu", "norm": "rms_norm", "positions": "none", "qkv_bias": False, "out_bias": False,
    "mlp_bias": False, "tied": False, "fused_qkv": False,
}  # fmt: skip
NAMES = {
    "all_gather_into_tensor": "all_gather",
    "_allgather_base_": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "_reduce_scatter_base_": "reduce_scatter",
    "all_reduce": "all_reduce",
    "allreduce_": "all_reduce",
    "all_to_all_single": "all_to_all",
    "alltoall_base_": "all_to_all",
}


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(D, D, bias=False) for _ in range(4))

    def forward(self, x):
        heads = (f(x).unflatten(-1, (-1, D // H)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.o(
            nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        )


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = (nn.Linear(i, o, bias=False) for i, o in ((D, F), (D, F), (F, D)))

    def forward(self, x):
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = nn.RMSNorm(D), Attention(), nn.RMSNorm(D), MLP()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(V, D), nn.RMSNorm(D)
        self.layers = nn.ModuleList(Layer() for _ in range(L))
        self.head = nn.Linear(D, V, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


@pytest.fixture(scope="module")
def ranks():
    """A mesh of eight ranks, of which this process plays the first."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=W)
    yield lambda *shape: init_device_mesh(
        "cpu", shape or (W,), mesh_dim_names=tuple("ab"[: len(shape or (W,))])
    )
    dist.destroy_process_group()


def torch_s(net):
    """Collectives of a forward pass, and of both passes, by kind."""
    from torch.distributed.tensor.debug import CommDebugMode

    mode = CommDebugMode()
    with mode:
        out = net(torch.zeros(B, S, dtype=torch.long))
        forward = _counted(mode)
        (out.to_local() if hasattr(out, "to_local") else out).sum().backward()
    return forward, _counted(mode)


def _counted(mode):
    counts = Counter()
    for op, n in mode.get_comm_counts().items():
        counts[NAMES[str(op).rpartition(".")[2]]] += n
    return +counts


def ours(layout):
    """The same of the derived program; the head's loss, which the module has not, aside."""
    module, shares = arch.load("transformer"), parse(layout)
    model = backward(fuse(module.build(make(module.Config, OWN), Workload("train", B, S)), {"attention"}))
    divided = divide(model, mesh(shares, model))
    program = by_unit(recompute(divided.model, "none"), shares)
    program = program._replace(nodes=(*program.nodes, *reductions(program, shares, divided.partial)))
    forward, both = Counter(), Counter()
    for c in communications(program.nodes, "float32"):
        if "#" in c.tensor or c.once or (c.op.startswith("gradients.") and c.axis == "tp"):
            continue
        both[c.kind] += c.times
        forward[c.kind] += c.times if c.phase == "forward" else 0
    return +forward, +both, divided


def tensor_parallel(net, ranks, *, sequence):
    """Megatron's plan, with one collective for what q, k and v, or gate and up, read together."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    whole = Replicate()
    stream = Shard(1) if sequence else whole
    rules = {
        "embed": RowwiseParallel(input_layouts=whole, output_layouts=stream),
        "head": ColwiseParallel(input_layouts=stream),
    }
    if sequence:
        rules["norm"] = SequenceParallel()
    for i in range(L):
        for n, (part, columns, row) in enumerate((("attn", "qkv", "o"), ("mlp", ("gate", "up"), "down")), 1):
            at = f"layers.{i}.{part}"
            rules[at] = PrepareModuleInput(input_layouts=(stream,), desired_input_layouts=(whole,))
            rules |= {f"{at}.{name}": ColwiseParallel() for name in columns}
            rules[f"{at}.{row}"] = RowwiseParallel(output_layouts=stream)
            if sequence:
                rules[f"layers.{i}.norm{n}"] = SequenceParallel()
    return parallelize_module(net, ranks(), rules)


def sharded(net, mesh, **policy):
    """FSDP2's groups: each layer, and the rest."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    how = MixedPrecisionPolicy(**policy)
    for layer in net.layers:
        fully_shard(layer, mesh=mesh, mp_policy=how)
    return fully_shard(net, mesh=mesh, mp_policy=how)


def test_tensor_parallelism(ranks):
    assert torch_s(tensor_parallel(Net(), ranks, sequence=False)) == ours("tp=8,sp=0")[:2]


def test_sequence_parallelism(ranks):
    """Forward the same. Backward, DTensor keeps what it gathered; Megatron, and we, gather it again."""
    forward, both = torch_s(tensor_parallel(Net(), ranks, sequence=True))
    our_forward, our_both, divided = ours("tp=8")
    norms = 2 * L + 1  # DTensor adds up a norm's gradient as soon as it is there
    over_tp = (name for name, axes in divided.partial.items() if "tp" in {axis.name for axis in axes})
    assert sum(L if ".norm" in name else 1 for name in over_tp) == norms
    again = 2 * L + 1
    assert forward == our_forward
    assert both == our_both + Counter(all_reduce=both["all_reduce"]) - Counter(all_gather=again)
    assert both["all_reduce"] in (0, norms)


def test_fsdp(ranks):
    assert torch_s(sharded(Net(), ranks())) == ours("dp=8,zero=3")[:2]


def test_hsdp(ranks):
    """Two copies of four: each scattered gradient is then added up over the copies."""
    assert torch_s(sharded(Net(), ranks(2, 4))) == ours("dp=8,zero=3,shard=4")[:2]


@pytest.mark.parametrize("reduced", [None, "fp32"])
def test_fsdp_s_mixed_precision(ranks, reduced):
    """What a rank stores, and what is sent: weights in bfloat16, gradients as reduce_dtype says."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    import budget

    sent = Counter()

    class Sent(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            kind = NAMES.get(func._schema.name.rpartition("::")[2])
            if kind:  # the largest operand is the whole tensor
                whole = max((t for t in tree_leaves(args) if isinstance(t, torch.Tensor)), key=torch.numel)
                sent[kind, whole.nbytes] += 1
            return func(*args, **(kwargs or {}))

    dtype = {"fp32": torch.float32, None: None}[reduced]
    net = sharded(Net(), ranks(), param_dtype=torch.bfloat16, reduce_dtype=dtype)
    with Sent():
        net(torch.zeros(B, S, dtype=torch.long)).sum().backward()
    step = torch.optim.AdamW(net.parameters())
    step.step()
    local = [(p.to_local(), p.grad.to_local()) for p in net.parameters()]
    states = sum(t.to_local().nbytes for s in step.state.values() for k, t in s.items() if k != "step")
    e = budget.estimate(
        "transformer", config=OWN, batch=B, seq=S, dtype="bf16", precision="fsdp", layout="dp=8,zero=3",
        device="h100", **({"reduce_dtype": reduced} if reduced else {}),
    )  # fmt: skip
    theirs = (*(sum(t.nbytes for t in ts) for ts in zip(*local, strict=True)), states)
    assert (e.memory.parameters, e.memory.gradients, e.memory.optimizer) == theirs
    ours = Counter()
    for c in e.to_dict()["communication"]:
        if "#" not in c["tensor"] and c["kind"] in ("all_gather", "reduce_scatter"):
            ours[c["kind"], c["bytes"]] += c["times"]
    assert ours == sent


@pytest.mark.parametrize(("shape", "layout"), [((), "dp=8,zero=3"), ((2, 4), "dp=8,zero=3,shard=4")])
def test_a_captured_module_is_sharded_as_fsdp_does(ranks, shape, layout):
    """Its numbered modules are the groups."""
    import budget

    ids = torch.zeros(B, S, dtype=torch.long)
    sent = budget.estimate(Net(), inputs=(ids,), layout=layout, device="h100").to_dict()["communication"]
    forward, both = Counter(), Counter()
    for c in sent:
        both[c["kind"]] += c["times"]
        forward[c["kind"]] += c["times"] if c["phase"] == "forward" else 0
    assert (+forward, +both) == torch_s(sharded(Net(), ranks(*shape)))


def test_a_captured_module_s_stages_are_its_numbered_modules():
    """Together they are the whole: weights, FLOPs; what crosses is the stream, and its gradient."""
    import budget
    from budget.ir.verify import verify

    ids = torch.zeros(B, S, dtype=torch.long)
    one = budget.estimate(Net(), inputs=(ids,), device="h100")
    many = budget.estimate(Net(), inputs=(ids,), layout="pp=3", accumulate=4, device="h100")
    rows = many.rows("rank")
    assert [row["layers"] for row in rows] == [1, 1, 1]
    assert sum(row["parameters_bytes"] for row in rows) == one.memory.parameters
    assert many.hardware.forward == 4 * one.hardware.forward
    assert many.hardware.backward == 4 * one.hardware.backward
    for rank in many.spread.ranks:
        verify(rank.program)
        sent = [c for c in communications(rank.program.nodes, "float32") if c.kind == "send"]
        assert {c.bytes for c in sent} == {4 * B * S * D}
        phases = {"forward": 2 not in rank.stages, "backward": 0 not in rank.stages}
        assert {c.phase for c in sent} == {phase for phase, sends in phases.items() if sends}
