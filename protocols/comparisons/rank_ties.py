"""Equal values in rank tests: what the tests are divided by, on shares."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, is_negative, matmul, multiply, truncate
from mpc.normalise import normalise
from mpc.series import evaluate, inverse_root_series
from protocols.comparisons.group_means import stated
from protocols.comparisons.rank_sums import MOST_ROW_BITS, RankSums

_TIE_SCALE = 76
_RANK_SCALE = 77
_ROOT_SCALE = 38
_SERIES_SCALE = 37
_RATIO_SCALE = 44
# Steps in which the correction for ties is told under a disclosure control, at most.
_MOST_TIE_STEPS = 512


async def between_ranks(
    party: Party, found: RankSums, sizes: NDArray[np.int64], rehearsing: bool
) -> tuple[Share, Share, float]:
    """Return what H is a public multiple of, whether not all values are equal, and the multiple.

    With ``d_k = 2 R_k - n_k (n + 1)`` and Q the sum of the squares of run lengths, ``H = 3 (n - 1) sum_k e_k^2 / y``,
    where ``y = 1 - Q / n^3`` and ``e_k = d_k / (n sqrt(n_k n))``. Where nearly all values are equal both are small:
    ``sum_k e_k^2 <= y / 3``. So ``e_k`` is multiplied by the power of two that brings y into [1/4, 1) before it is cut.
    """
    groups = len(sizes)
    if rehearsing:
        sizes = np.full(groups, max(1, found.rows // groups))
    n = int(sizes.sum())

    # 1. y, which is at least 3 (n - 1) / n^2 if not all values are equal; its power 4^k, and the root of the rest.
    rest = (n**3 - found.squares).bounded_by(n**3)
    factor = (1 << _TIE_SCALE) // n**3
    part = stated((rest * factor).scaled_down(_TIE_SCALE), 1.0)
    octaves = MOST_ROW_BITS // 2
    brought = await normalise(
        party.at("untied"),
        part,
        low=_TIE_SCALE - MOST_ROW_BITS,
        top=_TIE_SCALE,
        width=2,
        weights=[[1 << k for k in range(octaves)]],
    )
    inverse = await evaluate(party.at("root"), brought.t, inverse_root_series(), to=_SERIES_SCALE, where=brought.inside)

    # 2. e_k times 2^k, from roots that are public integers; then divided by the root of y 4^k.
    expected = np.array([int(k) * (n + 1) for k in sizes.tolist()], dtype=object)
    apart = (found.doubled - expected).bounded_by(max(1, int(sizes.max()) * n))
    roots = [math.isqrt((1 << 2 * _RANK_SCALE) // (n**3 * int(k))) if k else 0 for k in sizes.tolist()]
    scaled = stated((apart * np.array(roots, dtype=object)).scaled_down(_RANK_SCALE), 1.01)
    scaled = (await multiply(party, scaled, brought.factors[0])).bounded_by(0.7)
    deviations = await truncate(party, scaled, _ROOT_SCALE)
    divided = (await multiply(party, deviations, inverse)).bounded_by(0.7)
    divided = await truncate(party, divided, _ROOT_SCALE)
    square = (await matmul(party, divided.reshape(1, groups), divided.reshape(groups, 1))).bounded_by(0.5)
    ratio = await truncate(party, square.reshape(1), _RATIO_SCALE)
    return ratio, brought.inside, 3 * (n - 1) * (n**3 * factor / 2**_TIE_SCALE)


def tie_steps(n: int, least: int) -> int | None:
    """Return in how many steps from 0 to 1 the part of the variance that ties leave is told; None: exactly."""
    return max(1, min(_MOST_TIE_STEPS, 4 * n // least)) if least > 1 else None


async def rounded_ties(party: Party, found: RankSums, n: int, steps: int) -> Share:
    """Return ``y = 1 - sum t^3 / n^3`` in so many steps, rounded up, and whether any values are equal; shape (2,).

    Cost: one comparison of 513 entries.
    """
    if n >> MOST_ROW_BITS and not party.rehearsing:
        raise DataError(f"mann_whitney: {n} rows; under a disclosure control it takes less than 2^{MOST_ROW_BITS}")
    # y is above k / steps where n^3 - sum t^3 is above the whole part of this; there are fewer steps than entries.
    limits = [k * n**3 // steps + 1 if k < steps else n**3 + 1 for k in range(_MOST_TIE_STEPS)]
    limits.append(n**3 - n)
    # The limits follow from what was opened: the bound is that of all rows there could be.
    over = (n**3 - found.squares).broadcast_to((len(limits),)) - np.array(limits, dtype=object)
    below = await is_negative(party, stated(over, 2 * found.rows**3 + 1))
    reached = (1 - below[:-1]).sum().bounded_by(_MOST_TIE_STEPS)
    return concatenate([reached.reshape(1), below[-1:]])


def ties_of(opened: list[int], n: int, steps: int | None) -> float:
    """Return ``sum (t^3 - t)``; where it is told in steps, at most that, and 0 only if no values are equal."""
    if steps is None:
        return max(0, int(opened[0]) - n)
    if not opened[1]:
        return 0
    return max(1.0, n**3 * (1 - int(opened[0]) / steps) - n)
