"""Tails and quantiles, held against scipy's own, to the last bit."""

import math

import numpy as np
from scipy import stats

from protocols import distributions


def test_all_are_those_of_scipy(rng: np.random.Generator) -> None:
    x = np.concatenate([rng.normal(0, 5, 200), [0.0, np.inf, -np.inf, np.nan, 40.0, -40.0]])
    np.testing.assert_array_equal(distributions.normal_tail(x), stats.norm.sf(x))
    for confidence in (0.5, 0.9, 0.95, 0.99, 1 - 1e-12):
        assert distributions.normal_half_width(confidence) == stats.norm.ppf((1 + confidence) / 2)
    for df in (1, 2, 3.7, 30, 1e6):
        np.testing.assert_array_equal(distributions.t_tail(x, df), stats.t.sf(x, df))
        for one in np.abs(x):
            np.testing.assert_equal(distributions.chi_squared_tail(one, df), stats.chi2.sf(one, df))
            np.testing.assert_equal(distributions.f_tail(one, 3, df), stats.f.sf(one, 3, df))
        for probability in (0.5, 0.9, 0.975, 0.9999):
            assert distributions.t_quantile(probability, df) == stats.t.ppf(probability, df)


def test_a_statistic_that_rounding_took_below_zero_is_zero() -> None:
    assert distributions.chi_squared_tail(-1e-17, 3) == 1.0
    assert math.isnan(distributions.chi_squared_tail(math.nan, 3))
