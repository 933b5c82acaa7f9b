"""Merging neighbouring intervals of a grid of times until no count that is opened is small.

All of it is decided on shares; what is opened says where the grid was cut, and is as much as the result says.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, less_than, open_, stack

# Where an interval may be cut, in eighths, in the order in which it is tried.
_CUTS = (4, 2, 6, 1, 3, 5, 7)


async def merged(party: Party, upto: Share, minimum: int) -> list[NDArray[np.int64] | None]:
    """Find intervals whose counts are all 0 or at least a minimum.

    Parameters
    ----------
    party : Party
        A scope of its own.
    upto : Share
        Shape (groups, kinds, points): counts up to each point, with their bound.
    minimum : int

    Returns
    -------
    list of numpy.ndarray or None
        For each group the intervals, as the numbers (from 1) of the points that they end with; the last is the
        last point. None for a group that has a count between 1 and the minimum in all.

    Notes
    -----
    The whole grid is cut in two where all counts on both sides are 0 or at least the minimum, each side again, and so
    on, until nothing can be cut. Of an interval the cuts at 4, 2, 6, 1, 3, 5 and 7 eighths of it are tried in this
    order, and the first that is allowed is made. All parties learn for each interval that occurs which of these it
    was, or that none is allowed; nothing else. Semi-honest.
    Cost: for each level of cuts (about ``2 log2(points)``) a comparison of 8 entries a cut and kind and one of one
    entry a cut, and up to 7 rounds of single bits.
    """
    groups, kinds, points = upto.shape
    sums = Share(upto.field, upto.field.zeros((groups, kinds, points + 1)), 0, upto.magnitude, leads=upto.leads)
    sums.values[..., 1:] = upto.values

    # 1. May the whole be opened?
    everything = sums[:, :, points] - sums[:, :, 0]
    hidden = await _opened(party, await _fails(party.at("whole"), everything.bounded_by(upto.magnitude), minimum))
    ends: list[list[int]] = [[] for _ in range(groups)]
    level = [(k, 0, points) for k in range(groups) if not hidden[k]]

    # 2. Cut as long as it is allowed.
    while level:
        cuts = [_cuts(start, stop) for _, start, stop in level]
        tried = [(k, start, cut, stop) for (k, start, stop), them in zip(level, cuts, strict=True) for cut in them]
        if not tried:
            break
        places = np.cumsum([0, *map(len, cuts)])
        scope = party.at(f"{len(tried)} cuts")  # what is asked for depends on their number
        fails = await _fails(scope, _sides(sums, np.array(tried)), minimum)
        found = await _first(party, fails, [range(a, b) for a, b in pairwise(places)])
        following = []
        for (k, start, stop), place in zip(level, found, strict=True):
            if place is None:
                ends[k].append(stop)
            else:
                cut = tried[place][2]
                following += [(k, start, cut), (k, cut, stop)]
        level = following
    for k, _, stop in level:
        ends[k].append(stop)
    return [None if hidden[k] else np.array(sorted(ends[k]), dtype=np.int64) for k in range(groups)]


def _cuts(start: int, stop: int) -> list[int]:
    """Return where an interval may be cut; each place once."""
    places = [start + (stop - start) * eighths // 8 for eighths in _CUTS]
    return list(dict.fromkeys(place for place in places if start < place < stop))


def _sides(sums: Share, tried: NDArray[np.int64]) -> Share:
    """Return all counts on the two sides of cuts, shape (cuts, 2 kinds)."""
    group, start, cut, stop = tried.T
    at = [sums[group, :, place] for place in (start, cut, stop)]
    sides = stack([at[1] - at[0], at[2] - at[1]], axis=1)
    return sides.reshape(len(tried), -1).bounded_by(sums.magnitude)


async def _fails(party: Party, counts: Share, minimum: int) -> Share:
    """Return 1 for each row that has a count between 1 and the minimum, else 0."""
    flat = counts.reshape(-1)
    below = await less_than(party.at("small"), stack([flat, flat]), np.array([[minimum], [1]]))
    small = (below[0] - below[1]).bounded_by(1).reshape(*counts.shape)
    return await less_than(party.at("any"), 0, small.sum(axis=1))


async def _first(party: Party, fails: Share, options: Sequence[range]) -> list[int | None]:
    """Open for each interval bit after bit, until one does not fail; return its place."""
    found: list[int | None] = [None] * len(options)
    for number in range(max(map(len, options))):
        asked = [k for k, some in enumerate(options) if found[k] is None and number < len(some)]
        if not asked:
            break
        places = np.array([options[k][number] for k in asked])
        for k, place, fail in zip(asked, places.tolist(), await _opened(party, fails[places]), strict=True):
            found[k] = None if fail else place
    return found


async def _opened(party: Party, bits: Share) -> NDArray[np.bool_]:
    return np.asarray(await open_(party, bits), dtype=np.bool_)
