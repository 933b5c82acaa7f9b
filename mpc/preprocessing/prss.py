"""Preprocessing without a dealer and without a message: pseudorandom secret sharing.

Every set of ``n - t`` parties knows one seed. A mask is the sum of one piece for each set; any t
colluding parties miss the piece of the set that is made of all others. Because any two sets have a
party in common, every cross term of a product of two masks is known to somebody, so that products of
masks cost no communication (Cramer, Damgaard, Ishai, TCC 2005, sections 3 and 4).

Threat model: semi-honest, at most ``t = (n - 1) // 2`` parties collude; 3 <= n <= 7.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from mpc.masks import Structure
from mpc.preprocessing.answers import Local, WithoutMacs
from mpc.preprocessing.carriages import Carriage, carry_by_committees
from mpc.preprocessing.factors import addends
from mpc.preprocessing.permutations import Move, Permutation, Place, committees, draw_permutation
from mpc.preprocessing.requests import Base, Recipe
from mpc.waves import prss_signs, prss_waves
from mpc.words import W64, WORD_BITS, bit_planes

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.party import Party
    from mpc.preprocessing import Operation

MOST_PARTIES = 7
PartySet = tuple[int, ...]


def corruption_threshold(size: int) -> int:
    """Return t, the number of parties that may collude."""
    return (size - 1) // 2


def seed_sets(size: int) -> list[PartySet]:
    """Return the sets of parties that share a seed, in a fixed order."""
    return list(combinations(range(size), size - corruption_threshold(size)))


def set_key(members: PartySet) -> str:
    """Return the name of a set's seed."""
    return "set " + "-".join(map(str, members))


class PrssMask:
    """A mask whose pieces are replicated: each is known to one set of parties.

    ``pieces_known`` holds the pieces of the sets we belong to. ``summand`` is the sum of those that
    we are the holder of, plus our part of a fresh zero-sharing where the mask came from ``uniform`` or
    ``bounded``: without it, a colluding party that knows our piece would see our summand of what is
    opened.
    """

    __slots__ = ("_layout", "field", "pieces_known", "recipe", "summand")

    def __init__(
        self, layout: Layout, field: Field, pieces_known: list[FieldArray], summand: FieldArray, recipe: Recipe
    ) -> None:
        self._layout = layout
        self.field = field
        self.pieces_known = pieces_known
        self.summand = summand
        self.recipe = recipe

    @property
    def pieces(self) -> int:
        """Number of integers the mask is a sum of."""
        return self._layout.piece_count

    def after(self, structure: Structure) -> PrssMask:
        """Apply a local operation to every piece; the mask stays replicated."""
        pieces = [structure.apply(self.field, piece) for piece in self.pieces_known]
        if structure.kind == "shift":
            summand = self._layout.sum_held(self.field, pieces)
        else:
            summand = structure.apply(self.field, self.summand)
        return PrssMask(self._layout, self.field, pieces, summand, self.recipe.after(structure))

    def release(self) -> None:
        """Forget the pieces, which take twice the memory of the summand and more."""
        self.pieces_known = []

    def times(self, factor: int) -> PrssMask:
        """Multiply every piece by a public integer."""
        pieces = [self.field.scale_int(piece, factor) for piece in self.pieces_known]
        summand = self.field.scale_int(self.summand, factor)
        return PrssMask(self._layout, self.field, pieces, summand, self.recipe.times(factor, self.field.modulus))

    def plus(self, other: Mask) -> PrssMask | None:
        """Add piece by piece; None where the recipe would grow too long."""
        theirs = _ours(other)
        recipe = self.recipe.plus(theirs.recipe)
        if recipe is None:
            return None
        pieces = [self.field.add(p, q) for p, q in zip(self.pieces_known, theirs.pieces_known, strict=True)]
        return PrssMask(self._layout, self.field, pieces, self.field.add(self.summand, theirs.summand), recipe)

    def __repr__(self) -> str:
        return f"PrssMask(shape={self.summand.shape})"


