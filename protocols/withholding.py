"""Which cells and totals of a table to withhold: what a pattern of them tells, from public facts alone.

Cells and totals are entries of one list. Each total is the sum of its cells; these equations are all that the
patterns here know. No number of a table is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_NOTHING = 1e-6  # the numbers compared to it are quotients of small integers
_STEPS = (1, 2, 3, 4, 6)


@dataclass(frozen=True, eq=False)
class Layout:
    """Cells, and the totals over some of them.

    Attributes
    ----------
    cells : int
    lines : sequence of numpy.ndarray
        The cells of each total.
    told : frozenset of int
        Lines whose totals everybody knows anyway.
    """

    cells: int
    lines: Sequence[NDArray[np.int64]]
    told: frozenset[int] = frozenset()

    @property
    def entries(self) -> int:
        """Cells and totals."""
        return self.cells + len(self.lines)

    @cached_property
    def equations(self) -> NDArray[np.float64]:
        """Shape (lines, entries): cells less their total, which is 0."""
        found = np.zeros((len(self.lines), self.entries))
        for k, line in enumerate(self.lines):
            found[k, line] = 1
            found[k, self.cells + k] = -1
        return found

    @cached_property
    def public(self) -> NDArray[np.bool_]:
        """Entries that everybody knows: totals of all cells (the number of rows is opened), and those that are told."""
        whole = [len(np.unique(line)) == self.cells or k in self.told for k, line in enumerate(self.lines)]
        return np.array([False] * self.cells + whole)

    @cached_property
    def partitions(self) -> list[list[int]]:
        """Totals, as entries, that follow one another and add up to all cells."""
        found, current, covered = [], list[int](), np.zeros(self.cells, np.bool_)
        for k, line in enumerate(self.lines):
            if covered[line].any():
                current, covered = [], np.zeros(self.cells, np.bool_)
            current.append(self.cells + k)
            covered[line] = True
            if covered.all():
                found.append(current)
                current, covered = [], np.zeros(self.cells, np.bool_)
        return found

    # ---- what follows by subtraction ------------------------------------------------------------

    def next_determined(self, hidden: NDArray[np.bool_]) -> int | None:
        """Return an entry to withhold as well, if one that is withheld follows from those that are not.

        Of the entries that leave fewest determined; if no single one helps, of those that stand in most lines with
        one withheld entry. Cells before totals, the last of several.
        """
        unknown = np.flatnonzero(hidden & ~self.public)
        if not unknown.size:
            return None
        held = self.equations[:, unknown]
        inverse = np.linalg.pinv(held)
        determined = 1 - (inverse.T * held).sum(axis=0) < _NOTHING
        candidates = np.flatnonzero(~hidden & ~self.public)
        if not determined.any() or not candidates.size:
            return None
        # A candidate that the unknown entries can make up for, in which a determined one takes part, frees that one.
        columns = self.equations[:, candidates]
        needed = inverse @ columns
        made_up = np.abs(held @ needed - columns).max(axis=0) < _NOTHING
        frees = (np.abs(needed[determined]) > _NOTHING).sum(axis=0) * made_up
        if frees.any():
            return self._last_best(candidates, frees)
        return self.best(candidates, hidden)

    def best(self, candidates: NDArray[np.int64], hidden: NDArray[np.bool_]) -> int:
        """Choose the candidate that stands in most lines with a single withheld entry."""
        takes_part = self.equations != 0
        single = (takes_part & (hidden & ~self.public)).sum(axis=1) == 1
        return self._last_best(candidates, takes_part[single][:, candidates].sum(axis=0))

    def _last_best(self, candidates: NDArray[np.int64], scores: NDArray[np.int64]) -> int:
        scores = scores * 2 + (candidates < self.cells)
        return int(candidates[len(scores) - 1 - int(np.argmax(scores[::-1]))])

    # ---- what withheld entries add up to --------------------------------------------------------

    def next_too_few(self, hidden: NDArray[np.bool_], small: NDArray[np.bool_]) -> int | None:
        """Return an entry to withhold as well, if withheld entries whose sum is known are all small.

        With one beside them that is not, they add up to the minimum.
        """
        known, places = ~hidden | self.public, np.arange(self.entries)
        sums = [line for k, line in enumerate(self.lines) if known[self.cells + k]]
        for members in [*sums, *(np.array(totals) for totals in self.partitions)]:
            held = members[hidden[members] & ~self.public[members]]
            candidates = members[~hidden[members] & ~self.public[members]]
            if held.size and small[held].all() and candidates.size:
                return self.best(places[candidates], hidden)
        return None

    # ---- what other tables show the same --------------------------------------------------------

    def moves(self, entry: int, hidden: NDArray[np.bool_], small: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        """Return steps from a table to others that show the same, in which a withheld entry is another one."""
        unknown = np.flatnonzero(hidden & ~self.public)
        others = unknown[unknown != entry]
        large, tight = others[~small[others]], others[small[others]]
        middle = len(large) // 2
        turned = np.concatenate([large[middle:], large[:middle]])
        # The large ones have room to change; which of them has most is not known, so several ways are tried.
        orders = [np.concatenate([one, tight]) for one in (large, large[::-1], turned, turned[::-1])]
        found: dict[bytes, NDArray[np.int64]] = {}
        for order in orders:
            step = _combination(self.equations[:, order], -self.equations[:, entry])
            if step is None:
                continue
            for factor in _STEPS:
                whole = np.rint(step * factor)
                if np.abs(whole - step * factor).max(initial=0) < _NOTHING:
                    move = np.zeros(self.entries, np.int64)
                    move[order], move[entry] = whole.astype(np.int64), factor
                    found[move.tobytes()] = move
                    break
        return list(found.values())


def _combination(columns: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Write a vector as a combination of the first independent columns; None if it is none."""
    work, pivots = np.column_stack([columns, target]), list[tuple[int, int]]()
    for j in range(columns.shape[1]):
        top = len(pivots)
        if top == len(work):
            break
        k = top + int(np.argmax(np.abs(work[top:, j])))
        if abs(work[k, j]) < _NOTHING:
            continue
        work[[top, k]] = work[[k, top]]
        work[top] /= work[top, j]
        factors = work[:, j].copy()
        factors[top] = 0
        work -= np.outer(factors, work[top])
        pivots.append((top, j))
    if np.abs(work[len(pivots) :, -1]).max(initial=0) > _NOTHING:
        return None
    step = np.zeros(columns.shape[1])
    for row, j in pivots:
        step[j] = work[row, -1]
    return step
