"""Preprocessing by a dealer: a node that sees no data, only shapes and labels.

The dealer shares an AES seed with every party. All masks and all summands of products expand from the
seeds; only the last party needs a correction, one element for each entry of a product (Beaver's
commodity server, STOC '97). The last party asks for what the program is about to need; the answers
come while the parties talk to each other.

Threat model: semi-honest; all parties but one may collude, the dealer colludes with nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc._copying import copy_into
from mpc.errors import PeerError
from mpc.masks import Structure
from mpc.preprocessing import Operation
from mpc.preprocessing.answers import Local, WithoutMacs
from mpc.preprocessing.carriages import Carriage, DealtMasks, carry_by_parties
from mpc.preprocessing.permutations import Move, Permutation, Place, draw_permutation
from mpc.preprocessing.requests import (
    LEAVE,
    Base,
    BitsRequest,
    MoveRequest,
    ProductRequest,
    Recipe,
    SignsRequest,
    WavesRequest,
    answer_chunks,
    require_room,
    require_room_to_move,
)
from mpc.words import W64, WORD_BITS

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.party import Party

DEALER_KEY = "dealer"


class DealerMask:
    """A mask of which we know our summand; the dealer can make all summands from the recipe."""

    __slots__ = ("field", "pieces", "recipe", "summand")

    def __init__(self, field: Field, summand: FieldArray, recipe: Recipe, pieces: int) -> None:
        self.field = field
        self.summand = summand
        self.recipe = recipe
        self.pieces = pieces

    def after(self, structure: Structure) -> DealerMask:
        """Apply a local operation to our summand, and note it in the recipe."""
        summand = structure.apply(self.field, self.summand)
        return DealerMask(self.field, summand, self.recipe.after(structure), self.pieces)

    def release(self) -> None:
        """Nothing to give back: we hold the summand alone."""

    def times(self, factor: int) -> DealerMask:
        """Multiply by a public integer."""
        summand = self.field.scale_int(self.summand, factor)
        return DealerMask(self.field, summand, self.recipe.times(factor, self.field.modulus), self.pieces)

    def plus(self, other: Mask) -> DealerMask | None:
        """Add; None where the recipe would grow beyond what a request may hold."""
        theirs = _ours(other)
        recipe = self.recipe.plus(theirs.recipe)
        if recipe is None:
            return None
        return DealerMask(self.field, self.field.add(self.summand, theirs.summand), recipe, self.pieces)

    def __repr__(self) -> str:
        return f"DealerMask(shape={self.summand.shape})"


class DealerClient(WithoutMacs):
    """What a party knows of the dealer; see the module's documentation."""

    name = "dealer"

    def __init__(self, rank: int, size: int) -> None:
        self._rank = rank
        self._size = size
        self._is_last = rank == size - 1
        self._dealer = size
        self._requests = 0

    def pieces_of(self, size: int) -> int:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return size

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        require_room(field, shape)
        stream = party.stream(DEALER_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, 0)
        return DealerMask(field, stream.elements(field, shape), Recipe.of(base), party.size)

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        require_room(field, shape)
        stream = party.stream(DEALER_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, bits)
        return DealerMask(field, stream.bounded(field, bits, shape), Recipe.of(base), party.size)

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        first, second = _ours(a), _ours(b)
        pad_at = party.stream(DEALER_KEY, "pad").position
        request = ProductRequest(first.recipe, second.recipe, operation, party.path, pad_at)
        shapes = first.summand.shape, second.summand.shape
        return await self._ask(party, first.field, request.result_shape(*shapes), request.to_bytes())

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`; the dealer computes and deals them directly."""
        ours = _ours(mask)
        pad_at = party.stream(DEALER_KEY, "pad").position
        request = WavesRequest(ours.recipe, period, harmonics, scale, party.path, pad_at)
        shape = (*ours.summand.shape, 2 * len(harmonics))
        return await self._ask(party, ours.field, shape, request.to_bytes())

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        pad_at = party.stream(DEALER_KEY, "pad").position
        request = SignsRequest(_ours(mask).recipe, field.name, count, party.path, pad_at)
        return await self._ask(party, field, (count,), request.to_bytes())

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`; the dealer deals the bits of the whole mask."""
        ours = _ours(mask)
        pad_at = party.stream(DEALER_KEY, "pad").position
        request = BitsRequest(ours.recipe, count, party.path, pad_at)
        shape = (count, -(-ours.summand.size // WORD_BITS))
        return await self._ask(party, W64, shape, request.to_bytes())

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        raise TypeError("a dealt mask has no addends that parties know: ask for its bits")

    async def permutation(self, party: Party, count: int) -> Permutation:
        """See :class:`mpc.preprocessing.Preprocessing`: one factor for each party, which knows it."""
        stream = party.stream(DEALER_KEY, "permutation")
        place = Place(party.path, stream.position, count)
        ours = draw_permutation(stream, count)
        return Permutation(place, [ours if rank == self._rank else None for rank in range(self._size)])

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        require_room_to_move(field, shape, move.route.rows)
        masks, pad = party.stream(DEALER_KEY, "move"), party.stream(DEALER_KEY, "pad")
        request = MoveRequest(move.route, field.name, shape, party.path, masks.position, pad.position)
        hops = [hop.factor for hop in move.hops()]

        def drawn(ours: bool) -> FieldArray | None:
            # All streams move on alike, so that one position says where everybody's masks are.
            if ours:
                return masks.elements(field, shape)
            masks.skip(int(np.prod(shape, dtype=np.int64)) * field.element_bytes)
            return None

        before = drawn(self._rank != hops[0])
        between = [drawn(self._rank == rank) for rank in hops[:-1]]
        after = await self._ask(party, field, shape, request.to_bytes())
        return Carriage(move, field, shape, DealtMasks(before, between, after))

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """See :func:`mpc.preprocessing.carriages.carry_by_parties`."""
        return await carry_by_parties(party, jobs)

    async def _ask(self, party: Party, field: Field, shape: tuple[int, ...], request: bytes) -> Awaitable[FieldArray]:
        require_room(field, shape)
        pad = party.stream(DEALER_KEY, "pad")
        if not self._is_last:
            return Local(pad.elements(field, shape))
        pad.skip(int(np.prod(shape, dtype=np.int64)) * field.element_bytes)
        number = self._requests
        self._requests += 1
        await party.send(self._dealer, f"request {number}", request, party.cost_of("dealer"))
        return Correction(party, field, shape, self._dealer, number)

    async def leave(self, party: Party) -> None:
        """Tell the dealer that we take nothing more."""
        step = f"request {self._requests}" if self._is_last else "leave"
        await party.send(self._dealer, step, LEAVE, party.cost_of("dealer"))


class Correction:
    """The dealer's answer to one request, on its way to the last party."""

    __slots__ = ("_dealer", "_field", "_number", "_party", "_shape")

    def __init__(self, party: Party, field: Field, shape: tuple[int, ...], dealer: int, number: int) -> None:
        self._party = party
        self._field = field
        self._shape = shape
        self._dealer = dealer
        self._number = number

    def __await__(self) -> Generator[Any, None, FieldArray]:
        return self._receive().__await__()

    async def _receive(self) -> FieldArray:
        field = self._field
        answer = np.empty(int(np.prod(self._shape, dtype=np.int64)), field.dtype)
        for k, part in enumerate(answer_chunks(answer.size, field)):
            step = f"correction {self._number}.{k}"
            count = part.stop - part.start
            data = await self._party.transport.receive(self._dealer, step, count * field.element_bytes)
            try:
                copy_into(answer[part], field.from_bytes(data, (count,)))
            except ValueError as error:
                raise PeerError(
                    f"the dealer sent no valid correction at step {step!r}: {error}", rank=self._dealer, step=step
                ) from None
        return answer.reshape(self._shape)


def _ours(mask: Mask) -> DealerMask:
    if not isinstance(mask, DealerMask):
        raise TypeError("this mask comes from another preprocessing")
    return mask
