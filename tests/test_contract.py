"""What the verifier found and what stood in spellings: mended, each against an oracle that is not ours."""

from collections import Counter

import pytest

from budget import estimate
from budget.errors import InputError
from budget.fold.count import flops
from budget.ir import Model, block, elements, link, op, walk
from budget.plan.backward import backward

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from accelerate.utils.ao import find_first_last_linear_layers  # noqa: E402
from oracles.convnets import vgg  # noqa: E402
from oracles.flops import count_flops  # noqa: E402
from oracles.resnet import Bottleneck, resnet  # noqa: E402
from torch import nn  # noqa: E402

from budget.read.torch_module import capture  # noqa: E402


def test_selective_recomputation_keeps_what_korthikanti_keeps():
    """34 sbh bytes a layer with two dropout masks of a byte each (Korthikanti et al. 2022, table 2)."""
    s, b, h = 128, 2, 256
    config = {"d_model": h, "heads": 4, "d_ff": 4 * h, "vocab": 50, "context": s, "activation": "gelu"}

    def kept(layers):
        settings = {"seq": s, "batch": b, "attention": "eager", "recompute": "selective", "optimizer": "none"}
        settings["precision"] = "pure"
        return estimate("transformer", config={**config, "layers": layers}, **settings).memory.activations

    statistics = 2 * 2 * 4 * s * b  # of two norms, a mean and a deviation each in float32
    assert kept(5) - kept(4) == 32 * s * b * h + statistics


class Skips(nn.Module):
    """WaveNet's layers: a residual to the next one, a skip to the output, which is all that is read."""

    def __init__(self, layers, d):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"inner": nn.Linear(d, d), "residual": nn.Linear(d, d), "skip": nn.Linear(d, d)})
            for _ in range(layers)
        )
        self.start = nn.Linear(d, d)

    def forward(self, x):
        x, total = self.start(x), 0
        for layer in self.layers:
            u = torch.tanh(layer["inner"](x))
            total = total + layer["skip"](u)
            x = x + layer["residual"](u)
        return total


@pytest.mark.parametrize("layers", [1, 2, 3, 7])
def test_what_the_last_layer_makes_for_nobody_has_no_gradient(layers):
    b, d = 3, 8
    body = (
        op("inner", "x: b d, *d f, +*f -> u: b f", f=d),
        op("act", "u: -> u:", "tanh"),
        op("skip", "u: b f, *f d, +*d -> k: b d", f=d),
        op("sum", "total:, k: -> total:", "add"),
        op("residual", "u: b f, *f d, +*d -> r: b d", f=d),
        op("add", "x:, r: -> x:", "add"),
    )
    nodes = (
        op("start", "!raw: b c, *c d, +*d -> x: b d", c=d),
        op("zero", "!zero: 1 -> total: b d", "fill"),
        block("layers", body, layers),
        op("out", "total: -> y:", "scale"),
    )
    linked, ends = link(nodes, {"b": b, "d": d})
    with torch.device("meta"):
        expected = count_flops(Skips(layers, d), torch.empty(b, d))
    assert flops(backward(Model("t", "t", linked, {}, ends)))[:2] == expected


class Reads(nn.Module):
    """Layers of two streams of different widths, and of a third one that they read from outside."""

    def __init__(self, layers, d, f, wide, beyond):
        super().__init__()
        self.start, self.wide, self.beyond = nn.Linear(d, d), nn.Linear(d, wide), nn.Linear(d, beyond)
        pairs = {"up": (d, f), "down": (f, d), "cross": (beyond, d), "lift": (d, wide)}
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*pair) for name, pair in pairs.items()}) for _ in range(layers)
        )

    def forward(self, x):
        x = self.start(x)
        w, z = self.wide(x), self.beyond(x)
        for layer in self.layers:
            x = x + layer["down"](torch.relu(layer["up"](x)))
            x = x + layer["cross"](z)
            w = w + layer["lift"](x)
        return w


def sums(program, kinds):
    """{elements: how often the backward pass adds two such tensors up}."""
    found = Counter()
    for o, times in walk(program.nodes):
        if o.phase == "backward" and o.kind in kinds:
            found[elements(o.out, o.sizes)] += times
    return found


def linear(name, x, y, c, d):
    return op(name, f"{x}: b c, *c d, +*d -> {y}: b d", c=c, d=d)


def added(name, x, d):
    return op(name, f"{x}: b d, k: b d -> {x}: b d", "add", d=d)


def test_gradients_at_a_block_s_borders_are_summed_at_their_own_size():
    """What one more layer adds up, by size, is what it adds up in a capture of torch's calls."""
    b, d, f, wide, beyond = 5, 8, 24, 40, 48

    def ours(layers):
        body = (
            linear("up", "x", "u", d, f),
            op("act", "u: b d -> u: b d", "relu", d=f),
            linear("down", "u", "k", f, d),
            op("add", "x: b d, k: b d -> x: b d", "add", d=d),
            linear("cross", "z", "k", beyond, d),
            op("sum", "x: b d, k: b d -> x: b d", "add", d=d),
            linear("lift", "x", "k", d, wide),
            op("end", "w: b d, k: b d -> w: b d", "add", d=wide),
        )
        nodes = (
            op("start", "!raw: b c, *c d, +*d -> x: b d", c=d, d=d),
            linear("wide", "x", "w", d, wide),
            linear("beyond", "x", "z", d, beyond),
            block("layers", body, layers),
            op("out", "w: b d -> y: b d", "scale", d=wide),
        )
        linked, ends = link(nodes, {"b": b})
        return sums(backward(Model("t", "t", linked, {}, ends)), ("accumulate",))

    def torchs(layers):
        module = Reads(layers, d, f, wide, beyond)
        return sums(capture(module, (torch.zeros(b, d),)), ("pointwise", "pointwise_"))

    assert ours(4) - ours(3) == torchs(4) - torchs(3) == Counter({b * d: 2, b * beyond: 1})


