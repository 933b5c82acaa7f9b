"""Which cells and totals of a table to withhold, from public facts alone: which cells are too small, and how many rows.

The cells that are withheld fall into sets whose sums follow from what is shown; nothing else about them does. So what
is shown tells of a set with ``c`` large cells and sum ``S`` that its small cells are from 0 to below the minimum m
and add up to at most ``S - c m``: its slack. A total is shown only if it is made of cells that are shown and of whole
sets, so that sets never share an equation.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stage:
    """A pattern, and what must hold for it to be used.

    Attributes
    ----------
    sets : list of numpy.ndarray
        Cells that are withheld, in sets whose sums are told.
    large : list of int
        How many cells of each set are at least the minimum.
    """

    sets: list[Cells]
    large: list[int]

    @property
    def cells(self) -> int:
        """How many cells are withheld."""
        return sum(map(len, self.sets))


@dataclass(frozen=True, eq=False)
class Layout:
    """Cells, and the totals over some of them.

    Attributes
    ----------
    cells : int
    lines : sequence of numpy.ndarray
        The cells of each total.
    """

    cells: int
    lines: Sequence[Cells]

    @cached_property
    def takes_part(self) -> NDArray[np.bool_]:
        """Shape (lines, cells): whether a total counts a cell."""
        found = np.zeros((len(self.lines), self.cells), np.bool_)
        for k, line in enumerate(self.lines):
            found[k, line] = True
        return found

    @cached_property
    def partitions(self) -> list[list[Cells]]:
        """Lines that follow one another and together have each cell once."""
        found, current, covered = [], list[Cells](), np.zeros(self.cells, np.bool_)
        for line in self.lines:
            if covered[line].any():
                current, covered = [], np.zeros(self.cells, np.bool_)
            current.append(line)
            covered[line] = True
            if covered.all():
                found.append(current)
                current, covered = [], np.zeros(self.cells, np.bool_)
        return found or [[np.arange(self.cells)]]

    def hidden(self, sets: Sequence[Cells]) -> NDArray[np.bool_]:
        """Return which cells and totals are withheld, shape (cells + lines,): totals that have a part of a set."""
        cells, totals = np.zeros(self.cells, np.bool_), np.zeros(len(self.lines), np.bool_)
        for members in sets:
            cells[members] = True
            held = self.takes_part[:, members]
            totals |= held.any(axis=1) & ~held.all(axis=1)
        return np.concatenate([cells, totals])

    def stages(self, small: NDArray[np.bool_]) -> list[Stage]:
        """Return patterns for a table in which some cells are small, and others are not; later ones show less.

        Parameters
        ----------
        small : numpy.ndarray
            Shape (cells,).

        Notes
        -----
        The first has a set for each line of the partition with which most is shown. In the next these are one set, to
        which large cells are then added, up to all cells: that one is for tables for which no other will do.
        """
        firsts = [_first(self, partition, small) for partition in self.partitions]
        first = min(firsts, key=lambda stage: int(self.hidden(stage.sets).sum()))
        held, large = np.concatenate(first.sets), sum(first.large)
        found = [first] if len(first.sets) == 1 else [first, Stage([held], [large])]
        others = np.setdiff1d(np.flatnonzero(~small), held)
        more = 1
        while more < len(others):
            found.append(Stage([np.concatenate([held, others[:more]])], [large + more]))
            more *= 2
        if len(others):
            found.append(Stage([np.arange(self.cells)], [large + len(others)]))
        return found


def _first(layout: Layout, partition: Sequence[Cells], small: NDArray[np.bool_]) -> Stage:
    """Return a set for each line that has small cells, each with a large cell; lines of small ones join another."""
    sets = [line[small[line]] for line in partition]
    free = [line[~small[line]] for line in partition]
    lone = [k for k in range(len(sets)) if len(sets[k]) and not len(free[k])]
    if lone:
        held = [k for k in range(len(sets)) if len(sets[k]) and len(free[k])]
        host = (held or [k for k in range(len(sets)) if len(free[k])])[0]
        sets[host] = np.concatenate([sets[host], *(sets[k] for k in lone)])
    found, hidden = list[Cells](), small.copy()
    for k, members in enumerate(sets):
        if not len(members) or k in lone:
            continue
        # Of the large cells the one with which fewest totals more have to be withheld; the last of several.
        touched = layout.takes_part[:, hidden].any(axis=1)
        scores = layout.takes_part[touched][:, free[k]].sum(axis=0)
        best = free[k][len(scores) - 1 - int(np.argmax(scores[::-1]))]
        hidden[best] = True
        found.append(np.append(members, best))
    return Stage(found, [1] * len(found))


# ---- what the rule itself must not tell ---------------------------------------------------------


def steps_wanted(minimum: int) -> int:
    """Return how many values a small number must be able to have beside its own."""
    return min(minimum - 1, max(2, minimum // 4))


def most_large(cells: int, rows: int, minimum: int) -> int | None:
    """Return how many cells may be large, if it is to be told which are; None where that is never told.

    Parameters
    ----------
    cells, rows, minimum : int

    Notes
    -----
    With l large cells a small one is at most ``rows - l minimum``. Where that is less than the wanted steps for the
    largest l that there can be, these tables are not told apart from those with one large cell less: in them any cell
    can be anything from 0 to the wanted steps. If all cells are small, the number of rows bounds them from below.
    """
    steps = steps_wanted(minimum)
    if rows >= cells * minimum:
        return cells
    largest, rest = divmod(rows, minimum)
    all_small = cells * (minimum - 1)
    if not largest or all_small - steps < rows <= all_small:
        return None
    if rest >= steps:
        return cells
    return largest - 2 if largest > 1 else None


# ---- totals that are known anyway ---------------------------------------------------------------


def told_sets(layout: Layout, told: Collection[int], withheld: Collection[int]) -> list[Cells]:
    """Return the cells of withheld lines in sets whose sums are told: one for each told line, one for the others."""
    held = np.zeros(layout.cells, np.bool_)
    for k in withheld:
        held[layout.lines[k]] = True
    found = []
    for k in told:
        members = layout.lines[k][held[layout.lines[k]]]
        if len(members):
            found.append(members)
            held[members] = False
    if held.any():
        found.append(np.flatnonzero(held))
    return found
