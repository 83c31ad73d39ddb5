"""A few combinations of techniques against transformers, peft and torch.optim.

tests/differential_techniques.py runs as many as one likes.
"""

import random
from itertools import islice

import pytest
from differential_techniques import Case, cases, judge
from oracles.technique_families import FAMILIES

COUNT, CHUNKS, SEED = 30, 5, 7
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_few_combinations(chunk):
    """FLOPs and trained parameters are equal; of a chunk all peaks but one are within 1 %, all within 5 %."""
    drawn = islice(cases(random.Random(SEED), list(FAMILIES)), chunk, COUNT, CHUNKS)
    found = [(case, judge(case)) for case in drawn]
    wrong = [
        (c.name, dict(c.call), v) for c, v in found if not (v.flops and v.trainable) or v.peak == "FAILURE"
    ]
    assert not wrong
    far = [(c.name, dict(c.call), v) for c, v in found if abs(v.error) > 0.05]
    assert not far
    near = sum(v.peak in ("within 1%", "refused") for _, v in found)
    assert near >= len(found) - 1


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("llama", {"lora_rank": 16, "lora_targets": "attn.q,mlp.down"}),
        ("qwen2", {"freeze": "mlp.gate,attn.q"}),
    ],
)
def test_autocast_over_weights_frozen_in_16_bits(name, trained):
    family = FAMILIES[name]
    config = family.config_class(**{**family.fields, "vocab_size": 500}).to_dict()
    call = {
        "precision": "autocast",
        "frozen_dtype": "bf16",
        "attention": "sdpa",
        "batch": 8,
        "seq": 512,
        **trained,
    }
    found = judge(Case(name, {**config, "architectures": [family.cls]}, call))
    assert (found.peak, found.flops, found.trainable) == ("within 1%", True, True), found


def test_a_difference_would_show(monkeypatch):
    """A wrong count, and a wrong peak, are not taken for right ones."""
    import differential_techniques as own

    family = FAMILIES["llama"]
    config = {
        **family.config_class(**{**family.fields, "vocab_size": 99}).to_dict(),
        "architectures": [family.cls],
    }
    case = Case("llama", config, {"batch": 1, "seq": 16, "precision": "pure", "attention": "eager"})
    found = own.ours(case)
    assert judge(case).peak == "within 1%"
    monkeypatch.setattr(own, "ours", lambda _: found._replace(peak=2 * found.peak, backward=0, trainable=1))
    worse = judge(case)
    assert (worse.peak, worse.flops, worse.trainable) == ("worse", False, False)


def test_what_torch_refuses_is_refused():
    """Gradients of another dtype than Adam's moments."""
    family = FAMILIES["llama"]
    config = {**family.config_class(**family.fields).to_dict(), "architectures": [family.cls]}
    call = {"batch": 1, "seq": 16, "precision": "pure", "attention": "eager", "grad_dtype": "fp32"}
    assert judge(Case("llama", config, call)).peak == "refused"
