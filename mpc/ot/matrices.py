"""Products of a matrix that one party knows with a matrix that another knows, at about the cost of sending both.

One party encrypts its matrix (:mod:`mpc.ot.lattice`), the other multiplies, adds a mask and sends back; mask and
decrypted results are summands of the product (matrix triples as of Mohassel, Zhang, S&P 2017, section IV; by encryption
Chen, Kim, Razenshteyn, Rotaru, Song, Wagh, ASIACRYPT 2020).

**Packing** (Huang, Lu, Hong, Ding, "Cheetah", USENIX Security 2022, section 3.2). Matrices are cut into blocks of
``r x l`` (encrypted) and ``l x c``, with ``r l c <= N``. Entry ``(i, h)`` of the one is the coefficient of
``x^(i l c + l - 1 - h)``, entry ``(h, j)`` of the other that of ``x^(j l + h)``: their products with equal h all are at
``x^(i l c + j l + l - 1)``. Those with other h are off by less than l and so between these places, and what is beyond
``x^N`` comes back below ``x^(l - 1)``, before the first of them. Blocks along the inner axis are added up.

Each pair multiplies in both directions, side by side. Which matrix is encrypted, and the blocks, are those with the
fewest bytes; they follow from shapes and sizes of entries, which are the same at both.

Threat model: semi-honest; see :mod:`mpc.ot.lattice`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import as_plain, copy_into
from mpc.ot.rings import RESIDUE_BYTES, rings_of
from mpc.ot.seats import Seat, receive, send
from mpc.prg import SEED_BYTES
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.ot.rings import Coins, Ring
    from mpc.party import Party

    Words = NDArray[np.uint64]

_MOST_COLUMNS = 32  # blocks of columns: sums of products that are kept at a time, 1.8 MB each
_MOST_FACTORS = 32  # transformed factors that are kept, 0.9 MB each
_TRIED = 24  # numbers of blocks that are tried one by one; larger ones in steps


class Layout(NamedTuple):
    """How a product is cut into blocks; the first matrix is the encrypted one.

    Attributes
    ----------
    flipped : bool
        Whether both matrices are transposed and change places.
    shape : tuple of int
        Rows, inner dimension and columns.
    block : tuple of int
        The same of a block.
    level : int
        Primes of ciphertexts.
    bytes_sent : int
        In all by each of the two parties, which both encrypt and answer.
    """

    flipped: bool
    shape: tuple[int, int, int]
    block: tuple[int, int, int]
    level: int
    bytes_sent: int

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many blocks there are along each axis."""
        rows, inner, columns = (-(-length // size) for length, size in zip(self.shape, self.block, strict=True))
        return rows, inner, columns

    def parts(self, axis: int) -> list[slice]:
        """Return the blocks along an axis."""
        length, size = self.shape[axis], self.block[axis]
        return [slice(start, min(start + size, length)) for start in range(0, length, size)]

    def left(self, matrix: FieldArray, degree: int) -> FieldArray:
        """Return the polynomial of a block of the encrypted matrix."""
        _, inner, columns = self.block
        rows, used = matrix.shape
        polynomial = np.zeros(degree, matrix.dtype)
        places = (np.arange(rows) * inner * columns)[:, None] + inner - 1 - np.arange(used)
        polynomial[places.reshape(-1)] = matrix.reshape(-1)
        return polynomial

    def right(self, matrix: FieldArray, degree: int) -> FieldArray:
        """Return the polynomial of a block of the other matrix."""
        inner = self.block[1]
        used, columns = matrix.shape
        polynomial = np.zeros(degree, matrix.dtype)
        places = np.arange(used)[:, None] + np.arange(columns) * inner
        polynomial[places.reshape(-1)] = matrix.reshape(-1)
        return polynomial

    def places(self, rows: int, columns: int) -> NDArray[np.intp]:
        """Return where the results of a block are, row by row."""
        _, inner, width = self.block
        return ((np.arange(rows) * inner * width)[:, None] + np.arange(columns) * inner + inner - 1).reshape(-1)


def layout(field: Field, shape: tuple[int, int, int], left_bits: int, right_bits: int) -> tuple[Ring, Layout] | None:
    """Choose who encrypts what, and in which blocks.

    Parameters
    ----------
    field : Field
    shape : tuple of int
        Rows, inner dimension, columns.
    left_bits, right_bits : int
        Entries are numbers of so many bits.

    Returns
    -------
    (Ring, Layout) or None
        None where this field has no such products, or this one is empty or too large.
    """
    for ring in rings_of(field) if math.prod(shape) else ():
        found = layout_over(ring, shape, left_bits, right_bits)
        if found is not None:
            return ring, found
    return None


@lru_cache(maxsize=1024)
def layout_over(ring: Ring, shape: tuple[int, int, int], left_bits: int, right_bits: int) -> Layout | None:
    """See :func:`layout`."""
    rows, inner, columns = shape
    found = [
        *_layouts(ring, (rows, inner, columns), right_bits, flipped=False),
        *_layouts(ring, (columns, inner, rows), left_bits, flipped=True),
    ]
    return min(found, key=lambda one: (one.bytes_sent, math.prod(one.counts), one), default=None)


def _layouts(ring: Ring, shape: tuple[int, int, int], bits: int, *, flipped: bool) -> list[Layout]:
    rows, inner, columns = shape
    residue = ring.degree * RESIDUE_BYTES
    found = []
    for width in _sizes(columns, ring.degree):
        across = -(-columns // width)
        level = ring.level(bits, inner * width, rows * columns)
        if level is None or across > _MOST_COLUMNS:
            continue
        for height in _sizes(rows, ring.degree // width):
            along = -(-inner // min(inner, ring.degree // (width * height)))
            down = -(-rows // height)
            answers = down * across * residue + rows * columns * RESIDUE_BYTES
            sent = SEED_BYTES + down * along * level * residue + ring.kept * answers
            found.append(Layout(flipped, shape, (height, -(-inner // along), width), level, sent))
    return found


def _sizes(length: int, most: int) -> list[int]:
    """Return sizes of blocks to try, for an axis of this length."""
    counts, count = [], 1
    while count <= length:
        counts.append(count)
        count += 1 if count < _TRIED else count // 8
    return sorted({size for n in counts if (size := -(-length // n)) <= most})


# ---- products -------------------------------------------------------------------------------------------------------


class Lattices:
    """Our end of matrix products with each other party.

    Parameters
    ----------
    others : sequence of int
        The other parties' ranks.

    Notes
    -----
    Keys are made when the first product over a field needs them, and sent to each other party: 688 kB for F127, 197 kB
    for F61.
    """

    def __init__(self, others: Sequence[int]) -> None:
        self._others = list(others)
        self._seats: dict[Ring, Seat] = {}

    def seat(self, ring: Ring, coins: Coins) -> Seat:
        """Return our seat for a ring; its key is made when it is asked for first, from these coins."""
        seat = self._seats.get(ring)
        if seat is None:
            seat = self._seats[ring] = Seat(ring, coins.child())
        return seat

    async def cross(
        self, scope: Party, ring: Ring, plan: Layout, left: FieldArray, right: FieldArray, coins: Coins
    ) -> FieldArray:
        """Return our summand of the sum, over all ordered pairs, of one's left matrix times another's right matrix.

        Parameters
        ----------
        scope : Party
            A scope of this one product's own, named alike at all parties.
        ring : Ring
        plan : Layout
            Of :func:`layout`, with sizes of entries that hold at all parties.
        left, right : FieldArray
            Ours, shapes ``(rows, inner)`` and ``(inner, columns)``; secret.
        coins : Coins
            Ours, used for nothing else.

        Raises
        ------
        PeerError
            A party sent what is no key, ciphertext or answer.

        Notes
        -----
        Cost: 2 rounds; ``plan.bytes_sent`` to each other party, and the key once.
        """
        seat = self.seat(ring, coins)
        if plan.flipped:
            left, right = right.swapaxes(0, 1), left.swapaxes(0, 1)
        encrypted = _Encrypted(scope, plan, seat, left, coins.child())
        known = [_Known(scope, plan, seat, right, other, coins.child()) for other in self._others]
        async with side_by_side() as group:
            group.create_task(encrypted.send(self._others))
            tasks = [group.create_task(one.multiply()) for one in known]
            tasks += [group.create_task(encrypted.results(other)) for other in self._others]
        total = tasks[0].result()
        for task in tasks[1:]:
            ring.field.add(total, task.result(), out=total)
        return np.ascontiguousarray(total.swapaxes(0, 1)) if plan.flipped else total

    def __repr__(self) -> str:
        return f"Lattices(others={self._others})"


# ---- the two roles --------------------------------------------------------------------------------------------------


class _Encrypted:
    """A matrix of ours, which we encrypt for all others alike, and whose products we decrypt."""

    def __init__(self, scope: Party, plan: Layout, seat: Seat, matrix: FieldArray, coins: Coins) -> None:
        self._scope = scope
        self._plan = plan
        self._seat = seat
        self._matrix = matrix
        self._coins = coins

    async def send(self, others: Sequence[int]) -> None:
        """Send our key, and one ciphertext for each block, row by row."""
        scope, plan, seat = self._scope, self._plan, self._seat
        for other in others:
            await seat.send_to(scope, other)
        seed = self._coins.seed()
        blocks = [(rows, inner) for rows in plan.parts(0) for inner in plan.parts(1)]
        for number, block in enumerate(blocks):
            polynomial = plan.left(self._matrix[block], seat.ring.degree)
            c0 = seat.own.encrypt(polynomial, plan.level, seed, number, self._coins)
            message = (b"" if number else seed) + seat.ring.to_bytes(c0)
            for other in others:
                await send(scope, other, _ciphertext_step(scope, number), message)

    async def results(self, other: int) -> FieldArray:
        """Receive another's answers; return our summand of the product."""
        plan, ring = self._plan, self._seat.ring
        total = np.empty((plan.shape[0], plan.shape[2]), ring.field.dtype)
        blocks = [(rows, columns) for rows in plan.parts(0) for columns in plan.parts(2)]
        for number, block in enumerate(blocks):
            part = total[block]
            places = plan.places(*part.shape)
            step = _answer_step(self._scope, number)
            _, (results, c1) = await receive(self._scope, other, step, ring, ring.kept, [part.size, ring.degree])
            copy_into(part, self._seat.own.decrypt(results, c1, places).reshape(part.shape))
        return total


class _Known:
    """A matrix of ours, by which we multiply another's ciphertexts."""

    def __init__(self, scope: Party, plan: Layout, seat: Seat, matrix: FieldArray, other: int, coins: Coins) -> None:
        self._scope = scope
        self._plan = plan
        self._seat = seat
        self._matrix = matrix
        self._other = other
        self._coins = coins
        self._factors: dict[tuple[int, int], Words] = {}

    def _factor(self, inner: int, column: int) -> Words:
        """Return a block of our matrix as a transformed polynomial; the first are kept for the next row of blocks."""
        found = self._factors.get((inner, column))
        if found is None:
            plan, ring = self._plan, self._seat.ring
            block = self._matrix[plan.parts(1)[inner], plan.parts(2)[column]]
            found = ring.forward(ring.lifted(plan.right(block, ring.degree), plan.level))
            if plan.counts[0] > 1 and len(self._factors) < _MOST_FACTORS:
                self._factors[inner, column] = found
        return found

    async def multiply(self) -> FieldArray:
        """Receive ciphertexts, send answers; return our summand of the product."""
        scope, plan, ring, other = self._scope, self._plan, self._seat.ring, self._other
        masks = self._coins.stream().elements(ring.field, (plan.shape[0], plan.shape[2]))
        key = await self._seat.key_of(scope, other)
        _, along, across = plan.counts
        seed = b""
        for down, rows in enumerate(plan.parts(0)):
            sums = np.zeros((across, 2, plan.level, ring.degree), np.uint64)
            for inner in range(along):
                number = down * along + inner
                step, extra = _ciphertext_step(scope, number), 0 if number else SEED_BYTES
                first, (c0,) = await receive(scope, other, step, ring, plan.level, [ring.degree], extra)
                seed = seed or first
                both = np.stack([c0, ring.uniform(seed, number, plan.level)])
                for column in range(across):
                    sums[column] = ring.multiply_add(both, self._factor(inner, column), sums[column])
            for column, columns in enumerate(plan.parts(2)):
                mask = as_plain(masks[rows, columns]).view(masks.dtype)
                answer = key.answer(
                    sums[column, 0], sums[column, 1], plan.places(*mask.shape), mask.reshape(-1), self._coins
                )
                message = b"".join(ring.to_bytes(part) for part in answer)
                await send(scope, other, _answer_step(scope, down * across + column), message)
        return ring.field.neg(masks)


def _ciphertext_step(scope: Party, number: int) -> str:
    return f"{scope.path}/ciphertext {number}"


def _answer_step(scope: Party, number: int) -> str:
    return f"{scope.path}/answer {number}"
