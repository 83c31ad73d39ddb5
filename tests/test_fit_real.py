"""What `budget fit` proposes, against transformers, peft and torch.optim: it is there, and fits as promised.

bitsandbytes' layers and optimizers and Liger's loss are those of tests/oracles/proposed_changes.py.
"""

import random

import pytest

from budget import InputError, estimate, fit
from budget.device import load
from budget.fitting.proposals import proposed as axes

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from oracles.networks import built  # noqa: E402
from oracles.technique_families import FAMILIES  # noqa: E402
from oracles.techniques import as_asked, peak_of  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
LORA = peft.utils.constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
# peft's default is of a name that has gone (Mixtral); the class has no checkpoints (ResNet, Mamba);
# logits have a bias that is no weight (BART).
OTHERWISE = {
    ("mixtral", "lora_rank"), ("resnet", "recompute"), ("mamba", "recompute"), ("bart", "fuse"),
}  # fmt: skip


def proposed(name):
    """A network's call, and the changes that `fit` may make to it, one by one."""
    family = FAMILIES[name]
    config = {**family.config_class(**family.fields).to_dict(), "architectures": [family.cls]}
    batch, size = family.shapes[1]
    call = {"precision": "autocast", "attention": "eager" if family.attention else "fused"}
    call |= {"batch": batch, family.size: size}
    now = estimate(config, device="h100", execution="eager", **call)
    ways = [way.settings for axis in axes(now, given=False) for way in axis]
    return config, call, [way for way in ways if made(name, way)]


def made(name, settings):
    """Whether the oracle makes a change of a family."""
    return not any((name, setting) in OTHERWISE for setting in settings)


def targets(family, config):
    """LoRA's, where peft has no default and wants them by name."""
    names = "attn.qkv" if "attn.qkv" in family.parts else "attn.q,attn.v"
    return {} if config["model_type"] in LORA else {"lora_targets": names}


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
        asked |= targets(family, config)
        with as_asked(family, asked), FakeTensorMode():
            module, _ = built(family, config, asked)
        assert ours == sum(p.numel() for p in module.parameters() if p.requires_grad), way


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("name", "recompute"), [("bert", "none"), ("gpt_neox", "none"), ("gpt_neox", "full")]
)
def test_layers_in_four_bits_answer_in_the_dtype_that_they_are_given(name, recompute):
    """float32 behind a layer norm under autocast, and so from one layer to the next. They save no weight: a
    checkpoint runs its layer again behind their backward pass.
    """
    family = FAMILIES[name]
    config = {**family.config_class(**family.fields, vocab_size=500).to_dict(), "architectures": [family.cls]}
    call = {"precision": "autocast", "frozen_dtype": "bf16", "lora_rank": 16, "attention": "eager"}
    call |= {"batch": 8, "seq": 512, "quantize": "nf4-dq", "recompute": recompute}
    found = estimate(config, device="h100", **call, execution="eager", gradient_sums="new").memory.peak
    assert found == pytest.approx(peak_of(family, config, call)[0], rel=0.015)


SEED, PARTS = 3, (0.9, 0.7, 0.5, 0.3)  # of the memory that the step needs as it is
OUT = {"stack": "transformers", "execution": "eager", "gradient_sums": "new", "reserve": 0}
HELD = ("input_gradients", "output_dtype")  # what transformers and accelerate do besides


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES][::3])  # of all, in two minutes: [*FAMILIES]
def test_what_fit_says_fits_does_so_in_real_code(name):
    """On a device with some of the memory that is needed: the first changes, and one of other weights.

    Peaks are as near on either side, so what does not fit by more than that is not refused either.
    """
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
    found = [c for c in fit(config, device=small, **call, **OUT).advice.changes if made(name, c.settings)]
    for change in (*found[:2], *found[2:][-1:]):
        used = change.estimate.task.techniques.used
        own = {k: used[k] for k in HELD if k in used}
        real, at = peak_of(family, config, {**call, **change.settings, **own, **targets(family, config)})
        assert real <= room * 1.01, (change.settings, real / room, at)
        assert change.estimate.memory.peak == pytest.approx(real, rel=0.02), (change.settings, at)
