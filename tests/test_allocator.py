"""torch's caching allocator: its sizes, its blocks, and programs replayed by its rules."""

import random

import pytest

import budget
from budget.fold.allocator import LEAST, MIB, Allocator, replayed


@pytest.mark.parametrize(
    ("size", "fixed", "growing"),
    [(1, 2, 2), (MIB, 2, 2), (MIB + 1, 20, 20), (10 * MIB, 10, 20), (21 * MIB + 1, 22, 40)],
)
def test_segments_have_the_sizes_of_its_source(size, fixed, growing):
    for expandable, expected in ((False, fixed), (True, growing)):
        found = Allocator(expandable=expandable)
        found.allocate(size)
        assert found.reserved == expected * MIB


def test_what_does_not_fit_a_hole_needs_a_segment():
    """A block of 40 MiB, cut by one of 2 that stays, has no room for 40 again; a growing segment needs 2
    more, in whole pages.
    """
    for expandable, more in ((False, 40), (True, 20)):
        found = Allocator(expandable=expandable)
        found.release(found.allocate(40 * MIB))
        found.allocate(2 * MIB)
        found.allocate(40 * MIB)
        assert found.reserved == (40 + more) * MIB


@pytest.mark.parametrize("expandable", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_blocks_fill_their_segments(seed, expandable):
    """Whatever comes and goes: what is there is reserved, and what is all freed is whole again."""
    rng, found, alive = random.Random(seed), Allocator(expandable=expandable), []
    used = most = 0
    for _ in range(400):
        if alive and rng.random() < 0.5:
            block = alive.pop(rng.randrange(len(alive)))
            used -= block.size
            found.release(block)
        else:
            size = rng.choice((rng.randint(1, MIB), rng.randint(MIB, 64 * MIB)))
            alive.append(found.allocate(size))
            assert size <= alive[-1].size
            assert alive[-1].size < size + (LEAST if expandable or size <= MIB else 20 * MIB)
            used += alive[-1].size
        most = max(most, used)
        there = [b for blocks in found.free.values() for *_, b in blocks]
        assert used + sum(b.size for b in there) == found.reserved >= most
    for block in alive:
        found.release(block)
    there = [b for blocks in found.free.values() for *_, b in blocks]
    assert all(b.before is None and b.behind is None for b in there)
    assert sum(b.size for b in there) == found.reserved
    again = found.reserved
    found.allocate(max(b.size for b in there))
    assert found.reserved == again


@pytest.mark.parametrize("expandable", [False, True])
def test_what_is_lent_is_allocated_and_freed(expandable):
    rng, one, other = random.Random(0), Allocator(expandable=expandable), Allocator(expandable=expandable)
    alive = []
    for _ in range(400):
        if alive and rng.random() < 0.5:
            for found, block in zip((one, other), alive.pop(rng.randrange(len(alive))), strict=True):
                found.release(block)
        size = rng.choice((rng.randint(1, MIB), rng.randint(MIB, 64 * MIB)))
        if rng.random() < 0.5:
            one.lend(size)
            other.release(other.allocate(size))
        else:
            alive.append((one.allocate(size), other.allocate(size)))
        assert one.reserved == other.reserved
        sizes = [[size for free in found.free.values() for size, *_ in free] for found in (one, other)]
        assert sizes[0] == sizes[1]


def test_a_program_is_replayed():
    """No less than what is allocated; of the same steps, growing segments hold less than fixed ones here."""
    how = {"batch": 4, "seq": 512, "layout": {"dp": 8, "zero": 3}, "device": "h100"}
    e = budget.estimate("gpt2", stack="torchtitan", **how)
    (rank,) = e.spread.ranks
    grown, fixed = (
        replayed(rank.program, e.spread.dtype, apart=("gradients",), expandable=x) for x in (True, False)
    )
    assert e.memory.peak < grown < fixed < 1.5 * e.memory.peak
    assert e.process == e.reserved + e.reserve.bytes
    many = budget.estimate("gpt2", stack="torchtitan", **{**how, "layout": {"dp": 16, "zero": 3}})
    assert many.reserved > many.memory.peak
    array = budget.estimate("gpt2", stack="torchtitan", **{**how, "batch": [2, 4]})
    assert len(array.reserved) == 2


def test_what_is_cached_is_held_as_long_as_there_is_room():
    """For any stack on torch: no less than what is allocated, and given back at the device's end."""
    how = {"stack": "torch-eager", "dtype": "fp16", "memory_format": "channels_last"}
    roomy = budget.estimate("resnet50", batch=64, device="h100", **how)
    assert (
        1.02 * roomy.memory.peak
        < roomy.reserved
        == replayed(roomy.program, "float16", apart=(), expandable=False)
    )
    batch = budget.fit("resnet50", "batch", device="t4", **how).largest
    full = budget.estimate("resnet50", batch=batch, device="t4", **how)
    assert full.fits and full.needed <= full.process == full.device.usable_bytes
    token = budget.estimate("gpt2", mode="decode", device="h100", stack="transformers")
    assert token.process == token.needed
    how = {"batch": 16, "seq": 1024, "device": "a100-40gb", "stack": "transformers"}
    prompt = budget.estimate("gpt2", mode="prefill", attention="eager", prompt_logits="fp32", **how)
    assert prompt.process > 1.05 * prompt.needed  # logits do not fit where a layer's scores were


def test_lengths_in_turn_hold_more_than_the_longest_alone():
    """A block that was freed of one length has no room for a longer one; of one length, nothing is new."""
    how = {"batch": 2, "device": "h100", "stack": "transformers", "dtype": "bf16", "recompute": "full"}
    alone = budget.estimate("gpt2", seq=1024, **how)
    assert alone.in_turn == alone.reserved
    same = budget.estimate("gpt2", seq=[1024, 1024], **how)
    assert same.in_turn == alone.reserved
    lengths = budget.estimate("gpt2", seq=[400, 700, 300, 1024, 600, 900], **how)
    assert 1.1 * alone.reserved < lengths.in_turn < 2 * alone.reserved
    full = budget.estimate("gpt2", seq=[400, 1024], **{**how, "batch": 2**20})
    assert full.memory.peak.max() <= full.in_turn < 1.05 * full.memory.peak.max()
