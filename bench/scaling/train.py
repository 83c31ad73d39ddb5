"""One training from its plan to its record: tuned, trained, evaluated, counted, timed."""

import math
import time
from typing import NamedTuple

import torch
from torch.nn import functional as F

import budget

from . import data
from .models import Decoder, Perceptron

# Learning rates that are tried; the best by validation is kept.
RATES = {"mlp": (3e-4, 1e-3, 3e-3, 1e-2), "text": (1e-3, 3e-3, 1e-2, 3e-2)}
TUNED_ON = {"mlp": 300, "text": 262_144}  # samples or tokens
CONTEXT, ROWS = 64, 16  # tokens of a sequence, sequences of a batch
BATCH = 32  # samples of a batch of the perceptrons
PATIENCE = 8  # evaluations without a better validation loss after which a perceptron's training ends
EVALUATED = 1024  # sequences of the validation and of the test text, spread over all of it


class Run(NamedTuple):
    """What is trained. sizes: of a perceptron, or (layers, d_model, heads); data: samples, or tokens."""

    family: str
    sizes: tuple[int, ...]
    data: int
    seed: int

    @property
    def key(self) -> str:
        """Its name in the records."""
        return f"{self.family}-{'x'.join(map(str, self.sizes))}-{self.data}-{self.seed}"


def perceptrons():
    """The 10-20-10-2 classifier on 100 samples, then widths by amounts of data."""
    yield Run("mlp", (10, 20, 10, 2), 100, 0)
    for width in (2, 4, 8, 16, 32, 64):
        for samples in (75, 150, 300, 600, 1180):
            yield Run("mlp", (64, width, width, 10), samples, 0)


def decoders():
    """Small transformers by amounts of text, each character seen once."""
    for layers, d_model, heads in ((1, 12, 1), (2, 16, 2), (2, 24, 2), (2, 36, 3), (3, 48, 4), (3, 64, 4)):
        for tokens in (131_072, 262_144, 524_288, 1_048_576, 2_097_152):
            yield Run("text", (layers, d_model, heads), tokens, 0)


PLANS = {"mlp": perceptrons, "text": decoders}


