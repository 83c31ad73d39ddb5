"""Losses in chunks against torch's MemTracker, and what a loop's variables hold."""

import pytest

from budget import estimate
from budget.errors import InputError
from budget.fold.memory import memory
from budget.ir import Model, link, op
from budget.plan.backward import backward
from budget.plan.loss import hold_logits, in_chunks
from budget.plan.optimizer import optimizer

torch = pytest.importorskip("torch")
from oracle_memory import peak  # noqa: E402
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


def ours():
    nodes = (
        op("embed", "!raw: b s c, *c d -> x: b s d"),
        op("head", "x: b s d, *d v -> logits: b s v"),
        op("loss.upcast", "logits: -> logits32/float32:", "cast"),
        op("loss.log_softmax", "logits32: -> logp:", "log_softmax"),
        op("loss.nll", "-> loss: 1", "nll"),
    )
    linked, ends = link(nodes, dict(b=B, s=S, c=C, d=D, v=V))
    return backward(Model("t", "t", linked, {}, ends))


@pytest.mark.parametrize("tokens", [8, 16, 96])
def test_gradients_of_logits_exist_for_a_chunk(tokens):
    def build():
        inputs = {"raw": torch.randn(B, S, C), "labels": torch.randint(V, (B, S))}
        return Head(tokens), inputs

    theirs = peak(build)["Total"]
    found = memory(optimizer(in_chunks(ours(), tokens), "adamw"), "bfloat16").peak
    assert found == pytest.approx(theirs, rel=0.03)


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
