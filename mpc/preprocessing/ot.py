"""Preprocessing by oblivious transfer: no dealer, and no majority that must be honest.

Every party draws its summands of masks alone. A product of masks ``a = sum a_i``, ``b = sum b_j`` has terms that one
party knows, and for each ordered pair of parties a term ``a_i b_j`` that two parties get summands of by correlated
transfers (Gilboa, CRYPTO '99; :mod:`mpc.ot`). Whatever a function of a mask needs beyond products is a product of
factors, one for each party, multiplied up from party to party.

Threat model: semi-honest; all parties but one may collude. Computational: the transfers' assumptions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mpc._copying import join, stack
from mpc.arithmetic import truncate
from mpc.masks import Structure
from mpc.ot.matrices import Lattices
from mpc.ot.pads import Numbers
from mpc.ot.plans import Plan, by_encryption, number_bits
from mpc.ot.rings import Coins
from mpc.ot.switching import translate
from mpc.preprocessing.answers import Local, WithoutMacs
from mpc.preprocessing.carriages import Carriage, DealtMasks, carry_by_parties
from mpc.preprocessing.permutations import Move, Permutation, Place, draw_permutation
from mpc.preprocessing.requests import Base, Recipe
from mpc.share import Share
from mpc.tasks import side_by_side
from mpc.waves import unit_powers
from mpc.words import W64, WORD_BITS, bit_planes, signs, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.ot.pairs import Choice, Pairs
    from mpc.ot.plans import Work
    from mpc.party import Party
    from mpc.preprocessing import Operation

OWN_KEY = "own"  # the seed that nobody else knows


class OtMask:
    """A mask of which we know our summand, which nobody else knows.

    Attributes
    ----------
    bits : int
        Every party's summand is a number of at most so many bits, from 0 up.
    """

    __slots__ = ("bits", "field", "pieces", "recipe", "summand")

    def __init__(self, field: Field, summand: FieldArray, recipe: Recipe, pieces: int, bits: int) -> None:
        self.field = field
        self.summand = summand
        self.recipe = recipe
        self.pieces = pieces
        self.bits = bits

    def after(self, structure: Structure) -> OtMask:
        """Apply a local operation to our summand."""
        summand = structure.apply(self.field, self.summand)
        bits = self.bits
        if structure.kind == "shift":
            bits = max(1, bits - structure.numbers[0] + 1) if bits < self.field.bits else self.field.bits
        elif structure.kind == "digits":
            bits = self.field.bits
        return OtMask(self.field, summand, self.recipe.after(structure), self.pieces, bits)

    def release(self) -> None:
        """Nothing to give back: we hold the summand alone."""

    def times(self, factor: int) -> OtMask:
        """Multiply by a public integer."""
        summand = self.field.scale_int(self.summand, factor)
        recipe = self.recipe.times(factor, self.field.modulus)
        return OtMask(self.field, summand, recipe, self.pieces, self.field.bits)

    def plus(self, other: Mask) -> OtMask | None:
        """Add; None where the recipe would grow too long."""
        theirs = _ours(other)
        recipe = self.recipe.plus(theirs.recipe)
        if recipe is None:
            return None
        summand = self.field.add(self.summand, theirs.summand)
        return OtMask(self.field, summand, recipe, self.pieces, self.field.bits)

    def __repr__(self) -> str:
        return f"OtMask(shape={self.summand.shape})"


class Pending:
    """An answer under way: what must be sent first has been sent; awaiting it does the rest."""

    __slots__ = ("_rest",)

    def __init__(self, rest: Callable[[], Coroutine[Any, Any, FieldArray]]) -> None:
        self._rest = rest

    def __await__(self) -> Generator[Any, None, FieldArray]:
        return self._rest().__await__()


class _Chain(NamedTuple):
    """Products of what is shared with what one party after the other knows; their choices are on their way."""

    pairs: Pairs
    kind: Numbers
    seats: dict[int, Party]
    begun: list[Choice]
    holders: Callable[[int], Sequence[int]]

    async def times(self, owner: int, rows: FieldArray, numbers: FieldArray | None) -> FieldArray:
        """Multiply shared rows by the owner's numbers; the owner gives its numbers if it holds a summand."""
        field, seat = self.kind.field, self.seats[owner]
        if seat.rank != owner:
            if seat.rank not in self.holders(owner):
                return field.zeros(rows.shape)
            return await self.pairs.offer(seat, owner, self.kind, rows)
        total = field.zeros(rows.shape) if numbers is None else field.mul(rows, numbers[:, None])
        for choice in self.begun:
            field.add(total, await choice.finish(), out=total)
        return total


