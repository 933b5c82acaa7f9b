"""Tables of counts that are opened cell by cell: what is too small never is, nor what would tell it.

Primary suppression withholds a cell below the agreed minimum. Secondary suppression withholds further cells
until no withheld cell follows from the others and the totals: not by subtraction (a cell that is a linear
combination of what is opened), and not because several withheld cells add up to less than the minimum either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, less_than, open_, truncate
from protocols.disclosure import Disclosure, Release

# Counts are below 2^32; the quotient by a small number is right to within one before it is corrected.
_COUNT_BITS = 33
_QUOTIENT_BITS = 40


@dataclass(frozen=True, eq=False)
class OpenedCounts:
    """What was opened of a vector of counts and its totals.

    Attributes
    ----------
    counts : numpy.ndarray
        Shape (cells,), float64; NaN where a cell is withheld.
    totals : numpy.ndarray
        Shape (lines,); NaN where a total is withheld.
    primary, secondary : numpy.ndarray
        Shape (cells,), bool: withheld because it is too small, or because it would tell one that is.
    """

    counts: NDArray[np.float64]
    totals: NDArray[np.float64]
    primary: NDArray[np.bool_]
    secondary: NDArray[np.bool_]

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was withheld and why, in words."""
        found = []
        if self.primary.any():
            found.append(f"{int(self.primary.sum())} cells are withheld: too few rows")
        if self.secondary.any():
            found.append(f"{int(self.secondary.sum())} cells are withheld: they would tell others that are")
        return tuple(found)


