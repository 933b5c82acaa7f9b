"""Bits with MACs in GF(2^64), made by transfers: for packed words where parties may cheat and nobody deals.

An extension of transfers is a MAC already: the chooser has choice bits c and keys t, the offerer ``q = t ^ c Delta``
(:mod:`mpc.ot.extension`). So each pair has a second one, in which the low word of the offerer's Delta is its summand of
the key of W64 (Nielsen, Nordholt, Orlandi, Burra, CRYPTO 2012, section 3, between two parties; Frederiksen, Keller,
Orsini, Scholl, ASIACRYPT 2015, and Wang, Ranellucci, Katz, CCS 2017, section 4, among more). The chooser, here the
prover, tells ``x ^ c``, and the offerer, the holder, has ``K = M ^ x alpha_j`` for a bit x that the prover has chosen,
K and M the low words of q and t. Each party proves bits ``x_i`` to all others, and
``x_i alpha_i ^ xor_j M_ij ^ xor_j K_ji`` are summands of ``alpha x``, x the sum of all ``x_i``.

**What it costs.** 4.1 bytes a bit from each party to each other, which waits for nothing.

**Who learns what.** The holder sees ``x ^ c``, c uniform to it; the prover receives nothing. All parties but one may
cheat, together:

- To one holder, x is one vector of bits: the extension has been checked (:mod:`mpc.ot.checking`). Who guesses a bits of
  a Delta to get past that check is caught with probability ``1 - 2^-a``, and needs the others for a forged MAC.
- To two honest holders a prover may bring bits that differ by e. Then the MACs of x are off by ``e alpha_j``, j one of
  the two. :func:`combined` finds it, as it finds all MACs that are off.
- A holder chooses its Delta when the ends are set up, and never again. If it has chosen others towards two honest
  provers, the MACs of all bits of one of them are off by ``x_i d``. What the check makes of these bits is padded by 128
  of them, and is not seen but in a sum with those of the other: it is found with probability ``1 - 2^-64`` (the guard
  compares a sum of 64 bits), whatever the bits are.

**The check.** 128 more shared bits are a pad. A coin is tossed when everybody has received all messages that the MACs
depend on. It makes a public linear map R from all bits that are checked to 128, a polynomial hash over GF(2^128), and
``V = R v ^ pad`` is opened, with the MACs that the same map makes; the guard checks these before anything is used
(:mod:`mpc.mac_check`). Let the MAC of bit k be off by ``E_k``, which depends on keys, and on honest parties' bits, and
is fixed before the coin. If some ``E_k`` is not zero, the map of all ``E_k`` is zero for less than ``m / 2^128`` of all
coins, m the number of blocks of 128 bits. Otherwise one of the 128 opened bits has a wrong MAC, and the guard's bound
holds: 2^-44.9. Nobody can mend it with what it adds afterwards, since what it must add is ``E alpha_j ^ d alpha`` for
keys that are uniform to it (but for what an honest party's bits decide, which is a leak: :mod:`mpc.ot.bit_ands`).
What is opened tells nothing, for every party's summand of the pad is uniform; with a sharing of zero added, honest
parties' summands are seen in sum alone.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.authenticated import Authenticated
from mpc.opening import open_flat
from mpc.ot._native import loops
from mpc.ot.meeting import meet_again
from mpc.tasks import side_by_side
from mpc.words import W64, WORD_BITS, pack_bits, unpack_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mpc.field import FieldArray
    from mpc.ot.ends import ChooserEnd, OffererEnd
    from mpc.ot.pairs import Pairs
    from mpc.party import Party
    from mpc.prg import Prg

    Bytes = NDArray[np.uint8]
    Macs = NDArray[np.uint64]

PAD = 128  # bits that pad what a check opens
# Bits that one message of choices may be for.
MOST_BITS = 1 << 20
_ONE = np.array([1], np.uint64)


class Bits(NamedTuple):
    """Our summands of shared bits, and of their MACs.

    Attributes
    ----------
    values : numpy.ndarray
        uint8, zeros and ones.
    macs : numpy.ndarray
        uint64, of the same shape.
    """

    values: Bytes
    macs: Macs

    def __xor__(self, other: Bits) -> Bits:
        return Bits(self.values ^ other.values, self.macs ^ other.macs)

    def where(self, chosen: Bytes) -> Bits:
        """Multiply by public bits."""
        return Bits(self.values & chosen, self.macs & spread(chosen))

    def at(self, index: slice | Macs | NDArray[np.intp]) -> Bits:
        """Return some of them."""
        return Bits(self.values[index], self.macs[index])

    def reshape(self, shape: tuple[int, ...]) -> Bits:
        """Return them in another shape."""
        return Bits(self.values.reshape(shape), self.macs.reshape(shape))

    @classmethod
    def of_words(cls, field: Authenticated, words: FieldArray) -> Bits:
        """Unpack a flat array of words."""
        values, macs = field.parts(words)
        if macs is None:
            raise TypeError("words without MACs")
        return cls(unpack_bits(values, values.size * WORD_BITS), macs.reshape(-1).astype(np.uint64, copy=False))

    def words(self, field: Authenticated) -> FieldArray:
        """Pack the last axis into words, 64 bits each, the last ones filled up with zeros."""
        *front, count = self.values.shape
        words = -(-count // WORD_BITS)
        macs = np.zeros((*front, words * WORD_BITS), np.uint64)
        macs[..., :count] = self.macs
        return field.joined(pack_bits(self.values), macs.reshape(*front, words, WORD_BITS))

    def __repr__(self) -> str:
        return f"Bits(shape={self.values.shape})"


class Own(NamedTuple):
    """Bits that each party has brought, and the transfers that prove them.

    Attributes
    ----------
    bits : numpy.ndarray
        Ours: uint8, flat.
    ours : dict
        For each holder our summands M: uint64, flat.
    theirs : dict
        For each other prover our keys K of its bits.
    """

    bits: Bytes
    ours: dict[int, Macs]
    theirs: dict[int, Macs]

    def shared(self, key: Macs) -> Bits:
        """Return our summands of the sum of all parties' bits."""
        macs = self._proven(key)
        for keys in self.theirs.values():
            macs ^= keys
        return Bits(self.bits, macs)

    def of(self, owner: int, key: Macs) -> Bits:
        """Return our summands of one party's bits, which holds all of them."""
        if owner in self.theirs:
            return Bits(np.zeros_like(self.bits), self.theirs[owner].copy())
        return Bits(self.bits, self._proven(key))

    def first(self, count: int) -> Own:
        """Return the first bits."""
        return Own(
            self.bits[:count],
            {other: macs[:count] for other, macs in self.ours.items()},
            {other: keys[:count] for other, keys in self.theirs.items()},
        )

    def _proven(self, key: Macs) -> Macs:
        macs = spread(self.bits) & key
        for summands in self.ours.values():
            macs ^= summands
        return macs

    def __repr__(self) -> str:
        return f"Own(size={self.bits.size})"


