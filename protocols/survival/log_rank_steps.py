"""Differences and covariances of a log-rank test in buckets, where with all digits they would tell counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, open_
from protocols.release.steps import in_buckets

# What is below 2^-20 (differences) or 2^-28 (covariances) of the largest weight is told as 0.
_LEAST_DIFFERENCE, _LEAST_COVARIANCE = 20, 28


async def open_in_buckets(
    party: Party,
    differences: Sequence[Share],
    covariance: Share,
    sizes: NDArray[np.int64],
    buckets: int,
    to: Sequence[int] | None,
) -> list[NDArray[np.float64]] | None:
    """Open differences and their covariance, each number rounded to one of so many buckets of its octave.

    Parameters
    ----------
    party : Party
        A scope of its own.
    differences : sequence of Share
        Shape (groups,) each: they add up to 0.
    covariance : Share
        Shape (groups, groups), symmetric: rows add up to 0.
    sizes : numpy.ndarray
        Rows of each group.
    buckets : int
    to : sequence of int or None

    Returns
    -------
    list of numpy.ndarray or None
        The differences, then the covariance; None at a party that is not in ``to``.

    Notes
    -----
    What is told of the largest group is what brings sums to 0. Cost: for each kind of number see
    :func:`protocols.release.steps.in_buckets`, of ``groups - 1`` numbers, and of ``groups (groups - 1) / 2``.
    """
    largest = int(np.argmax(sizes))
    kept = np.delete(np.arange(len(sizes)), largest)
    if not kept.size:
        nothing = [np.zeros(1) for _ in differences] + [np.zeros((1, 1))]
        return nothing if to is None or party.rank in to else None
    rows, columns = np.triu_indices(kept.size)
    entries = covariance.reshape(-1)[kept[rows] * len(sizes) + kept[columns]]
    apart = concatenate([one[kept] for one in differences])
    low = max(0, apart.scale - _LEAST_DIFFERENCE)
    told = await in_buckets(party.at("differences"), apart, buckets, low=low, signed=True)
    low = max(0, entries.scale - _LEAST_COVARIANCE)
    spread = await in_buckets(party.at("covariance"), entries, buckets, low=low, signed=True)
    opened = await open_(party, told.parts, spread.parts, to=to)
    if opened[0] is None:
        return None
    found = [_balanced(one, largest) for one in np.split(told.read(opened[0]), len(differences))]
    square = np.zeros((kept.size, kept.size))
    square[rows, columns] = square[columns, rows] = spread.read(opened[1])
    half = np.stack([_balanced(row, largest) for row in square])
    return [*found, np.stack([_balanced(column, largest) for column in half.T])]


def _balanced(values: Any, place: int) -> NDArray[np.float64]:
    """Put in what brings the sum to 0."""
    return np.insert(values, place, -values.sum())
