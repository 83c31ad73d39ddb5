"""Kinds of modules that captures have got wrong: each a function that makes a minimal one and its inputs."""

import torch
from oracles.random_parts import Call, weight
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def x8(*sizes):
    return torch.randn(sizes or (8, 16))


def linear(**settings):
    return nn.Linear(16, 16, **settings)


def concatenated():
    def run(m, x):
        return F.linear(x, torch.cat((m.q, m.k, m.v)), torch.cat((m.a, m.b, m.c)))

    parts = {name: weight(16, 16) for name in "qkv"} | {name: weight(16) for name in "abc"}
    return Call(run, **parts), (x8(),)


def clipped():
    def run(m, x):
        with torch.no_grad():
            m.net.weight.clamp_(-1, 1)
        return m.net(x)

    return Call(run, net=linear()), (x8(),)


def reassigned():
    """Another storage takes the weight's place, as clipping in the way of WGAN does."""

    def run(m, x):
        m.net.weight.data = m.net.weight.data.clamp(-1, 1)
        return m.net(x)

    return Call(run, net=linear()), (x8(),)


def aligned():
    """CTC's loss, its lengths as lists."""

    def run(m, x):
        return F.ctc_loss(m.net(x)[:, None].log_softmax(-1), torch.ones(1, 3, dtype=torch.int64), [8], [3])

    return Call(run, net=linear()), (x8(),)


def segmented():
    def run(m, x):
        return torch.segment_reduce(m.net(x), "sum", lengths=torch.tensor([3, 5]))

    return Call(run, net=linear()), (x8(),)


def twice_differentiated():
    net = nn.Sequential(linear(), nn.Tanh())
    return Call(lambda m, x: torch.func.hessian(lambda y: m.net(y).sum())(x[0]), net=net), (x8(),)


def bounded():
    return nn.Embedding(100, 16, max_norm=1.0), (torch.randint(0, 100, (4, 8)),)


def listed():
    all_of_it = [weight(16, 16) for _ in range(3)]
    net = Call(lambda m, x: sum(x @ p for p in all_of_it), parts=nn.ParameterList(all_of_it))
    return net, (x8(),)


def enclosed():
    net = nn.Sequential(linear(bias=False))
    w = net[0].weight
    net.forward = lambda x: F.linear(x, w)
    return net, (x8(),)


def stepped():
    """The optimizer's step within the backward pass: no gradient outlives its hook."""
    net = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4)))
    steps = {p: torch.optim.SGD([p], lr=0.1) for p in net.parameters()}

    def hook(p):
        steps[p].step()
        steps[p].zero_grad()

    for p in net.parameters():
        p.register_post_accumulate_grad_hook(hook)
    return net, (x8(8, 64),)


def differentiable():
    return linear(), (x8().requires_grad_(),)


def reentrant():
    net = nn.Sequential(linear(), nn.ReLU(), linear())
    return Call(lambda m, x: checkpoint(m.net, x, use_reentrant=True), net=net), (x8().requires_grad_(),)


def forces():
    def run(m, x):
        x = x.detach().requires_grad_()
        return -torch.autograd.grad(m.net(x).sum(), x, create_graph=True)[0]

    return Call(run, net=nn.Sequential(linear(), nn.SiLU(), nn.Linear(16, 1, bias=False))), (x8(),)


def complex_valued():
    w = nn.Parameter(torch.randn(16, dtype=torch.complex64))
    return Call(lambda m, x: torch.view_as_real(x * m.w), w=w), (x8(),)


def of_16_bits():
    net = Call(lambda m, x: m.net(x) * m.scale, net=linear())
    net.register_buffer("scale", torch.ones(16, dtype=torch.int16))
    return net, (x8(),)


def resized():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.CrossMapLRN2d(2)), (x8(2, 3, 16, 16),)


def tied(share):
    def build():
        net = nn.Sequential(linear(bias=False), linear(bias=False))
        net[1].weight.data = share(net[0].weight.data)
        return net, (x8(),)

    return build


def expanded():
    net = Call(lambda m, x: m.net(x) + m.b, net=linear())
    net.register_buffer("b", torch.zeros(1, 16).expand(8, 16))
    return net, (torch.zeros(1, 16).expand(8, 16),)


def encoder():
    layers = (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(2))
    return nn.Sequential(*layers), (x8(2, 8, 16),)


def served():
    net, inputs = encoder()
    return net.eval(), inputs


def inference():
    def run(m, x):
        with torch.inference_mode():
            y = m.a(x)
        return m.b(y.clone())

    return Call(run, a=linear(), b=linear()), (x8(),)


def dropped_layers():
    def run(m, x):
        for layer in m.layers:
            x = x if torch.rand([]) < 0.0 else layer(x)
        return x

    return Call(run, layers=nn.ModuleList(linear() for _ in range(4))), (x8(),)


def counted():
    net = Call(lambda m, x: m.net(x) * int(m.count.item()), net=linear())
    net.register_buffer("count", torch.tensor(3))
    return net, (x8(),)


def selected():
    def run(m, x, edges):
        kept = edges[:, edges[0] != edges[1]]
        return torch.zeros_like(x).index_add(0, kept[1], m.net(x)[kept[0]])

    return Call(run, net=linear()), (x8(), torch.randint(0, 8, (2, 20)))


def masked():
    net = nn.Transformer(16, 4, 1, 1, 32, batch_first=True, dropout=0.0)
    mask = nn.Transformer.generate_square_subsequent_mask(8)
    return Call(lambda m, a, b, mask: m.net(a, b, tgt_mask=mask), net=net), (x8(2, 8, 16), x8(2, 8, 16), mask)


def mixed():
    return Call(lambda m, x: F.mish(m.net(x), inplace=True), net=linear()), (x8(),)


def three():
    return nn.Bilinear(16, 16, 4), (x8(), x8())


def in_time():
    return Call(lambda m, x: torch.conv_tbc(x, m.w, m.b), w=weight(3, 16, 8), b=weight(8)), (x8(10, 2, 16),)


def in_place():
    return Call(lambda m, x: (x @ m.net.weight).addmm_(x, m.net.weight), net=linear(bias=False)), (x8(),)


KINDS = (
    concatenated, clipped, reassigned, aligned, segmented, twice_differentiated, bounded,
    listed, enclosed, stepped, differentiable, reentrant, forces,
    complex_valued, of_16_bits, resized, expanded, encoder, served, inference, dropped_layers, counted,
    selected, masked, mixed, three, in_time, in_place,
)  # fmt: skip
