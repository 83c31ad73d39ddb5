"""A few variations of configs against transformers; tests/differential.py runs as many as one likes."""

import random
from itertools import islice

import pytest
from differential import families, judge, variations

KINDS = families()
CHUNKS = 8
EACH = 15  # variations of a chunk


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.slow
def test_a_few_variations(chunk):
    rng = random.Random(chunk)
    for kind, name, fields in islice(variations(KINDS[chunk::CHUNKS], rng), EACH):
        verdict, why = judge(kind, name, fields, train=True)
        assert verdict != "FAILURE", f"{kind} {name} {fields}: {why}"


def test_a_failure_would_show(monkeypatch):
    """A wrong count is not taken for a right one."""
    import differential

    found = differential.ours("gpt2", "", differential.base("gpt2"), False)
    monkeypatch.setattr(differential, "ours", lambda *_: (found[0] + 1, *found[1:]))
    assert judge("gpt2", "", differential.base("gpt2"))[0] == "FAILURE"