class Forks(nn.Module):
    """Two streams x and w of different widths; what x is then is read by y's layer, and x's own goes on."""

    def __init__(self, d, wide, forked):
        super().__init__()
        self.start, self.lift, self.other = nn.Linear(d, d), nn.Linear(d, wide), nn.Linear(d, d)
        self.first, self.wide = nn.Linear(d, d), nn.Linear(d, wide)
        self.read, self.turn, self.forked = nn.Linear(d, d), nn.Linear(d, d), forked

    def forward(self, raw):
        x, w, z = self.start(raw), self.lift(raw), self.other(raw)
        y = self.other(raw)
        x = x + self.first(x)
        w = w + self.wide(x)
        y = y + self.read(x if self.forked else z)
        x = x + self.turn(x)
        return y.sum() + x.sum() + w.sum()


@pytest.mark.parametrize("within", [False, True])
def test_a_gradient_that_two_blocks_hand_back_is_summed_at_the_size_of_its_tensor(within):
    """Of a tensor that a block has made, whose last operator makes a wider one; and within a block around."""
    b, d, wide = 5, 8, 40

    def ours(forked):
        read = "x" if forked else "z"
        own = linear("own", "x", "k", d, d), added("sum", "x", d)
        first = (*own, linear("wide", "x", "k", d, wide), added("end", "w", wide))
        nodes = [
            block("first", first, 1),
            block("cross", (linear("read", read, "k", d, d), added("sum", "y", d)), 1),
            block("turn", own, 1),
        ]
        start = [linear(n, "!raw", n, d, f) for n, f in (("x", d), ("w", wide), ("z", d), ("y", d))]
        nodes = [block("stage", tuple(nodes[1:]), 1)] if within else nodes
        linked, ends = link([*start, *nodes], {"b": b}, ("x", "y", "w"))
        return sums(backward(Model("t", "t", linked, {}, ends)), ("accumulate",))

    def torchs(forked):
        program = capture(Forks(d, wide, forked), (torch.zeros(b, d),))
        return sums(program, ("pointwise", "pointwise_"))

    assert ours(True) - ours(False) == torchs(True) - torchs(False) == Counter({b * d: 1})


def vgg16():
    return vgg((64, 64, "M", 128, 128, "M", *((256,) * 3), "M", *((512,) * 3), "M", *((512,) * 3), "M"))


def llama():
    config = transformers.LlamaConfig(num_hidden_layers=2, hidden_size=64, intermediate_size=96)
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("model", "real"),
    [("resnet50", lambda: resnet(Bottleneck, (3, 4, 6, 3))), ("vgg16", vgg16), ("llama", llama)],
)
def test_fp8_leaves_a_classifier_alone(model, real):
    """The last linear layer, which accelerate keeps out of float8. The first one, which it keeps too, is to
    Transformer Engine a hidden layer like others; of a ResNet nothing is left.
    """
    with torch.device("meta"):
        module = real()
    _, last = find_first_last_linear_layers(module)
    linears = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear) and n != last}
    told = {**module.config.to_dict(), "architectures": ["LlamaForCausalLM"]} if model == "llama" else model
    program = estimate(told, batch=2, precision="fp8").program
    ours = sum(
        elements(t, o.sizes) * times
        for o, times in walk(program.nodes)
        if o.kind == "quantize" and o.phase == "forward"
        for t in o.weights
    )
    assert ours == sum(m.weight.numel() for m in linears.values())
    assert (ours == 0) == (model == "resnet50")


def test_a_network_that_is_frozen_to_its_end_has_no_backward_pass():
    assert estimate("rnn", batch=3, freeze_layers=1).memory.activations >= 0
    assert estimate("mlp", batch=3, freeze="linear*").flops.backward == 0


def test_nothing_but_an_mlp_is_fused_as_one():
    with pytest.raises(InputError, match="has no mlp"):
        estimate("resnet50", batch=2, fuse="mlp")


@pytest.mark.parametrize("attention", ["eager", "sdpa", "fused", "flash"])
@pytest.mark.parametrize(("name", "field"), [("encoder_decoder", "encoder_layers"), ("gpt2", "layers")])
def test_full_recomputation_keeps_a_layer_s_input_and_nothing_else(name, field, attention):
    """Chen et al. 2016: of a checkpointed segment its input is kept; b s d numbers of two bytes."""
    b, s, d = 2, 64, 64
    config = {"d_model": d, "heads": 4, "d_ff": 128, "vocab": 50, "context": s}

    def kept(layers):
        settings = {"seq": s, "batch": b, "attention": attention, "recompute": "full", "optimizer": "none"}
        settings["precision"] = "pure"
        more = {"decoder_layers": 2} if name == "encoder_decoder" else {}
        return estimate(name, config={**config, **more, field: layers}, **settings).memory.activations

    assert kept(6) - kept(5) == b * s * d * 2


def test_an_answer_s_network_can_be_asked_again():
    """Its attention is not fused yet, so that another kernel can be chosen for it."""
    first = estimate("gpt2", attention="eager")
    again = estimate(first.model, attention="flash")
    assert again.params == first.params
    assert again.memory.peak == estimate("gpt2", attention="flash").memory.peak