def record(run: Run, rate: float | None, texts: data.Text | None) -> dict:
    """Train, and return the record: the cost and the loss."""
    start, cpu = time.time(), time.thread_time()
    found = _perceptron(run, rate) if run.family == "mlp" else _decoder(run, rate, texts)
    estimate, steps = found.pop("estimate"), found.pop("steps")
    flops = estimate.flops.forward + estimate.flops.backward
    assert found["params"] == estimate.params.total, "the network is not the one that was estimated"
    return {
        "key": run.key,
        "family": run.family,
        "sizes": list(run.sizes),
        "data": run.data,
        "seed": run.seed,
        **found,
        "steps": steps,
        "train_flops": flops * steps,
        "flops_6nd": 6 * found["params"] * found["seen"],
        "predicted_s": estimate.times.step * steps,
        "predicted_by": estimate.profile.provenance,
        "total_cpu_s": round(time.thread_time() - cpu, 2),
        "total_wall_s": round(time.time() - start, 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "torch": torch.__version__,
    }


def tune(run: Run, texts: data.Text | None) -> tuple[float, dict[float, float]]:
    """The learning rate of a network: the best validation loss of short trainings, and all of them."""
    tried = {}
    short = run._replace(data=100 if run.sizes[0] == 10 else TUNED_ON[run.family])
    for rate in RATES[run.family]:
        one = _perceptron(short, rate) if run.family == "mlp" else _decoder(short, rate, texts)
        tried[rate] = one["validation_loss"]
    return min(tried, key=lambda r: tried[r] if math.isfinite(tried[r]) else math.inf), tried


def _perceptron(run: Run, rate: float) -> dict:
    """Epochs over the same samples, augmented, until validation stops improving; the best weights are
    kept.
    """
    tiny = run.sizes[0] == 10
    split = data.digits(run.data, run.seed, classes=run.sizes[-1], components=10 if tiny else 0)
    torch.manual_seed(run.seed)
    generator = torch.Generator().manual_seed(run.seed)
    network = Perceptron(run.sizes)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    images, labels = split.train
    best, state, steps, waited, seen, spent = math.inf, None, 0, 0, 0, 0.0
    every = max(1, 200 // math.ceil(run.data / BATCH))  # epochs between evaluations
    for epoch in range(4000):
        began = time.thread_time()
        order = torch.randperm(len(images), generator=generator)
        for i in range(0, len(images), BATCH):
            rows = order[i : i + BATCH]
            inputs = images[rows] if tiny else data.shifted(images[rows], generator)
            loss = F.cross_entropy(network(inputs), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            steps, seen = steps + 1, seen + len(rows)
        spent += time.thread_time() - began
        if epoch % every == every - 1:
            now = _judged(network, *split.validation)[0]
            waited = 0 if now < best - 1e-4 else waited + 1
            if now < best:
                best, state = now, {k: v.clone() for k, v in network.state_dict().items()}
            if waited >= PATIENCE:
                break
    network.load_state_dict(state)
    loss, accuracy = _judged(network, *split.test)
    return {
        "params": sum(p.numel() for p in network.parameters()),
        "seen": seen,
        "lr": rate,
        "loss": loss,
        "accuracy": accuracy,
        "validation_loss": best,
        "measured_s": round(spent, 4),
        "steps": steps,
        "estimate": budget.estimate("mlp", config={"sizes": run.sizes}, batch=min(BATCH, run.data), **CPU),
    }


CPU = {"dtype": "fp32", "device": "cpu", "optimizer": "adamw", "execution": "eager"}


def _spread(characters):
    """Sequences from all over a text."""
    windows = characters.unfold(0, CONTEXT + 1, CONTEXT)
    return windows[torch.linspace(0, len(windows) - 1, min(EVALUATED, len(windows))).long()]


@torch.no_grad()
def _judged(network, inputs, labels) -> tuple[float, float]:
    logits = network(inputs).flatten(0, -2)
    loss = F.cross_entropy(logits, labels.flatten())
    return float(loss), float((logits.argmax(dim=-1) == labels.flatten()).float().mean())


def _decoder(run: Run, rate: float, texts: data.Text) -> dict:
    """One pass over fresh text: a warm-up, then a cosine down to a tenth."""
    torch.manual_seed(run.seed)
    layers, d_model, heads = run.sizes
    network = Decoder(layers, d_model, heads, len(data.ALPHABET), CONTEXT)
    decay = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))
    steps = run.data // (CONTEXT * ROWS)
    windows = texts.train[: run.data + 1].unfold(0, CONTEXT + 1, CONTEXT)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(run.seed))
    began = time.thread_time()
    for step in range(steps):
        warm, part = min(1.0, (step + 1) / max(1, steps // 20)), step / steps
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.1 + 0.45 * (1 + math.cos(math.pi * part)))
        batch = windows[order[step * ROWS : (step + 1) * ROWS]]
        logits = network(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    spent = time.thread_time() - began
    parts = (_spread(part) for part in (texts.validation, texts.test))
    validation, test = (_judged(network, p[:, :-1], p[:, 1:]) for p in parts)
    config = {
        "layers": layers, "d_model": d_model, "heads": heads, "vocab": len(data.ALPHABET), "context": CONTEXT
    }  # fmt: skip
    return {
        "params": sum(p.numel() for p in network.parameters()),
        "seen": steps * CONTEXT * ROWS,
        "lr": rate,
        "loss": test[0],
        "accuracy": test[1],
        "validation_loss": validation[0],
        "measured_s": round(spent, 4),
        "steps": steps,
        "estimate": budget.estimate("transformer", config=config, batch=ROWS, seq=CONTEXT, **CPU),
    }
