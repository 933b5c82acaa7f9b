"""Preprocessing by oblivious transfer for parties of which all but one may cheat: no dealer.

Every party draws its summands of masks alone, from a seed that nobody else knows, and all give them MACs
(:mod:`mpc.ot.macs`). A mask of bounded size is made of bits, so that it is no larger than it should be, and what a
shift makes of it is linear in them: the owner proves that they are bits (:mod:`mpc.ot.bit_proofs`). Products:
:mod:`mpc.ot.authenticated_products`.

Threat model: all parties but one may do as they please, together. What they change is found by the next check
(:mod:`mpc.mac_check`). Computational: the transfers' assumptions; statistical: stated where it arises, below 2^-44
for a run of masks and 2^20 products, and below 2^-39 with comparisons (:mod:`mpc.ot.shared_words`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc._copying import as_plain, join
from mpc.authenticated import Authenticated
from mpc.errors import SecurityError
from mpc.masks import Structure
from mpc.ot.authenticated_products import Entries, Matrices, multiply_masks
from mpc.ot.macs import OWN_KEY, Macs
from mpc.ot.plans import number_bits
from mpc.ot.shared_words import SharedWords
from mpc.preprocessing.answers import Local
from mpc.preprocessing.requests import Base, Recipe
from mpc.tasks import side_by_side
from mpc.words import W64, bit_planes

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.ot.pairs import Pairs
    from mpc.party import Party
    from mpc.preprocessing import Operation
    from mpc.preprocessing.carriages import Carriage
    from mpc.preprocessing.permutations import Move, Permutation

# What is shown of the MACs (:mod:`mpc.ot.macs`) is stated for fields of so many bits.
LEAST_BITS = 127
# Products of a batch, and elements that are given MACs in one: what is worked on then takes some 50 MB.
_PRODUCTS_AT_ONCE = 1 << 13
# Batches under way at once: while one waits for what others send, the next one computes.
_SIDE_BY_SIDE = 2
# Batches between two checks: each leaves notes for it, of which a check can list so many.
_UNCHECKED = 16
_ELEMENTS_AT_ONCE = 1 << 16


class AuthenticatedOtMask:
    """A mask of which we know our summand, with MACs.

    Attributes
    ----------
    planes : FieldArray or None
        Of a mask of bounded size, as it was drawn: our summands, with MACs, of each party's bits, lowest bits first,
        shape ``(parties, bits, *shape)``. Of any other None.
    packed : list of FieldArray
        For each party our summands of its lowest bits as packed words, where somebody has asked for them.
    """

    __slots__ = ("field", "packed", "pieces", "planes", "recipe", "summand")

    def __init__(
        self, field: Field, summand: FieldArray, recipe: Recipe, pieces: int, planes: FieldArray | None = None
    ) -> None:
        self.field = field
        self.summand = summand
        self.recipe = recipe
        self.pieces = pieces
        self.planes = planes
        self.packed: list[FieldArray] = []

    def after(self, structure: Structure) -> AuthenticatedOtMask:
        """Apply a local operation to our summand; a shift of what has MACs is none."""
        summand = structure.apply(self.field, self.summand)
        return AuthenticatedOtMask(self.field, summand, self.recipe.after(structure), self.pieces)

    def release(self) -> None:
        """Nothing to give back: we hold the summand alone."""

    def times(self, factor: int) -> AuthenticatedOtMask:
        """Multiply by a public integer."""
        summand = self.field.scale_int(self.summand, factor)
        return AuthenticatedOtMask(self.field, summand, self.recipe.times(factor, self.field.modulus), self.pieces)

    def plus(self, other: Mask) -> AuthenticatedOtMask | None:
        """Add; None where the recipe would grow too long."""
        theirs = _ours(other)
        recipe = self.recipe.plus(theirs.recipe)
        if recipe is None:
            return None
        return AuthenticatedOtMask(self.field, self.field.add(self.summand, theirs.summand), recipe, self.pieces)

    def __repr__(self) -> str:
        return f"AuthenticatedOtMask(shape={self.summand.shape})"


class AuthenticatedOt:
    """See the module's documentation."""

    name = "ot"

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._macs = Macs(pairs)
        self._words = SharedWords(pairs, self._macs)

    def sit(self, party: Party) -> None:
        """Take our seat, once, before anything is asked for."""
        self._macs.sit(party.at("macs"))
        self._words.sit(party.at("words"))

    @staticmethod
    def require(field: Field) -> None:
        """Refuse a field that there are no MACs over.

        Raises
        ------
        SecurityError
            Before anything is sent.
        """
        if field is not W64 and field.bits < LEAST_BITS:
            raise _none(f"MACs over {field} (but over F127)")

    def pieces_of(self, size: int) -> int:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return size

    # ---- masks ----------------------------------------------------------------------------------

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`.

        Notes
        -----
        Cost: 4 rounds; an element for each digit of a key and entry, from each party to each other.
        """
        if field.public is W64:
            stream = party.stream(OWN_KEY, "mask")
            base = Base(party.path, stream.position, field.name, shape, 0)
            stream.skip(1)  # nothing is drawn from it, and the next mask has another place
            words = await self._words.uniform(party.at("words"), shape)
            return AuthenticatedOtMask(field, words, Recipe.of(base), party.size)
        return (await self._elements(party, field, shape, None))[0]

    async def _elements(
        self, party: Party, field: Field, shape: tuple[int, ...], owner: int | None
    ) -> tuple[AuthenticatedOtMask, FieldArray | None]:
        ours = _with_macs(field)
        stream = party.stream(OWN_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, 0, owner)
        drawn = stream.elements(ours.public, shape)  # by all, so that streams move on alike
        is_ours = owner in (None, party.rank)
        own = (drawn if is_ours else ours.public.zeros(shape)).reshape(-1)
        summand = await self._with_macs(party, ours, own, owner, bits=False)
        mask = AuthenticatedOtMask(ours, summand.reshape(shape), Recipe.of(base), party.size)
        return mask, drawn if owner is not None and is_ours else None

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`.

        Notes
        -----
        Cost: 5 rounds; as ``bits`` uniform masks.
        """
        return (await self._numbers(party, field, shape, bits, None))[0]

    async def _numbers(
        self, party: Party, field: Field, shape: tuple[int, ...], bits: int, owner: int | None
    ) -> tuple[AuthenticatedOtMask, FieldArray | None]:
        ours = _with_macs(field)
        public = ours.public
        stream = party.stream(OWN_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, bits, owner)
        drawn = stream.bounded(public, bits, shape)
        is_ours = owner in (None, party.rank)
        number = drawn if is_ours else public.zeros(shape)
        own = public.encode(number_bits(public, number, bits).T.astype(np.int64)).reshape(-1)
        planes = await self._with_macs(party, ours, own, owner, bits=True)
        planes = planes.reshape(-1, bits, *shape)
        summand = _weighted(ours, planes, [1 << h for h in range(bits)])
        kept = planes if owner is None else None
        mask = AuthenticatedOtMask(ours, summand, Recipe.of(base), party.size, kept)
        return mask, drawn if owner is not None and is_ours else None

    async def _with_macs(
        self, party: Party, field: Authenticated, own: FieldArray, owner: int | None, *, bits: bool
    ) -> FieldArray:
        """Give MACs to flat elements, in batches; bits of all parties get them apart."""
        scope, owners = party.at("masks"), None if owner is None else [owner]
        apart = bits and owner is None
        parts = [field.zeros((party.size, 0) if apart else 0)]
        for number, start in enumerate(range(0, own.size, _ELEMENTS_AT_ONCE)):
            await _check_in_time(scope, number)
            part = own[start : start + _ELEMENTS_AT_ONCE]
            made, _ = await self._macs.authenticate(scope.at("part"), field, part, owners, bits=bits, apart=apart)
            parts.append(made)
        return join(parts, axis=-1)

    async def shifted(self, party: Party, mask: Mask, bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`: local, being linear in bits."""
        ours = _ours(mask)
        shift = Structure("shift", (bits,))
        recipe = ours.recipe.after(shift)
        field = _with_macs(ours.field)
        if ours.planes is None:
            raise ValueError("only a mask of bounded size, as it was drawn, is shifted")
        count = ours.planes.shape[1]
        # round(r / 2^bits) = floor(r / 2^bits) + the bit below, for r from 0 up
        weights = [0 if h < bits - 1 else 1 if h == bits - 1 else 1 << h - bits for h in range(count)]
        return AuthenticatedOtMask(field, _weighted(field, ours.planes, weights), recipe, ours.pieces)

    async def known(
        self, party: Party, field: Field, shape: tuple[int, ...], bits: int, owner: int
    ) -> tuple[Mask, FieldArray | None]:
        """See :class:`mpc.preprocessing.Preprocessing`.

        Notes
        -----
        Cost: as :meth:`uniform` or :meth:`bounded`, from the owner alone.
        """
        if bits:
            return await self._numbers(party, field, shape, bits, owner)
        return await self._elements(party, field, shape, owner)

    # ---- products -------------------------------------------------------------------------------

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`; the answer is there at once.

        Notes
        -----
        Cost: see :mod:`mpc.ot.authenticated_products`. A matrix product takes the transfers of all products of entries.
        """
        first, second = _ours(a), _ours(b)
        field = _with_macs(first.field)
        scope = party.at("product")
        x, y = first.summand, second.summand
        if field.public is W64:
            return Local(await self._words.product(scope, x, y))
        return Local(await (self._matmul if operation == "matmul" else self._multiply)(scope, field, x, y))

    async def _multiply(self, scope: Party, field: Authenticated, x: FieldArray, y: FieldArray) -> FieldArray:
        shape = np.broadcast_shapes(x.shape, y.shape)
        left, right = (_spread(array, shape).reshape(-1) for array in (x, y))
        at_once = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def part(seat: Party, start: int) -> FieldArray:
            which = slice(start, start + _PRODUCTS_AT_ONCE)
            async with at_once:
                return await multiply_masks(seat, self._pairs, self._macs, field, left[which], right[which], Entries())

        starts, parts = range(0, left.size, _PRODUCTS_AT_ONCE), [field.zeros(0)]
        for number in range(0, len(starts), _UNCHECKED):
            await _check_in_time(scope, number)
            async with side_by_side() as group:
                tasks = [
                    group.create_task(part(scope.at("part"), start)) for start in starts[number : number + _UNCHECKED]
                ]
            parts += [task.result() for task in tasks]
        return join(parts).reshape(shape)

    async def _matmul(self, scope: Party, field: Authenticated, x: FieldArray, y: FieldArray) -> FieldArray:
        rows, columns = x.shape[-2:-1], y.shape[-1:] if y.ndim > 1 else ()
        left = x.reshape(1, -1) if x.ndim == 1 else x
        right = y.reshape(-1, 1) if y.ndim == 1 else y
        stack = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        left = _spread(left, (*stack, *left.shape[-2:])).reshape(-1, *left.shape[-2:])
        right = _spread(right, (*stack, *right.shape[-2:])).reshape(-1, *right.shape[-2:])
        results = [await self._matrices(scope, field, one, other) for one, other in zip(left, right, strict=True)]
        shape = (*stack, *rows, *columns)
        return join([one.reshape(-1) for one in results]).reshape(shape) if math.prod(shape) else field.zeros(shape)

    async def _matrices(self, scope: Party, field: Authenticated, x: FieldArray, y: FieldArray) -> FieldArray:
        """Multiply two matrices; the entries of the smaller one choose."""
        if not x.size or not y.size:
            return field.zeros((len(x), y.shape[1]))
        if x.size > y.size:
            turned = await self._matrices(scope, field, y.swapaxes(0, 1), x.swapaxes(0, 1))
            return turned.swapaxes(0, 1)
        (height, inner), width = x.shape, y.shape[1]
        length = max(1, min(inner, _PRODUCTS_AT_ONCE // width))  # so much of the inner axis at once
        rows = max(1, _PRODUCTS_AT_ONCE // (width * length))
        bands, number = [], 0
        for top in range(0, height, rows):
            band = x[top : top + rows]
            total = field.zeros((len(band), width))
            for start in range(0, inner, length):
                await _check_in_time(scope, number)
                number += 1
                part = np.ascontiguousarray(as_plain(band[:, start : start + length])).view(field.dtype).reshape(-1)
                other = y[start : start + length]
                made = await multiply_masks(
                    scope.at("part"), self._pairs, self._macs, field, part, other, Matrices(len(band))
                )
                total = field.add(total, made.reshape(total.shape))
            bands.append(total)
        return join(bands)

    # ---- bits -----------------------------------------------------------------------------------

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`; :meth:`mpc.ot.shared_words.SharedWords.signs`."""
        words = _ours(mask).summand
        return Local(await self._words.signs(party.at("signs"), _with_macs(field), words.reshape(-1), count))

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`: our masks have addends.

        Notes
        -----
        What these take is made now: see :meth:`mpc.ot.shared_words.SharedWords.planes`.
        """
        ours = _ours(mask)
        if ours.planes is None:
            raise ValueError("only a mask of bounded size, as it was drawn, has bits")
        scope, lowest = party.at("bits"), ours.planes[:, :count]
        ours.packed = await self._words.planes(scope, _with_macs(ours.field), lowest)
        return None

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`: one for each party, and one for what is public."""
        ours = _ours(mask)
        if not ours.packed:
            raise ValueError("the bits of this mask have not been asked for")
        field, planes = party.over(W64), bit_planes(_with_macs(ours.field).public, public, count)
        return [field.add_public(field.zeros(planes.shape), planes, leads=party.rank == 0), *ours.packed]

    # ---- what there is not ------------------------------------------------------------------------

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """Refuse: there are none yet."""
        raise _none("waves of masks: sigmoid and softplus do not run")

    async def permutation(self, party: Party, count: int) -> Permutation:
        """Refuse: nothing checks what is carried through a permutation."""
        raise _none("secret permutations: shuffle, sort and argsort do not run")

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """Refuse; see :meth:`permutation`."""
        raise _none("secret permutations: shuffle, sort and argsort do not run")

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """Refuse; see :meth:`permutation`."""
        raise _none("secret permutations: shuffle, sort and argsort do not run")

    async def leave(self, party: Party) -> None:
        """Nothing to say: nobody serves us."""


async def _check_in_time(scope: Party, batches: int) -> None:
    """Check what batches have left to be checked, at every 16th batch of a scope."""
    if batches and batches % _UNCHECKED == 0:
        await scope.verify()


def _none(what: str) -> SecurityError:
    return SecurityError(f"security='malicious' with preprocessing='ot' has no {what}: use preprocessing='dealer'")


def _with_macs(field: Field) -> Authenticated:
    if not isinstance(field, Authenticated):
        raise SecurityError(f"security='malicious' works with MACs, and here is a value over {field} that has none")
    return field


def _ours(mask: Mask) -> AuthenticatedOtMask:
    if not isinstance(mask, AuthenticatedOtMask):
        raise TypeError("this mask comes from another preprocessing")
    return mask


def _weighted(field: Authenticated, planes: FieldArray, weights: list[int]) -> FieldArray:
    """Sum planes with public weights, and over parties; shape ``(parties, bits, *shape)``."""
    public, (parties, count, *shape) = field.public, planes.shape
    summed = field.matmul(public.encode(weights), planes.reshape(parties, count, -1))
    return (field.sum(summed, 0) if parties > 1 else summed[0]).reshape(shape)


def _spread(x: FieldArray, shape: tuple[int, ...]) -> FieldArray:
    return np.ascontiguousarray(np.broadcast_to(as_plain(x), shape)).view(x.dtype).reshape(shape)
