"""Losses in chunks against torch's MemTracker, and what a loop's variables hold."""

import pytest

from budget import estimate
from budget.arch._loss import cross_entropy
from budget.errors import InputError
from budget.fold.memory import memory
from budget.ir import LOSS, Model, link, op
from budget.plan.backward import backward
from budget.plan.fused import fused
from budget.plan.loss import hold_logits, in_chunks
from budget.plan.loss_logits import own, shifted
from budget.plan.loss_parallel import parallel, widened
from budget.plan.optimizer import optimizer

torch = pytest.importorskip("torch")
from oracles.memory import peak  # noqa: E402
from torch import nn  # noqa: E402

B, S, C, D, V = 2, 96, 8, 32, 4000
LOGITS = B * S * V


class Head(nn.Module):
    """litgpt's chunked head and loss."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens
        self.embed, self.head = nn.Linear(C, D, bias=False), nn.Linear(D, V, bias=False)

    def forward(self, raw, labels):
        x = self.embed(raw)
        chunks = [self.head(part).float().reshape(-1, V) for part in x.split(self.tokens, dim=1)]
        labels = [part.reshape(-1) for part in labels.split(self.tokens, dim=1)]
        losses = [
            nn.functional.cross_entropy(a, b, reduction="none") for a, b in zip(chunks, labels, strict=True)
        ]
        return (torch.cat(losses).mean(),)


def ours(*, train=True):
    nodes = (
        op("embed", "!raw: b s c, *c d -> x: b s d"),
        op("head", "x: b s d, *d v -> logits: b s v"),
        op("loss.upcast", "logits: -> logits32/float32:", "cast", LOSS)._replace(callers=("logits",)),
        op("loss.log_softmax", "logits32: -> logp:", "log_softmax", LOSS),
        op("loss.nll", "-> loss: 1", "nll", LOSS),
    )
    linked, ends = link(nodes, dict(b=B, s=S, c=C, d=D, v=V))
    network = Model("t", "t", linked, {}, ends)
    return backward(network) if train else network


@pytest.mark.parametrize("tokens", [8, 16, 96])
def test_gradients_of_logits_exist_for_a_chunk(tokens):
    def build():
        inputs = {"raw": torch.randn(B, S, C), "labels": torch.randint(V, (B, S))}
        return Head(tokens), inputs

    theirs = peak(build)["Total"]
    found = memory(optimizer(in_chunks(ours(), tokens), "adamw"), "bfloat16").peak
    assert found == pytest.approx(theirs, rel=0.03)


class InPlace(torch.autograd.Function):
    """Megatron's: a float32 copy of the logits becomes probabilities, and these their gradient."""

    @staticmethod
    def forward(ctx, logits, labels):
        x = logits.float()
        x -= x.max(dim=-1)[0].unsqueeze(-1)
        own = x.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        torch.exp(x, out=x)
        total = x.sum(dim=-1)
        x.div_(total.unsqueeze(-1))
        ctx.save_for_backward(x, labels)
        return total.log() - own

    @staticmethod
    def backward(ctx, grad):
        x, labels = ctx.saved_tensors
        x.view(-1, V)[torch.arange(labels.numel()), labels.view(-1)] -= 1.0
        return x.mul_(grad.unsqueeze(-1)), None


class Native(InPlace):
    """Megatron's, fused: its compiled kernels write the exponentials beside the copy."""

    @staticmethod
    def forward(ctx, logits, labels):
        x = logits.float()
        peak, own = x.max(dim=-1)[0], x.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        y = torch.sub(x, peak.unsqueeze(-1)).exp_()
        total = y.sum(dim=-1)
        y.div_(total.unsqueeze(-1))
        ctx.save_for_backward(y, labels)
        return total.log() - own + peak


def of_dtensor(mesh, logits, labels):
    """torch's loss_parallel of one device's part of the vocabulary, as torchtitan calls it."""
    from torch.distributed.tensor import DTensor, Shard

    part = DTensor.from_local(logits, mesh, [Shard(2)], run_check=False)
    return nn.functional.cross_entropy(part.flatten(0, 1).float(), labels.flatten()).to_local()


