"""Secret permutations: drawn in factors, each known to some; nobody knows the product.

A permutation of rows is a product of factors. With prss each factor is known to one committee, with a
dealer to one party (and to the dealer, who sees no data). Sharings are carried from hop to hop: who knows a
factor permutes what it holds, and what travels between hops is masked. A :class:`Move` undoes one
permutation, applies another, or does both in one go, which saves a hop: the last factor undone and the
first applied belong to the same holders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import as_plain
from mpc.field import F127
from mpc.words import W64, pack_bits, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.prg import RandomStream

_KEY_BITS = 126


class Place(NamedTuple):
    """Where a permutation was drawn: scope, position in the scope's streams, number of rows."""

    path: str
    position: int
    rows: int


class Permutation:
    """A secret permutation of rows that nobody knows; the same object is never drawn twice.

    Applied to x it gives y with ``y[l] = x[g[l]]``, g the product of the factors.

    Attributes
    ----------
    place : Place
    factors : list of (numpy.ndarray or None)
        The factors in the order in which they are applied; None where we do not know one.
    """

    __slots__ = ("factors", "place")

    def __init__(self, place: Place, factors: list[NDArray[np.intp] | None]) -> None:
        self.place = place
        self.factors = factors

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.place.rows

    def __repr__(self) -> str:
        return f"Permutation(rows={self.rows})"


class Route(NamedTuple):
    """Which permutations a move undoes and applies, in a form that a dealer can be told."""

    undo: Place | None
    apply: Place | None

    @property
    def rows(self) -> int:
        """Number of rows."""
        place = self.undo if self.apply is None else self.apply
        return 0 if place is None else place.rows


class Hop(NamedTuple):
    """One stop of a move: which factor, and what is done there, in order: ``(undone, factor)``."""

    factor: int
    steps: list[tuple[bool, NDArray[np.intp] | None]]

    def rearrange(self, field: Field, values: FieldArray, count: int) -> FieldArray:
        """Move the rows of an array (for packed words: the bits of the last axis)."""
        rows = unpack_bits(values, count) if field is W64 else as_plain(values)
        axis = -1 if field is W64 else 0
        for undone, factor in self.steps:
            if factor is None:
                raise RuntimeError("a factor that we do not know")
            if undone:
                back = np.empty_like(rows)
                back[(..., factor) if axis else factor] = rows
                rows = back
            else:
                rows = np.take(rows, factor, axis=axis)
        return pack_bits(rows) if field is W64 else rows.view(values.dtype)


class Move(NamedTuple):
    """Undo one permutation, then apply another; either may be missing."""

    undo: Permutation | None = None
    apply: Permutation | None = None

    @property
    def route(self) -> Route:
        """What a dealer is told."""
        places = (None if permutation is None else permutation.place for permutation in self)
        return Route(*places)

    def hops(self) -> list[Hop]:
        """Return the stops; undoing goes backwards through the factors."""
        hops: list[Hop] = []
        if self.undo is not None:
            factors = self.undo.factors
            hops += [Hop(k, [(True, factors[k])]) for k in reversed(range(len(factors)))]
        if self.apply is not None:
            steps = [Hop(k, [(False, factor)]) for k, factor in enumerate(self.apply.factors)]
            if hops:
                hops[-1].steps.extend(steps.pop(0).steps)
            hops += steps
        return hops


def draw_permutation(stream: RandomStream, count: int) -> NDArray[np.intp]:
    """Draw a permutation, as the order of random keys.

    The keys have 126 bits: given that they differ it is exactly uniform, and two of them are equal with a
    probability below ``count^2 / 2^127``, which bounds the statistical distance: 2^-63 for 2^32 rows.
    The stream moves on by 16 bytes a row whatever is drawn.
    """
    keys = stream.bounded(F127, _KEY_BITS, (count,))
    high = np.ascontiguousarray(keys["hi"])
    order = np.argsort(high)
    ordered = high[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((keys["lo"], high))
    return np.asarray(order, np.intp)


def committees(size: int, members: int) -> list[tuple[int, ...]]:
    """Return all sets of so many parties, each with one member exchanged to the next.

    Revolving door: Nijenhuis, Wilf, Combinatorial Algorithms, chapter 3.
    """
    if members == 0:
        return [()]
    if members == size:
        return [tuple(range(size))]
    with_last = [(*others, size - 1) for others in reversed(committees(size - 1, members - 1))]
    return committees(size - 1, members) + with_last
