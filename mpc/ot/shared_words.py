"""Packed bits with MACs for a preprocessing without a dealer: uniform words, products, and ways from and to a field.

What nobody knows comes from stocks (:mod:`mpc.ot.common_stock`): words of random bits, which are checked
(:mod:`mpc.ot.bit_macs`), and products of random words (:mod:`mpc.ot.bit_ands`). A product of given words takes one of
these and opens both under it (Beaver, CRYPTO '91).

The bits of a mask of bounded size are bits of its owners' summands. Each owner brings its own again, packed; the sign
of a shared bit is the product of the signs of what each party has of it, which it brings again as an element. That both
are the same is tested (:mod:`mpc.ot.tied_bits`).

Threat model: all parties but one may cheat, together. A batch is in stock only after its check; what is opened with a
product is checked with the rest of a run (:mod:`mpc.mac_check`). All together are off by at most 2^-40 for the buckets,
2^-41 for the ties and 2^-44.9 for MACs: 2^-39.4 a run, to which each tie of up to 2^17 bits adds 2^-40.6 for what its
sums hide, and signs their products (:mod:`mpc.ot.authenticated_products`).
"""

from __future__ import annotations

import asyncio
import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from mpc.coins import toss
from mpc.opening import open_flat
from mpc.ot.authenticated_products import Entries, multiply_masks
from mpc.ot.bit_ands import make_products
from mpc.ot.bit_macs import PAD, BitMacs, Bits, combined, join_bits, open_bits, packed_field, random_bits
from mpc.ot.common_stock import CommonStock
from mpc.ot.tied_bits import bring, tie
from mpc.words import WORD_BITS, bit_planes, unpack_bits

if TYPE_CHECKING:
    from mpc.authenticated import Authenticated
    from mpc.field import FieldArray
    from mpc.ot.bit_macs import Bytes
    from mpc.ot.macs import Macs
    from mpc.ot.pairs import Pairs
    from mpc.party import Party

# Words of a batch. Products: from 512 bits, in buckets of 5, to 2^14, in buckets of 4.
_MASKS = 1 << 6, 1 << 11
_PRODUCTS = 1 << 3, 1 << 8
# Bits that are tested together.
_TIED_AT_ONCE = 1 << 17


