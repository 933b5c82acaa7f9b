"""p-values and intervals of the rank test of Mann, Whitney and Wilcoxon, from U and the ties alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from protocols.distributions import normal_half_width, normal_tail


def asymptotic_p_value(u: float, n: NDArray[np.int64], ties: float, alternative: str) -> float:
    """Return p from the normal distribution, corrected for ties (``sum (t^3 - t)``) and for continuity."""
    first, second = int(n[0]), int(n[1])
    total, pairs = first + second, first * second
    variance = pairs / 12 * (total + 1 - ties / (total * (total - 1))) if total > 1 else 0.0
    if not variance > 0:
        return 1.0 if pairs else math.nan
    tested = {"greater": u, "less": pairs - u, "two-sided": max(u, pairs - u)}[alternative]
    p = float(normal_tail((tested - pairs / 2 - 0.5) / math.sqrt(variance)))
    return min(1.0, 2 * p) if alternative == "two-sided" else p


def exact_p_value(u: float, n: NDArray[np.int64], alternative: str) -> float:
    """Return p from the distribution of U where no values are equal, the one of Mann and Whitney (1947).

    All ``C(n1 + n2, n1)`` orders of the groups are as likely; how many give each U are the coefficients of a Gaussian
    binomial, ``prod_i (1 - x^(n2 + i)) / (1 - x^i)``, i from 1 to n1. Exact integers, as many as U is large.
    """
    few, many = sorted(map(int, n))
    pairs = few * many
    tested = {"greater": u, "less": pairs - u, "two-sided": max(u, pairs - u)}[alternative]
    # By symmetry as many orders give at least u as at most pairs - u.
    most = pairs - math.ceil(tested)
    upper = 2 * most > pairs
    reach = pairs - most - 1 if upper else most
    counts = np.zeros(max(0, reach + 1), dtype=object)
    counts[:1] = 1
    for i in range(1, few + 1):
        shift = many + i
        if shift <= reach:
            counts[shift:] = counts[shift:] - counts[:-shift]
        for start in range(min(i, reach + 1)):
            counts[start::i] = np.cumsum(counts[start::i])
    whole = math.comb(few + many, few)
    below = int(counts.sum()) if reach >= 0 else 0
    p = (whole - below) / whole if upper else below / whole
    return min(1.0, 2 * p) if alternative == "two-sided" else p


def newcombe_interval(estimate: float, n: NDArray[np.int64], confidence: float) -> NDArray[np.float64]:
    """Return the interval of Newcombe's fifth method for P(X > Y) + P(X = Y) / 2.

    The ends are where the estimate is z standard errors away, for the variance of Hanley and McNeil
    (Radiology 1982) with ``N = (n1 + n2) / 2 - 1`` in place of ``n1 - 1`` and ``n2 - 1``.
    """
    from scipy import optimize

    if math.isnan(estimate):
        return np.array([math.nan, math.nan])
    z = normal_half_width(confidence)
    mean_less_one, pairs = n.sum() / 2 - 1, float(n[0]) * float(n[1])

    def beyond(theta: float) -> float:
        spread = 1 + mean_less_one * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return float((theta - estimate) ** 2 - z * z * theta * (1 - theta) * spread / pairs)

    # At an estimate of 0 or 1 the end there is a root of its own, which is not the one that is looked for.
    inner = min(max(estimate, 1e-12), 1 - 1e-12)
    low = optimize.brentq(beyond, 0.0, inner) if estimate > 0 else 0.0
    high = optimize.brentq(beyond, inner, 1.0) if estimate < 1 else 1.0
    return np.array([low, high])