def packed_field(scope: Party) -> Authenticated:
    """Return what packed bits with MACs are made of, where parties may cheat."""
    field = scope.over(W64)
    if not isinstance(field, Authenticated):
        raise TypeError("bits have MACs where parties may cheat")
    return field


class BitMacs:
    """Our ends with each other party, in which the low word of Delta is a summand of the key of W64.

    Attributes
    ----------
    field : Authenticated
        Packed words with MACs under our summand of the key.
    key : numpy.ndarray
        That summand: one word, shape ``(1,)``. Never shown.
    """

    def __init__(
        self, field: Authenticated, key: Macs, provers: Sequence[ChooserEnd], holders: Sequence[OffererEnd]
    ) -> None:
        self.field = field
        self.key = key
        self._provers = {end.other: end for end in provers}
        self._holders = {end.other: end for end in holders}

    @classmethod
    async def set_up(cls, scope: Party, pairs: Pairs) -> BitMacs:
        """Make our ends with each other party, from transfers whose extensions are checked.

        Parameters
        ----------
        scope : Party
            A scope of this set-up's own.
        pairs : Pairs
            Of a malicious meeting.

        Raises
        ------
        PeerError
            A party sent what is no message of this set-up.

        Notes
        -----
        Cost for each pair: that of :func:`mpc.ot.meeting.meet_again`.
        """
        field = packed_field(scope)
        key = field.public_mac(_ONE)[0, :1]
        async with side_by_side() as group:  # the high words, which no MAC shows, differ
            deltas = {other: np.concatenate([_bits_of(key), random_bits(WORD_BITS)]) for other in scope.others}
            tasks = [group.create_task(meet_again(scope, pairs, other, delta)) for other, delta in deltas.items()]
        ends = [task.result() for task in tasks]
        return cls(field, key, [prover for prover, _ in ends], [holder for _, holder in ends])

    async def bring(self, scope: Party, bits: Bytes) -> Own:
        """Give bits MACs, each party its own; all parties bring as many.

        Parameters
        ----------
        scope : Party
        bits : numpy.ndarray
            uint8, flat, at most 2^20 zeros and ones. Secret.

        Notes
        -----
        Cost: 1 message, ``8 + size / 8`` bytes and the extension's 4 a bit to each other party.
        """
        if bits.size > MOST_BITS:
            raise ValueError(f"at most {MOST_BITS} bits are brought at a time, not {bits.size}")
        step = scope.next_step("bits")
        async with side_by_side() as group:
            ours = {o: group.create_task(end.choose(scope, step, bits)) for o, end in self._provers.items()}
            theirs = {o: group.create_task(end.offer(scope, step, bits.size)) for o, end in self._holders.items()}
        return Own(
            bits,
            {other: task.result()[1][:, 0] for other, task in ours.items()},
            {other: task.result()[1][0, :, 0] for other, task in theirs.items()},
        )

    def __repr__(self) -> str:
        return f"BitMacs(others={sorted(self._provers)})"


