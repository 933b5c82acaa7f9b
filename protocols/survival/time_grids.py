"""Grids of times: at which times events are told apart, agreed by all parties.

A time belongs to the first point of the grid that is not before it, so a point stands for the interval from
the point before (not included) to itself. Results are those of the pooled data with all times rounded up to
the grid; times that are on the grid already, such as whole days with a grid of days, stay as they are. Who is
followed beyond the last point counts as without event up to it: censored at the last point.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party
from protocols.agreement import agree
from protocols.magnitudes import agree_exponents
from protocols.pools.variables import MOST_CATEGORIES, Categorical, Numeric, Variable, binary, numeric

MOST_POINTS = 10_000
# A time that is above a point by less than this part of the last point counts as on it: 0.1 + 0.2 is 0.3.
_SLACK = 2.0**-40
_SHOWN_POINTS = 64
TimeGridLike = float | Sequence[float] | NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class TimeGrid:
    """Public times, increasing.

    Attributes
    ----------
    points : numpy.ndarray
        Shape (points,), float64, the first at least 0.
    """

    points: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)

    def places(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the number of each time's point, from 0; ``len(self)`` for times beyond the last one."""
        reach = self.points + self.points[-1] * _SLACK
        return np.asarray(np.searchsorted(reach, times, side="left"), dtype=np.int64)

    def scope(self, party: Party, grid: TimeGridLike) -> Party:
        """Return a scope for what depends on how many points there are, for a grid that was given like this.

        Where a step alone was given this is opened: each number has a name of its own, so that a rehearsal
        (:func:`mpc.prepare`), which does not know it, prepares nothing of the wrong shape.
        """
        return party if np.ndim(grid) else party.at(f"{len(self)} points")

    def rounded(self, times: NDArray[np.float64], events: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Return times and events as the analyses see them: rounded up, and censored at the last point."""
        places = self.places(times)
        beyond = places == len(self)
        return self.points[np.minimum(places, len(self) - 1)], np.where(beyond, 0, events)

    def describe(self) -> object:
        """Return what parties compare: the points, or where these are many their hash."""
        if len(self) <= _SHOWN_POINTS:
            return self.points.tolist()
        digest = hashlib.sha256(self.points.astype("<f8").tobytes()).hexdigest()
        return {"points": len(self), "last": float(self.points[-1]), "sha256": digest}


def grid_of(grid: TimeGridLike, *, largest: float | None = None) -> TimeGrid:
    """Read a grid.

    Parameters
    ----------
    grid : sequence of float, tuple or float
        Increasing times, the first at least 0; or ``(start, stop, step)`` with a step no larger than
        ``stop - start``; or a step alone.
    largest : float, optional
        Where a step alone leads to.

    Raises
    ------
    ValueError
        It is no grid, or has more than 10,000 points.
    """
    if np.ndim(grid) == 0:
        step = float(grid)  # type: ignore[arg-type]
        if largest is None:
            raise ValueError("a step alone is no grid: it takes (start, stop, step)")
        if not (math.isfinite(step) and step > 0):
            raise ValueError("the step of a grid is a finite number above 0")
        return _stepped(step, max(step, largest), step)
    points = np.asarray(grid, dtype=np.float64)
    if points.ndim != 1 or not points.size or not np.isfinite(points).all():
        raise ValueError("a grid is a sequence of finite times, (start, stop, step), or a step")
    if points.size == 3 and 0 < points[2] <= points[1] - points[0] and points[0] >= 0:
        return _stepped(*points.tolist())
    if points.size > MOST_POINTS:
        raise ValueError(f"a grid has at most {MOST_POINTS} points, this one {points.size}")
    if points[0] < 0 or points[-1] <= 0 or (np.diff(points) <= 0).any():
        raise ValueError("the times of a grid increase, and the first is not negative")
    return TimeGrid(points)


def _stepped(start: float, stop: float, step: float) -> TimeGrid:
    steps = (stop - start) / step
    if steps >= MOST_POINTS:
        raise ValueError(f"a grid has at most {MOST_POINTS} points, this one {steps + 1:.0f}: take a longer step")
    count = math.floor(steps * (1 + _SLACK)) + 1
    return TimeGrid(np.asarray(start + step * np.arange(count), dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Followed:
    """Our times and events, checked.

    Attributes
    ----------
    time : Numeric or None
        One column; None where another party holds the times.
    event : Categorical or None
        0 (censored) or 1.
    """

    time: Numeric | None
    event: Categorical | None

    def on(self, grid: TimeGrid) -> dict[str, Variable | None]:
        """Return the two variables with the times as places on a grid, ``len(grid)`` for beyond it."""
        place = None
        if self.time is not None:
            places = grid.places(self.time.values[:, 0])
            place = Categorical.of_codes("time", len(grid) + 1, places, self.time.present[:, 0])
        return {"time": place, "event": self.event}


def followed(time: Any, event: Any, *, rank: int) -> Followed:
    """Read times and events.

    Parameters
    ----------
    time, event : array_like or None
        Shape (rows,); None where another party holds them. Times are at least 0, events 0 or 1 (or booleans);
        NaN and None are missing.

    Raises
    ------
    DataError
        Naming party and counts, never values.
    """
    times = None
    if time is not None:
        times = numeric(time, rank=rank, what="time")
        if times.values.shape[1] != 1:
            raise DataError(f"party {rank}: time has {times.values.shape[1]} columns; it takes (rows,)")
        negative = int((times.values < 0).sum())
        if negative:
            raise DataError(f"party {rank}: {negative} of {times.rows} values of time are negative")
    found = None if event is None else replace(binary(event, rank=rank, what="event"), name="event")
    if times is not None and found is not None and times.rows != found.rows:
        raise DataError(
            f"party {rank}: time has {times.rows} rows and event has {found.rows}; they describe the same rows"
        )
    return Followed(times, found)


async def agreed_grid(
    party: Party, protocol: str, grid: TimeGridLike, data: Followed, *, partition: str, terms: Mapping[str, object]
) -> TimeGrid:
    """Return the grid; one that is given by its step ends at the power of 16 that is above all times.

    Parameters
    ----------
    party : Party
        A scope of its own.
    protocol : str
    grid
        See :func:`grid_of`.
    data : Followed
    partition : str
    terms : mapping
        What else must be the same at all parties.

    Notes
    -----
    With a step alone all parties learn the order of magnitude (the power of 16) of the largest time; otherwise
    nothing. Cost: none; with a step alone 1 round and :func:`protocols.magnitudes.agree_exponents`.
    """
    if np.ndim(grid):
        found = grid_of(grid)
    else:
        grid_of(grid, largest=0.0)
        await agree(party, protocol, {"grid": float(grid), "partition": partition, **terms})  # type: ignore[arg-type]
        times = np.zeros((0, 1)) if data.time is None else data.time.values
        (exponent,) = await agree_exponents(party, times)
        # A rehearsal does not know the largest time: one point then, see TimeGrid.scope.
        found = grid_of(grid, largest=0.0 if party.rehearsing else math.ldexp(1.0, int(exponent)))
    if partition == "columns" and len(found) >= MOST_CATEGORIES:
        raise ValueError(
            f"{protocol}: with partition='columns' a grid has at most {MOST_CATEGORIES - 1} points, this one has "
            f"{len(found)}: take a longer step"
        )
    return found
