"""Area and standard error of a ROC curve in steps, where with all digits they would tell the table of score by outcome.

Of a score with few values the area and its variance are two rational numbers made of how many rows of each class have
each value: with all digits they leave, of 198,891 ways in which 40 and 20 rows can have three values, mostly one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, multiply, stack, truncate, truncate_all
from protocols.release.steps import at_least, stated

MOST_STEPS = 1000
# The largest standard error, that of two rows in either class, is below 0.72.
_MOST_ERROR_STEPS = 720
_FACTOR_BITS = 76
_MEAN_SCALE, _SQUARE_SCALE = 38, 40
# Sums of squares of places keep so many bits, which leaves their reciprocals 20 of those above.
_SQUARE_BITS = 56


def roc_steps(least: int, classes: NDArray[np.int64]) -> int:
    """Return in how many steps from 0 to 1 area and error are told: an eighth of what m rows of a class are; even.

    Of all ways in which two classes of 8 to 400 rows can have two or three values, some value m or fewer times in a
    class, less than one in a hundred (of classes of 7 and 8 rows three) is then told.
    """
    return 2 * max(1, min(MOST_STEPS // 2, 4 * int(classes.min()) // least))


async def in_roc_steps(party: Party, below: Share, classes: NDArray[np.int64], steps: int) -> Share:
    """Round area and standard error on shares.

    Parameters
    ----------
    party : Party
        A scope of its own.
    below : Share
        Shape (rows,): for the rows with y = 0, then for those with y = 1 twice the rows of the other class that are
        below; then rows that do not count.
    classes : numpy.ndarray
        How many rows there are of each.
    steps : int

    Returns
    -------
    Share
        Shape (2,): the nearest number of steps to the area, and how many steps the error is above, at least 0.

    Notes
    -----
    Nothing is revealed. An error is told as a step more than this: it is rounded up, and never 0.
    Cost: two comparisons of 1000 and 720 entries, 4 rounds and 5 elements; above 2^18 rows ``rows`` elements and 1
    round more.
    """
    rows = len(below)
    negatives, positives = classes.tolist()
    pairs = 2 * negatives * positives
    of_ones = slice(negatives, negatives + positives)
    area = below[of_ones].sum().reshape(1)
    limits = [-(-(2 * k - 1) * pairs // (2 * steps)) for k in range(1, steps + 1)]
    reached = await at_least(party.at("area"), area, limits, count=MOST_STEPS, bound=2 * rows * rows)
    variance = await _scaled_variance(party.at("variance"), below, classes)
    freedom = max(1, negatives - 1) * max(1, positives - 1)
    # Of standard errors a 32nd part of a step counts as none: so much a variance of none may be off.
    limits = [
        ((32 * k + 1) ** 2 * freedom << _SQUARE_SCALE) // (32 * steps) ** 2 for k in range(1, _MOST_ERROR_STEPS + 1)
    ]
    most = (rows + 1) << _SQUARE_SCALE
    above = await at_least(party.at("error"), variance, limits, count=_MOST_ERROR_STEPS, bound=most)
    return concatenate([reached.sum().reshape(1), above.sum().reshape(1)])


async def _scaled_variance(party: Party, below: Share, classes: NDArray[np.int64]) -> Share:
    """Return DeLong's variance times ``(n0 - 1) (n1 - 1)``, scale 40; shape (1,).

    For the positives with ``V = below / (2 n0)`` it is ``(mean V^2 - auc^2) / (n1 - 1)``, and so for the negatives.
    """
    rows = len(below)
    negatives, positives = classes.tolist()
    dropped = max(0, -(-(3 * rows.bit_length() + 2 - _SQUARE_BITS) // 2))
    if dropped:
        below = await truncate(party.at("shorter"), below.scaled_down(dropped), 0)
    squares = await multiply(party.at("squares"), below, below)
    places = {0: slice(0, negatives), 1: slice(negatives, negatives + positives)}
    counts, others = (negatives, positives), (positives, negatives)
    means, sums = [], []
    for one in (0, 1):
        most = max(1, (2 * others[one] * counts[one]) >> dropped)
        means.append(_part(below[places[one]].sum(), most))
        most = max(1, (4 * others[one] ** 2 * counts[one]) >> 2 * dropped)
        sums.append(_part(squares[places[one]].sum(), most))
    mean = await truncate(party.at("means"), stack(means), _MEAN_SCALE)
    of_squares, square = await truncate_all(
        party.at("parts"), [stack(sums), (await multiply(party, mean, mean)).bounded_by(1.02)], _SQUARE_SCALE
    )
    spread = of_squares - square
    weights = np.array([max(1, positives - 1), max(1, negatives - 1)], dtype=object)
    return stated((spread * weights).sum().reshape(1), rows + 1.0)


def _part(x: Share, most: int) -> Share:
    """Return x as a part of what it is at most, with as many bits as fit."""
    return stated((x * ((1 << _FACTOR_BITS) // most)).scaled_down(_FACTOR_BITS), 1.01)


def of_steps(opened: NDArray[np.int64], steps: int) -> tuple[float, float]:
    """Return area and standard error."""
    return min(1.0, int(opened[0]) / steps), (int(opened[1]) + 1) / steps
