"""Tails and quantiles of the normal, t, chi-squared and F distributions, for numbers or arrays of them.

What scipy's ``stats`` ends in, to the last bit; to load that module takes half a second in every process.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def normal_tail(z: Any) -> Any:
    """Return the probability of more than z."""
    from scipy.special import ndtr

    return ndtr(-np.asarray(z))


def normal_half_width(confidence: float) -> float:
    """Return how many standard errors a two-sided interval reaches."""
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))


def chi_squared_tail(statistic: float, df: float) -> float:
    """Return the probability of more than the statistic; NaN of NaN."""
    from scipy.special import chdtrc

    return float(chdtrc(df, max(statistic, 0.0)))


def t_tail(t: Any, df: float) -> Any:
    """Return the probability of more than t."""
    from scipy.special import stdtr

    return stdtr(df, -np.asarray(t))


def t_quantile(probability: float, df: float) -> float:
    """Return what t is below with a probability."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def f_tail(statistic: float, numerator: float, denominator: float) -> float:
    """Return the probability of more than the statistic, given both degrees of freedom."""
    from scipy.special import fdtrc

    return float(fdtrc(numerator, denominator, statistic))
