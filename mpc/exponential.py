"""Exponentials of secrets: split the binary logarithm into whole part and fraction."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING

import numpy as np

from mpc.arithmetic import mask, multiply, products, truncate
from mpc.bits import Addends, inverted, open_addends, planes_to_field, sum_planes, take_signs, words_share
from mpc.errors import RangeError
from mpc.normalise import ceil_log2, guard_bits, masked_at, rescaled, room, weighted
from mpc.series import POWER_SCALE, evaluate, power_series
from mpc.share import Share, stack
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.field import FieldArray
    from mpc.party import Party

# Rounding the argument, multiplying by log2(e) and rounding the result each may add 2^-32 to the relative error.
_ARGUMENT_BITS, _ROUNDING_BITS = 32, 32
_MANTISSA_SCALE, _LEAST_MANTISSA_SCALE = 38, 36
# The whole part is found from a sum whose addends are cut to so many bits of fraction.
_COARSE_BITS = 10
_COARSE_ERROR = Decimal("0.00390625")  # up to four addends, each cut by up to 2^-10
_DECIMAL = Context(prec=50, rounding=ROUND_HALF_EVEN)


async def exp(party: Party, x: Share, *, lower: float, upper: float | None = None, scale: int | None = None) -> Share:
    """Compute ``exp(x)`` entry by entry.

    Parameters
    ----------
    party : Party
    x : Share
        Any shape and scale.
    lower, upper : float
        Public: ``x <= upper``, and above ``lower`` the result is to be right; ``upper`` is the share's public bound
        by default. ``exp(upper - lower)`` may be 2^40. Below ``lower`` the result is right or 0, to rounding;
        from the next power of two above ``exp(upper)`` on it is 0, to rounding.
    scale : int, optional
        Fraction bits of the result. By default as many as the relative error needs at ``lower``.

    Returns
    -------
    Share
        Bounded by ``4.2 exp(upper)``; masked, unless more fraction bits are asked for than there are.

    Raises
    ------
    RangeError
        Before anything is sent: value, range and scale leave no room in the field.

    Notes
    -----
    Error: relative, at most 2^-30; plus one truncation to ``scale``, which the default keeps below 2^-32 of the
    result. With ``y = x log2(e)`` opened under a mask, the bits of its whole part come from an addition of few
    bits: whether it is one too small near whole numbers does not matter, because the fraction ``f = y - whole`` is
    exact, between 0 and 1.01, and ``2^f`` a polynomial of degree 8. The whole part selects powers of two, or 0.
    Opens masked values alone (masks 40 bits longer: statistical, 2^-40 an entry and opening). Semi-honest.
    Cost with a dealer: ``ceil(log2(w + 9)) + ceil(log2(w - 1)) + 10`` rounds (two of them beside others), where w is
    the number of bits of the whole part, sign included; 14 elements an entry, besides a few dozen bits. Where the
    argument has more fraction bits than there is room for, 1 round and 1 element more; with ``prss`` and t possible
    colluders ``2 t`` rounds more.
    """
    if not x.size:
        return Share(x.field, x.field.zeros(x.shape), 32 if scale is None else scale, 0, leads=x.leads)
    upper = x.bound if upper is None else upper
    if not lower <= upper:
        raise ValueError("exp: lower is at most upper")

    # 0. What is public: the window of whole parts [bottom, bottom + 2 pairs), and how finely all is kept.
    top = math.floor(_times_log2e(upper)) + 1  # a whole part may come out one too small, never too large
    pairs = max(1, -(-(top - math.floor(_DECIMAL.subtract(_times_log2e(lower), _COARSE_ERROR))) // 2))
    bottom = top - 2 * pairs
    fine = min(_MANTISSA_SCALE, room(party, x.field) - 2 * pairs - 1)
    if fine < _LEAST_MANTISSA_SCALE:
        raise RangeError(
            f"exp: a range of 2^{2 * pairs} is too much for a relative error of 2^-30 in {x.field}: narrow the range"
        )
    factor_bits = _ARGUMENT_BITS + max(1, ceil_log2(max(abs(lower), abs(upper), 1.0)))
    reach = 2 * (1.4427 * x.bound + abs(bottom) + 1)  # twice a bound on y, see _whole_part
    most = room(party, x.field) - factor_bits - ceil_log2(reach)
    if min(x.scale, most) < min(x.scale, _ARGUMENT_BITS + guard_bits(party)):
        raise RangeError(
            f"exp: an argument bounded by {x.bound:.3g} with {x.scale} fraction bits leaves no room for a mask in "
            f"{x.field}: declare a tighter bound"
        )

    # 1. y = x log2(e) - bottom, and its whole part.
    flat = x.reshape(-1)
    if x.scale > most:
        flat = await truncate(party.at("argument"), flat, most)
    log2e = int(_DECIMAL.divide(Decimal(1 << factor_bits), _DECIMAL.ln(Decimal(2))).to_integral_value(ROUND_HALF_EVEN))
    y = rescaled(flat * log2e, flat.scale + factor_bits) - bottom
    whole, low, pair = await _whole_part(party.at("whole"), y, pairs)

    # 2. 2^fraction, and the power of two beside it.
    t = rescaled((y - whole) * 2 - 1, y.scale).bounded_by(1.02)
    async with side_by_side() as group:
        power = group.create_task(_power(party.at("power"), low, pair, pairs))
        fraction = group.create_task(_fraction(party.at("fraction"), t, fine))
    product = await multiply(party, fraction.result(), power.result())  # both are masked: nothing is sent
    product = rescaled(product, fine - bottom)
    wanted = max(0, min(product.scale, _ROUNDING_BITS + guard_bits(party) - math.floor(_times_log2e(lower))))
    return (await truncate(party, product, wanted if scale is None else scale)).reshape(x.shape)


def _times_log2e(value: float) -> Decimal:
    return _DECIMAL.divide(Decimal(value), _DECIMAL.ln(Decimal(2)))


async def _fraction(party: Party, t: Share, to: int) -> Share:
    return await evaluate(party, await masked_at(party, t, POWER_SCALE), power_series(), to=to)


async def _power(party: Party, low: Share, pair: Share, pairs: int) -> Share:
    """Return ``2^whole``, masked: at most ``2^(2 pairs - 1)``."""
    high = weighted(pair, [4**k for k in range(pairs)])
    both = await mask(party, stack([high, low + 1]))
    product = await multiply(party, both[0], both[1])
    return await mask(party, Share(low.field, product.values, 0, 2 * 4 ** (pairs - 1), leads=low.leads))


async def _whole_part(party: Party, y: Share, pairs: int) -> tuple[Share, Share, Share]:
    """Find an integer w with ``0 <= y - w <= 1.01``.

    Returns
    -------
    whole, low, pair : Share
        Scale 0: w; its lowest bit; and, shape (pairs, entries), whether ``w // 2`` is 0, 1, ... (all 0 beyond).
    """
    field, size = y.field, y.size
    drop = max(0, y.scale - _COARSE_BITS)
    # One bit more than y has, and two whole ones: then the sum, made smaller by cutting addends, stays in range.
    spacious = Share(field, y.values, y.scale, max(2 * y.magnitude, 2 << y.scale), leads=y.leads)
    count = spacious.magnitude.bit_length() + 1
    height = count - y.scale  # bits of the whole part, sign included
    async with side_by_side() as group:
        material = group.create_task(take_signs(party.at("signs"), field, (height + pairs) * size))
        addends = await open_addends(party, spacious, count, 0, "exp")
        public = None if addends.public is None else addends.public[drop:]
        coarse = Addends(public, [share[drop:] for share in addends.shared], addends.masked)
        bits = (await sum_planes(party, coarse))[y.scale - drop :]
        chosen = await _one_hot(party, bits[1:], pairs, size)
    planes = words_share(party, np.concatenate([bits.values, chosen.values]))
    found = await planes_to_field(party, planes, size, material.result(), field)
    places = [1 << k for k in range(height - 1)] + [-(1 << height - 1)]
    whole = found[:height].T @ np.array(places, dtype=object)
    return whole, found[0], found[height:]


async def _one_hot(party: Party, bits: Share, count: int, size: int) -> Share:
    """Return planes of which the k-th says that the number with these bits is k, for ``k < count``.

    Cost: ``ceil(log2(len(bits)))`` rounds.
    """
    needed = max(1, (count - 1).bit_length())
    unset = inverted(party, bits, size)
    groups = [
        [(0, unset.values[k]), (1 << k, bits.values[k])] if k < needed else [(0, unset.values[k])]
        for k in range(len(bits))
    ]
    while len(groups) > 1:
        pairs = [(groups[k], groups[k + 1]) for k in range(0, len(groups) - 1, 2)]
        wanted = [[(a, b) for b in high for a in low if a[0] + b[0] < count] for low, high in pairs]
        left = np.stack([a[1] for pair in wanted for a, _ in pair])
        right = np.stack([b[1] for pair in wanted for _, b in pair])
        (done,) = await products(party, "decode", [(words_share(party, left), words_share(party, right), "multiply")])
        planes = iter(done.values)
        groups = [[(a[0] + b[0], next(planes)) for a, b in pair] for pair in wanted] + groups[2 * len(pairs) :]
    by_value: dict[int, FieldArray] = dict(groups[0])
    empty = bits.field.zeros(bits.shape[1:])
    return words_share(party, np.stack([by_value.get(k, empty) for k in range(count)]))
