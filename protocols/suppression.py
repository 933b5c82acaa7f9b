"""Tables of counts that are opened cell by cell: what is too small never is, nor what would tell it.

Cells and totals below the agreed minimum are withheld (primary suppression). Further ones are withheld with them
(secondary suppression) until what is opened fits several tables: no withheld number follows from the others by
subtraction; withheld cells whose sum is known do not add up to less than the minimum; and for each withheld
number that is small there is another table, in which it differs, that agrees in all that is opened and in which
numbers are below the minimum. That last one is checked on shares.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, less_than, open_, stack, truncate
from protocols.disclosure import Disclosure, Release, hold
from protocols.withholding import Layout

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
    party: Party,
    counts: Share,
    lines: Sequence[NDArray[np.int64]],
    release: Release,
    *,
    told: Collection[int] = (),
    withheld: Collection[int] = (),
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
    told : collection of int
        Lines whose totals are opened whatever happens, as they were before; none of them below the minimum.
    withheld : collection of int
        Lines whose totals are not opened whatever happens.

    Returns
    -------
    OpenedCounts or None
        None at a party that learns nothing.

    Notes
    -----
    The recipients learn the counts and totals that are not withheld. All parties learn which are, from one bit for
    each cell and total (is it below the minimum), and mostly one more, in rare cases a few: whether one of the small
    ones is nearly told by the pattern that follows from these bits. If so, more is withheld, by a fixed rule, at last
    everything. The sum of all cells counts as known, since analyses open how many rows there are; a cell of 0 is too
    small as any other: it says the same of every row.

    What holds of whatever is opened: (1) no withheld number is a linear combination of what is opened; (2) withheld
    cells of a line whose total is opened add up to at least the minimum, as do withheld totals that partition the
    table; (3) for each small number there are at least three tables (two with a minimum of 2) that differ in it, and
    agree in all that is opened and in what is below the minimum, unless nothing is opened but the number of rows
    (and totals that are told).
    What does not hold: small numbers are not spread over all values below the minimum. Who knows the rule can leave
    out tables of which something else would have been opened; in tight cases (few rows, large cells just at the
    minimum) that tells a number: in the tests, for up to one table in twenty of those with 6 to 14 rows. And the
    bits with the number of rows can tell all cells when nothing is opened: where all are small and as large as small
    ones can be. Totals over other parts of the table that somebody learns elsewhere are not covered. Semi-honest.
    Cost without a rule: 1 round, ``cells + lines`` elements. With a minimum: a comparison of as many entries, as many
    bits; where cells are withheld, for each pass (mostly one) three comparisons with a few entries for each small
    number, and 1 bit. With rounding see :func:`rounded`, of all entries.
    """
    disclosure = release.disclosure
    hidden, small = await withheld_counts(party, counts, lines, release, told=told, withheld=withheld)
    entries = _entries(counts, lines)
    if disclosure is not None and disclosure.rounding > 1:
        entries = await rounded(party.at("rounding"), entries, disclosure.rounding)
    values = np.full(entries.size, np.nan)
    shown = np.flatnonzero(~hidden)
    if shown.size:
        opened = await open_(party.at("open"), entries[shown], to=release.to)
        if opened is None:
            return None
        values[shown] = opened
    elif release.to is not None and party.rank not in release.to:
        return None
    k = counts.size
    return OpenedCounts(values[:k], values[k:], small[:k], hidden[:k] & ~small[:k])


