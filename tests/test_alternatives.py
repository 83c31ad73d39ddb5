"""Beside a plan: as good a network with fewer parameters, repeated data, mixtures."""

from math import inf, isclose

import budget
from budget.scaling import alternatives


def test_equal_loss_is_equal():
    plan = budget.scale(compute=1e22)
    rows = list(alternatives.smaller(plan))
    assert len(rows) == 5
    for row in rows:
        assert isclose(plan.ask.law.loss(row.params, row.tokens), plan.loss, rel_tol=1e-9)
    assert [r.more for r in rows] == sorted(r.more for r in rows)


def test_a_network_too_small_never_gets_there():
    plan = budget.scale(compute=1e22, params=1e9)  # far over-trained: a quarter of it has too little capacity
    assert len(list(alternatives.smaller(plan))) < 5


def test_inference_pays_for_smaller_networks():
    plan = budget.scale(compute=1e22, device="h100")
    rows = alternatives.served(plan, 1e15)
    cheapest = min(rows, key=lambda r: r.total_usd)
    assert cheapest.params < plan.params
    none = alternatives.served(plan, 1)
    assert min(none, key=lambda r: r.total_usd).params == plan.params
    assert isclose(rows[0].flops, plan.compute + 2 * plan.params * 1e15)


def test_repeated_data_by_hand():
    plan = budget.scale(compute=1e22)
    row = alternatives.repeated(plan, plan.tokens / 4)
    assert isclose(row.epochs, 4)
    # Muennighoff et al.: up to four epochs are nearly as good as fresh data.
    assert 0.9 < row.worth / plan.tokens < 1
    assert row.loss / row.loss_fresh - 1 < 0.01
    assert row.best_loss <= row.loss
    fresh = alternatives.repeated(plan, inf)
    assert (fresh.epochs, fresh.loss) == (1, fresh.loss_fresh)


def test_mixtures_save_compute():
    rows = list(alternatives.mixtures(budget.scale(compute=1e21), 32))
    assert [r.experts for r in rows] == [1, 2, 4, 8, 16, 32]
    assert isclose(rows[0].dense, 1e21, rel_tol=2e-3)
    assert [r.loss for r in rows] == sorted((r.loss for r in rows), reverse=True)
    assert isclose(rows[-1].active, 2.85e9, rel_tol=0.01)  # Ludziejewski et al., Table 1
