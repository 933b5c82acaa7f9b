"""Sorting shared rows by a shared key, and what equal keys have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc._copying import join
from mpc.arithmetic import products
from mpc.bits import bits_to_field, inverted, is_zero, open_addends, sum_planes, words_share
from mpc.errors import RangeError
from mpc.orders import Order, order_by_planes
from mpc.share import Share, concatenate
from mpc.shuffling import NO_PERMUTATIONS
from mpc.words import W64, WORD_BITS, pack_bits, unpack_bits

if TYPE_CHECKING:
    from mpc.party import Party

__all__ = ["MOST_ENTRIES", "Order", "argsort", "run_bounds", "sort"]

MOST_ENTRIES = 1 << 26  # 16 times a place stays below 2^31


async def sort(
    party: Party, keys: Share, companions: Sequence[Share] = (), *, bits: int | None = None, descending: bool = False
) -> tuple[Share, list[Share]]:
    """Sort rows by a shared key; rows of equal keys stay in the order in which they were.

    Parameters
    ----------
    party : Party
    keys : Share
        Shape ``(rows,)``; signed numbers of any scale.
    companions : sequence of Share
        Arrays with as many rows, which move with the keys; any scale, field and further axes.
    bits : int, optional
        Promise that no encoded key is negative, or as large as ``2^bits``: saves time. By default the keys
        are within their declared bound, M, and are sorted by ``(2 M).bit_length()`` bits.
    descending : bool
        The largest first; equal keys still stay in order.

    Returns
    -------
    keys : Share
    companions : list of Share

    Raises
    ------
    RangeError
        Before anything is sent: the keys leave no room for a mask 40 bits longer (``F127`` has room for 83
        bits and three parties), or there are more than 2^26 rows.

    Notes
    -----
    Opens the keys under a mask 40 bits longer (statistical, 2^-40 a row), bits and signs under uniform
    masks, and for each digit a uniform permutation that is independent of the keys and of all others: the
    places of rows in an order that nobody knows. Semi-honest; who may collude is up to the preprocessing
    (:func:`mpc.shuffling.shuffle`).
    Rounds and shapes do not depend on data. Cost for k bits: the bits of the keys
    (:func:`mpc.bits.sum_planes`), then up to 256 rows :func:`mpc.orders.places_by_pairs`, a shuffle and an
    opening. Beyond: a shuffle and the signs of all digits at once, then k/2 digits, each with ``2 h - 1``
    rounds of passes, h = C(n, t) for prss and n for a dealer (5 for three parties and either), and two
    openings (2 rounds each above 96 KiB). In the end the columns are shuffled. Bytes sent for an entry and
    digit by all of three parties, prss: 20 in passes, 12 for signs, 64 in openings.
    Measured: 100,000 keys of 32 bits and a companion, three parties, prss, take each party 0.72 s of
    processor time, 203 rounds and 60 MB; after preparing 0.42 s, with a dealer 0.36 s. A bitonic network
    has 153 stages of 60 ms, 16 rounds and 7.0 MB each: 9.2 s, 2,448 rounds and 1.1 GB, and is not stable.
    Sources: Hamada, Ikarashi, Chida, Takahashi, IACR 2014/121, section 5; Chida et al., IACR 2019/695;
    Asharov et al., CCS 2022, section 4. Ours differs in that all digits are shuffled ahead, in one go, and
    the places are carried from one disorder straight to the next; and in packed bits until then.
    """
    party.semi_honest_only("sort", NO_PERMUTATIONS)
    order = await argsort(party, keys, bits=bits, descending=descending)
    first, *others = await order.apply(party, keys, *companions)
    return first, others


async def argsort(party: Party, keys: Share, *, bits: int | None = None, descending: bool = False) -> Order:
    """Find the order that sorts rows by a shared key; see :func:`sort`."""
    party.semi_honest_only("argsort", NO_PERMUTATIONS)
    if keys.ndim != 1:
        raise ValueError(f"keys have one axis, not the shape {keys.shape}")
    count = len(keys)
    if count < 2:
        return Order(count, None, np.arange(count))
    if count > MOST_ENTRIES:
        raise RangeError(f"{count} rows are more than the {MOST_ENTRIES} that can be sorted at once")
    scope = party.at("sort")
    planes = await _planes(scope.at("bits"), keys, bits)
    if descending:
        # The largest complement is the smallest key, and equal ones are still equal.
        planes = inverted(scope, planes, count)
    return await order_by_planes(scope, planes, count)


async def _planes(party: Party, keys: Share, bits: int | None) -> Share:
    """Return the bits of the keys, least first, of numbers that are made non-negative."""
    constant, width = keys.magnitude, max(1, (2 * keys.magnitude).bit_length())
    if bits is not None:
        if bits < 1:
            raise ValueError("keys have at least 1 bit")
        if bits < width:
            constant, width = 0, bits
            keys = Share(keys.field, keys.values, 0, min(keys.magnitude, (1 << bits) - 1), leads=keys.leads)
    return await sum_planes(party, await open_addends(party, keys, width, constant, "sort"))


# ---- runs of equal keys -------------------------------------------------------------------------


async def run_bounds(party: Party, sorted_keys: Share) -> tuple[Share, Share]:
    """Return where the run of equal keys that each entry belongs to begins and ends.

    Parameters
    ----------
    party : Party
    sorted_keys : Share
        Shape ``(rows,)``, ascending or descending.

    Returns
    -------
    first, last : Share
        Shape ``(rows,)``: 0-based index of the first and the last entry of the run; the field of the keys,
        scale 0. The mid-rank of an entry is ``(first + last) / 2 + 1``.

    Raises
    ------
    RangeError
        Before anything is sent: the difference of two keys leaves no room for its mask.

    Notes
    -----
    Nothing is revealed, not even the number of runs. Sorting by the one bit "a run begins here" brings the
    beginnings together; there the lengths of runs are differences of neighbours. Taken back and summed up
    they give the ends. Opens what :func:`mpc.comparison.less_than` and a sort by one bit open. Semi-honest.
    Cost: a comparison, one digit of :func:`sort`, an array put in order, two put back, one product.
    """
    party.semi_honest_only("run_bounds", NO_PERMUTATIONS)
    if sorted_keys.ndim != 1:
        raise ValueError(f"keys have one axis, not the shape {sorted_keys.shape}")
    count, field = len(sorted_keys), sorted_keys.field
    leads = party.rank == 0
    if count < 2:
        zero = Share(field, field.zeros(count), 0, 0, leads=leads)
        return zero, zero
    scope = party.at("runs")

    # 1. A run begins at entry 0, and wherever an entry is not its predecessor.
    inner = await _differ(scope, sorted_keys[1:] - sorted_keys[:-1])
    bits = unpack_bits(inner.values, count - 1)
    begins = words_share(scope, pack_bits(np.concatenate([[np.uint8(leads)], bits])))
    begin_bits = await bits_to_field(scope.at("begins"), begins, field, count)

    # 2. Beginnings to the front. There, w is (index - count) at beginnings and 0 at all others.
    order = await order_by_planes(scope, inverted(scope, begins, count).reshape(1, -1), count)
    (w,) = await order.apply(scope, begin_bits * (np.arange(count) - count))

    # 3. Lengths of runs, and of the runs before, where the beginnings are. One of the others has a length
    #    before it, too: it is multiplied away.
    after = concatenate([w[1:], Share(field, field.zeros(1), 0, 0, leads=leads)])
    length = after - w
    before = concatenate([Share(field, field.zeros(1), 0, 0, leads=leads), length[:-1]])
    length, before = await order.undo(scope, length, before)
    (before,) = await products(scope, "before", [(before, begin_bits, "multiply")])

    # 4. Ends are sums of lengths, beginnings sums of lengths before.
    return _summed(before, count - 1), (_summed(length, count) - 1).bounded_by(count - 1)


async def _differ(party: Party, difference: Share) -> Share:
    """Return words whose bits say where a difference is not zero."""
    count, bits = difference.size, difference.magnitude.bit_length()
    if not bits:
        return words_share(party, W64.zeros(-(-count // WORD_BITS)))
    addends = await open_addends(party, difference, bits, 0, "runs of equal keys")
    return inverted(party, await is_zero(party, addends), count)


def _summed(x: Share, bound: int) -> Share:
    """Return the prefix sums, for which the caller knows a bound."""
    total, reach = x.values, 1
    while reach < len(total):
        total = join([total[:reach], x.field.add(total[reach:], total[:-reach])])
        reach *= 2
    return Share(x.field, total, 0, bound, leads=x.leads)
