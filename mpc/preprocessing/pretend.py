"""A stand-in for oblivious transfer where all parties are one process: right answers, at no cost.

For trying a program out on made-up data. It opens the same scopes as :mod:`mpc.preprocessing.ot`, so that names are
those of the real run, and protects nothing: all summands of a mask meet in one place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc._copying import join
from mpc.preprocessing.answers import Local, WithoutMacs
from mpc.preprocessing.carriages import Carriage, DealtMasks, carry_by_parties, dealt_correction
from mpc.preprocessing.ot import OWN_KEY, OtMask
from mpc.preprocessing.permutations import Hop, Permutation, Place, draw_permutation
from mpc.preprocessing.requests import Base, Recipe
from mpc.waves import unit_powers
from mpc.words import W64, WORD_BITS, bit_planes, signs, unpack_bits

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.party import Party
    from mpc.preprocessing import Operation
    from mpc.preprocessing.permutations import Move

Deal = Callable[[list[Any]], "FieldArray"]


class Table:
    """Where the summands of all parties meet.

    Parameters
    ----------
    size : int
        How many parties there are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._open: dict[str, tuple[dict[int, Any], asyncio.Future[FieldArray]]] = {}

    def put(self, scope: Party, ours: Any, deal: Deal) -> Awaitable[FieldArray]:
        """Put down what is ours; once all have, the first party's answer is all of the result."""
        if scope.path not in self._open:
            self._open[scope.path] = {}, asyncio.get_running_loop().create_future()
        given, result = self._open[scope.path]
        given[scope.rank] = ours
        if len(given) == self._size:
            del self._open[scope.path]
            result.set_result(deal([given[rank] for rank in range(self._size)]))
        return _summand(result, scope.rank)


async def _summand(result: asyncio.Future[FieldArray], rank: int) -> FieldArray:
    values = await result
    return values.copy() if rank == 0 else np.zeros_like(values)


class Pretend(WithoutMacs):
    """See the module's documentation.

    Parameters
    ----------
    rank, size : int
    table : Table
        The same for all parties.
    """

    name = "ot"

    def __init__(self, rank: int, size: int, table: Table) -> None:
        self._rank = rank
        self._size = size
        self._table = table

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

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        field, x, y = a.field, a.summand, b.summand
        if not x.size or not y.size:
            shape = np.broadcast_shapes(x.shape, y.shape)
            if operation == "matmul":
                shape = np.matmul(np.zeros(x.shape, np.uint8), np.zeros(y.shape, np.uint8)).shape
            return Local(field.zeros(shape))

        def deal(given: list[Any]) -> FieldArray:
            first, second = (reduce(field.add, summands) for summands in zip(*given, strict=True))
            return field.matmul(first, second) if operation == "matmul" else field.mul(first, second)

        return self._table.put(party.at("product"), (x, y), deal)

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        field = mask.field

        def deal(given: list[Any]) -> FieldArray:
            both = unit_powers(field.residue(reduce(field.add, given), period), period, harmonics)
            return join([field.encode_fixed(np.moveaxis(wave, 0, -1), scale) for wave in both], axis=-1)

        return self._table.put(party.at("waves"), mask.summand, deal)

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""

        def deal(given: list[Any]) -> FieldArray:
            return signs(field, unpack_bits(reduce(W64.add, given).reshape(-1), count))

        return self._table.put(party.at("signs"), mask.summand, deal)

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`: masks have addends."""
        return None

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`: one for each party."""
        field, summand = mask.field, mask.summand
        own = field.add(summand, public) if party.rank == 0 else summand
        empty = (count, -(-public.size // WORD_BITS))
        return [
            bit_planes(field, own, count) if party.rank == owner else W64.zeros(empty) for owner in range(party.size)
        ]

    async def permutation(self, party: Party, count: int) -> Permutation:
        """See :class:`mpc.preprocessing.Preprocessing`: one factor for each party, which knows it."""
        stream = party.stream(OWN_KEY, "permutation")
        place = Place(party.path, stream.position, count)
        ours = draw_permutation(stream, count)
        return Permutation(place, [ours if rank == self._rank else None for rank in range(self._size)])

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        hops, stream, scope = move.hops(), party.stream(OWN_KEY, "move"), party.at("carriage")
        before = None if hops[0].factor == party.rank else stream.elements(field, shape)
        between = [stream.elements(field, shape) if hop.factor == party.rank else None for hop in hops[:-1]]

        def deal(given: list[Any]) -> FieldArray:
            known = [Hop(hop.factor, given[hop.factor][0][stop].steps) for stop, hop in enumerate(hops)]
            befores = [one[1] for one in given if one[1] is not None]
            betweens = [given[hop.factor][2][stop] for stop, hop in enumerate(hops[:-1])]
            return dealt_correction(field, known, move.route.rows, befores, betweens, [field.zeros(shape)])

        after = self._table.put(scope, (hops, before, between), deal)
        return Carriage(move, field, shape, DealtMasks(before, between, after))

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """See :func:`mpc.preprocessing.carriages.carry_by_parties`."""
        return await carry_by_parties(party, jobs)

    async def leave(self, party: Party) -> None:
        """Nothing to say."""
