"""Agreed grids: each party counts its own rows on one in the clear, and only the counts are shared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate
from protocols.pools.pool import Pool
from protocols.pools.row_pool import RowPool, total
from protocols.pools.variables import Numeric

MOST_POINTS = 1 << 16


@dataclass(frozen=True, slots=True)
class Grid:
    """The points lower, lower + step, ... up to upper.

    Attributes
    ----------
    lower, upper, step : float
        Public, agreed in the study. A value counts as the nearest point; with halves, as the even one.
    """

    lower: float
    upper: float
    step: float

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        if not all(map(math.isfinite, (self.lower, self.upper, self.step))) or not self.lower < self.upper:
            raise ValueError("grid is (lower, upper, step): lower is below upper")
        if not self.step > 0 or (self.upper - self.lower) / self.step > MOST_POINTS - 1:
            raise ValueError(f"grid is (lower, upper, step): with at most {MOST_POINTS} points")

    @property
    def points(self) -> int:
        """How many points there are."""
        return round((self.upper - self.lower) / self.step) + 1

    @property
    def bound(self) -> float:
        """The largest absolute value of a point."""
        return max(abs(self.lower), abs(self.upper))

    def value(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where on the grid a place is, counted in steps from 0."""
        return np.asarray(self.lower + place * self.step)

    def check(self, data: Numeric, *, rank: int) -> None:
        """Refuse values beyond the ends.

        Raises
        ------
        DataError
            Naming party and count.
        """
        outside = 0
        for rows in data.blocks():
            values, present = data.block(rows)
            outside += int(np.count_nonzero(present & ((values < self.lower) | (values > self.upper))))
        if outside:
            raise DataError(
                f"party {rank}: {outside} of {data.rows * len(data.names)} values are beyond the agreed grid from "
                f"{self.lower:g} to {self.upper:g}; agree on a wider grid in the study, or correct these values"
            )

    def places(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the nearest point of each value, counted from 0."""
        steps = np.rint((values - self.lower) / self.step).astype(np.int64)
        return np.clip(steps, 0, self.points - 1)


async def histogram(party: Party, made: Pool, grid: Grid, *, by: str | None = None) -> Share:
    """Count the complete rows of all parties at each point of a grid.

    Parameters
    ----------
    party : Party
        A scope of its own.
    made : Pool
        Of rows, with the numeric variable x.
    grid : Grid
    by : str, optional
        A categorical variable.

    Returns
    -------
    Share
        Integers, shape (groups, points); one group where there are none.

    Notes
    -----
    Nothing is revealed. Cost: that of sharing, 1 round; no element. It does not depend on the number of rows.
    """
    if not isinstance(made, RowPool):
        raise TypeError("a grid is for rows that the parties hold")
    groups = 1 if by is None else len(made.categories[by])
    counts = np.zeros(groups * grid.points, np.int64)
    for values, codes in made.blocks("x", *([] if by is None else [by])):
        places = grid.places(values[:, 0])
        if codes:
            places = places + codes[0].astype(np.int64) * grid.points
        counts += np.bincount(places, minlength=len(counts))
    return await total(party, counts.reshape(groups, grid.points))


def prefix_sums(x: Share, most: float) -> Share:
    """Return the sums of the entries up to each one, along the last axis, for which the caller knows a bound. Local."""
    result, reach, width = x, 1, x.shape[-1]
    while reach < width:
        added = result[..., reach:] + result[..., : width - reach]
        result = concatenate([result[..., :reach], added], axis=-1).bounded_by(most)
        reach *= 2
    return result
