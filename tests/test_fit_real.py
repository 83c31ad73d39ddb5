"""What `budget fit` proposes, against transformers and peft: the change is there, trains as much, and fits.

Changes that need other packages (8-bit optimizers, weights in four bits, chunked losses) or none (offloading,
shorter sequences) are not made here.
"""

import random

import pytest

from budget import InputError, estimate, fit, proposals
from budget.device import load
from budget.proposals import proposed as axes

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from oracle_techniques import as_asked, built, peak_of  # noqa: E402
from oracles.technique_families import FAMILIES  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
ELSEWHERE = ("fuse", "offload", "quantize")
LORA = peft.utils.constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
# peft's default is of a name that has gone (Mixtral); the class has no checkpoints, torch has (ResNet).
OTHERWISE = {("mixtral", "lora_rank"), ("resnet", "recompute"), ("mamba", "recompute")}


def proposed(name):
    """A network's call, and the changes that `fit` may make to it, one by one."""
    family = FAMILIES[name]
    config = {**family.config_class(**family.fields).to_dict(), "architectures": [family.cls]}
    batch, size = family.shapes[1]
    call = {"precision": "autocast", "attention": "eager" if family.attention else "fused"}
    call |= {"batch": batch, family.size: size}
    now = estimate(config, device="h100", execution="eager", **call)
    ways = [way.settings for axis in axes(now, given=False) for way in axis]
    told = (w for w in ways if not w.keys() & set(ELSEWHERE) and w.get("optimizer") != "adamw_8bit")
    return config, call, [w for w in told if (name, next(iter(w))) not in OTHERWISE]


QUICK = ("llama",)


NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


@pytest.mark.parametrize("name", NAMES)
def test_real_code_has_what_fit_proposes(name):
    family = FAMILIES[name]
    config, call, ways = proposed(name)
    assert ways
    for way in ways:
        asked = {**call, **way}
        try:
            ours = estimate(config, device="h100", execution="eager", **asked).params.trainable
        except InputError:
            continue  # no proposal
        rank = asked.pop("lora_rank", 0)
        if rank and config["model_type"] not in LORA:
            continue  # peft wants targets by name
        with as_asked(family, asked), FakeTensorMode():
            module, _ = built(family, config, asked)
            if rank:
                how = peft.LoraConfig(r=rank)
                module = peft.get_peft_model(module, how, autocast_adapter_dtype=False)
        assert ours == sum(p.numel() for p in module.parameters() if p.requires_grad), way


SEED, PARTS = 3, (0.9, 0.7, 0.5, 0.3)  # of the memory that the step needs as it is
OUT = {"stack": "transformers", "execution": "eager", "gradient_sums": "new", "reserve": 0}


@pytest.mark.parametrize("name", [*FAMILIES][::3])  # of all, in a minute and a half: [*FAMILIES]
def test_what_fit_says_fits_does_so_in_real_code(name, monkeypatch):
    """On a device with some of the memory that is needed; without what is not made here."""
    rng, family = random.Random(f"{SEED} {name}"), FAMILIES[name]
    fields = {**family.fields, **({"vocab_size": rng.choice((500, 8000))} if family.size == "seq" else {})}
    config = {**family.config_class(**fields).to_dict(), "architectures": [family.cls]}
    batch, size = family.shapes[1]
    call = {
        "precision": "pure" if name == "mixtral" else rng.choice(("pure", "autocast")),
        "attention": "eager" if family.attention else "fused", "batch": batch, family.size: size,
    }  # fmt: skip
    now = estimate(config, device="h100", **call, **OUT)
    room = int(now.memory.peak * rng.choice(PARTS))
    small = load("h100")._replace(memory_bytes=room, usable_bytes=room)
    monkeypatch.setattr(proposals, "_chunked", lambda *_: ())
    monkeypatch.setattr(proposals, "_adapters", lambda *_: ())
    fused = proposals.Way({"optimizer": "adamw_fused"}, "a fused optimizer")
    monkeypatch.setattr(proposals, "_optimizers", lambda *_: (fused,))
    found = fit(config, device=small, **call, **OUT)
    made = [
        c
        for c in found.advice.changes
        if (name, "recompute") not in OTHERWISE or "recompute" not in c.settings
    ]
    for change in made[:2]:
        own = {"input_gradients": True} if "input_gradients" in change.estimate.task.techniques.used else {}
        real, at = peak_of(family, config, {**call, **change.settings, **own})
        assert real <= room * 1.005, (change.settings, real / room, at)
        assert change.estimate.memory.peak == pytest.approx(real, rel=0.03), (change.settings, at)