def join_bits(parts: Sequence[Bits]) -> Bits:
    """Lay flat arrays end to end."""
    return Bits(np.concatenate([part.values for part in parts]), np.concatenate([part.macs for part in parts]))


def spread(bits: Bytes) -> Macs:
    """Return a word of ones for each 1."""
    return np.negative(bits.astype(np.int64)).view(np.uint64)


def random_bits(count: int) -> Bytes:
    """Draw bits of our own."""
    return unpack_bits(np.frombuffer(secrets.token_bytes(-(-count // WORD_BITS) * 8), "<u8"), count)


def _bits_of(words: Macs) -> Bytes:
    return unpack_bits(words, words.size * WORD_BITS)


def combined(checked: Sequence[Bits], pad: Bits, coin: Prg) -> tuple[FieldArray, Macs]:
    """Return our summands of ``R v ^ pad``, two words, and of their MACs, shape ``(2, 64)``; see the module.

    Parameters
    ----------
    checked : sequence of Bits
        Flat.
    pad : Bits
        128 bits, used for nothing else.
    coin : Prg
        Tossed after all that the MACs depend on was received.
    """
    sizes = [bits.values.size for bits in checked]
    total = -(-(sum(sizes) + PAD) // PAD) * PAD
    entries = np.zeros((total, 2), np.uint64)  # filled up with zeros in front: the pad is the last block
    start = total - sum(sizes) - PAD
    for bits in (*checked, pad):
        stop = start + bits.values.size
        entries[start:stop, 0] = bits.macs
        entries[start:stop, 1] = bits.values
        start = stop
    point = coin.stream("map").elements(W64, (1, 2)).astype(np.uint64, copy=False)
    # What the map makes of each bit of the MACs, then of the values.
    image = loops().combine(entries.reshape(-1, WORD_BITS, 2), point)[0]
    columns = np.unpackbits(image[:WORD_BITS].astype("<u8").view(np.uint8), axis=1, bitorder="little")
    macs = np.packbits(np.ascontiguousarray(columns.T), axis=1, bitorder="little").view("<u8").reshape(2, WORD_BITS)
    return image[WORD_BITS].astype("<u8"), macs.astype(np.uint64, copy=False)


async def open_bits(
    scope: Party, field: Authenticated, name: str, *parts: tuple[FieldArray, FieldArray | None]
) -> FieldArray:
    """Open words, each part a flat array and its MACs, with a sharing of zero; noted for the next check."""
    values = np.concatenate([values for values, _ in parts])
    macs = np.concatenate([macs for _, macs in parts if macs is not None])
    return await open_flat(scope, name, field, values ^ scope.zero_share(W64, values.shape), macs)
