"""Random modules: layers, calls of torch, ways of control, and chains, branches and loops of them.

`made(seed)` gives (module, inputs), the same ones for the same seed. Steps map [batch, steps, width] to the
same, or images [batch, channels, side, side] to images.
"""

from __future__ import annotations

import random

import torch
from oracles.random_calls import CALLS
from oracles.random_images import FLAT
from oracles.random_parts import Call, activation, weight
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def cell(r, d):
    kind, layers = r.choice((nn.LSTM, nn.GRU, nn.RNN)), r.choice((1, 2))
    both = d % 2 == 0 and r.random() < 0.3
    net = kind(d, d // 2 if both else d, layers, batch_first=r.random() < 0.7, bidirectional=both)
    return Call(lambda m, x: m.net(x)[0], net=net)


def heads(r, d):
    return r.choice([h for h in (1, 2, 4) if d % h == 0])


def attend(r, d):
    net = nn.MultiheadAttention(d, heads(r, d), batch_first=True, dropout=r.choice((0.0, 0.1)))
    wants = r.random() < 0.3
    return Call(lambda m, x: m.net(x, x, x, need_weights=wants)[0], net=net)


def encoder(r, d):
    return nn.TransformerEncoderLayer(
        d, heads(r, d), 2 * d, batch_first=True, norm_first=r.random() < 0.5, dropout=r.choice((0.0, 0.1)),
        activation=r.choice(("relu", "gelu")),
    )  # fmt: skip


def sdpa(r, d):
    h, causal, p = heads(r, d), r.random() < 0.5, r.choice((0.0, 0.2))

    def run(m, x):
        q, k, v = (y.unflatten(-1, (h, d // h)).transpose(1, 2) for y in m.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=p)
        return m.o(y.transpose(1, 2).flatten(2))

    return Call(run, qkv=nn.Linear(d, 3 * d), o=nn.Linear(d, d))


def fused_weights(r, d):
    """The weights of several layers in one product: their gradients are views of one storage."""
    at = r.choice((0, 1))

    def run(m, x):
        both = torch.cat((m.a, m.b), at)
        return F.linear(x, both)[..., :d] if at == 0 else F.linear(torch.cat((x, x), -1), both)

    return Call(run, a=weight(d, d), b=weight(d, d))


def clipped(r, d):
    def run(m, x):
        with torch.no_grad():
            m.net.weight.clamp_(-1, 1)
        return m.net(x)

    return Call(run, net=nn.Linear(d, d))


def tied(r, d):
    a, b = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
    if r.random() < 0.5:
        b.weight = a.weight
    else:
        b.weight.data = a.weight.data.t() if r.random() < 0.5 else a.weight.data
    return nn.Sequential(a, b)


def listed(r, d):
    net = Call(lambda m, x: x @ m.all[0] + x @ m.all[1], a=weight(d, d), b=weight(d, d))
    net.all = [net.a, net.b]
    return net


def cached(r, d):
    def run(m, x):
        if "table" not in m.cache:
            m.cache["table"] = torch.arange(float(d))
        m.calls = m.calls + 1
        return m.net(x) * m.cache["table"]

    net = Call(run, net=nn.Linear(d, d))
    net.cache, net.calls = {}, 0
    return net


def buffered(r, d):
    net = Call(lambda m, x: m.net(x) * m.scale.to(x.dtype), net=nn.Linear(d, d))
    kind = r.choice((torch.float32, torch.int16, torch.int64, torch.bool, torch.uint8))
    scale = torch.ones(1, d).to(kind)
    net.register_buffer("scale", scale.expand(3, 1, d)[:1] if r.random() < 0.3 else scale)
    return net


def hooked(r, d):
    net = nn.Linear(d, d)
    net.weight.register_hook(lambda g: g * 2)
    net.register_forward_hook(lambda m, args, out: out + 1)
    return net


def functional(r, d):
    runs = (
        lambda m, x: torch.einsum("bsd,de->bse", x, m.w),
        lambda m, x: torch.einsum("bsd,btd->bst", x, x) @ x @ m.w,
        lambda m, x: torch.matmul(x, m.w),
        lambda m, x: torch.baddbmm(x, x, m.w.expand(x.shape[0], d, d)),
        lambda m, x: torch.addmm(x[0], x[0], m.w).expand_as(x),
        lambda m, x: (x[0] @ m.w).addmm_(x[0], m.w).expand_as(x),
        lambda m, x: (x @ m.w).baddbmm_(x, m.w.expand(x.shape[0], d, d)),
        lambda m, x: torch.mv(m.w, x.flatten()[:d]) + x,
        lambda m, x: torch.dot(m.w.flatten(), m.w.flatten()) * x,
        lambda m, x: torch.tensordot(x, m.w, 1),
        lambda m, x: F.bilinear(x, x, m.w.expand(d, d, d).contiguous()),
        lambda m, x: torch.cumsum(x @ m.w, 1),
        lambda m, x: (x @ m.w).sort(-1).values,
        lambda m, x: (x @ m.w).topk(1, 1).values.expand_as(x),
        lambda m, x: torch.where(x > 0, x @ m.w, x),
        lambda m, x: F.normalize(x @ m.w, dim=-1),
        lambda m, x: F.softmax(x @ m.w, -1),
        lambda m, x: F.log_softmax(x @ m.w, -1),
        lambda m, x: torch.logsumexp(x @ m.w, -1, keepdim=True) + x,
        lambda m, x: F.linear(x, m.w).var(-1, keepdim=True) + x,
        lambda m, x: F.embedding(torch.arange(x.shape[1]), m.w[:1].expand(x.shape[1], d)) + x,
        lambda m, x: F.glu(torch.cat((x, x @ m.w), -1)),
        lambda m, x: x.masked_fill(x > 0, 0.0) @ m.w,
        lambda m, x: torch.flip(x @ m.w, (1,)),
        lambda m, x: torch.roll(x @ m.w, 1, 1),
        lambda m, x: (x @ m.w).unfold(1, 1, 1).squeeze(-1),
        lambda m, x: torch.cdist(x @ m.w, x).mean(-1, keepdim=True) + x,
        lambda m, x: x.index_add(1, torch.tensor([0]), (x @ m.w)[:, :1]),
        lambda m, x: x.scatter_add(1, torch.zeros_like(x, dtype=torch.int64), x @ m.w),
        lambda m, x: torch.gather(x @ m.w, 1, torch.zeros_like(x, dtype=torch.int64)),
        lambda m, x: torch.stack((x, x @ m.w)).mean(0),
        lambda m, x: torch.outer(m.w[0], m.w[1]) @ x.transpose(1, 2).contiguous()[0].mean(-1) + x,
        lambda m, x: x + torch.nn.utils.parameters_to_vector([m.w]).mean(),
    )
    return Call(r.choice(runs), w=weight(d, d))


def called(r, d):
    run = r.choice(CALLS)
    return Call(lambda m, x: run(x, m.w), w=weight(d, d))


def normed(r, d):
    kind = r.choice((nn.LayerNorm, nn.RMSNorm))
    return kind(d, elementwise_affine=r.random() < 0.8)


def spoiled(r, d):
    """A branch without gradients, one that is detached, and one that is thrown away."""
    way = r.choice(("no_grad", "detach", "unused", "inference"))

    def run(m, x):
        if way == "no_grad":
            with torch.no_grad():
                side = m.side(x)
        elif way == "inference":
            with torch.inference_mode():
                side = m.side(x)
            side = side.clone()
        else:
            side = m.side(x)
            side = side.detach() if way == "detach" else torch.zeros(1)
        return m.net(x) + side

    return Call(run, net=nn.Linear(d, d), side=nn.Linear(d, d))


def odd(r, d):
    """Parametrized, frozen, in another format, a loop with a state."""
    way = r.choice(("weight_norm", "spectral_norm", "frozen", "double", "loop", "packed", "number", "drawn"))
    net = nn.Linear(d, d)
    if way == "weight_norm":
        return nn.utils.parametrizations.weight_norm(net)
    if way == "spectral_norm":
        return nn.utils.parametrizations.spectral_norm(net)
    if way == "frozen":
        net.weight.requires_grad_(False)
        return net
    if way == "double":
        return Call(lambda m, x: m.net(x.double()).float(), net=net.double())
    if way == "number":
        made = Call(lambda m, x: m.net(x) if m.count.item() > 0 else x, net=net)
        made.register_buffer("count", torch.tensor(3))
        return made
    if way == "drawn":
        return Call(lambda m, x: x if torch.rand([]) < 0.0 else m.net(x), net=net)
    if way == "packed":

        def packed(m, x):
            lengths = torch.arange(x.shape[0]) % x.shape[1] + 1
            rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(m.net(rows)[0], batch_first=True)[0].mean(1, True) + x

        return Call(packed, net=nn.GRU(d, d, batch_first=True))

    def loop(m, x):
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            state = torch.tanh(m.net(x[:, step]) + state)
        return state.unsqueeze(1) + x

    return Call(loop, net=net)


WIDE = (
    lambda r, d: nn.Linear(d, d, bias=r.random() < 0.7),
    lambda r, d: nn.Sequential(nn.Linear(d, 2 * d), activation(r, d), nn.Linear(2 * d, d)),
    activation,
    normed,
    cell,
    attend,
    encoder,
    sdpa,
    fused_weights,
    clipped,
    tied,
    listed,
    cached,
    buffered,
    hooked,
    functional,
    functional,
    called,
    called,
    called,
    called,
    spoiled,
    odd,
    odd,
    lambda r, d: nn.Dropout(r.choice((0.0, 0.1)), inplace=r.random() < 0.2),
    lambda r, d: Call(
        lambda m, x: m.net(x.transpose(1, 2)).transpose(1, 2), net=nn.Conv1d(d, d, 3, padding=1)
    ),
    lambda r, d: Call(lambda m, x: m.net(x.transpose(1, 2)).transpose(1, 2), net=nn.BatchNorm1d(d)),
    lambda r, d: Call(lambda m, x: m.net(x, x), net=nn.Bilinear(d, d, d)),
    lambda r, d: Call(lambda m, x: torch.conv_tbc(x, m.w, m.b, 1), w=weight(3, d, d), b=weight(d)),
)


def composed(r, d, steps):
    """A few steps one after the other, some of them with a way around, run again, or twice."""
    parts = []
    for _ in range(r.randint(1, 5)):
        step = r.choice(steps)(r, d)
        way = r.random()
        if way < 0.25:
            step = Call(lambda m, x: x + m.net(x.clone()), net=step)
        elif way < 0.35:
            step = Call(lambda m, x: checkpoint(m.net, x, use_reentrant=False), net=step)
        elif way < 0.4:
            step = Call(lambda m, x: m.net(m.net(x)), net=step)
        elif way < 0.45:
            step = Call(
                lambda m, x: torch.func.functional_call(m.net, dict(m.net.named_parameters()), (x,)), net=step
            )
        parts.append(step)
    return parts


def made(seed):
    """(module, inputs) of a seed."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    if r.random() < 0.6:
        b, s, d = r.choice((1, 2, 3)), r.choice((2, 3, 5)), r.choice((4, 6, 8))
        parts = composed(r, d, WIDE)
        if r.random() < 0.3:
            return nn.Sequential(nn.Embedding(11, d), *parts), (torch.randint(0, 11, (b, s)),)
        x = torch.randn(b, s, d)
        first = nn.Linear(d, d)
    else:
        b, d, side = r.choice((1, 2)), r.choice((2, 4, 6)), 8
        parts = composed(r, d, FLAT)
        x = torch.randn(b, d, side, side)
        first = nn.Conv2d(d, d, 1)
    way = r.random()
    if way < 0.15:
        x = x[:1].expand(b, *x.shape[1:])
    elif way < 0.3:
        x.requires_grad_()
    module = nn.Sequential(first, *parts)
    return (module.eval() if r.random() < 0.2 else module), (x,)