class WithLoss(nn.Module):
    """A head, and a loss that a function computes while the logits are held."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        self.embed, self.head = nn.Linear(C, D, bias=False), nn.Linear(D, V, bias=False)

    def forward(self, raw, labels):
        logits = self.head(self.embed(raw))
        return (self.loss(logits, labels),)


@pytest.fixture
def divided():
    """A mesh with loss_parallel on; of one device, since MemTracker counts fake tensors of the whole, too."""
    dist = pytest.importorskip("torch.distributed")
    from torch.distributed.tensor.parallel import loss_parallel
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    try:
        with loss_parallel():
            yield dist.init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("choice", ["dtensor", "in_place", "native"])
def test_losses_of_a_divided_vocabulary_hold_what_their_code_holds(choice, divided):
    of = {"in_place": InPlace.apply, "native": Native.apply}
    loss = of.get(choice, lambda *given: of_dtensor(divided, *given))

    def build():
        return WithLoss(loss), {"raw": torch.randn(B, S, C), "labels": torch.randint(V, (B, S))}

    network = backward(widened(ours(train=False)) if choice in of else ours(train=False))
    curve = memory(optimizer(parallel(network, choice), "adamw"), "bfloat16")
    assert curve.peak == pytest.approx(peak(build)["Total"], rel=0.02)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_fused_loss_writes_the_gradient_of_logits_in_any_dtype(dtype):
    asked = {"batch": 64, "seq": 256, "dtype": dtype, "device": "h100", "fuse": "norm,loss"}
    plain, held = (estimate("gpt2", **asked, **h).memory.peak for h in ({}, {"hold_logits": "compiled"}))
    logits = {"fp32": 4, "bf16": 2}[dtype] * 64 * 256 * 50257
    assert held - plain == pytest.approx(2 * logits, rel=0.04)  # those it returns, and zeros


def test_logits_are_held():
    curves = [
        memory(m, "bfloat16").curve for m in (ours(), *(hold_logits(ours(), u) for u in ("step", "next")))
    ]
    plain, step, following = ({m.op: m.total for m in curve} for curve in curves)
    assert step["d:head"] - plain["d:head"] == 4 * LOGITS
    assert following["head"] - step["head"] == 4 * LOGITS
    assert following["d:head"] == step["d:head"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("llama", {"precision": "autocast", "output_dtype": "fp32", "hold_logits": "next"}),
        ("bert", {"precision": "autocast", "output_dtype": "fp32", "hold_logits": "step"}),
        ("llama", {"precision": "pure", "output_dtype": "bf16", "hold_logits": "next", "accumulate": 2}),
    ],
)
def test_returned_logits_are_those_that_accelerate_makes(name, asked):
    """A loop that holds what a network with its own loss returns; accelerate casts it to float32."""
    pytest.importorskip("peft")
    from differential_techniques import Case, judge
    from oracles.technique_families import FAMILIES

    family = FAMILIES[name]
    config = family.config_class(**{**family.fields, "num_hidden_layers": 1, "vocab_size": 8000}).to_dict()
    call = {"attention": "sdpa", "batch": 4, "seq": 256, **asked}
    found = judge(Case(name, {**config, "architectures": [family.cls]}, call))
    assert abs(found.error) < 0.002, found


def test_a_stack_that_casts_what_is_returned_does_so_under_autocast():
    asked = {"batch": 1, "seq": 32, "stack": "transformers"}
    of = {p: estimate("gpt2", precision=p, **asked).task.techniques.used for p in ("autocast", "pure")}
    assert of["autocast"].get("output_dtype") == "fp32"
    assert "output_dtype" not in of["pure"]


@pytest.mark.parametrize("name", ["resnet50", "mlp-10-20-10-2"])
def test_a_loss_of_no_sequence_has_no_chunks(name):
    with pytest.raises(InputError, match=r"loss_chunk: .*; allowed: "):
        estimate(name, loss_chunk=4)


def test_a_fused_loss_has_no_chunks_of_its_own():
    with pytest.raises(InputError, match=r"loss_chunk: got fuse cross_entropy, .*; allowed: one of them"):
        estimate("gpt2", loss_chunk=4, fuse="cross_entropy")


def of_shifted(logits, labels):
    """transformers' before 4.49 (its `ForCausalLMLoss`)."""
    read = logits.float()
    shifted = read[..., :-1, :].contiguous().view(-1, V)
    return nn.functional.cross_entropy(shifted, labels[..., 1:].contiguous().view(-1))


def of_own(logits, labels):
    """torch's, as plain loops call it."""
    return nn.functional.cross_entropy(logits.view(-1, V), labels.view(-1))


def of_own_shifted(logits, labels):
    """transformers' GPT-2's, OPT's and BLOOM's before 4.49."""
    shifted = logits[..., :-1, :].contiguous().view(-1, V)
    return nn.functional.cross_entropy(shifted, labels[..., 1:].contiguous().view(-1))


class Kernel(torch.autograd.Function):
    """A fused loss as it allocates: one number a row, and the gradient in the place of the logits."""

    @staticmethod
    def forward(ctx, logits, labels):
        ctx.save_for_backward(logits)
        assert labels.numel() == len(logits)
        return logits[:, 0].clone()

    @staticmethod
    def backward(ctx, grad):
        (logits,) = ctx.saved_tensors
        return logits.mul_(grad.unsqueeze(-1)), None


def of_kernel(logits, labels):
    """The same loss where a kernel is called in place of torch's cross-entropy."""
    read = logits.float()
    shifted = read[..., :-1, :].contiguous().view(-1, V)
    return Kernel.apply(shifted, labels[..., 1:].contiguous().view(-1)).mean()


class Replaced(WithLoss):
    """A network of transformers before 4.46, whose logits are float32."""

    def forward(self, raw, labels):
        logits = self.head(self.embed(raw)).float()
        return (self.loss(logits, labels),)


def replaced(model):
    return shifted(model, replaced=True)


def own_shifted(model):
    return own(model, laid_out=True)


def shifted_for_a_kernel(model):
    return shifted(fused(model, "loss", copied=True))


@pytest.mark.parametrize(
    ("reads", "loss"),
    [
        (shifted, of_shifted),
        (replaced, of_shifted),
        (own, of_own),
        (own_shifted, of_own_shifted),
        (shifted_for_a_kernel, of_kernel),
    ],
)
def test_a_loss_reads_the_logits_that_its_software_makes(reads, loss):
    """Those of the last of 96 tokens, which are not shifted, count here."""

    def build():
        made = Replaced if reads is replaced else WithLoss
        return made(loss), {"raw": torch.randn(B, S, C), "labels": torch.randint(V, (B, S))}

    made = cross_entropy("logits", upcast=True, states=())
    nodes = (
        op("embed", "!raw: b s c, *c d -> x: b s d"),
        op("head", "x: b s d, *d v -> logits: b s v"),
        *made,
    )
    linked, ends = link(nodes, dict(b=B, s=S, c=C, d=D, v=V))
    program = backward(reads(Model("t", "t", linked, {}, ends)))
    found = memory(optimizer(program, "adamw"), "bfloat16").peak
    assert found == pytest.approx(peak(build)["Total"], rel=0.02)
