"""Means of groups on shares: their weighted average, and how far they are apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, matmul, truncate, truncate_all
from protocols.pools.moments import COVARIANCE_SCALE, Moments
from protocols.pools.pool import Pool
from protocols.release.steps import stated

# Weights in units of 2^-40; a value is cut in two, so that each half leaves room for them.
_WEIGHT_BITS = 40
_UPPER_HALF = 37
# Roots of weights, and deviations of means, whose products are to be truncated.
_ROOT_BITS = 36
_DEVIATION_SCALE = 38


async def weighted(party: Party, x: Share, sizes: NDArray[np.int64]) -> Share:
    """Average the rows of shares, weighted by public numbers.

    Parameters
    ----------
    party : Party
        A scope of its own.
    x : Share
        Shape (g, ...), at most 1.03 in size, scale from 37 to 68.
    sizes : numpy.ndarray
        Shape (g,): from 0, not all 0.

    Returns
    -------
    Share
        Shape (...), with the scale of x.

    Notes
    -----
    A value of 69 bits times a weight of 40 leaves no room for a mask: each is cut in two, x = h + l, at 37 fraction
    bits, where h is masked at once and l is what is left. Nothing is revealed. Semi-honest.
    Error: a few units in the last place, and ``2^-41`` of each row. Cost: 2 rounds; ``|x| + 2 |x| / g`` elements.
    """
    total = int(sizes.sum())
    weights = [((int(n) << _WEIGHT_BITS + 1) + total) // (2 * total) for n in sizes.tolist()]
    factors = np.array(weights, dtype=np.int64).reshape(-1, *[1] * (x.ndim - 1))
    scale = x.scale
    upper = await truncate(party, x.bounded_by(1.03), _UPPER_HALF)
    pieces = party.preprocessing.pieces_of(party.size)
    lower = (x - upper.lifted(scale)).bounded_by((pieces + 2) * 2.0**-_UPPER_HALF)
    halves = [
        stated((upper * factors).sum(axis=0).scaled_down(_WEIGHT_BITS), 1.04),
        stated((lower * factors).sum(axis=0).scaled_down(_WEIGHT_BITS), (pieces + 3) * 2.0**-_UPPER_HALF),
    ]
    high, low = await truncate_all(party, halves, scale)
    return (high + low).bounded_by(1.05)


async def between(party: Party, m: Moments, sizes: NDArray[np.int64]) -> Share:
    """Return the mean square between the groups, over all rows: ``sum_k n_k / n (m_k - m)^2``; scale 68."""
    total = int(sizes.sum())
    means = m.mean[:, 0]
    common = await weighted(party.at("common"), means, sizes)
    apart = await truncate(party, (means - common).bounded_by(2.1), _DEVIATION_SCALE)
    # Integer square roots: the same at all parties, whatever their libraries.
    roots = [math.isqrt((int(n) << 2 * _ROOT_BITS) // total) for n in sizes.tolist()]
    scaled = stated((apart * np.array(roots, dtype=np.int64)).scaled_down(_ROOT_BITS), 1.1)
    deviations = await truncate(party, scaled, _DEVIATION_SCALE)
    square = await matmul(party, deviations.reshape(1, -1), deviations.reshape(-1, 1))
    return (await truncate(party, square.bounded_by(1.2), COVARIANCE_SCALE)).reshape(1)


# A standard deviation below this part of the bound leaves few digits of a test.
_COARSE = 2.0**-14


def coarse(variances: Any) -> tuple[str, ...]:
    """Say that values vary by little, compared with their bound: less than six digits of the result may be right.

    Parameters
    ----------
    variances : array_like
        In squared units of the bound.
    """
    spread = np.asarray(variances, dtype=np.float64)
    if not ((spread > 0) & (spread < _COARSE**2)).any():
        return ()
    return (
        "the values vary by less than 2^-14 of their bound: less than six digits may be right; agree on a bound that "
        "is closer to them, or take off a constant",
    )


def spread_floor(made: Pool, n: Any) -> Any:
    """Return what a variance is at least, in squared units, if it is told apart from none.

    See :mod:`protocols.pools.moments` for the errors that are behind these numbers.
    """
    if made.partition == "rows":
        return np.zeros(np.shape(n)) + 2.0**-60
    rows = int(getattr(made, "rows", 1))
    return 2.0 ** (max(1, (rows - 1).bit_length()) - 45) / np.maximum(n, 1)
