"""Breakdowns: by operator, by part of a layer, by layer."""

import pytest

import budget


@pytest.mark.parametrize(
    ("model", "settings", "part", "runs"),
    [
        ("gpt2", {}, "attn", 12),
        ("gpt2", {"lora_rank": 8}, "attn", 12),  # the first layer is set apart: its input has no gradient
        ("gpt2", {"recompute": "full"}, "attn", 12),
        ("gpt2", {"accumulate": 4}, "attn", 48),
        ("lstm", {"seq": 5}, "steps", 5),  # the first step has no gradient of a state
    ],
)
def test_a_part_runs_as_often_as_there_are_layers_or_steps(model, settings, part, runs):
    rows = budget.estimate(model, **settings).rows("part")
    assert [row["runs"] for row in rows if row["name"] == part] == [runs]
