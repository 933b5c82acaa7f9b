"""Comparison on shares: open under a mask, then a circuit of packed bits.

With ``z`` masked as ``c = z - r``, the sign of ``z = c + r`` is a carry bit of an addition whose addends
are shared bit by bit; see :mod:`mpc.bits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.bits import bits_to_field, carry_out, half_sum, inverted, open_addends, words_share
from mpc.share import Share

if TYPE_CHECKING:
    from mpc.party import Party
    from mpc.share import Public

__all__ = ["bits_to_field", "is_negative", "less_than", "negative_and_masked"]


async def less_than(party: Party, x: Share | Public, y: Share | Public) -> Share:
    """Compare two arrays entry by entry, at least one of them shared.

    Parameters
    ----------
    party : Party
    x, y : Share, number or array
        Shapes that broadcast together.

    Returns
    -------
    Share
        1 where ``x < y``, else 0; integers (scale 0).

    Raises
    ------
    RangeError
        Before anything is sent: the difference leaves no room for its mask.

    Notes
    -----
    Exact. Opens the difference under a mask 40 bits longer (statistical, 2^-40 an entry) and bits under
    uniform masks. Semi-honest. With k the bits of the bound on the difference and the preprocessing
    ``dealer``: ``2 + ceil(log2(k))`` rounds, 1 field element and about ``3 k`` bits opened an entry.
    With ``prss`` and t possible colluders ``2 t`` rounds more: two for three or four parties.
    """
    difference = x - y
    if not isinstance(difference, Share):
        raise TypeError("less_than compares shares, or a share with public numbers")
    return await is_negative(party, difference)


async def is_negative(party: Party, z: Share) -> Share:
    """Return 1 where a shared value is below zero, else 0; see :func:`less_than`."""
    negative, _ = await negative_and_masked(party, z)
    return negative


async def negative_and_masked(party: Party, z: Share) -> tuple[Share, Share]:
    """Return :func:`is_negative`, and the value itself as a masked one.

    The comparison opens z under a mask in any case; a product of the second share opens nothing more of z
    (Turbospeedz, ACNS 2019).
    """
    scope = party.at("compare")
    field, shape, count = z.field, z.shape, z.size
    if not count:
        return Share(field, field.zeros(shape), 0, 1, leads=party.rank == 0), z

    # 1. Open c = z - r. Bit k of z + 2^k = (c + 2^k) + r tells z >= 0.
    bits = z.magnitude.bit_length()
    addends = await open_addends(scope, z.reshape(-1), bits + 1, 1 << bits, "comparison")

    # 2. The sum's bit k is the sum of the bits k, and the carry out of the k bits below.
    propagate, generate = await half_sum(scope, addends)
    carry = await carry_out(scope, propagate[:bits], generate)
    top = words_share(scope, propagate[bits].values) + carry

    # 3. Bring z < 0, the complement, into the field.
    negative = await bits_to_field(scope, inverted(scope, top, count), field, count)
    masked = Share(field, None, z.scale, z.magnitude, leads=party.rank == 0, masked=addends.masked)
    return negative.reshape(shape), masked.reshape(shape)