class SharedWords:
    """Makes what is shared over W64; one for each party and session.

    Parameters
    ----------
    pairs : Pairs
        Whose transfers are checked for consistency (``meet(..., malicious=True)``).
    elements : Macs
        What gives MACs to elements.
    """

    def __init__(self, pairs: Pairs, elements: Macs) -> None:
        self._pairs = pairs
        self._elements = elements
        self._seat: Party | None = None
        self._bits: BitMacs | None = None
        self._setting_up = asyncio.Lock()
        self._masks: CommonStock | None = None
        self._products: CommonStock | None = None

    def sit(self, seat: Party) -> None:
        """Take a seat of a session, in which is made what scopes that run side by side have in common."""
        self._seat = seat
        self._masks = CommonStock(seat.at("masks"), self._make_masks, *_MASKS)
        self._products = CommonStock(seat.at("products"), self._make_products, *_PRODUCTS)

    async def uniform(self, scope: Party, shape: tuple[int, ...]) -> FieldArray:
        """Take uniform words that nobody knows: our summands, with MACs.

        Notes
        -----
        Cost: 4.1 bytes a bit from each party to each other, and what is left over; 8 rounds for a batch.
        """
        if self._masks is None:
            raise RuntimeError(_NO_SEAT)
        count = math.prod(shape)
        if not count:
            return packed_field(scope).zeros(shape)
        (words,) = await self._masks.take(scope, count)
        return words.reshape(shape)

    async def product(self, scope: Party, a: FieldArray, b: FieldArray) -> FieldArray:
        """Multiply words bit by bit, given our summands with MACs; shapes broadcast.

        Parameters
        ----------
        scope : Party
            A scope of this product's own.

        Notes
        -----
        Cost: 1 round; 2 bits opened a bit; :mod:`mpc.ot.bit_ands`, and 10 rounds for a batch.
        """
        if self._products is None:
            raise RuntimeError(_NO_SEAT)
        field, shape = packed_field(scope), np.broadcast_shapes(a.shape, b.shape)
        count = math.prod(shape)
        if not count:
            return field.zeros(shape)
        x, y, z = await self._products.take(scope, count)
        left, right = (np.broadcast_to(part, shape).reshape(-1) for part in (a, b))
        masked = np.concatenate([field.sub(left, x), field.sub(right, y)])
        opened = await open_flat(scope, "product", field, *field.parts(masked))
        return field.beaver(opened[:count], opened[count:], x, y, z, lead=scope.rank == 0).reshape(shape)

    # ---- from a field and to it -----------------------------------------------------------------

    async def planes(self, scope: Party, field: Authenticated, summands: FieldArray) -> list[FieldArray]:
        """Return the bits of each party's numbers, packed in planes.

        Parameters
        ----------
        scope : Party
            A scope of these bits' own.
        field : Authenticated
        summands : FieldArray
            Ours, with MACs, of bits that each party has brought and proven, shape ``(parties, planes, size)``. Of its
            own the party itself holds all.

        Returns
        -------
        list of FieldArray
            For each party our summands of its bits, with MACs, shape ``(planes, words)``.

        Raises
        ------
        CheatingError
            Some party has packed other bits.

        Notes
        -----
        Cost: 13 rounds; for each bit 4.1 bytes from each party to each other; some 2,500 elements with MACs from each
        party for up to 2^17 bits.
        """
        macs, (parties, height, size) = await self.macs(), summands.shape
        own = _bits_of(field, summands[scope.rank].reshape(-1)).reshape(height, size)
        width = max(1, _TIED_AT_ONCE // max(1, height) // WORD_BITS) * WORD_BITS
        parts: list[list[FieldArray]] = [[] for _ in range(parties)]
        for start in range(0, size, width):
            part = slice(start, min(start + width, size))
            ours = np.ascontiguousarray(own[:, part])
            inner = scope.at("part")
            brought, numbers = await bring(inner.at("bring"), field, self._elements, macs, ours.reshape(-1), ours.size)
            packed = [brought.of(rank, macs.key) for rank in range(parties)]
            elements = np.concatenate([summands[rank, :, part].reshape(-1) for rank in range(parties)])
            await tie(inner.at("tie"), field, macs, elements, join_bits(packed), numbers)
            for rank, bits in enumerate(packed):
                parts[rank].append(bits.reshape(ours.shape).words(macs.field))
        empty = macs.field.zeros((height, 0))
        return [np.concatenate([empty, *of_rank], axis=1) for of_rank in parts]

    async def signs(self, scope: Party, field: Authenticated, words: FieldArray, count: int) -> FieldArray:
        """Return our summands, with MACs, of ``(-1)^bit`` for the first bits of a flat uniform mask.

        Parameters
        ----------
        scope : Party
            A scope of these signs' own.
        field : Authenticated
            That of the signs.
        words : FieldArray
            Our summands of the mask.
        count : int

        Raises
        ------
        CheatingError
            Some party has brought other elements than its summands.

        Notes
        -----
        Cost: an element with a MAC from each party for each bit, and n - 1 products; as much for tests as
        :meth:`planes`.
        """
        macs, public = await self.macs(), field.public
        parts = []
        for start in range(0, count, _TIED_AT_ONCE):
            stop = min(start + _TIED_AT_ONCE, count)
            held = words[start // WORD_BITS : -(-stop // WORD_BITS)]
            bits = Bits.of_words(macs.field, held).at(slice(stop - start))
            inner, none = scope.at("part"), np.zeros(0, np.uint8)
            _, numbers = await bring(inner.at("bring"), field, self._elements, macs, none, bits.values.size)
            own = public.encode(bits.values.astype(np.int64))
            apart, _ = await self._elements.authenticate(inner.at("signs"), field, own, bits=True, apart=True)
            total = functools.reduce(field.add, apart)
            await tie(inner.at("tie"), field, macs, total, bits, numbers)
            one = public.encode(np.ones(own.shape, np.int64))
            product: FieldArray | None = None
            for elements in apart:  # 1 - 2 b
                sign = field.add_public(field.scale_int(elements, -2), one, leads=scope.rank == 0)
                product = sign if product is None else await self._multiplied(inner, field, product, sign)
            parts.append(product)
        return np.concatenate([field.zeros(0), *(part for part in parts if part is not None)])

    async def _multiplied(self, scope: Party, field: Authenticated, a: FieldArray, b: FieldArray) -> FieldArray:
        return await multiply_masks(scope.at("times"), self._pairs, self._elements, field, a, b, Entries())

    # ---- batches --------------------------------------------------------------------------------

    async def _make_masks(self, scope: Party, words: int) -> list[FieldArray]:
        macs = await self.macs()
        brought = (await macs.bring(scope, random_bits(words * WORD_BITS + PAD))).shared(macs.key)
        bits, pad = brought.at(slice(-PAD)), brought.at(slice(-PAD, None))
        image = combined([bits], pad, await toss(scope.at("coin")))
        await open_bits(scope, macs.field, "masks", image)
        await scope.verify()
        return [bits.words(macs.field)]

    async def _make_products(self, scope: Party, words: int) -> list[FieldArray]:
        macs = await self.macs()
        made = await make_products(scope, self._pairs, macs, words * WORD_BITS)
        return [bits.words(macs.field) for bits in made]

    async def macs(self) -> BitMacs:
        """Return our ends, set up when first asked for."""
        if self._seat is None:
            raise RuntimeError(_NO_SEAT)
        async with self._setting_up:
            if self._bits is None:
                self._bits = await BitMacs.set_up(self._seat.at("ends"), self._pairs)
        return self._bits

    def __repr__(self) -> str:
        return "SharedWords()"


_NO_SEAT = "packed bits are made in a session"


def _bits_of(field: Authenticated, summands: FieldArray) -> Bytes:
    """Return our own bits, of which we hold all."""
    values, _ = field.parts(summands)
    return unpack_bits(bit_planes(field.public, np.ascontiguousarray(values), 1)[0], summands.size)
