"""Calls of torch for random modules, a line each: of x [batch, steps, d] and a weight [d, d] to the same."""

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Doubled(torch.autograd.Function):
    """A function whose gradient is written by hand."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.T, (x.flatten(0, 1).T @ g.flatten(0, 1))


def in_parts(x, w):
    out = torch.zeros_like(x)
    out[:, ::2] = (x @ w)[:, ::2]
    out[:, 1::2].copy_(x[:, 1::2])
    return out


def in_place(x, w):
    y = x @ w
    y += x
    y *= 2
    return y


def rotated(x, w):
    y = x @ w
    angle = torch.arange(float(x.shape[1]))[:, None]
    a, b = y.chunk(2, -1)
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)


def in_pairs(x, w):
    turn = torch.polar(torch.ones(x.shape[-1] // 2), torch.ones(x.shape[-1] // 2))
    return torch.view_as_real(
        torch.view_as_complex((x @ w).unflatten(-1, (-1, 2)).contiguous()) * turn
    ).flatten(-2)


def scan(x, w):
    state, out = torch.zeros_like(x[:, 0]), []
    for t in range(x.shape[1]):
        state = state * (x[:, t] @ w).sigmoid() + x[:, t]
        out.append(state)
    return torch.stack(out, 1)


def balanced(x, w):
    y = x @ w
    for _ in range(2):
        y = y - y.logsumexp(1, keepdim=True)
        y = y - y.logsumexp(2, keepdim=True)
    return y.exp()


def nearest(x, w):
    y = x @ w
    return y + (w[torch.cdist(y, w[None]).argmin(-1)] - y).detach()


def selected(x, w):
    rows = (x.detach() > 9).any(-1)
    return torch.where(rows[..., None], x @ w, x)


def drawn(x, w):
    mean = x @ w
    seen = torch.distributions.Normal(mean, mean.exp())
    return (
        seen.rsample() + torch.distributions.kl_divergence(seen, torch.distributions.Normal(0.0, 1.0)).mean()
    )


def chosen(x, w):
    action = torch.distributions.Categorical(logits=x @ w)
    return action.log_prob(action.sample())[..., None] + action.entropy().mean() + x


def through_integers(x, w):
    y = x @ w
    return y + (y.round() - y).detach()


CALLS = (
    lambda x, w: torch.maximum(x @ w, x),
    lambda x, w: (x @ w).clamp(-1, 1),
    lambda x, w: (x @ w).amax(1, keepdim=True) + x,
    lambda x, w: (x @ w).median(1, keepdim=True).values + x,
    lambda x, w: (x @ w).kthvalue(1, 1, keepdim=True).values + x,
    lambda x, w: (x @ w).norm() + x,
    lambda x, w: (x @ w).logcumsumexp(1),
    lambda x, w: (x @ w).cummax(1).values,
    lambda x, w: (x @ w).tril() + x,
    lambda x, w: x @ torch.linalg.matrix_power(w, 3),
    lambda x, w: torch.linalg.multi_dot([x[0], w, w]) + x,
    lambda x, w: F.gumbel_softmax(x @ w, hard=True),
    lambda x, w: (x @ w) * torch.bernoulli(torch.full_like(x, 0.5)),
    lambda x, w: torch.zeros_like(x).index_put((torch.tensor([0]),), (x @ w)[:1], accumulate=True),
    lambda x, w: torch.zeros_like(x).scatter_reduce(1, torch.zeros_like(x, dtype=torch.int64), x @ w, "sum"),
    lambda x, w: torch.take_along_dim(x @ w, torch.zeros_like(x, dtype=torch.int64), 1),
    lambda x, w: (x @ w).repeat(1, 2, 1)[:, : x.shape[1]],
    lambda x, w: (x @ w).repeat_interleave(2, 1)[:, ::2],
    lambda x, w: torch.cat((x @ w).chunk(2, -1)[::-1], -1),
    lambda x, w: (x @ w).movedim(0, 1).contiguous().movedim(1, 0),
    lambda x, w: torch.stack((x @ w).unbind(1), 1),
    lambda x, w: torch.lerp(x @ w, x, 0.5),
    lambda x, w: torch.addcmul(x, x @ w, x),
    lambda x, w: torch.addcdiv(x, x @ w, x.abs() + 1),
    lambda x, w: torch.atan2(x @ w, x),
    lambda x, w: (x @ w).erf(),
    lambda x, w: torch.xlogy(x.abs(), (x @ w).abs() + 1),
    lambda x, w: torch.logit((x @ w).sigmoid(), eps=1e-3),
    lambda x, w: torch.remainder(x @ w, 2),
    lambda x, w: (x @ w) ** 3,
    lambda x, w: ((x @ w).abs() + 1).rsqrt(),
    lambda x, w: F.cosine_similarity(x @ w, x, -1)[..., None] + x,
    lambda x, w: F.pairwise_distance(x @ w, x)[..., None] + x,
    torch.inner,
    lambda x, w: torch.vdot(w[0], w[1]) + x,
    lambda x, w: torch.linalg.vecdot(x @ w, x)[..., None] + x,
    lambda x, w: torch.addbmm(torch.zeros(x.shape[1], x.shape[2]), x, w.expand(x.shape[0], -1, -1)) + x,
    lambda x, w: torch.addr(w, w[0], w[1]).sum(0) + x,
    lambda x, w: torch.kron(w[:1], w[:1, :1]) + x,
    lambda x, w: F.pad((x @ w).diff(dim=1), (0, 0, 1, 0)),
    lambda x, w: torch.quantile(x @ w, 0.5, dim=1, keepdim=True) + x,
    lambda x, w: x[:, (x @ w).sum(-1).argsort(1)[0]] @ w,
    lambda x, w: F.cross_entropy((x @ w)[0], torch.zeros(x.shape[1], dtype=torch.int64)) + x,
    lambda x, w: F.cross_entropy((x @ w).flatten(0, 1), x.flatten(0, 1).softmax(-1), label_smoothing=0.1) + x,
    lambda x, w: F.binary_cross_entropy((x @ w).sigmoid(), x.sigmoid().detach()) + x,
    lambda x, w: F.binary_cross_entropy_with_logits(x @ w, x.sigmoid()) + x,
    lambda x, w: F.kl_div((x @ w).log_softmax(-1), x.softmax(-1), reduction="batchmean") + x,
    lambda x, w: F.smooth_l1_loss(x @ w, x) + x,
    lambda x, w: F.huber_loss(x @ w, x, reduction="none"),
    lambda x, w: F.poisson_nll_loss(x @ w, x.abs()) + x,
    lambda x, w: F.gaussian_nll_loss(x @ w, x, (x @ w).exp()) + x,
    lambda x, w: F.triplet_margin_loss((x @ w)[0], x[0], x[0] * 2) + x,
    lambda x, w: F.multi_margin_loss((x @ w)[0], torch.zeros(x.shape[1], dtype=torch.int64)) + x,
    lambda x, w: F.hinge_embedding_loss(x @ w, torch.ones_like(x)) + x,
    lambda x, w: F.embedding_bag(torch.zeros(x.shape[1], 2, dtype=torch.int64), w) + x,
    lambda x, w: F.unfold(x[:, None], (1, 1)).unflatten(-1, x.shape[1:])[:, 0] @ w,
    lambda x, w: torch.vmap(lambda y: y @ w)(x),
    lambda x, w: torch.func.grad(lambda y: (y @ w).pow(2).sum())(x),
    lambda x, w: torch.func.functional_call(torch.nn.Linear(1, 1, bias=False), {"weight": w}, x),
    lambda x, w: checkpoint(lambda y: (y @ w).relu() @ w, x, use_reentrant=False),
    lambda x, w: checkpoint(lambda y: checkpoint(lambda z: (z @ w).tanh(), y, use_reentrant=False) @ w, x,
                            use_reentrant=False),
    lambda x, w: torch._foreach_add(list((x @ w).unbind(0)), 1.0)[0] + x,
    lambda x, w: (x @ w) + torch.add(x.detach(), 1, out=torch.empty_like(x)),
    Doubled.apply, in_parts, in_place, rotated, in_pairs, scan, balanced, nearest, selected, through_integers,
    drawn, chosen,
)  # fmt: skip
