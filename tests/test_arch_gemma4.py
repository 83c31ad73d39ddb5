"""Gemma 4: what its layers keep of keys and values."""

import pytest

from budget.arch import gemma4
from budget.config import Workload
from budget.ir import CACHE, elements, walk


@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_the_window_bounds_the_cache(mode):
    """A layer of a window keeps as many keys as it, of a prompt, too; the others all, in wider heads."""
    c = gemma4.Config(layers=6, full_layers=(5,), window=100)
    model = gemma4.build(c, Workload(mode, 1, 1000))
    kept = sum(
        times * elements(t, o.sizes) for o, times in walk(model.nodes) for t in o.outs if t.role == CACHE
    )
    assert kept == 2 * (5 * c.kv_heads * c.head_dim * 100 + c.kv_heads * c.full_head_dim * 1000)
