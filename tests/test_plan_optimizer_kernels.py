"""Which weights an optimizer takes, and the kernels that it starts, as torch.optim does."""

import pytest

from budget import estimate
from budget.fold.memory import memory
from budget.ir import STATE, Block, Model, Op, Tensor, elements, walk

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402


def test_a_state_is_held_once_for_each_repetition():
    """As torch.optim holds it: of seven layers seven times, of one layer that runs seven times once. Two
    operators that read it don't make it two.
    """
    layers, d = 7, 5
    states = tuple(Tensor(name, ("i", "j"), STATE, "float32") for name in ("exp_avg", "exp_avg_sq"))
    step = Op("step", "adamw", states, states, {"i": d, "j": d}, "optimizer")
    body = (step, step._replace(name="again"))
    repeated = Model("t", "t", (Block("layers", body, layers),), {}, ())
    shared = repeated._replace(nodes=(Block("layers", body, layers, shared=True),))

    def torchs(stack):
        adam = torch.optim.Adam(stack.parameters())
        stack(torch.zeros(1, d)).sum().backward()
        adam.step()
        return sum(t.nbytes for of in adam.state.values() for t in of.values() if t.dim())

    one = nn.Linear(d, d, bias=False)
    own = nn.Sequential(*(nn.Linear(d, d, bias=False) for _ in range(layers)))
    assert memory(repeated, "float32").optimizer == torchs(own)
    assert memory(shared, "float32").optimizer == torchs(nn.Sequential(*[one] * layers))


@pytest.mark.parametrize(("name", "head"), [("resnet50", 1000 * 2048), ("vgg16", 1000 * 4096)])
def test_muon_leaves_a_classifier_to_adamw(name, head):
    """torch.optim.Muon takes hidden matrices only: the classifier has AdamW's second state."""
    e = estimate(name, batch=2, optimizer="muon", dtype="fp32")
    states = {t.name: o for o, _ in walk(e.program.nodes) for t in o.ins if t.role == STATE}
    second = states["adamw.exp_avg_sq"]
    vectors = e.params.total - head - _hidden(e)
    assert second.sizes["exp_avg_sq"] == head + vectors


def _hidden(e):
    """Elements of the matrices that are no classifier's: convolutions and hidden linear layers."""
    from budget.ir import weights

    found = [(t, o, n) for t, o, n in weights(e.model.nodes) if o.kind == "contract" and not t.added]
    return sum(elements(t, o.sizes) * n for t, o, n in found) - sum(
        elements(t, o.sizes) for t, o, _ in found if o.name in ("head.classifier", "head.linear2")
    )


class Launches(TorchDispatchMode):
    """Calls of kernels: those of an optimizer's step that take a gradient's worth of work."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = (t for x in args for t in (x if isinstance(x, list) else [x]))
        if any(isinstance(t, torch.Tensor) and t.numel() == 64 * 64 for t in tensors):
            self.calls.append(str(func))
        return out


STEPS = {
    "adamw": lambda p: torch.optim.AdamW(p, foreach=True),
    "adamw_loop": lambda p: torch.optim.AdamW(p, foreach=False),
    "adamw_fused": lambda p: torch.optim.AdamW(p, fused=True),
    "adam": lambda p: torch.optim.Adam(p, foreach=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
}


@pytest.mark.parametrize("name", STEPS)
def test_an_optimizer_starts_torch_s_kernels(name):
    """Foreach: as many for all weights as for one; the loop: so many for each weight."""

    def calls(weights):
        params = [nn.Parameter(torch.zeros(64, 64)) for _ in range(weights)]
        for p in params:
            p.grad = torch.zeros(64, 64)
        step = STEPS[name](params)
        step.step()
        with Launches() as seen:
            step.step()
        return len(seen.calls)

    one, three = calls(1), calls(3)
    assert three == (3 * one if name == "adamw_loop" else one)

    def ours(layers):
        config = {"sizes": (64,) * (layers + 1), "bias": False}
        kernels = estimate("mlp", batch=2, config=config, optimizer=name, execution="compiled").times.kernels
        return sum(
            k.work.launches for k in kernels if k.work.phase == "optimizer" and k.work.op != "optimizer.steps"
        )

    assert ours(3) == (3 * ours(1) if name == "adamw_loop" else ours(1))
    assert ours(1) == one


@pytest.mark.parametrize("device", ["h100", "h200", "a100-80gb"])
def test_fused_is_faster_than_foreach_and_foreach_than_the_loop(device):
    """The order in which torch.optim.AdamW's documentation lists its implementations by speed."""
    fused, foreach, loop = (
        estimate("gpt2", batch=8, device=device, optimizer=name).times.optimizer
        for name in ("adamw_fused", "adamw", "adamw_loop")
    )
    assert fused < foreach < loop