async def withheld_counts(
    party: Party,
    counts: Share,
    lines: Sequence[NDArray[np.int64]],
    release: Release,
    *,
    told: Collection[int] = (),
    withheld: Collection[int] = (),
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find which cells and totals are to be withheld, and which are small; opens no count. See :func:`open_counts`.

    Returns
    -------
    hidden, small : numpy.ndarray
        Shape (cells + lines,), bool; the same at all parties.
    """
    layout = Layout(counts.size, lines, frozenset(told))
    minimum = 0 if release.disclosure is None else release.disclosure.minimum_cell
    if not minimum:
        hidden = np.zeros(layout.entries, np.bool_)
        hidden[[counts.size + k for k in withheld]] = True
        return hidden, np.zeros_like(hidden)
    return await _withheld(party, _entries(counts, lines), layout, minimum, withheld)


def _entries(counts: Share, lines: Sequence[NDArray[np.int64]]) -> Share:
    return concatenate([counts, *(_total(counts, line) for line in lines)])


def _total(counts: Share, line: NDArray[np.int64]) -> Share:
    return counts[line].sum().reshape(1).bounded_by(1 << _COUNT_BITS)


async def _withheld(
    party: Party, entries: Share, layout: Layout, minimum: int, withheld: Collection[int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    scope = party.at("small")
    small = np.asarray(await open_(scope, await less_than(scope, entries, minimum))) == 1
    hidden = small.copy()
    hidden[[layout.cells + k for k in withheld]] = True
    asked = np.flatnonzero(small & ~layout.public)
    while True:
        while (more := _next(layout, hidden, small)) is not None:
            hidden[more] = True
        if not asked.size or (hidden | layout.public).all():
            return hidden, small  # nothing but the number of rows is opened, or nothing is withheld
        if not await _told(party.at("other tables"), entries, layout, asked, hidden, small, minimum):
            return hidden, small
        for entry in asked:  # which of them it is, nobody knows
            candidates = _near(layout, entry, hidden)
            if candidates.size:
                hidden[layout.best(candidates, hidden)] = True


def _near(layout: Layout, entry: np.int64, hidden: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return what may still be withheld: in the lines of an entry, or else anywhere."""
    free = ~hidden & ~layout.public
    takes_part = layout.equations != 0
    beside = takes_part[takes_part[:, entry] & ~takes_part[:, layout.public].any(axis=1)].any(axis=0) & free
    return np.flatnonzero(beside if beside.any() else free)


def _next(layout: Layout, hidden: NDArray[np.bool_], small: NDArray[np.bool_]) -> int | None:
    """Return what is to be withheld as well."""
    more = layout.next_too_few(hidden, small)
    return layout.next_determined(hidden) if more is None else more


async def _told(
    party: Party,
    entries: Share,
    layout: Layout,
    asked: NDArray[np.int64],
    hidden: NDArray[np.bool_],
    small: NDArray[np.bool_],
    minimum: int,
) -> bool:
    """Open whether for one of the small entries too few other tables show the same: steps along no move lead to enough.

    Along a move, small entries stay from 0 to below the minimum, and the others at least at it; the number of
    steps between these ends is the same for all tables on the way, so that the answer does not tell them apart.
    """
    wanted = steps_wanted(minimum)
    left, right, needed, owners = list[int](), list[int](), list[int](), list[list[slice]]()
    parts: dict[tuple[int, int, int], int] = {}
    for entry in asked:
        owners.append([])
        for move in layout.moves(entry, hidden, small):
            start = len(needed)
            for down, up in product(_ends(move, small, minimum), _ends(-move, small, minimum)):
                # Room for d / |v| steps down and u / |w| up: d |w| + u |v| is at least the wanted steps, times |v w|.
                v, w = abs(int(move[down[0]])), abs(int(move[up[0]]))
                left.append(parts.setdefault((*down, w), len(parts)))
                right.append(parts.setdefault((*up, v), len(parts)))
                needed.append(wanted * v * w)
            owners[-1].append(slice(start, len(needed)))
    if not all(owners):
        return True
    places, signs, offsets, factors = np.array([(k, *_room(k, e, minimum), f) for k, e, f in parts]).T
    room = (entries[places] * signs + offsets) * factors
    short = await less_than(party.at("limits"), room[np.array(left)] + room[np.array(right)], np.array(needed))

    # How many pairs of ends each move fails, then how many moves fail none, then whether that is so for an entry.
    width = max(map(len, owners))
    failed = [
        stack([short[found[j]].sum() if j < len(found) else party.constant(1) for j in range(width)])
        for found in owners
    ]
    possible = await less_than(party.at("possible"), stack(failed), 1)
    none = await less_than(party.at("none"), possible.sum(axis=1), 1)
    return not await hold(party, none)


def steps_wanted(minimum: int) -> int:
    """Return how many steps a small number must be able to make without any other change in what is opened."""
    return min(minimum - 1, max(2, minimum // 4))


_FLOOR_SMALL, _FLOOR_LARGE, _CEILING = range(3)


def _ends(move: NDArray[np.int64], small: NDArray[np.bool_], minimum: int) -> list[tuple[int, int]]:
    """Return the entries, and which of their ends, that bound how often a move can be taken back."""
    found = []
    for k in np.flatnonzero(move).tolist():
        if move[k] > 0:
            found.append((k, _FLOOR_SMALL if small[k] else _FLOOR_LARGE))
        elif small[k]:
            found.append((k, _CEILING))
    return found


def _room(entry: int, end: int, minimum: int) -> tuple[int, int]:
    """Return sign and offset of the distance to an end: ``x``, ``x - minimum``, or ``minimum - 1 - x``."""
    return [(1, 0), (1, -minimum), (-1, minimum - 1)][end]


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
