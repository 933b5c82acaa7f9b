"""Bits in two worlds: elements of a field with MACs, and packed bits with MACs, that are the same.

The elements are sums of bits that parties have brought and proven to be bits (:mod:`mpc.ot.macs`); the packed bits were
brought apart from them (:mod:`mpc.ot.bit_macs`). That each packed bit is the lowest bit of its element is tested after
both are fixed (after Aly, Orsini, Rotaru, Smart, Wood, "Zaphod", WAHC 2019, section 4, and Escudero, Ghosh, Keller,
Rachuri, Scholl, CRYPTO 2020, who open such sums, too). For each of ``TESTS`` tests every party brings a number R as
bits, with its lowest bit as a packed bit. A coin chooses entries, and the parties open the sum of their elements and
all R, and the parity of the packed bits and the lowest bits of all R. The sum is far below p, so its parity is that of
its lowest bits.

**Soundness.** An entry that is not the same in both adds 1 to the parity if it is chosen, with probability 1/2,
whatever the numbers R are and however many other entries differ. All tests are passed with ``2^-TESTS``; what was
opened is held by MACs. An entry is tested as a whole: of what two cheaters have brought for one, both may differ. Where
each party's bits matter, they are entries of their own.

**Who learns what.** Each honest party's R is ``HIDING`` bits longer than the sum of its own bits can be, so the sum of
those in all ``TESTS`` is hidden up to ``TESTS 2^-HIDING`` < 2^-40, each time. Its lowest bit is uniform, so the parity
is.

**What it costs.** ``TESTS (HIDING + log2 N + 1)`` proven bits from each party, for N entries: some 2,500 elements. It
pays for many entries at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.coins import toss
from mpc.errors import CheatingError
from mpc.opening import open_flat
from mpc.ot.bit_macs import PAD, Bits, Own, combined, open_bits, random_bits, spread
from mpc.words import W64, WORD_BITS, bit_planes, unpack_bits

if TYPE_CHECKING:
    from mpc.authenticated import Authenticated
    from mpc.field import FieldArray
    from mpc.ot.bit_macs import BitMacs, Bytes
    from mpc.ot.macs import Macs
    from mpc.party import Party
    from mpc.prg import Prg

TESTS = 41
HIDING = 46
# Entries whose weights are made at a time.
_AT_ONCE = 1 << 12


class Numbers(NamedTuple):
    """What hides the sums of one round of tests: brought before the coin is tossed.

    Attributes
    ----------
    values : FieldArray
        Our summands of all parties' numbers, with MACs, shape ``(TESTS,)``.
    lowest : Bits
        Of the parities of these.
    """

    values: FieldArray
    lowest: Bits

    def __repr__(self) -> str:
        return "Numbers()"


async def bring(
    scope: Party, field: Authenticated, macs: Macs, bit_macs: BitMacs, ours: Bytes, entries: int
) -> tuple[Own, Numbers]:
    """Bring packed bits of our own, and what is needed to test them and others against elements.

    Parameters
    ----------
    scope : Party
        A scope of this round's own.
    field : Authenticated
        That of the elements.
    macs, bit_macs
        What gives MACs in both worlds.
    ours : numpy.ndarray
        uint8, flat: packed bits that we bring; all parties bring as many.
    entries : int
        How many elements are to be tested, at most.

    Raises
    ------
    CheatingError, PeerError
    """
    public = field.public
    length = HIDING + max(1, entries).bit_length()
    drawn = random_bits(length * TESTS).reshape(length, TESTS)
    own = await bit_macs.bring(scope, np.concatenate([ours, drawn[0], random_bits(PAD)]))
    elements, _ = await macs.authenticate(
        scope.at("numbers"), field, public.encode(drawn.reshape(-1).astype(np.int64)), bits=True
    )
    weights = public.encode([1 << h for h in range(length)])
    values = field.matmul(weights, elements.reshape(length, TESTS))
    # The same bits towards all: that is checked here, once and for all.
    shared = own.shared(bit_macs.key)
    size = ours.size
    coin = await toss(scope.at("coin"))
    image = combined([shared.at(slice(size + TESTS))], shared.at(slice(size + TESTS, None)), coin)
    await open_bits(scope, bit_macs.field, "image", image)
    return own.first(size), Numbers(values, shared.at(slice(size, size + TESTS)))


async def tie(
    scope: Party, field: Authenticated, bit_macs: BitMacs, elements: FieldArray, bits: Bits, numbers: Numbers
) -> None:
    """Test that packed bits are the lowest bits of elements.

    Parameters
    ----------
    scope : Party
        A scope of this test's own.
    field : Authenticated
    bit_macs : BitMacs
    elements : FieldArray
        Our summands with MACs, flat: sums of at most one proven bit of each party.
    bits : Bits
        Flat, as many.
    numbers : Numbers
        Of :func:`bring`, for no more entries than that was told; used for nothing else.

    Raises
    ------
    CheatingError
        Some bit is not the same. What was opened is noted, and has yet to be checked.
    """
    public, base = field.public, bit_macs.field
    coin = await toss(scope.at("coin"))
    total, parity = numbers.values, numbers.lowest
    for start in range(0, elements.size, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, elements.size))
        chosen = _chosen(coin, start, part.stop - start)
        total = field.add(total, field.matmul(public.encode(chosen.astype(np.int64)), elements[part]))
        parity = parity ^ _parity(bits.at(part), chosen)
    values, tags = field.parts(total)
    values = public.add(values, scope.zero_share(public, values.shape))
    sums = await open_flat(scope, "sums", field, values, tags)
    opened = await open_bits(scope, base, "parities", base.parts(parity.words(base)))
    if (bit_planes(public, sums, 1)[0] != opened).any():
        guard = scope.guard
        if guard is not None:
            guard.stop()
        raise CheatingError("the test of bits failed: some party brought other packed bits than elements")


def _chosen(coin: Prg, start: int, count: int) -> Bytes:
    """Return which entries each test takes, shape ``(TESTS, count)``."""
    raw = coin.stream(f"tests from {start}").elements(W64, (TESTS, -(-count // WORD_BITS)))
    return unpack_bits(raw, count)


def _parity(bits: Bits, chosen: Bytes) -> Bits:
    """Return the sum of those bits that each test takes."""
    macs = np.empty(len(chosen), np.uint64)
    for test, row in enumerate(chosen):
        macs[test] = np.bitwise_xor.reduce(bits.macs & spread(row))
    return Bits(np.bitwise_xor.reduce(bits.values & chosen, axis=1), macs)