class Ot(WithoutMacs):
    """See the module's documentation."""

    name = "ot"

    def __init__(self, rank: int, size: int, pairs: Pairs) -> None:
        self._rank = rank
        self._size = size
        self._pairs = pairs
        self._lattices = Lattices([other for other in range(size) if other != rank])

    def pieces_of(self, size: int) -> int:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return size

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        stream = party.stream(OWN_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, 0)
        return OtMask(field, stream.elements(field, shape), Recipe.of(base), party.size, field.bits)

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        stream = party.stream(OWN_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, bits)
        return OtMask(field, stream.bounded(field, bits, shape), Recipe.of(base), party.size, bits)

    # ---- products -------------------------------------------------------------------------------

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`.

        Notes
        -----
        Cost: 2 rounds; from each party to each other, for each entry of the product (of a matrix product: for each
        product of entries), as many elements as the operand with shorter entries has bits: 127 for uniform masks over
        F127, 40 and the value's for masks of bounded size. For packed bits one bit each. The transfers of an entry
        serve all products of this entry. Where it costs less, products are made by encryption
        (:func:`mpc.ot.plans.by_encryption`).
        """
        first, second = _ours(a), _ours(b)
        field, x, y = first.field, first.summand, second.summand
        plan = Plan(field, x, y, (first.bits, second.bits), operation)
        if not plan.parts:
            return Local(plan.joined([]))
        scope = party.at("product")
        encrypted = by_encryption(plan)
        if encrypted is not None:
            scope.cost_of("lattice").rounds += 2
            coins = Coins.drawn(scope.stream(OWN_KEY, "lattice"))

            async def sum_up() -> FieldArray:
                ours = field.matmul(x, y) if operation == "matmul" else field.mul(x, y)
                return field.add(ours, await encrypted.cross(scope, self._lattices, coins))

            return Pending(sum_up)
        begun = await self._begin(scope.at("part"), plan.work(plan.parts[0]))

        async def rest() -> FieldArray:
            parts = [await self._finish(begun)]
            for part in plan.parts[1:]:
                parts.append(await self._finish(await self._begin(scope.at("part"), plan.work(part))))
            return plan.joined(parts)

        return Pending(rest)

    async def _begin(self, scope: Party, work: Work) -> Begun:
        bits = work.choices()
        width = work.values.shape[1]
        scope.cost_of("transfers").rounds += 2
        choices = [await self._pairs.choose(scope, other, work.kind, bits, width) for other in scope.others]
        return Begun(scope, work, choices)

    async def _finish(self, begun: Begun) -> FieldArray:
        scope, work, choices = begun
        kind, field = work.kind, work.kind.field
        total = field.mul(work.numbers[:, None], work.values)
        # All at once: whoever chooses goes on choosing while others still answer.
        async with side_by_side() as group:
            tasks = [group.create_task(choice.finish()) for choice in choices]
            tasks += [group.create_task(self._pairs.offer(scope, other, kind, work.values)) for other in scope.others]
        for task in tasks:
            field.add(total, task.result(), out=total)
        return work.restored(total)

    async def _chain(
        self,
        scope: Party,
        kind: Numbers,
        choices: NDArray[np.uint8],
        width: int,
        holders: Callable[[int], Sequence[int]],
    ) -> _Chain:
        """Begin products of what is shared with what one party after the other, from party 1 on, knows."""
        seats = {owner: scope.at(f"party {owner}") for owner in range(1, scope.size)}
        for owner, seat in seats.items():  # all choices go out at once, then each party waits for the one before
            seat.cost_of("transfers").rounds += 2 if owner == 1 else 1
        begun = []
        if scope.rank:
            others = [other for other in holders(scope.rank) if other != scope.rank]
            begun = [await self._pairs.choose(seats[scope.rank], other, kind, choices, width) for other in others]
        return _Chain(self._pairs, kind, seats, begun, holders)

    # ---- functions of masks ---------------------------------------------------------------------

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`.

        Notes
        -----
        Each party knows the unit numbers ``exp(i w r_j)`` of its own summand. They are multiplied from party to party;
        all products but the last are truncated. Cost: n rounds, and n - 2 more of truncations; party k gets
        ``4 (scale / 2 + 2)`` elements from each of the k parties before it (party 2 and those after it from all others,
        for all have a summand after a truncation), for each wave.
        """
        ours = _ours(mask)
        field, half, width = ours.field, scale // 2, len(harmonics)
        scope = party.at("waves")
        shape = (*ours.summand.shape, width)
        residues = field.residue(ours.summand, period)
        known = np.stack(unit_powers(residues, period, harmonics)).reshape(2, width, -1).transpose(0, 2, 1)
        waves = field.encode_fixed(known, half).reshape(2, -1)  # cosines, sines
        # Numbers from 0 up: 1 more than the cosines and sines, which is taken off again.
        numbers = field.add(waves, field.encode(1 << half)).reshape(-1)
        # After a truncation everybody has a summand.
        chain = await self._chain(
            scope,
            Numbers(field, half + 2),
            number_bits(field, numbers, half + 2),
            2,
            lambda owner: range(1) if owner == 1 else range(party.size),
        )

        async def rest() -> FieldArray:
            shared = waves if party.rank == 0 else field.zeros(waves.shape)
            for owner in range(1, party.size):
                # (cos + i sin) c and (-sin + i cos) s, in rows of two
                rows = join([stack([shared[0], shared[1]], 1), stack([field.neg(shared[1]), shared[0]], 1)])
                products = field.sub(
                    await chain.times(owner, rows, numbers if party.rank == owner else None),
                    field.scale_int(rows, 1 << half),
                )
                both = field.add(*products.reshape(2, -1, 2))
                shared = stack([both[:, 0], both[:, 1]])
                if owner < party.size - 1:
                    share = Share(field, shared, 2 * half, (1 << 2 * half) + (2 << half), leads=party.rank == 0)
                    shared = (await truncate(scope, share, half)).values
            cos, sin = shared.reshape(2, *shape)
            return join([cos, sin], axis=-1)

        return Pending(rest)

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`.

        Notes
        -----
        ``(-1)^(b + c) = (-1)^b (1 - 2 c)``, from party to party. Cost: n rounds; party k gets one element a bit from
        each of the k parties before it.
        """
        scope = party.at("signs")
        bits = unpack_bits(_ours(mask).summand.reshape(-1), count)
        chain = await self._chain(scope, Numbers(field, 1), bits[:, None], 1, range)

        async def rest() -> FieldArray:
            shared = signs(field, bits) if party.rank == 0 else field.zeros(count)
            for owner in range(1, party.size):
                product = (await chain.times(owner, shared[:, None], None))[:, 0]
                shared = field.sub(shared, field.add(product, product))
            return shared

        return Pending(rest)

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`: our masks have addends."""
        return None

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`: one for each party."""
        field, summand = mask.field, mask.summand
        own = field.add(summand, public) if party.rank == 0 else summand
        empty = (count, -(-public.size // WORD_BITS))
        return [
            bit_planes(field, own, count) if party.rank == owner else W64.zeros(empty) for owner in range(party.size)
        ]

    # ---- permutations ---------------------------------------------------------------------------

    async def permutation(self, party: Party, count: int) -> Permutation:
        """See :class:`mpc.preprocessing.Preprocessing`: one factor for each party, which knows it."""
        stream = party.stream(OWN_KEY, "permutation")
        place = Place(party.path, stream.position, count)
        ours = draw_permutation(stream, count)
        return Permutation(place, [ours if rank == self._rank else None for rank in range(self._size)])

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """See :func:`mpc.ot.switching.translate`, which runs when the material is needed."""
        hops, stream, scope = move.hops(), party.stream(OWN_KEY, "move"), party.at("carriage")
        before = None if hops[0].factor == party.rank else stream.elements(field, shape)
        between = [stream.elements(field, shape) if hop.factor == party.rank else None for hop in hops[:-1]]

        async def after() -> FieldArray:
            scope.cost_of("transfers").rounds += len(hops) + 1
            return await translate(scope, self._pairs, hops, move.route.rows, field, shape, before, between)

        return Carriage(move, field, shape, DealtMasks(before, between, Pending(after)))

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """See :func:`mpc.preprocessing.carriages.carry_by_parties`."""
        return await carry_by_parties(party, jobs)

    async def leave(self, party: Party) -> None:
        """Nothing to say: nobody serves us."""


class Begun(NamedTuple):
    """Part of a product under way."""

    scope: Party
    work: Work
    choices: list[Choice]


def _ours(mask: Mask) -> OtMask:
    if not isinstance(mask, OtMask):
        raise TypeError("this mask comes from another preprocessing")
    return mask
