"""Products entry by entry of what one party knows with what another knows, thousands to a ciphertext.

Every pair of parties i, j needs summands of ``a_i b_j + b_i a_j``. Both terms take one ciphertext: with ``I^2 = -1``

    ``(a_i + b_i I) (b_j - a_j I) = (a_i b_j + b_i a_j) + (b_i b_j - a_i a_j) I``,

and slots hold just such numbers (:mod:`mpc.ot.slots`). One of the two encrypts a polynomial with ``a_i + b_i I`` in
its slots (:mod:`mpc.ot.lattice`), the other multiplies by that with ``b_j - a_j I`` in its, adds a mask and sends
back. Real parts of mask and of what is decrypted are the summands. Triples by packed encryption, with flooded noise:
Damgard, Pastro, Smart, Zakarias, "SPDZ", CRYPTO 2012, section 5; between each two, with ciphertexts that are only
added up and multiplied by what is known: Keller, Pastro, Rotaru, "Overdrive", EUROCRYPT 2018, section 3.

**Batches** of N/2 entries; who encrypts goes around. In batch k of n parties, party i stands at place ``(i + k) mod
n`` and encrypts for all that stand after it, the same ciphertext for all.

**Who learns what.** Whoever encrypts sees its answers only: these are masked by a polynomial that is uniform modulo p,
hence with uniform slots, imaginary parts as well; with noise that hides what was multiplied by: a batch tells less
than ``2^-48`` (F127), and less than ``2^-84`` (F61), in statistical distance. Whoever answers sees ciphertexts.

Threat model: semi-honest; see :mod:`mpc.ot.lattice`.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import as_plain, copy_into
from mpc.ot.rings import RESIDUE_BYTES, rings_of
from mpc.ot.seats import receive, send
from mpc.ot.slots import slots_of
from mpc.prg import SEED_BYTES
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.ot.matrices import Lattices
    from mpc.ot.rings import Coins, Ring
    from mpc.ot.seats import Seat
    from mpc.party import Party

_ALL = slice(None)
_AHEAD = 4  # batches that we have encrypted and that have not been answered


class EntryProducts(NamedTuple):
    """Products of two arrays of ours with two of each other party's.

    Attributes
    ----------
    ring : Ring
    level : int
        Primes of ciphertexts.
    left, right : FieldArray
        Ours; they broadcast together.
    shape : tuple of int
        Of the products.
    result : tuple of int
        The same, or the shape of their sums over the last axis but one.
    """

    ring: Ring
    level: int
    left: FieldArray
    right: FieldArray
    shape: tuple[int, ...]
    result: tuple[int, ...]

    @property
    def each(self) -> int:
        """Entries of a batch."""
        return self.ring.degree // 2

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return -(-math.prod(self.shape) // self.each)

    @property
    def bytes_of_batch(self) -> int:
        """Bytes that are sent in both directions between two parties for a batch."""
        return SEED_BYTES + (self.level + 2 * self.ring.kept) * self.ring.degree * RESIDUE_BYTES

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to each other party, on average, but for keys."""
        return self.batches * self.bytes_of_batch // 2

    def part(self, batch: int) -> slice:
        """Return the entries of a batch."""
        return slice(batch * self.each, min((batch + 1) * self.each, math.prod(self.shape)))

    async def cross(self, scope: Party, lattices: Lattices, coins: Coins) -> FieldArray:
        """Return our summand of the sum, over all ordered pairs, of one's left array times another's right array.

        Parameters
        ----------
        scope : Party
            A scope of these products' own, named alike at all parties.
        lattices : Lattices
            Keys.
        coins : Coins
            Ours, used for nothing else.

        Raises
        ------
        PeerError
            A party sent what is no key, ciphertext or answer.

        Notes
        -----
        Cost: 2 rounds; ``batches * bytes_of_batch`` between each two parties, and the key once.
        """
        exchange = _Exchange(scope, self, lattices.seat(self.ring, coins), coins)
        async with side_by_side() as group:
            for role in (exchange.ask, exchange.answer, exchange.collect):
                group.create_task(role())
        total = exchange.total.reshape(self.shape)
        if math.prod(self.result) < total.size:
            total = self.ring.field.sum(total, -2)
        return total.reshape(self.result)


def entry_products(field: Field, left: FieldArray, right: FieldArray, result: tuple[int, ...]) -> EntryProducts | None:
    """Arrange products of arrays that broadcast together; None where there is no such way."""
    shape = np.broadcast_shapes(left.shape, right.shape)
    for ring in rings_of(field)[::-1] if math.prod(shape) else ():
        level = ring.level(field.bits, ring.degree, ring.degree)
        if level is not None:
            return EntryProducts(ring, level, left, right, shape, result)
    return None