def lines_of(shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Return the cells of each total of a table, as places in its flat form: along each axis, then all of it.

    For shape (r, c): r row totals, c column totals, the grand total. For (k,): the grand total.
    """
    places = np.arange(int(np.prod(shape))).reshape(shape)
    lines = []
    if len(shape) > 1:
        for axis in range(len(shape)):
            kept = np.moveaxis(places, axis, 0).reshape(shape[axis], -1)
            lines += list(kept)
    return [*lines, places.reshape(-1)]


async def open_counts(
    party: Party, counts: Share, lines: Sequence[NDArray[np.int64]], release: Release
) -> OpenedCounts | None:
    """Open counts and totals as far as the agreed disclosure control allows.

    Parameters
    ----------
    party : Party
        A scope of its own.
    counts : Share
        Integers from 0, shape (cells,).
    lines : sequence of numpy.ndarray
        The cells that each total adds up; all totals of sums of these cells that anybody learns, from this
        analysis or before it.
    release : Release
        Who learns the counts, and the rules.

    Returns
    -------
    OpenedCounts or None
        None at a party that learns nothing.

    Notes
    -----
    The recipients learn the counts and totals that are not withheld. All parties learn which are: from one bit
    for each cell (is it below the minimum) and one for each line with withheld cells (do these add up to less
    than the minimum). A cell of 0 is too small as any other: it says the same of every row.
    Which further cells are withheld follows from these bits alone, by a fixed rule. Lines whose total is itself
    withheld do not count as known. Totals over parts of lines that somebody learns elsewhere are not covered.
    Cost without a rule: 1 round, ``cells + lines`` elements. With a minimum: a comparison and ``cells`` bits;
    for each pass of the secondary suppression (mostly one or two) a comparison of at most ``lines`` entries.
    With rounding: see :func:`rounded`.
    """
    disclosure = release.disclosure
    totals = [_total(counts, line) for line in lines]
    minimum = 0 if disclosure is None else disclosure.minimum_cell
    hidden = await _withheld(party, counts, lines, minimum) if minimum else _nothing(counts.size, len(lines))
    shown = [counts[k : k + 1] for k in np.flatnonzero(~hidden.cells)]
    shown += [totals[k] for k in np.flatnonzero(~hidden.totals)]
    opened: NDArray[np.float64] | None = np.empty(0)
    if shown:
        values = concatenate(shown)
        if disclosure is not None and disclosure.rounding > 1:
            values = await rounded(party.at("rounding"), values, disclosure.rounding)
        found = await open_(party.at("open"), values, to=release.to)
        opened = None if found is None else np.asarray(found, dtype=np.float64)
    if opened is None:
        return None
    cells, sums = np.full(counts.size, np.nan), np.full(len(lines), np.nan)
    shown_cells = int((~hidden.cells).sum())
    cells[~hidden.cells], sums[~hidden.totals] = opened[:shown_cells], opened[shown_cells:]
    return OpenedCounts(cells, sums, hidden.primary, hidden.cells & ~hidden.primary)


@dataclass(frozen=True, eq=False)
class _Hidden:
    primary: NDArray[np.bool_]
    cells: NDArray[np.bool_]
    totals: NDArray[np.bool_]


def _nothing(cells: int, lines: int) -> _Hidden:
    return _Hidden(np.zeros(cells, np.bool_), np.zeros(cells, np.bool_), np.zeros(lines, np.bool_))


def _total(counts: Share, line: NDArray[np.int64]) -> Share:
    return counts[line].sum().reshape(1).bounded_by(1 << _COUNT_BITS)


async def _withheld(party: Party, counts: Share, lines: Sequence[NDArray[np.int64]], minimum: int) -> _Hidden:
    """Find which cells and totals are withheld; see :func:`open_counts`."""
    totals = concatenate([_total(counts, line) for line in lines])
    small = np.asarray(await open_(party, await less_than(party.at("small"), concatenate([counts, totals]), minimum)))
    primary, small_totals = small[: counts.size] == 1, small[counts.size :] == 1
    cells = primary.copy()
    for line, is_small in zip(lines, small_totals, strict=True):
        if is_small:
            cells[line] = True  # its cells are no larger
    known = [line for line, is_small in zip(lines, small_totals, strict=True) if not is_small]
    enough: set[tuple[int, ...]] = set()
    while True:
        # 1. What follows by subtraction.
        more = _withhold_more(cells, known)
        if more is not None:
            cells[more] = True
            continue
        # 2. Withheld cells of a line that together are less than the minimum.
        asked = {tuple(line[cells[line]].tolist()): line for line in known if cells[line].any()}
        asked = {held: line for held, line in asked.items() if held not in enough}
        if not asked:
            return _Hidden(primary, cells, small_totals)
        sums = concatenate([_total(counts, np.array(held)) for held in asked])
        few = np.asarray(await open_(party, await less_than(party.at("together"), sums, minimum))) == 1
        for (held, line), is_few in zip(asked.items(), few, strict=True):
            candidates = line[~cells[line]]
            if is_few and candidates.size:
                cells[_best(candidates, cells, known)] = True
            else:
                enough.add(held)


def _withhold_more(cells: NDArray[np.bool_], lines: Sequence[NDArray[np.int64]]) -> int | None:
    """Return a cell to withhold as well, if one that is withheld follows from the rest."""
    held = np.flatnonzero(cells)
    relations = np.array([np.isin(held, line) for line in lines], dtype=np.float64).reshape(len(lines), held.size)
    rank = np.linalg.matrix_rank(relations) if relations.size else 0
    for k in range(held.size):
        unit = np.zeros((1, held.size))
        unit[0, k] = 1
        if rank and np.linalg.matrix_rank(np.vstack([relations, unit])) == rank:
            through = [line for line in lines if held[k] in line]
            candidates = np.unique(np.concatenate(through))
            candidates = candidates[~cells[candidates]]
            if candidates.size:
                return _best(candidates, cells, lines)
    return None


def _best(candidates: NDArray[np.int64], cells: NDArray[np.bool_], lines: Sequence[NDArray[np.int64]]) -> int:
    """Choose the cell that stands in most lines with withheld cells; the last of several."""
    touched = [line for line in lines if cells[line].any()]
    scores = [sum(int(cell in line) for line in touched) for cell in candidates]
    return int(candidates[len(scores) - 1 - int(np.argmax(scores[::-1]))])


async def rounded(party: Party, counts: Share, base: int) -> Share:
    """Round counts to the nearest multiples of a small public number, half up, exactly.

    Notes
    -----
    Nothing is revealed. Cost: one truncation and one comparison of about ``pieces + 5`` entries for each count, with
    the pieces of a mask: n with a dealer, C(n, t) with prss.
    """
    shifted = (counts + base // 2).bounded_by((1 << _COUNT_BITS) + base)
    factor = round((1 << _QUOTIENT_BITS) / base)
    guess = await truncate(party, (shifted * factor).scaled_down(_QUOTIENT_BITS), 0)
    # A truncation is off by up to (pieces + 1) / 2, so the rest tells how many multiples fit into it.
    off = (party.preprocessing.pieces_of(party.size) + 1) // 2 + 2
    rest = (shifted - guess * base).bounded_by((off + 1) * base)
    steps = base * np.arange(1 - off, off + 1)[:, np.newaxis]
    lacking = await less_than(party, rest.broadcast_to((2 * off, counts.size)), steps)
    quotient = guess + off - lacking.sum(axis=0)
    return (quotient * base).bounded_by((1 << _COUNT_BITS) + base)


def guarded(disclosure: Disclosure | None) -> bool:
    """Whether cells may be withheld or rounded."""
    return disclosure is not None and bool(disclosure.minimum_cell or disclosure.rounding > 1)
