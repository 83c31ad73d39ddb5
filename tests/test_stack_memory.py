"""What a stack keeps in memory besides what its network needs: what was sent, pools of streams, groups."""

import json

import pytest

import budget
from budget.fold.pools import idle as unused

GOOD = {"about": "mine", "source": "torch-compile", "train": {"attention": "sdpa"}}


def test_what_a_stage_has_sent_may_stay_until_its_backward_pass(tmp_path):
    """Of each micro-batch in flight: one tensor of batch x seq x d_model, on all stages but the last."""
    path = tmp_path / "mine.json"

    def stages(**change):
        path.write_text(json.dumps({**GOOD, **change}))
        how = {"batch": 2, "seq": 64, "layout": "pp=4", "accumulate": 8, "dtype": "bf16", "device": "a100"}
        return budget.estimate("gpt2", stack=str(path), **how).spread.memories()

    kept, freed = stages(keeps=["sent"]), stages()
    more = [kept[stage].activations - freed[stage].activations for stage in range(4)]
    assert more == [in_flight * 2 * 64 * 768 * 2 for in_flight in (4, 3, 2, 0)]


@pytest.mark.parametrize(("accumulate", "idle"), [(1, 1), (2, 0)])
def test_a_stream_s_pool_is_reserved_while_nothing_uses_it(accumulate, idle):
    """FSDP2: parts of gradients in float32, which are gone at the loss of one micro-batch, and the largest
    buffer that is gathered into: gpt2's embeddings and last norm, 16 bits each.
    """
    how = {
        "device": "h100",
        "batch": 8,
        "seq": 1024,
        "layout": {"dp": 8, "zero": 3},
        "accumulate": accumulate,
    }
    e = budget.estimate("gpt2", stack="torchtitan-2024", **how)
    gathered = 2 * (50257 * 768 + 1024 * 768 + 2 * 768)
    parts = idle * 4 * sum(-(-n // 8) for n in (124_439_808,))
    assert unused(e.spread, e.memory, e.stack.pools) == pytest.approx(gathered + parts, rel=1e-4)
    assert e.reserved > e.memory.peak + gathered
    given = budget.estimate("gpt2", stack="torchtitan-2024", reserve=0, **how)
    assert given.process == given.reserved == given.memory.peak == e.memory.peak


def test_fsdp_of_transformers_has_two_units_in_flight():
    """FSDP1's limit of all-gathers: a second unit, here gpt2's embeddings and last norm in float32."""
    how = {"device": "h100", "batch": 8, "seq": 1024, "stack": "transformers"}
    e = budget.estimate("gpt2", layout={"dp": 8, "zero": 3}, **how)
    root = 4 * (50257 * 768 + 1024 * 768 + 2 * 768)
    assert unused(e.spread, e.memory, e.stack.pools) == pytest.approx(root, rel=1e-4)
    alone = budget.estimate("gpt2", layout={"dp": 8, "zero": 0}, **how)
    assert unused(alone.spread, alone.memory, alone.stack.pools) == 0


@pytest.mark.parametrize(("grad_dtype", "each"), [("", 0), ("fp32", 2)])
def test_gradients_stay_beside_their_sums(tmp_path, grad_dtype, each):
    path = tmp_path / "mine.json"

    def held(**change):
        path.write_text(json.dumps({**GOOD, **change}))
        how = {"seq": 64, "layout": "tp=2", "precision": "master", "grad_dtype": grad_dtype, "dtype": "bf16"}
        return budget.estimate("gpt2", stack=str(path), **how, device="a100").memory

    kept, freed = held(keeps=["gradients"]), held()
    assert kept.activations - freed.activations == each * freed.parameters / 2


def test_groups_and_an_older_cuda_take_more_of_a_device(tmp_path):
    path = tmp_path / "mine.json"

    def reserve(layout, **change):
        path.write_text(json.dumps({**GOOD, **change}))
        how = {"layout": layout, "accumulate": 4, "device": "a100", "dtype": "bf16"}
        return budget.estimate("gpt2", stack=str(path), **how).reserve.bytes / 2**20

    own = {"groups": {"": 2, "pp": 3}, "context_mib": 1512}
    more = {layout: reserve(layout, **own) - reserve(layout) for layout in ("dp=1", "tp=2", "tp=2,pp=2")}
    assert more == {"dp=1": 1000, "tp=2": 1000 + 2 * 688, "tp=2,pp=2": 1000 + 5 * 688}
