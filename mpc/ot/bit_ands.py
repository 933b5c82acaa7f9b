"""Products of shared bits with MACs, by transfers: random x, y and ``z = x y`` that nobody knows.

**Leaky products** (after Wang, Ranellucci, Katz, "Global-Scale Secure Multiparty Computation", CCS 2017, section 4.2).
All parties bring bits of y (:mod:`mpc.ot.bit_macs`); m_i are their summands of ``alpha y``. Then for each ordered pair
party j chooses by its bit ``x_j`` among the two keys of a transfer, and party i tells the row ``(alpha_i, m_i, y_i)``,
129 bits, under the difference of their pads: both have summands of ``x_j (alpha_i, m_i, y_i)`` (:mod:`mpc.ot.pads`).
Added up over all pairs, with what each party knows alone, that is ``(alpha x, alpha x y, x y)``: the MAC of x, the
product, and its MAC. (The original makes MACs of z and of x by transfers whose Delta is the key of MACs. A check that
fails may tell that key, and then pads under it would hide no row any more.)

*What a cheater can do.* As the offerer of a row it means ``(alpha_i ^ G, m_i ^ F, y_i ^ f)``, whatever it sends: the
chooser's summands are off by ``x_j (G, F, f)``. As a chooser it may take other bits towards two honest parties: then
the MAC of x is off by ``e alpha_i``, i one of the two. It lacks the other pad, so y stays hidden. All x, y and z are
checked, with a map and a coin that it does not know before (:func:`mpc.ot.bit_macs.combined`).

Of one product in which x_j meets an error, what does not fit is ``x_j (G, F - f alpha)``, which is not zero but if
``G = 0, f = 1`` and it has guessed that ``alpha = F``. So the check passes if ``x_j = 0``, or if it has guessed that
``x_j = 1`` and adds what is missing to its own summands, afterwards; with which z and all MACs are right. Of a such
products it must have guessed all x_j: the errors of any two vectors of bits have different images under the map but
with a probability below ``2^a m / 2^128``. With errors for several honest j the same holds for a sum of theirs, which
is 0 or 1 with 1/2 each.

So after the check all z are right, up to the bound of the guard, and the cheater may know x of some: of a products, if
it was lucky with probability at most ``2^-a``, else the run has ended.

**Buckets** (Nielsen, Nordholt, Orlandi, Burra, CRYPTO 2012). The coin that the check takes, tossed after all rows,
also deals N B leaky products into N buckets at random. From a bucket comes one: ``x = sum x_b``, ``y = y_1`` and
``z = sum z_b ^ d_b x_b``, where ``d_b = y_1 ^ y_b`` is opened. Somebody who knows some, but not all, x_b of a bucket
knows nothing of x. Of all choices of a attacked products, the chance not to be caught and to have a whole bucket is at
most ``2^-a N C(a, B) / C(N B, B)``, which is largest for ``a = 2 B - 1``: :func:`risk`. Batches follow one another,
each after the last one's check. Who has attacked B products or more and was not caught can try again, so that all
batches of a run together are at risk by at most ``1 / (1 - 2^-3)`` times that of the worst one. :func:`bucket_size`
keeps this below 2^-40: B = 4 from N = 2^12 on, 5 from 512, 6 from 128 (and 3 from 2^18.2, which nobody makes at once).

**What it costs.** ``B (4.1 + 4.1 + 16.1)`` bytes from each party to each other for each product, 97 bytes for B = 4; a
batch takes 10 rounds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.coins import toss
from mpc.errors import PeerError
from mpc.ot.bit_macs import PAD, Bits, combined, open_bits, random_bits, spread
from mpc.tasks import side_by_side
from mpc.transport import CHUNK_BYTES
from mpc.words import W64, WORD_BITS, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.ot.bit_macs import BitMacs, Bytes, Macs
    from mpc.ot.hashing import Hash
    from mpc.ot.pairs import Pairs
    from mpc.party import Party
    from mpc.prg import Prg

SECURITY_BITS = 40
_LEAST_BUCKET, _MOST_BUCKET = 3, 12
# Rows of two words and a bit that fit a message.
_ROWS = 8 * CHUNK_BYTES // 129 // WORD_BITS * WORD_BITS


class Products(NamedTuple):
    """Our summands of x, y and x y, bit by bit."""

    x: Bits
    y: Bits
    z: Bits


def risk(count: int, size: int) -> float:
    """Return the binary logarithm of the chance that a cheater gets a whole bucket; see the module.

    Parameters
    ----------
    count : int
        Buckets of a batch.
    size : int
        Leaky products in a bucket.
    """
    attacked = min(2 * size - 1, count * size)
    chance = math.log2(count) + math.log2(math.comb(attacked, size)) - math.log2(math.comb(count * size, size))
    return chance - attacked - math.log2(1 - 2.0**-_LEAST_BUCKET)


def bucket_size(count: int) -> int:
    """Return how many leaky products make one, in batches of so many or more."""
    for size in range(_LEAST_BUCKET, _MOST_BUCKET + 1):
        if risk(count, size) <= -SECURITY_BITS:
            return size
    raise ValueError(f"buckets of {_MOST_BUCKET} are too small for batches of {count} products")


async def make_products(scope: Party, pairs: Pairs, macs: BitMacs, count: int) -> Products:
    """Make products of random bits, checked.

    Parameters
    ----------
    scope : Party
        A scope of this batch's own.
    pairs : Pairs
        Of a malicious meeting.
    macs : BitMacs
    count : int
        A multiple of 64; the more at a time, the cheaper.

    Raises
    ------
    CheatingError, PeerError
        Some party cheats, or is gone.

    Notes
    -----
    See the module. Statistical error ``2^risk`` for all batches of a run together, and that of the guard.
    """
    size = bucket_size(count)
    total = size * count
    # 1. Bits of y and a pad, every party its own.
    own = (await macs.bring(scope, random_bits(total + PAD))).shared(macs.key)
    y, pad = own.at(slice(total)), own.at(slice(total, None))
    # 2. Bits of x, and leaky products; then nobody can change its rows any more, and the coin is tossed.
    x, z = await _leaky(scope.at("rows"), pairs, macs.key, random_bits(total), y)
    coin = await toss(scope.at("coin"))
    # 3. Open what checks them, and the differences of y in each bucket.
    order = permuted(total, coin).reshape(size, count)
    x_b, y_b, z_b = x.at(order), y.at(order), z.at(order)
    image, image_macs = combined([x, y, z], pad, coin)
    unlike = Bits(y_b.values[1:] ^ y_b.values[0], y_b.macs[1:] ^ y_b.macs[0]).words(macs.field)
    opened = await open_bits(scope, macs.field, "buckets", (image, image_macs), macs.field.parts(unlike.reshape(-1)))
    await scope.verify()
    # 4. One product of each bucket.
    d = unpack_bits(opened[2:].reshape(size - 1, -1), count)
    return Products(_sum(x_b), Bits(y_b.values[0], y_b.macs[0]), _sum(z_b) ^ _sum(x_b.at(slice(1, None)).where(d)))


def _sum(bits: Bits) -> Bits:
    return Bits(np.bitwise_xor.reduce(bits.values, axis=0), np.bitwise_xor.reduce(bits.macs, axis=0))


def permuted(count: int, coin: Prg) -> NDArray[np.intp]:
    """Return a permutation that follows from a coin: uniform up to ``count^2 2^-128``."""
    first, second = coin.stream("buckets").elements(W64, (2, count))
    order = np.argsort(first)
    if (np.diff(first[order]) == 0).any():  # two words alike: the second ones decide
        order = np.lexsort((second, first))
    return order


# ---- leaky products -------------------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """Rows of elements, or summands of them: ``(alpha x, alpha x y, x y)``, two words and a bit."""

    macs: Macs  # shape (2, count)
    bits: Bytes

    def where(self, chosen: Bytes) -> _Rows:
        return _Rows(self.macs & spread(chosen), self.bits & chosen)

    def __xor__(self, other: _Rows) -> _Rows:
        return _Rows(self.macs ^ other.macs, self.bits ^ other.bits)


async def _leaky(scope: Party, pairs: Pairs, key: Macs, x: Bytes, y: Bits) -> tuple[Bits, Bits]:
    """Return our summands of x, of which we have brought ours, and of products; their MACs have not been checked."""
    rows = _Rows(np.stack([np.broadcast_to(key, y.macs.shape), y.macs]), y.values)
    async with side_by_side() as group:
        tasks = [group.create_task(_choose(scope, pairs, other, x)) for other in scope.others]
        tasks += [group.create_task(_offer(scope, pairs, other, rows)) for other in scope.others]
    total = rows.where(x)
    for task in tasks:
        total = total ^ task.result()
    return Bits(x, total.macs[0]), Bits(total.bits, total.macs[1])


async def _offer(scope: Party, pairs: Pairs, other: int, rows: _Rows) -> _Rows:
    """Let another party choose our rows by its bits; return our summands."""
    _, end = pairs.ends(other)
    count = rows.bits.size
    first, both = await end.offer(scope, f"{scope.path}/choices", count)
    pads, others = (_pads(end.hashed, keys, first) for keys in both)
    told = pads ^ others ^ rows
    cost = scope.cost_of("transfers")
    for number, start in enumerate(range(0, count, _ROWS)):
        part = slice(start, min(start + _ROWS, count))
        message = told.macs[:, part].astype("<u8").tobytes() + np.packbits(told.bits[part], bitorder="little").tobytes()
        await scope.send(other, f"{scope.path}/rows.{number}", message, cost)
    return pads


async def _choose(scope: Party, pairs: Pairs, other: int, x: Bytes) -> _Rows:
    """Choose another party's rows by our bits; return our summands."""
    end, _ = pairs.ends(other)
    first, keys = await end.choose(scope, f"{scope.path}/choices", x)
    pads = _pads(end.hashed, keys, first)
    told = _Rows(np.empty((2, x.size), np.uint64), np.empty(x.size, np.uint8))
    for number, start in enumerate(range(0, x.size, _ROWS)):
        part = slice(start, min(start + _ROWS, x.size))
        size, step = part.stop - part.start, f"{scope.path}/rows.{number}"
        data = await scope.transport.receive(other, step, 16 * size + -(-size // 8))
        bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=16 * size), bitorder="little")
        if bits[size:].any():
            raise PeerError(f"party {other} sent more bits than are due at step {step!r}", rank=other, step=step)
        told.macs[:, part] = np.frombuffer(data, "<u8", 2 * size).reshape(2, size)
        told.bits[part] = bits[:size]
    return pads ^ told.where(x)


def _pads(hashed: Hash, keys: Macs, first: int) -> _Rows:
    """Make a row of pads of each key, shape ``(count, 2)``; once."""
    blocks = hashed(keys, first, 2)
    return _Rows(blocks[:, 0].T.copy(), (blocks[:, 1, 0] & np.uint64(1)).astype(np.uint8))
