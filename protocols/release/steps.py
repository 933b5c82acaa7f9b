"""Numbers told in steps: results made of counts, rounded on shares so far that they do not tell the counts.

A statistic of few values, with all its digits, can be solved for the counts that it is made of: then it tells cells
that a table would withhold. Under a minimum cell m it is told in steps of about what m rows make: the more rows there
are, the finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, is_negative, less_than, multiply, stack, truncate
from mpc.normalise import normalise, weighted
from mpc.series import POWER_SCALE
from mpc.share import ceil_scaled
from protocols.release.disclosure import Release

# Buckets of an octave at most: a number is told to one part in 512.
MOST_BUCKETS = 512
_MOST_ROUNDED_BITS = 50


def stated(x: Share, bound: float) -> Share:
    """Return a share with just this bound, be it lower or higher than the one it has.

    What is multiplied by sizes that were opened has a bound that depends on them; a rehearsal, which does not know
    them, is to take masks of the same length (:func:`mpc.prepare`). The caller vouches for the bound.
    """
    return Share(x.field, x.values, x.scale, ceil_scaled(bound, x.scale), leads=x.leads)


def least_cell(release: Release) -> int | None:
    """Return the minimum cell; None without one, where results have all their digits."""
    least = 0 if release.disclosure is None else release.disclosure.minimum_cell
    return least if least > 1 else None


def buckets_of(release: Release, n: int) -> int | None:
    """Return in how many buckets an octave is told, of results of n rows; None: exactly."""
    least = least_cell(release)
    return None if least is None else max(1, min(MOST_BUCKETS, 2 * n // least))


async def at_least(party: Party, x: Share, limits: Sequence[int], *, count: int, bound: int) -> Share:
    """Compare a secret integer with public numbers.

    Parameters
    ----------
    party : Party
        A scope of its own.
    x : Share
        Shape (1,), integers from 0, the scale counts as 0.
    limits : sequence of int
        From 0; what is above ``bound + 1`` counts as ``bound + 1``.
    count : int
        Comparisons to be made: not fewer than limits, so that they need not be known in a rehearsal.
    bound : int
        x is at most this; likewise.

    Returns
    -------
    Share
        Shape (count,): 1 where x is not below the limit, else 0; 0 where there is none.

    Notes
    -----
    Nothing is revealed. Cost: that of a comparison of so many entries.
    """
    over = [min(int(limit), bound + 1) for limit in limits]
    over += [bound + 1] * (count - len(over))
    whole = Share(x.field, x.values, 0, x.magnitude, leads=x.leads).reshape(1).broadcast_to((count,))
    return 1 - await is_negative(party, stated(whole - np.array(over, dtype=object), bound + 1))


async def nearest(party: Party, x: Share, step: int, *, bits: int, most_bits: int) -> Share:
    """Divide a secret integer by a public one and round to the nearest whole number, half up, exactly.

    Parameters
    ----------
    party : Party
        A scope of its own.
    x : Share
        Shape (k,), integers from 0 below ``2^bits``.
    step : int
        From 1.
    bits, most_bits : int
        The same in a rehearsal, which may not know the step: x is below ``2^bits``, the quotient below ``2^most_bits``.

    Notes
    -----
    Nothing is revealed. Cost: one truncation and one comparison of about ``2 pieces + 5`` entries for each number, with
    the pieces of a mask: n with a dealer, C(n, t) with prss.
    """
    if bits > _MOST_ROUNDED_BITS:
        raise ValueError(f"nearest() takes numbers below 2^{_MOST_ROUNDED_BITS}")
    # 1. A guess, by a reciprocal with as many bits as x has: off by one unit, and by what a truncation is off.
    shifted = x + step // 2
    factor = ((1 << bits + 1) + step // 2) // step
    guess = await truncate(party, stated((shifted * factor).scaled_down(bits + 1), 2.0 ** (most_bits + 1)), 0)
    # 2. The rest tells how many multiples of the step still fit.
    off = (party.preprocessing.pieces_of(party.size) + 1) // 2 + 2
    rest = shifted - guess * step
    steps = np.array([[step * k] for k in range(1 - off, off + 1)], dtype=object)
    over = rest.broadcast_to((2 * off, len(x))) - steps
    lacking = await is_negative(party, stated(over, (2 * off + 2) << bits))
    return stated(guess + off - lacking.sum(axis=0), 2.0 ** (most_bits + 1))


class Told(NamedTuple):
    """Numbers in buckets, shared; :meth:`read` makes numbers of what is opened.

    Attributes
    ----------
    parts : Share
        Shape (3, k): whether the number is negative, its octave from 1 (0: none), and its bucket there.
    top : int
        The first octave ends at ``2^top`` units.
    unit : int
        A unit is ``2^-unit``.
    buckets : int
    """

    parts: Share
    top: int
    unit: int
    buckets: int

    def read(self, opened: Any) -> NDArray[np.float64]:
        """Return the middles of the buckets, 0 where there was no octave."""
        negative, octave, bucket = np.asarray(opened, dtype=np.int64)
        mantissa = 0.5 + (bucket + 0.5) / (2 * self.buckets)
        size = np.where(octave > 0, np.ldexp(mantissa, self.top - self.unit - octave + 1), 0.0)
        return np.asarray(np.where(negative == 1, -size, size), dtype=np.float64)


async def in_buckets(party: Party, x: Share, buckets: int, *, low: int, signed: bool = False, most: int = 0) -> Told:
    """Round numbers relative to themselves: to the middle of one of so many buckets of their octave.

    Parameters
    ----------
    party : Party
        A scope of its own.
    x : Share
        Shape (k,).
    buckets : int
        From 1 to 512: a number is off by at most one part in twice as many.
    low : int
        Numbers below ``2^low`` units (of ``2^-x.scale``) in size are told as 0.
    signed : bool
        Whether they may be negative.
    most : int
        Comparisons to be made for each number, where a rehearsal does not know the buckets; else as many as buckets.

    Notes
    -----
    Nothing is revealed. Cost: that of :func:`mpc.normalise.normalise`, and a comparison of ``k buckets`` entries; for
    the sign one more, and 1 round.
    """
    count, top = len(x), x.magnitude.bit_length()
    negative, size = (await is_negative(party.at("sign"), x) if signed else None), x
    if negative is not None:
        size = await multiply(party.at("size"), x, 1 - negative * 2)
        size = stated(size, x.bound)
    brought = await normalise(party.at("octave"), size, low=low, top=top)
    octave = weighted(brought.hit, list(range(1, len(brought.hit) + 1)))
    # t = 4 m - 3 for m in [1/2, 1): bucket j begins at -1 + 2 j / buckets, as integers rounded up.
    one = 1 << POWER_SCALE
    limits = [-one - (-2 * j * one // buckets) for j in range(1, buckets)]
    limits += [one + 1] * (max(most, buckets) - 1 - len(limits))
    if limits:
        t = Share(brought.t.field, brought.t.values, 0, brought.t.magnitude, leads=brought.t.leads)
        spread = t.reshape(1, count).broadcast_to((len(limits), count))
        below = await less_than(party.at("bucket"), spread, np.array(limits, dtype=object)[:, np.newaxis])
        bucket = (len(limits) - below.sum(axis=0)).bounded_by(len(limits))
    else:
        bucket = octave * 0
    sign = octave * 0 if negative is None else negative
    return Told(stack([sign, octave, bucket]), top, x.scale, buckets)
