"""The words of a shell's script; variables are replaced where the script itself sets them.

Nothing is run: where an expression, a command or the script's caller sets a variable, its name stays.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

ASSIGNED = re.compile(r"""(?:^|[\s;])([A-Za-z_]\w*)=(?!\()("[^"]*"|'[^']*'|[^\s;#()]*)""")
# A Slurm script's requests, and the variables in which its job finds them. Source: sbatch.
SBATCH = re.compile(r"(?m)^#SBATCH[ \t]+(--?[\w-]+)(?:=|[ \t]+)([\w:]+)[ \t]*(?:#.*)?$")
JOB = {
    "--nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"), "-N": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "--gpus-per-node": ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"), "--gres": ("SLURM_GPUS_ON_NODE",),
    "--ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
}  # fmt: skip
USED = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*|\d+)(?::?-([^{}]*))?\})")


def words(text: str) -> list[str]:
    """The script's words, as a shell divides them. Raises ValueError."""
    text = text.replace("\\\n", " ").replace("=(", "=( ").rstrip().removesuffix("\\")
    known = variables(text)
    return [part for word in shlex.split(text, comments=True) for part in _parts(filled(word, known))]


TRL = re.compile(r"(?:^|.*/)trl/scripts/(\w+)\.py")
COMMANDS = ("sft", "dpo", "grpo", "kto", "reward", "rloo")  # of TRL, each a script


MAXTEXT = re.compile(r"(?:.*[./])?maxtext[\w./]*[./](train|train_compile|sft_trainer)(\.py)?", re.IGNORECASE)
PAIR = re.compile(r"([a-z]\w*)=(.*)", re.DOTALL)


def programs(words: list[str]) -> list[str]:
    """The words with TRL's commands as scripts (`trl sft` as sft.py, followed by `--trl sft`), and with
    MaxText's `name=value` as `--name value`.

    Sources: trl, maxtext-defaults.
    """
    out: list[str] = []
    pairs = False
    for word in words:
        pairs = pairs or MAXTEXT.fullmatch(word) is not None
        if pairs and (pair := PAIR.fullmatch(word)):
            out += [f"--{pair[1]}", pair[2]]
        elif script := TRL.fullmatch(word):
            out += [word, "--trl", script[1]]
        elif out and out[-1] == "trl" and word in COMMANDS:
            out[-1:] = [f"{word}.py", "--trl", word]
        else:
            out.append(word)
    return out


def variables(text: str) -> dict[str, str]:
    """Variables that are set to one value. One that is set twice, as in two branches, is not known."""
    values = {
        name: value.rpartition(":")[2]  # of --gres=gpu:h100:8 the number
        for flag, value in SBATCH.findall(text)
        for name in JOB.get(flag, ())
        if value.rpartition(":")[2].isdecimal()
    }
    twice = set()
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for name, assigned in ASSIGNED.findall(lines):
        value = filled(assigned.strip("\"'"), values)
        if values.setdefault(name, value) != value:
            twice.add(name)
    return {name: value for name, value in values.items() if name not in twice}


def filled(word: str, known: Mapping[str, str]) -> str:
    def value(used: re.Match[str]) -> str:
        name, usual = used[1] or used[2], used[3]
        return known.get(name, used[0] if usual is None else usual.strip("\"'"))

    return USED.sub(value, word)


def _parts(word: str) -> Iterator[str]:
    """A word, or the arguments in a word that holds several, as where a variable has them all."""
    if not re.search(r"(^|[\s=])--\w", word) or not re.search(r"\s", word):
        yield from (
            (word,) if "(" in word or word == ")" else (word.rstrip(")"), ")")[: 1 + word.endswith(")")]
        )
        return
    yield from (*re.sub(r"^\w+=", "", word).split(), ")")