class Layout:
    """Who knows which piece, who adds it up, and who computes which cross term.

    Parameters
    ----------
    rank, size : int
        Our seat. The layout follows from the size alone, so all parties derive the same.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        sets = seed_sets(size)
        self.piece_count = len(sets)
        self.known = [members for members in sets if rank in members]
        load = [0] * size
        holders: dict[PartySet, int] = {}
        for members in sets:
            holders[members] = min(members, key=lambda r: (load[r], r))
            load[holders[members]] += 1
        self.held = [k for k, members in enumerate(self.known) if holders[members] == rank]
        # Cross terms: for each first piece that we know, the second pieces whose product is ours.
        load = [0] * size
        ours: dict[int, list[int]] = {}
        index = {members: k for k, members in enumerate(self.known)}
        for first in sets:
            for second in sets:
                common = [r for r in first if r in second]
                worker = min(common, key=lambda r: (load[r], r))
                load[worker] += 1
                if worker == rank:
                    ours.setdefault(index[first], []).append(index[second])
        self.cross_terms = sorted(ours.items())

    def sum_held(self, field: Field, pieces: list[FieldArray]) -> FieldArray:
        """Add the pieces that we are the holder of."""
        total: FieldArray | None = None
        for k in self.held:
            total = pieces[k] if total is None else field.add(total, pieces[k])
        return field.zeros(pieces[0].shape) if total is None else total


class Prss(WithoutMacs):
    """See the module's documentation."""

    name = "prss"

    def __init__(self, rank: int, size: int) -> None:
        self._layout = Layout(rank, size)
        self._sets = committees(size, size - corruption_threshold(size))

    def pieces_of(self, size: int) -> int:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return math.comb(size, corruption_threshold(size))

    def _draw(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> PrssMask:
        streams = [party.stream(set_key(members), "mask") for members in self._layout.known]
        recipe = Recipe.of(Base(party.path, streams[0].position, field.name, shape, bits))
        pieces = [s.bounded(field, bits, shape) if bits else s.elements(field, shape) for s in streams]
        summand = field.add(self._layout.sum_held(field, pieces), party.zero_share(field, shape))
        return PrssMask(self._layout, field, pieces, summand, recipe)

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return self._draw(party, field, shape, 0)

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return self._draw(party, field, shape, bits)

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """Compute our cross terms.

        The summand is not re-randomised: no summand is ever opened without a zero-sharing on top or a
        fresh mask below.
        """
        return Local(cross_terms(self._layout, _ours(a), _ours(b), operation))

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing` and :mod:`mpc.waves`."""
        ours = _ours(mask)
        known = dict(zip(self._layout.known, ours.pieces_known, strict=True))
        return Local(await prss_waves(party, mask.field, known, period=period, harmonics=harmonics, scale=scale))

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        known = dict(zip(self._layout.known, _ours(mask).pieces_known, strict=True))
        return Local(await prss_signs(party, known, field, count))

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`: our masks have addends."""
        return None

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        field = mask.field
        known = dict(zip(self._layout.known, _ours(mask).pieces_known, strict=True))
        own = addends(field, known)
        planes = []
        for owner in range(corruption_threshold(party.size) + 1):
            if party.rank == owner:
                addend = field.add(own[owner], public) if owner == 0 else own[owner]
                planes.append(bit_planes(field, addend, count))
            else:
                planes.append(W64.zeros((count, -(-public.size // WORD_BITS))))
        return planes

    async def permutation(self, party: Party, count: int) -> Permutation:
        """See :class:`mpc.preprocessing.Preprocessing`: one factor for each set that shares a seed."""
        known = self._layout.known
        streams = {members: party.stream(set_key(members), "permutation") for members in known}
        place = Place(party.path, streams[known[0]].position, count)
        drawn = {members: draw_permutation(stream, count) for members, stream in streams.items()}
        return Permutation(place, [drawn.get(members) for members in self._sets])

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """See :class:`mpc.preprocessing.Preprocessing`: pads come from pairwise seeds, when they are needed."""
        return Carriage(move, field, shape, None)

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """See :func:`mpc.preprocessing.carriages.carry_by_committees`."""
        return await carry_by_committees(party, self._sets, jobs)

    async def leave(self, party: Party) -> None:
        """Nothing to say: nobody serves us."""


def cross_terms(layout: Layout, a: PrssMask, b: PrssMask, operation: Operation) -> FieldArray:
    """Return the sum of the cross terms ``a_A op b_B`` that fall to us."""
    if not a.pieces_known or not b.pieces_known:
        raise RuntimeError("the pieces of this mask have been given back")
    field = a.field
    combine = field.mul if operation == "multiply" else field.matmul
    total: FieldArray | None = None
    for first, seconds in layout.cross_terms:
        right = b.pieces_known[seconds[0]]
        for second in seconds[1:]:
            right = field.add(right, b.pieces_known[second])
        term = combine(a.pieces_known[first], right)
        total = term if total is None else field.add(total, term)
    if total is None:
        return field.zeros(combine(a.summand, b.summand).shape)
    return total


def _ours(mask: Mask) -> PrssMask:
    if not isinstance(mask, PrssMask):
        raise TypeError("this mask comes from another preprocessing")
    return mask
