"""Secret orders: from the bits of numbers to the order that sorts them.

Two ways, chosen by the public number of rows. A radix sort goes digit by digit, least first; the places of
the rows are shared numbers, and each digit is taken to the order so far by opening them, after rows and
digits have been shuffled by the same secret permutation: what is opened is a uniform permutation, whatever
the numbers are. Few rows are compared pair by pair, which takes a tenth of the rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc._copying import as_plain
from mpc.arithmetic import mask, open_masked, products
from mpc.bits import carry_out, inverted, take_signs, words_share
from mpc.errors import AgreementError
from mpc.indices import R32, digit_counts, wrapped
from mpc.masks import Masked, Structure
from mpc.opening import open_flat
from mpc.preprocessing.permutations import Move, Permutation
from mpc.share import Share, concatenate
from mpc.shuffling import moved
from mpc.words import W64, WORD_BITS, pack_bits, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import FieldArray
    from mpc.party import Party

# Two bits of the numbers at a time. More bits mean fewer permutations to carry, but 2^bits - 1 signs that go
# into the ring and are masked. Measured for 100,000 numbers of 32 bits, three parties, prss: 0.86, 0.71 and
# 0.84 seconds of processor time at each party for 1, 2 and 3 bits; 67, 59 and 70 MB sent; 333, 203, 179 rounds.
DIGIT_BITS = 2
# Up to so many rows are compared pair by pair. For 256 rows of 32 bits, three parties, prss: 21 rounds, 1.0 MB
# and 19 ms of processor time at each party, where digits take 122, 0.2 MB and 36 ms. For 512 rows these are 23,
# 3.7 MB and 40 ms, where digits take 122, 0.4 MB and 42 ms.
PAIRED_ROWS = 256
# How many signs are taken at a time: more is faster, and takes more memory.
_SIGNS_AT_ONCE = 1 << 22


class Order:
    """A secret order of rows, the outcome of a sort; every use of it has fresh masks.

    Holds a secret permutation and, opened, the places of the rows that it has brought into disorder: a
    uniform permutation. What is put in order is shuffled by the same secret permutation, and then moved
    in the clear. Using it again opens nothing.
    """

    __slots__ = ("_disorder", "_places", "_ranks", "count")

    def __init__(self, count: int, disorder: Permutation | None, places: NDArray[np.intp]) -> None:
        self.count = count
        self._disorder = disorder
        self._places = places
        self._ranks = _inverse(places)

    async def apply(self, party: Party, *shares: Share) -> list[Share]:
        """Bring the rows of arrays into the order.

        Parameters
        ----------
        party : Party
        *shares : Share
            As many rows (entries of the first axis) as were sorted; any scale, field and further axes.

        Returns
        -------
        list of Share

        Notes
        -----
        Nothing is opened. Cost: that of :func:`mpc.shuffling.shuffle`.
        """
        self._check(shares)
        if self._disorder is None:
            return list(shares)
        shuffled = await moved(party.at("put in order"), [(x, Move(apply=self._disorder)) for x in shares])
        return [_picked(x, self._ranks) for x in shuffled]

    async def undo(self, party: Party, *shares: Share) -> list[Share]:
        """Bring rows that are in order back to where they came from; see :meth:`apply`."""
        self._check(shares)
        if self._disorder is None:
            return list(shares)
        shuffled = [_picked(x, self._places) for x in shares]
        return await moved(party.at("put back"), [(x, Move(undo=self._disorder)) for x in shuffled])

    def _check(self, shares: Sequence[Share]) -> None:
        for share in shares:
            if not share.ndim or len(share) != self.count:
                raise ValueError(f"an order of {self.count} rows is not for an array of shape {share.shape}")

    def __repr__(self) -> str:
        return f"Order(count={self.count})"


# ---- the radix sort -----------------------------------------------------------------------------


async def order_by_planes(party: Party, planes: Share, count: int) -> Order:
    """Find the stable order of numbers given by their bits.

    Parameters
    ----------
    party : Party
    planes : Share
        Over W64, shape ``(bits, words)``: plane i holds bit i of all entries, packed; at least one plane.
    count : int
        How many entries; at least 2.

    Notes
    -----
    Few entries are compared pair by pair (:func:`places_by_pairs`), and the places opened once, shuffled. Of
    more, with ``sigma_i`` the places of the entries in the order by the lowest i digits:

    1. Shuffle the planes of digit i by a secret permutation ``pi_i`` of its own: all digits in one go.
    2. Carry ``sigma_(i-1)``, shuffled by ``pi_(i-1)``, to the order of ``pi_i``. Open it: ``p_i``.
    3. In the clear, ``p_i`` takes digit i, shuffled, to the order by all lower digits. There, prefix sums
       and one product give the places by this digit; taken back by ``p_i`` they are ``sigma_i``, shuffled
       by ``pi_i``.

    ``p_i`` is ``sigma_(i-1)`` after a permutation that is uniform, unknown, and opened nowhere else, so it
    is uniform and tells nothing of ``sigma_(i-1)``; the ``p_i`` are independent of one another.
    """
    if count <= PAIRED_ROWS:
        disorder = await party.preprocessing.permutation(party, count)
        twice = await places_by_pairs(party.at("pairs"), planes, count)
        return Order(count, disorder, await _shuffled_places(party, twice, Move(apply=disorder), 2))
    digits = [planes[k : k + DIGIT_BITS] for k in range(0, len(planes), DIGIT_BITS)]
    # One disorder for each digit but the first, and one for whatever is put in order in the end.
    disorders = [await party.preprocessing.permutation(party, count) for _ in digits]
    jobs = [(x, Move(apply=pi)) for x, pi in zip(digits[1:], disorders[:-1], strict=True)]
    parities = [_parities(x) for x in [digits[0], *await moved(party.at("digits"), jobs)]]
    at_once = max(1, _SIGNS_AT_ONCE // (len(parities[0]) * count))
    signs: list[Share] = []
    places = np.arange(count)  # of what is in disorder, in the order by the lower digits
    last = None
    for number, disorder in enumerate(disorders):
        if number % at_once == 0:
            signs = await _signs(party.at("signs"), parities[number : number + at_once], count)
        step = party.at("digit")
        ranks = await digit_places(step, _picked(signs[number % at_once], _inverse(places), axis=1))
        factor = 1 << 2 * len(digits[number])
        places = await _shuffled_places(step, _picked(ranks, places), Move(last, disorder), factor)
        last = disorder
    return Order(count, last, places)


def _parities(digit: Share) -> Share:
    """Return, for u from 1, the parity of the bits of a digit that u picks."""
    rows: list[FieldArray] = []
    for plane in digit.values:
        rows += [plane, *(plane ^ row for row in rows)]
    return Share(W64, np.stack(rows), 0, 0, leads=digit.leads)


async def _signs(party: Party, planes: Sequence[Share], count: int) -> list[Share]:
    """Turn planes of bits into shares of ``(-1)^bit`` in R32, shape ``(planes, count)`` each.

    Opens the bits under uniform masks whose signs are shared (Escudero et al., CRYPTO 2020). Cost: 1 round (2
    above 96 KiB, n >= 3), 1 bit opened an entry.
    """
    words = concatenate(planes)
    material = await take_signs(party, R32, words.size * WORD_BITS)
    (opened,) = await open_masked(party, "convert", [words.reshape(-1)], [material.words])
    flips = unpack_bits(opened, words.size * WORD_BITS)
    values = np.where(flips, np.negative(material.signs), material.signs).reshape(len(words), -1)[:, :count]
    shares, start = [], 0
    for x in planes:
        shares.append(Share(R32, values[start : start + len(x)], 0, 1, leads=party.rank == 0))
        start += len(x)
    return shares


async def digit_places(party: Party, signs: Share) -> Share:
    """Return ``V^2`` times the place of each entry in the stable order by one digit of V values.

    Parameters
    ----------
    party : Party
    signs : Share
        Over R32, shape ``(V - 1, count)``; see :func:`mpc.indices.digit_weights`.

    Notes
    -----
    The signs are opened under a uniform mask, once; prefix sums of what is masked are masked by prefix
    sums. Cost: 1 round (2 above 96 KiB, n >= 3), ``(V - 1) count`` elements opened and triples.
    """
    height, count = signs.shape
    values = height + 1
    table = digit_counts(height)
    masked = await mask(party, signs)
    structured = None if masked.masked is None else masked.masked.after(Structure("digits"))
    if structured is None:
        raise RuntimeError("a fresh mask takes one operation")
    offset = structured.offset + wrapped(table[1:, :1] * count)
    bound = values * count + int(np.abs(table).sum(axis=1).max()) * count
    weights = Share(R32, None, 0, bound, leads=party.rank == 0, masked=Masked(offset, structured.mask))
    (terms,) = await products(party, "places", [(masked, weights, "multiply")])
    # The character that is 1 everywhere: its sign is public, its weight is linear.
    totals = np.sum(signs.values, axis=1, dtype=np.uint32)
    own = np.sum(wrapped(table[0, 1:]) * totals, dtype=np.uint32)
    summand = np.sum(terms.values, axis=0, dtype=np.uint32) + own
    if party.rank == 0:
        public = values * np.arange(1, count + 1) + table[0, 0] * count - values * values
        summand = summand + wrapped(public)
    return Share(R32, np.asarray(summand), 0, values * values * count, leads=party.rank == 0)


async def _shuffled_places(party: Party, places: Share, move: Move, factor: int) -> NDArray[np.intp]:
    """Shuffle places and open them: a uniform permutation, independent of what was sorted."""
    (shuffled,) = await moved(party, [(places, move)])
    summands = R32.add(shuffled.values, party.zero_share(R32, shuffled.shape))
    opened = await open_flat(party, "places", R32, summands)
    permuted = np.asarray(opened // np.uint32(factor), np.intp)
    if not party.rehearsing and not _is_permutation(permuted):
        raise AgreementError("places were opened that are no permutation: a party does not follow the protocol")
    return permuted


def _is_permutation(places: NDArray[np.intp]) -> bool:
    if places.size and int(places.max()) >= places.size:
        return False
    seen = np.zeros(places.size, np.bool_)
    seen[places] = True
    return bool(seen.all())


def _inverse(places: NDArray[np.intp]) -> NDArray[np.intp]:
    inverse = np.zeros_like(places)
    inverse[places] = np.arange(places.size)
    return inverse


def _picked(x: Share, rows: NDArray[np.intp], axis: int = 0) -> Share:
    values = np.take(as_plain(x.values), rows, axis=axis).view(x.values.dtype)
    return Share(x.field, values, x.scale, x.magnitude, leads=x.leads)


# ---- by pairs -----------------------------------------------------------------------------------


async def places_by_pairs(party: Party, planes: Share, count: int) -> Share:
    """Return twice the place of each number, over R32, from the comparisons of all pairs.

    Notes
    -----
    Of two rows i < j, j comes first only if its number is smaller: where ``x_i + not x_j`` carries out. Opens
    bits under uniform masks. Cost: ``2 + ceil(log2(k))`` rounds for k bits, about ``5 k`` bits opened for each
    of ``count (count - 1) / 2`` pairs, and what it takes to bring one bit for each into the ring.
    """
    i, j = np.triu_indices(count, 1)
    bits = unpack_bits(planes.values, count)
    earlier = words_share(party, pack_bits(np.take(bits, i, axis=1)))
    later = inverted(party, words_share(party, pack_bits(np.take(bits, j, axis=1))), i.size)
    (generate,) = await products(party, "generate", [(earlier, later, "multiply")])
    smaller = await carry_out(party, earlier + later, generate)
    (signs,) = await _signs(party, [smaller.reshape(1, -1)], i.size)
    # The places are (rows before i that are not larger) + (rows after i that are smaller).
    table = R32.zeros((count, count))
    table[j, i] = signs.values
    table[i, j] = R32.neg(signs.values[0])
    summand = np.sum(table, axis=1, dtype=np.uint32)
    if party.rank == 0:
        summand = summand + wrapped(np.full(count, count - 1))
    return Share(R32, np.asarray(summand), 0, 2 * count, leads=party.rank == 0)
