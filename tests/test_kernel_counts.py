"""Kernels of a step against the calls that torch dispatches, for small networks and for each technique.

Within 10 % in every phase; what is further off says why.
"""

from collections import Counter

import pytest

from budget import estimate
from budget.fold.kernels import works
from budget.read import hf_config

pytest.importorskip("transformers")
pytest.importorskip("peft")
import transformers as hf
from differential import families, usual
from oracle_kernels import step, technique
from oracles.technique_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore")
CLOSE = 0.1
LOOSER = {}
BROKEN = {}
QUICK = ("llama", "gemma2", "t5", "gpt2", "bert", "mixtral", "whisper", "vit", "resnet", "mamba", "bart")
ASKED = {"execution": "eager", "precision": "pure", "device": "h100"}


def counted(program, dtype="bfloat16"):
    """Kernels of our program, by phase."""
    found = Counter()
    for w in works(program.nodes, dtype):
        found[w.phase] += w.launches * w.times
    return found


def _slow(name, quick):
    return name if name in quick else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("kind", [_slow(kind, QUICK) for kind in families() if kind not in BROKEN])
def test_a_step_starts_as_many_kernels_as_torch_dispatches(kind):
    # A scan's own kernel needs a GPU: transformers' code runs without it here.
    scans = hf_config._family(kind)["arch"] in ("hybrid", "mamba")
    attention = "sdpa" if getattr(hf, usual(kind))._supports_sdpa and not scans else "eager"
    config, sizes, theirs = step(kind, usual(kind), attention)
    ours = counted(estimate(config, attention=attention, optimizer="adamw", **sizes, **ASKED).program)
    off = {phase: ours[phase] / calls - 1 for phase, calls in theirs.items()}
    assert max(map(abs, off.values())) <= LOOSER.get(kind, (CLOSE,))[0], off


TECHNIQUES = {
    "none": {},
    "float32": {"dtype": "fp32"},
    "eager": {"attention": "eager"},
    "padded": {"attention": "fused"},
    "full": {"recompute": "full"},
    "selective": {"recompute": "selective", "attention": "eager"},
    "autocast": {"precision": "autocast"},
    "accumulate": {"accumulate": 2},
    "freeze": {"freeze_layers": 2},
    "lora": {"lora_rank": 8},
    "lora_dropout": {"lora_rank": 8, "lora_dropout": 0.05},
    "lora_float32": {"lora_rank": 8, "lora_dtype": "fp32"},
    "lora_autocast": {"lora_rank": 8, "precision": "autocast"},
    "dropout": {"dropout": True},
    **{name: {"optimizer": name} for name in
       ("sgd", "momentum", "adam", "adamw_loop", "adamw_fused", "adafactor", "muon")},
}  # fmt: skip
NETWORKS = ("llama", "bert", "t5")


@pytest.mark.parametrize("name", [_slow(name, ("llama",)) for name in NETWORKS])
@pytest.mark.parametrize("how", TECHNIQUES)
def test_a_technique_starts_as_many_kernels_as_torch_dispatches(name, how):
    family, call = FAMILIES[name], dict(TECHNIQUES[how])
    fields = {**family.fields, **(family.dropout if call.pop("dropout", False) else {})}
    config = {**family.config_class(**fields).to_dict(), "architectures": [family.cls]}
    call = {"precision": "pure", "attention": "sdpa", "batch": 2, family.size: family.shapes[0][1], **call}
    if "lora_rank" in call:
        call["lora_targets"] = ",".join(family.targets[:2])
    theirs = technique(family, config, call)
    program = estimate(config, **{**ASKED, **call}, gradient_sums="new").program
    ours = counted(program, "float32" if call.get("dtype") == "fp32" else "bfloat16")
    off = {phase: ours[phase] / calls - 1 for phase, calls in theirs.items()}
    assert max(map(abs, off.values())) <= CLOSE, off
