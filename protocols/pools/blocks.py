"""Passes over many rows, a block at a time: what they take beside the data does not grow with the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_ROWS = 1 << 16
_FEWEST_ROWS = 1 << 8
_MOST_ENTRIES = 1 << 18
# Powers of two up to here are floats with all their digits.
_LARGEST_POWER = 1000


def blocks(rows: int, columns: int = 1) -> Iterator[slice]:
    """Cut rows into blocks: at most 2^16 of them, fewer where there are more than 4 columns."""
    step = max(_FEWEST_ROWS, min(_MOST_ROWS, _MOST_ENTRIES // max(columns, 1)))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def read_only(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the same memory so that nobody writes to it by mistake: it may be the caller's own."""
    view = array.view()
    view.flags.writeable = False
    return view


def in_units(values: NDArray[np.float64], exponents: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a block in units of ``2^exponents``, column by column: shape (columns, rows), in memory of its own."""
    return scaled(np.array(values.T, dtype=np.float64, order="C"), exponents)


def scaled(turned: NDArray[np.float64], exponents: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bring columns, shape (columns, rows), to units of ``2^exponents``, in place."""
    power = -np.broadcast_to(exponents, (len(turned),))[:, np.newaxis]
    if (np.abs(power) > _LARGEST_POWER).any():
        turned[...] = np.ldexp(turned, power)
    else:  # the same, and faster
        turned *= np.ldexp(1.0, power)
    return turned


class Total:
    """A sum of blocks, with the rounding of each step kept and added in the end (Knuth, TAOCP 2, 4.2.2).

    Parameters
    ----------
    shape : tuple of int
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._high = np.zeros(shape)
        self._low = np.zeros(shape)

    def add(self, part: NDArray[np.float64], at: Any = ...) -> None:
        """Add what a block adds up to, to some of the entries."""
        before = self._high[at]
        after = before + part
        back = after - before
        self._low[at] += (before - (after - back)) + (part - back)
        self._high[at] = after

    @property
    def value(self) -> NDArray[np.float64]:
        """The sum."""
        return np.asarray(self._high + self._low)


class Spread:
    """Weight, sum and scatter around the mean of rows in groups, gathered block by block.

    Parameters
    ----------
    groups, columns : int
    diagonal : bool
        Whether only squares of deviations are gathered, not products of those of two columns.

    Attributes
    ----------
    weight : numpy.ndarray
        Shape (groups,).

    Notes
    -----
    A block's scatter around its own mean, then that of the blocks' means (Chan, Golub, LeVeque, 1983, eq. 2.1): all
    terms are positive semidefinite and nothing cancels. Sums are pairwise within a block and compensated between
    blocks: off by less than ``2^-48`` of the sum of sizes, however many rows there are.
    """

    def __init__(self, groups: int, columns: int, *, diagonal: bool = False) -> None:
        self.weight = np.zeros(groups)
        self._sums = Total((groups, columns))
        self._scatter = np.zeros((groups, columns) if diagonal else (groups, columns, columns))
        self._diagonal = diagonal

    def add(
        self,
        turned: NDArray[np.float64],
        *,
        weights: NDArray[np.float64] | None = None,
        codes: NDArray[np.signedinteger] | None = None,
    ) -> None:
        """Add a block.

        Parameters
        ----------
        turned : numpy.ndarray
            Shape (columns, rows); overwritten.
        weights : numpy.ndarray, optional
            Shape (rows,), at least 0; 1 by default. Not together with groups.
        codes : numpy.ndarray, optional
            Group of each row.
        """
        if codes is None:
            self._add(0, turned, weights)
            return
        order = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes[order], np.arange(len(self.weight) + 1))
        for k in np.flatnonzero(np.diff(ends)).tolist():
            self._add(k, turned[:, order[ends[k] : ends[k + 1]]], None)

    def _add(self, k: int, turned: NDArray[np.float64], weights: NDArray[np.float64] | None) -> None:
        held = float(turned.shape[1]) if weights is None else float(weights.sum())
        if not held:
            return
        sums = (turned if weights is None else turned * weights).sum(axis=1)
        mean = sums / held
        turned -= mean[:, np.newaxis]
        weighted = turned if weights is None else turned * weights
        before = self.weight[k]
        apart = mean - (self.sums[k] / before if before else mean)
        between = before * held / (before + held)
        if self._diagonal:
            self._scatter[k] += (weighted * turned).sum(axis=1) + between * apart**2
        else:
            self._scatter[k] += weighted @ turned.T + between * np.outer(apart, apart)
        self._sums.add(sums, at=k)
        self.weight[k] += held

    @property
    def sums(self) -> NDArray[np.float64]:
        """Sums of the rows, with their weights; shape (groups, columns)."""
        return self._sums.value

    @property
    def means(self) -> NDArray[np.float64]:
        """Means; 0 where there is no weight."""
        held = np.where(self.weight > 0, self.weight, 1.0)[:, np.newaxis]
        return np.asarray(self.sums / held)

    def around(self, centre: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scatter around other points than the means, shape (groups, columns[, columns])."""
        apart = self.means - centre
        if self._diagonal:
            return np.asarray(self._scatter + self.weight[:, np.newaxis] * apart**2)
        outer = apart[:, :, np.newaxis] * apart[:, np.newaxis, :]
        return np.asarray(self._scatter + self.weight[:, np.newaxis, np.newaxis] * outer)