class _Exchange:
    """The roles of one party: who encrypts, who answers, who decrypts; and the sum of all."""

    def __init__(self, scope: Party, products: EntryProducts, seat: Seat, coins: Coins) -> None:
        ring = products.ring
        self._scope = scope
        self._products = products
        self._seat = seat
        self._ring = ring
        self._slots = slots_of(ring.field, ring.degree)
        self._encrypting, self._answering = coins.child(), coins.child()
        self._room = asyncio.Semaphore(_AHEAD)
        self.total = ring.field.zeros(math.prod(products.shape))

    def _others(self, batch: int, *, after: bool) -> list[int]:
        """Return those who stand after us or before us."""
        size = self._scope.size
        ours = (self._scope.rank + batch) % size
        return [other for other in self._scope.others if ((other + batch) % size > ours) is after]

    def _polynomial(self, real: FieldArray, imaginary: FieldArray) -> FieldArray:
        values = self._ring.field.zeros((2, self._slots.count))
        copy_into(values[0, : real.size], real)
        copy_into(values[1, : real.size], imaginary)
        return self._slots.polynomial(values)

    def _entries(self, array: FieldArray, batch: int) -> FieldArray:
        """Return those of a batch, flat."""
        wide = np.broadcast_to(as_plain(array), self._products.shape)
        part = self._products.part(batch)
        return np.asarray(wide.flat[part]).view(array.dtype)

    def _add(self, batch: int, polynomial: FieldArray) -> None:
        part = self.total[self._products.part(batch)]
        self._ring.field.add(part, self._slots.values(polynomial)[0, : part.size], out=part)

    async def ask(self) -> None:
        """Encrypt and send the batches in which others stand after us."""
        scope, ring, products = self._scope, self._ring, self._products
        for batch in range(products.batches):
            others = self._others(batch, after=True)
            if not others:
                continue
            await self._room.acquire()
            for other in others:
                await self._seat.send_to(scope, other)
            polynomial = self._polynomial(self._entries(products.left, batch), self._entries(products.right, batch))
            await asyncio.sleep(0)  # others have their turn, here and below
            seed = self._encrypting.seed()
            c0 = self._seat.own.encrypt(polynomial, products.level, seed, 0, self._encrypting)
            message = seed + ring.to_bytes(c0)
            for other in others:
                await send(scope, other, f"{scope.path}/ciphertext {batch}", message)

    async def answer(self) -> None:
        """Multiply and mask the batches of those who stand before us."""
        scope, ring, products = self._scope, self._ring, self._products
        field, level = ring.field, products.level
        none = np.zeros((), np.uint64)
        for batch in range(products.batches):
            others = self._others(batch, after=False)
            if not others:
                continue
            left, right = self._entries(products.left, batch), self._entries(products.right, batch)
            factor = ring.forward(ring.lifted(self._polynomial(right, field.neg(left)), level))
            for other in others:
                key = await self._seat.key_of(scope, other)
                step = f"{scope.path}/ciphertext {batch}"
                seed, (c0,) = await receive(scope, other, step, ring, level, [ring.degree], SEED_BYTES)
                await asyncio.sleep(0)
                c1 = ring.uniform(seed, 0, level)
                c0, c1 = (ring.multiply_add(half, factor, np.broadcast_to(none, half.shape)) for half in (c0, c1))
                mask = self._answering.stream().elements(field, (ring.degree,))
                masked = key.answer(c0, c1, _ALL, mask, self._answering)
                await asyncio.sleep(0)
                message = b"".join(ring.to_bytes(part) for part in masked)
                await send(scope, other, f"{scope.path}/answer {batch}", message)
                self._add(batch, field.neg(mask))

    async def collect(self) -> None:
        """Decrypt the answers to what we asked."""
        scope, ring = self._scope, self._ring
        for batch in range(self._products.batches):
            others = self._others(batch, after=True)
            for other in others:
                step = f"{scope.path}/answer {batch}"
                _, (c0, c1) = await receive(scope, other, step, ring, ring.kept, [ring.degree, ring.degree])
                await asyncio.sleep(0)
                self._add(batch, self._seat.own.decrypt(c0, c1, _ALL))
            if others:
                self._room.release()

    def __repr__(self) -> str:
        return f"_Exchange(shape={self._products.shape})"
