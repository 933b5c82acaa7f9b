"""Tables of counts that are opened cell by cell: what is too small never is, nor what would tell it.

Cells below the agreed minimum are withheld (primary suppression), and with them others, and totals (secondary
suppression), until each small cell has several values among the tables with which exactly the same would have been
opened: neither subtraction tells it, nor that somebody knows the rule. Whether it has follows from sums that are
told with the result; it is checked on shares. See :mod:`protocols.release.withholding`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, less_than, open_, truncate
from protocols.release.disclosure import Disclosure, Release, hold
from protocols.release.withholding import Layout, most_large, steps_wanted, told_sets

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
        Shape (cells,), bool: withheld because it is too small, or because it would tell one that is. Where it is not
        told which cells are small, all that are withheld count as secondary.
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
            why = "they would tell others that are" if found else "some of them have too few rows, or may have"
            found.append(f"{int(self.secondary.sum())} cells are withheld: {why}")
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
        Integers from 0, shape (cells,); everybody knows or may know how many rows they count.
    lines : sequence of numpy.ndarray
        The cells that each total adds up; all totals of sums of these cells that anybody learns, from this
        analysis or before it.
    release : Release
        Who learns the counts, and the rules.
    told : collection of int
        Lines whose totals are opened whatever happens, as they were before; none of them below the minimum. All
        rows of a table with two factors, and those of its columns that are not in ``withheld``.
    withheld : collection of int
        Lines whose totals are not opened whatever happens: columns that :func:`withheld_counts` named for their sums.

    Returns
    -------
    OpenedCounts or None
        None at a party that learns nothing.

    Notes
    -----
    The recipients learn the counts and totals that are not withheld. With a minimum m all parties learn how many rows
    there are, mostly which cells are below the minimum (see below), and which pattern of :meth:`Layout.stages` is used:
    the first in which each set of withheld cells has a slack above w, the wanted steps (2; with m = 2 it is 1, from
    m = 12 on a quarter of m). Slack is the sum of a set less m for each of its large cells: a function of what the
    pattern shows, so that the last answer, "yes", follows from the result. The answers "no" before it say that the
    slack of smaller sets was at most w. They allow all tables in which one small cell is anything from 0 to w, the
    other small ones are 0, and the large ones of the set are m but for the last, which makes up for it. So each small
    cell has at least w + 1 values among the tables with which exactly the same is opened, for somebody who knows the
    rule, too; the tests find so for all small tables. A cell of 0 is too small as any other.
    Which cells are small can tell what they are, if nearly all rows are in cells that are just at the minimum. With
    fewer than ``cells m`` rows it may therefore be opened first (1 bit) whether there are as many large cells as there
    can be, or one less: then nothing more is opened. Nor is it with fewer than m rows, or with nearly as many as cells
    that are all small can have.

    What is lost: totals that count some, but not all withheld cells of a set are withheld; so are totals of lines of
    which all cells are small, even where they are large enough. Where totals of two factors are told before (``told``),
    one bit is opened: whether any cell is small, or what the withheld lines add to a told one. If so, all cells are
    withheld; each then has at least w + 1 values, too.
    What does not hold: the values need not be equally likely, and who contributed rows knows of these. Totals over
    other parts of the table that somebody learns elsewhere are not covered, nor tables of nearly the same rows. With
    fewer than w rows, or a minimum of 1, there are no w + 1 values.
    Parties may cheat where counts are known not to be negative and their sum is below 2^33: every bit that is opened on
    the way is checked before the next (:mod:`protocols.cheating`).
    Cost without a rule: 1 round, ``cells + lines`` elements. With a minimum: a comparison of all cells, ``cells + 1``
    elements, and what is shown; where cells are withheld, a comparison with an entry for each set (at most one for each
    line of a partition, and about ``log2(cells) + 1``), and a bit for each pattern; at each of these two steps at
    most one comparison of a single entry more. With ``told``: a comparison of at most ``cells + lines`` entries, one
    of a single entry, and 1 bit. With rounding see :func:`rounded`, of all entries.
    """
    disclosure = release.disclosure
    hidden, small = await withheld_counts(party, counts, lines, release, told=told, withheld=withheld)
    entries = concatenate([counts, *(_total(counts, line) for line in lines)])
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
        Shape (cells + lines,), bool; the same at all parties. Nothing is called small where it is not told.
    """
    layout = Layout(counts.size, lines)
    minimum = 0 if release.disclosure is None else release.disclosure.minimum_cell
    hidden, small = np.zeros((2, counts.size + len(lines)), np.bool_)
    if minimum and (told or withheld):
        hidden = await _beside_told(party, counts, layout, minimum, told, withheld)
    elif minimum:
        found = await _small_cells(party, counts, minimum)
        if found is None:
            return layout.hidden([np.arange(counts.size)]), small
        small[: counts.size] = found
        if found.any():
            hidden = layout.hidden(await _sets(party, counts, layout, found, minimum))
    hidden[[counts.size + k for k in withheld]] = True
    return hidden, small


def _total(counts: Share, line: NDArray[np.int64]) -> Share:
    return counts[line].sum().reshape(1).bounded_by(1 << _COUNT_BITS)


async def _small_cells(party: Party, counts: Share, minimum: int) -> NDArray[np.bool_] | None:
    """Open which cells are small; None where that would tell too much."""
    scope = party.at("small")
    small = await less_than(scope, counts, minimum)
    rows = int((await open_(scope.at("rows"), _total(counts, np.arange(counts.size))))[0])
    most = counts.size if party.rehearsing else most_large(counts.size, rows, minimum)
    if most is None:
        return None
    if most < counts.size:
        large = (counts.size - small.sum()).reshape(1).bounded_by(counts.size)
        if not await hold(scope.at("large"), await less_than(scope.at("fewer"), most, large)):
            return None
    return np.asarray(await open_(scope.at("which"), small)).astype(np.bool_)


async def _sets(
    party: Party, counts: Share, layout: Layout, small: NDArray[np.bool_], minimum: int
) -> list[NDArray[np.int64]]:
    """Return the sets of withheld cells of the first pattern that will do."""
    if small.all():
        return [np.arange(counts.size)]
    *asked, last = layout.stages(small)
    if last.cells < counts.size or len(last.sets) > 1:
        raise RuntimeError("the last pattern withholds all cells, of which the number of rows is the sum")
    if not asked:
        return last.sets
    sums = [(members, large) for stage in asked for members, large in zip(stage.sets, stage.large, strict=True)]
    needed = np.array([large * minimum + steps_wanted(minimum) + 1 for _, large in sums])
    scope = party.at("slack")
    short = await less_than(scope, concatenate([_total(counts, members) for members, _ in sums]), needed)
    several = len(asked[0].sets)
    if several > 1:
        failed = 1 - await less_than(scope.at("any"), short[:several].sum().reshape(1), 1)
        short = concatenate([failed, short[several:]])
    # If one pattern will do, so will all that withhold more: the bits say which is the first, and no more.
    enough = ~np.asarray(await open_(scope.at("enough"), short)).astype(np.bool_)
    return asked[int(np.argmax(enough))].sets if enough.any() else last.sets


async def _beside_told(
    party: Party, counts: Share, layout: Layout, minimum: int, told: Collection[int], withheld: Collection[int]
) -> NDArray[np.bool_]:
    """Return which cells and totals are to be withheld, where some totals are known: all, if any cell is small."""
    sets = told_sets(layout, told, withheld)
    held = layout.hidden(sets)
    known = [counts.size + k for k, line in enumerate(layout.lines) if k in told or len(line) == counts.size]
    others = np.flatnonzero(~held[: counts.size])
    if others.size:
        entries = concatenate([counts[others], *(_total(counts, members) for members in sets)])
        if await hold(party.at("any"), await less_than(party.at("small"), entries, minimum)):
            held[known] = False
            return held
    held[:] = True
    held[known] = False
    return held


async def rounded(party: Party, counts: Share, base: int) -> Share:
    """Round counts to the nearest multiples of a small public number, half up, exactly.

    Notes
    -----
    Nothing is revealed. A truncation adds up what it makes of each party's integers, rounded to the nearest, so its
    error has the same bound whichever these are, also those of a party that cheats.
    Cost: one truncation and one comparison of about ``pieces + 5`` entries for each count, with the pieces of a mask: n
    with a dealer, C(n, t) with prss.
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
