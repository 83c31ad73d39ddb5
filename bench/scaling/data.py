"""Real data that comes with packages: scikit-learn's digits, and the text of Python's own library."""

import hashlib
import os
import sysconfig
from typing import NamedTuple

import torch

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # 96 characters; others are dropped
LEFT_OUT = (
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "encodings",
    "lib2to3",
    "__pycache__",
)
LARGEST = 400_000  # bytes of a file: longer ones are tables
HELD = 16  # one file of so many is for validation, one for the test


class Split(NamedTuple):
    """Inputs and labels to train on, to tune and stop by, and to report."""

    train: tuple[torch.Tensor, torch.Tensor]
    validation: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]


class Text(NamedTuple):
    """Characters as numbers: to train on, to tune by, and to report."""

    train: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor


def digits(samples: int, seed: int, *, classes: int = 10, components: int = 0) -> Split:
    """Digits of 8 x 8 pixels: `samples` to train on, 250 to tune by, 350 to report.

    Cleaned of duplicates, shuffled, standardised by the mean and deviation of the training samples alone.
    classes 2: below five, or not. components: only so many principal components of the training samples.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images, labels = torch.tensor(loaded.data, dtype=torch.float32), torch.tensor(loaded.target)
    images, labels = _unique(images, labels)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(7))  # the same test for all
    images, labels = images[order], labels[order]
    if classes == 2:
        labels = (labels >= 5).long()
    held = 600
    pick = torch.randperm(len(images) - held, generator=torch.Generator().manual_seed(seed))[:samples] + held
    train = images[pick]
    mean, deviation = train.mean(dim=0), train.std(dim=0).clamp(min=1.0)
    standard = (images - mean) / deviation
    if components:
        axes = torch.linalg.svd(standard[pick], full_matrices=False)[2][:components]
        standard = standard @ axes.T
        standard = standard / standard[pick].std(dim=0)
    return Split(
        (standard[pick], labels[pick]),
        (standard[:250], labels[:250]),
        (standard[250:held], labels[250:held]),
    )


def _unique(images, labels):
    kept = list({tuple(image): i for i, image in enumerate(images.tolist())}.values())
    return images[kept], labels[kept]


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augmented: each image moved by up to a pixel each way, filled with its edge."""
    square = torch.nn.functional.pad(images.view(-1, 1, 8, 8), (1, 1, 1, 1), mode="replicate")
    windows = square.unfold(2, 8, 1).unfold(3, 8, 1).reshape(len(images), 9, 64)
    which = torch.randint(0, 9, (len(images),), generator=generator)
    return windows[torch.arange(len(images)), which]


def text() -> Text:
    """The library's source and documentation, cleaned: known characters, no tests, no tables, no duplicates.

    A file's split follows from the hash of its name, so that no part of one is in two splits.
    """
    parts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    seen = set()
    for name, path in sorted(_files()):
        with open(path, encoding="utf-8", errors="replace") as file:
            content = _clean(file.read())
        digest = hashlib.sha256(content.encode()).hexdigest()
        if len(content) < 200 or digest in seen:
            continue
        seen.add(digest)
        place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD
        parts[{0: "validation", 1: "test"}.get(place, "train")].append(content)
    number = {c: i for i, c in enumerate(ALPHABET)}
    order = torch.Generator().manual_seed(3)
    train = [parts["train"][i] for i in torch.randperm(len(parts["train"]), generator=order)]
    joined = ("".join(p) for p in (train, parts["validation"], parts["test"]))
    return Text(*(torch.tensor([number[c] for c in p], dtype=torch.long) for p in joined))


def _files():
    root = sysconfig.get_paths()["stdlib"]
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in LEFT_OUT)
        for file in files:
            path = os.path.join(folder, file)
            if file.endswith(".py") and os.path.getsize(path) <= LARGEST:
                yield os.path.relpath(path, root), path


def _clean(content: str) -> str:
    lines = (line.expandtabs(4).rstrip() for line in content.splitlines())
    known = set(ALPHABET)
    return "".join(c for c in "\n".join(lines) + "\n" if c in known)
