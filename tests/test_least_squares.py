"""One solver fits profiles and stacks: against scipy's, outliers, bounds and all."""

import numpy as np
import pytest

from budget.measured.least_squares import Prior, least_squares

optimize = pytest.importorskip("scipy.optimize", reason="scipy is an extra (scaling)")

AT = np.linspace(0.0, 3.0, 40)
FAR = 0.3  # an error that is larger counts linearly


def curve(x):
    return x[0] * np.exp(-x[1] * AT) + x[2]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [0.3, 30.0])
@pytest.mark.parametrize("most", [np.inf, 1.2])
def test_it_ends_where_scipys_does(seed, width, most):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 2.0, 3)
    measured = curve(true) + rng.normal(0, 0.05, AT.size)
    measured[::7] += 3.0  # bad records
    middle = np.ones(3)

    def errors(x):
        return curve(x) - measured

    def slopes(x, _):
        fade = np.exp(-x[1] * AT)
        return np.stack([fade, -x[0] * AT * fade, np.ones_like(AT)], axis=1)

    def penalized(x):
        return np.concatenate([errors(x), (x - middle) / width])

    def huber(z):  # of errors alone: the last three are the prior
        loss = np.stack([z, np.ones_like(z), np.zeros_like(z)])
        far = (z > FAR**2) & (np.arange(z.size) < AT.size)
        root = np.sqrt(z[far])
        loss[:, far] = 2 * FAR * root - FAR**2, FAR / root, -FAR / (2 * root**3)
        return loss

    found = least_squares(
        errors, slopes, middle, Prior(middle, width), far=FAR, steps=200, enough=1e-12, least=0.0, most=most
    )
    theirs = optimize.least_squares(penalized, middle, loss=huber, bounds=(0.0, most), xtol=1e-12, ftol=1e-12)
    cost = huber(penalized(found) ** 2)[0].sum() / 2
    assert cost == pytest.approx(theirs.cost, rel=1e-4)  # the valley is flat


def test_an_odd_number_is_drawn_by_a_constant_force():
    """(x - 4)^2 and 2 x 0.5 |x| - 0.25: least where 2 (x - 4) + 1 = 0."""
    prior, ones = Prior(0.0, 1.0, 0.5), np.ones((1, 1))
    how = {"far": np.inf, "steps": 99, "enough": 1e-12}
    assert least_squares(lambda x: x - 4.0, lambda *_: ones, np.zeros(1), prior, **how) == pytest.approx(
        [3.5]
    )
