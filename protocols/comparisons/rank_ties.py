"""Equal values in rank tests: what the tests are divided by, on shares."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, is_negative, matmul, multiply, truncate
from mpc.normalise import normalise
from mpc.series import evaluate, inverse_root_series
from protocols.comparisons.rank_sums import MOST_ROW_BITS, RankSums
from protocols.release.steps import nearest, stated

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


class TieSteps(NamedTuple):
    """In which steps U and the correction for ties are told under a minimum cell m.

    Attributes
    ----------
    many : int
        Steps of ``y = 1 - sum t^3 / n^3`` from 0 to 1.
    few : int
        Its steps where there are few values.
    width : int
        The step of 2 U then.
    """

    many: int
    few: int
    width: int


def tie_steps(n: NDArray[np.int64], least: int | None) -> TieSteps | None:
    """Return the steps for groups of so many rows; None: exactly."""
    if least is None:
        return None
    total, smaller, larger = int(n.sum()), int(n.min()), int(n.max())
    most = _MOST_TIE_STEPS
    # A step of 2 U is m rows of the smaller group out of 8, times the rows of the larger one, times 2.
    return TieSteps(
        max(1, min(most, 4 * total // least)), max(1, min(most // 4, smaller // least)), larger * least // 4 or 1
    )


async def rounded_ties(party: Party, found: RankSums, n: NDArray[np.int64], steps: TieSteps) -> Share:
    """Return what is told of U and of ties, shape (4,).

    These are 2 U, exactly or, where there are few values, the nearest multiple of a step; ``y = 1 - sum t^3 / n^3``
    rounded up to so many steps, or there to few; whether any values are equal; and whether there are few: so that
    ``12 sum t^3 > n^3``, as where three or fewer values are as frequent.

    Cost: one comparison of 642 entries, one division (:func:`protocols.release.steps.nearest`), 1 round, 3 elements.
    """
    total = int(n.sum())
    if total >> MOST_ROW_BITS and not party.rehearsing:
        raise DataError(f"mann_whitney: {total} rows; under a disclosure control it takes less than 2^{MOST_ROW_BITS}")
    # y is above k / steps where n^3 - sum t^3 is above the whole part of this; there are fewer steps than entries.
    limits: list[int] = []
    for count, room in ((steps.many, _MOST_TIE_STEPS), (steps.few, _MOST_TIE_STEPS // 4)):
        limits += [k * total**3 // count + 1 if k < count else total**3 + 1 for k in range(room)]
    limits += [total**3 - total, max(0, min(total**3 - total, total**3 - total**3 // 12))]
    # The limits follow from what was opened: the bound is that of all rows there could be.
    over = (total**3 - found.squares).broadcast_to((len(limits),)) - np.array(limits, dtype=object)
    below = await is_negative(party, stated(over, 2 * found.rows**3 + 1))
    reached = 1 - below
    ends = [_MOST_TIE_STEPS, _MOST_TIE_STEPS + _MOST_TIE_STEPS // 4]
    fine, coarse = (
        one.sum().reshape(1).bounded_by(_MOST_TIE_STEPS) for one in (reached[: ends[0]], reached[ends[0] : ends[1]])
    )
    tied, few = below[-2:-1], below[-1:]
    # 2 U is at most 2 n1 n2.
    doubled = stated(found.doubled[:1] - int(n[0]) * (int(n[0]) + 1), 2.0 ** (2 * MOST_ROW_BITS - 1))
    offset = -int(n[0]) * int(n[1]) % steps.width  # so that half of all pairs is told as it is
    multiples = await nearest(
        party.at("U"), doubled + offset, steps.width, bits=2 * MOST_ROW_BITS, most_bits=MOST_ROW_BITS + 2
    )
    rounded_off = stated(multiples * steps.width - offset - doubled, 2.0 ** (2 * MOST_ROW_BITS))
    apart = concatenate([rounded_off, coarse - fine])
    chosen = concatenate([doubled, fine]) + await multiply(party, apart, few.broadcast_to((2,)))
    return concatenate([chosen, tied, few])


def ties_of(opened: list[int], n: int, steps: TieSteps | None) -> float:
    """Return ``sum (t^3 - t)``; where it is told in steps, at most that, and 0 only if no values are equal."""
    if steps is None:
        return max(0, int(opened[0]) - n)
    reached, tied, few = (int(one) for one in opened)
    if not tied:
        return 0
    return max(1.0, n**3 * (1 - reached / (steps.few if few else steps.many)) - n)
