"""Reciprocals, quotients, roots, logarithms and exponentials of secrets, in fixed point.

Nothing is divided. A secret is brought into one octave by a secret power of two (:mod:`mpc.normalise`), where
a polynomial of fixed degree does the rest (:mod:`mpc.series`). Errors are relative where results are, so
that they are as good at one end of a range as at the other.

The range is public: ``lower`` and ``upper`` are what the caller knows of the argument. An argument outside is
no danger: which octave it lies in is found exactly, and outside of all octaves the result is 0 (to rounding).
Only ``upper`` and ``lower`` themselves are rounded outwards, to powers of two of the argument's unit.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING

import numpy as np

from mpc.arithmetic import mask, multiply, truncate
from mpc.errors import RangeError
from mpc.exponential import exp
from mpc.normalise import check_room, guard_bits, normalise, rescaled, room, weighted
from mpc.series import evaluate, inverse_root_series, log_series, reciprocal_series, root_series
from mpc.share import Share, ceil_scaled

if TYPE_CHECKING:
    from mpc.field import Field
    from mpc.party import Party

__all__ = ["divide", "exp", "inverse_sqrt", "log", "reciprocal", "sqrt"]

# Relative errors are at most 2^-30; of that, rounding the result takes 2^-32.
PRECISION_BITS = 30
_ROUNDING_BITS = 32
# Fraction bits of a function on its octave: as many as there is room for, at most, and at least.
_MANTISSA_SCALE, _LEAST_MANTISSA_SCALE = 38, 36
_DECIMAL = Context(prec=50, rounding=ROUND_HALF_EVEN)


async def reciprocal(
    party: Party, x: Share, *, lower: float, upper: float | None = None, scale: int | None = None
) -> Share:
    """Compute ``1 / x`` entry by entry.

    Parameters
    ----------
    party : Party
    x : Share
        Any shape and scale.
    lower, upper : float
        Public: ``0 < lower <= x <= upper``; ``upper`` is the share's public bound by default. Their ratio may be
        2^40 (with few parties a little more). Where x is outside, the result is right or 0, to rounding.
    scale : int, optional
        Fraction bits of the result. By default as many as the relative error needs at ``upper``.

    Returns
    -------
    Share
        Bounded by ``2.1 / lower``; masked, unless more fraction bits are asked for than there are.

    Raises
    ------
    RangeError
        Before anything is sent: value, range and scale leave no room in the field.

    Notes
    -----
    Error: relative, at most 2^-30; plus one truncation to ``scale``, which the default keeps below 2^-32 of the
    result. Opens x and what is made of it under masks 40 bits longer (statistical, 2^-40 an entry and
    opening). Semi-honest. Newton's step is not needed: the polynomial of degree 14 on one octave takes
    no more rounds than one of degree 9.
    Cost: :func:`mpc.normalise.normalise`, then 6 rounds and 15 elements an entry: for values of up to 63 bits 17
    rounds with a dealer, and with ``prss`` and t possible colluders ``2 t`` more.
    """
    if not x.size:
        return _empty(x, scale)
    low, top = _range(x, lower, upper, "reciprocal")
    count, fine = _fineness(party, x, low, top, 1, "reciprocal")
    powers = [1 << k for k in range(count)]
    found = await normalise(party, x.reshape(-1), low=low, top=top, weights=[powers])
    y = await evaluate(party, found.t, reciprocal_series(), to=fine, where=found.inside)
    # 1 / x = 2^x.scale 2^(k - top) / m
    product = rescaled(await multiply(party, y, found.factors[0]), fine + top - x.scale)
    wanted = _enough(party, top - x.scale, product) if scale is None else scale
    return (await truncate(party, product, wanted)).reshape(x.shape)


async def divide(
    party: Party, x: Share, y: Share, *, lower: float, upper: float | None = None, scale: int | None = None
) -> Share:
    """Compute ``x / y`` entry by entry, for positive y.

    Parameters
    ----------
    party : Party
    x, y : Share
        Shapes that broadcast together.
    lower, upper : float
        Public: ``0 < lower <= y <= upper``, see :func:`reciprocal`.
    scale : int, optional
        Fraction bits of the result. By default as many as keep rounding below 2^-32 of ``x.bound / upper``.

    Returns
    -------
    Share
        See :func:`reciprocal`, times ``x.bound``.

    Raises
    ------
    RangeError
        Before anything is sent: values, range and scale leave no room in the field.

    Notes
    -----
    Error: at most ``2^-30 |x| / y + 2^-r x.bound / y``, where r is 38 with three parties for ranges up to
    2^40, and ``room - octaves - 4`` in general (:func:`mpc.normalise.room` is 83 bits for three parties, 79 for
    seven); plus one truncation to ``scale``. Opens what :func:`reciprocal` opens, and x under masks. Semi-honest.
    Cost: :func:`reciprocal`; 2 rounds and ``|x| + |x / y|`` elements more.
    """
    shape = _broadcast(x, y)
    if not math.prod(shape):
        return _empty(x.broadcast_to(shape), scale)
    low, top = _range(y, lower, upper, "divide")
    count, fine = _fineness(party, y, low, top, 1, "divide")
    most = room(party, y.field)
    if x.magnitude.bit_length() > most:
        raise RangeError(f"divide: a dividend of {x.magnitude.bit_length()} bits leaves no room for a mask: truncate")

    # 1. The divisor's octave, and one over its mantissa.
    powers = [1 << k for k in range(count)]
    found = await normalise(party, y.reshape(-1), low=low, top=top, weights=[powers])
    inverse = await evaluate(party, found.t, reciprocal_series(), to=fine, where=found.inside)

    # 2. The dividend, cut to what a product has room for.
    bits = x.magnitude.bit_length()
    kept = min(bits, most - fine - 3)
    dividend = rescaled(x, bits)  # below 1
    dividend = await truncate(party, dividend, kept) if kept < bits else await mask(party, dividend)
    quotient = await multiply(party, dividend.reshape(x.shape), inverse.reshape(y.shape))

    # 3. What is left is the power of two; the quotient of mantissas keeps as many bits as fit beside it.
    quotient = await _cut(party, quotient, most - count - 3)
    factor = found.factors[0].reshape(y.shape)
    product = await multiply(party, quotient, factor)
    product = rescaled(product, product.scale + top - y.scale - (bits - x.scale))
    wanted = _enough(party, top - y.scale - (bits - x.scale), product) if scale is None else scale
    return await truncate(party, product, wanted)


async def sqrt(
    party: Party, x: Share, *, upper: float | None = None, lower: float | None = None, scale: int | None = None
) -> Share:
    """Compute square roots entry by entry.

    Parameters
    ----------
    party : Party
    x : Share
        Any shape and scale.
    upper, lower : float, optional
        Public: ``x = 0 or lower <= x <= upper``; by default the share's bound and its smallest unit. Their ratio
        may be 2^80. Where x is outside, the result is right or 0, to rounding.
    scale : int, optional
        Fraction bits of the result. By default as many as the relative error needs at ``lower``.

    Returns
    -------
    Share
        Bounded by ``2.1 sqrt(upper)``.

    Raises
    ------
    RangeError
        Before anything is sent: value, range and scale leave no room in the field.

    Notes
    -----
    Error, opened values and threat model as for :func:`reciprocal`; of 0 and of negative numbers the root is
    0, to rounding. Cost: :func:`mpc.normalise.normalise`, then 7 rounds and 21 elements an entry.
    """
    return await _root(party, x, lower, upper, scale, inverse=False)


async def inverse_sqrt(
    party: Party, x: Share, *, lower: float, upper: float | None = None, scale: int | None = None
) -> Share:
    """Compute ``1 / sqrt(x)`` entry by entry.

    Parameters
    ----------
    party : Party
    x : Share
        Any shape and scale.
    lower, upper : float
        Public: ``0 < lower <= x <= upper``. Their ratio may be 2^80. Where x is outside, the result is
        right or 0, to rounding.
    scale : int, optional
        Fraction bits of the result. By default as many as the relative error needs at ``upper``.

    Returns
    -------
    Share
        Bounded by ``2.1 / sqrt(lower)``.

    Raises
    ------
    RangeError
        Before anything is sent: value, range and scale leave no room in the field.

    Notes
    -----
    Error, opened values and threat model as for :func:`reciprocal`. Cost: :func:`mpc.normalise.normalise`, then
    7 rounds and 23 elements an entry.
    """
    return await _root(party, x, lower, upper, scale, inverse=True)


async def _root(
    party: Party, x: Share, lower: float | None, upper: float | None, scale: int | None, *, inverse: bool
) -> Share:
    what = "inverse_sqrt" if inverse else "sqrt"
    if not x.size:
        return _empty(x, scale)
    low, top = _range(x, lower, upper, what)
    top += (top - x.scale) % 2  # so that the root of 2^(top - x.scale) is a power of two
    count, fine = _fineness(party, x, low, top, 2, what)
    power = (top - x.scale) // 2
    if inverse:
        series, factors, shift = inverse_root_series(), [1 << k for k in range(count)], power
    else:
        series, factors, shift = root_series(), [1 << count - 1 - k for k in range(count)], count - 1 - power
    found = await normalise(party, x.reshape(-1), low=low, top=top, width=2, weights=[factors])
    y = await evaluate(party, found.t, series, to=fine, where=found.inside)
    product = rescaled(await multiply(party, y, found.factors[0]), fine + shift)
    wanted = _enough(party, shift if inverse else shift + 1, product) if scale is None else scale
    return (await truncate(party, product, wanted)).reshape(x.shape)


async def log(party: Party, x: Share, *, lower: float, upper: float | None = None, scale: int | None = None) -> Share:
    """Compute natural logarithms entry by entry.

    Parameters
    ----------
    party : Party
    x : Share
        Any shape and scale.
    lower, upper : float
        Public: ``0 < lower <= x <= upper``; their ratio is limited by the field alone. Where x is outside, the
        result is right or 0, to rounding.
    scale : int, optional
        Fraction bits of the result; 32 by default, and some for the number of parties.

    Returns
    -------
    Share
        Bounded by the largest logarithm in the range, and 1.

    Raises
    ------
    RangeError
        Before anything is sent: value and range leave no room in the field.

    Notes
    -----
    Error: absolute, at most 2^-30, or one truncation to ``scale`` and 2^-32. Opened values and threat model as
    for :func:`reciprocal`. Cost: :func:`mpc.normalise.normalise`, then 5 rounds and 13 elements an entry.
    """
    if not x.size:
        return _empty(x, scale)
    low, top = _range(x, lower, upper, "log")
    count = check_room(party, x, low=low, top=top, width=1, what="log")
    wanted = _ROUNDING_BITS + guard_bits(party) if scale is None else scale
    found = await normalise(party, x.reshape(-1), low=low, top=top)
    mantissa = await evaluate(party, found.t, log_series(), to=min(wanted, _MANTISSA_SCALE), where=found.inside)
    unit = _DECIMAL.multiply(_DECIMAL.ln(Decimal(2)), Decimal(1 << wanted))
    steps = [
        int(_DECIMAL.multiply(unit, Decimal(top - k - x.scale)).to_integral_value(ROUND_HALF_EVEN))
        for k in range(count)
    ]
    return (mantissa.lifted(wanted) + rescaled(weighted(found.hit, steps), wanted)).reshape(x.shape)


# ---- ranges, scales -----------------------------------------------------------------------------


def _range(x: Share, lower: float | None, upper: float | None, what: str) -> tuple[int, int]:
    """Return low and top, such that the encoded integers of the range are in ``[2^low, 2^top)``."""
    most = x.magnitude if upper is None else min(x.magnitude, ceil_scaled(upper, x.scale))
    least = 1 if lower is None else math.floor(_scaled(lower, x.scale))
    if (lower is not None and not lower > 0) or least > most or most < 1:
        raise ValueError(f"{what}: lower is positive, and at most upper and the bound on the argument")
    return max(least, 1).bit_length() - 1, most.bit_length()


def _scaled(value: float, scale: int) -> int:
    numerator, denominator = value.as_integer_ratio()
    return (numerator << scale) // denominator


def _fineness(party: Party, x: Share, low: int, top: int, width: int, what: str) -> tuple[int, int]:
    """Return the number of octaves, and the fraction bits that the function on one octave can have."""
    count = check_room(party, x, low=low, top=top, width=width, what=what)
    fine = min(_MANTISSA_SCALE, room(party, x.field) - count - 1)
    if fine < _LEAST_MANTISSA_SCALE:
        raise RangeError(
            f"{what}: {count} powers of two are too many for a relative error of 2^-{PRECISION_BITS} in {x.field}: "
            "narrow the range"
        )
    return count, fine


def _enough(party: Party, smallest: int, product: Share) -> int:
    """Return the fraction bits that keep a truncation below 2^-32 of ``2^-smallest``; no more than there are."""
    needed = _ROUNDING_BITS + guard_bits(party) + smallest
    return max(0, min(product.scale, needed))


async def _cut(party: Party, x: Share, bits: int) -> Share:
    """Mask a share, keeping the highest bits of its bound."""
    drop = x.magnitude.bit_length() - bits
    if drop <= 0:
        return await mask(party, x)
    aside = rescaled(x, max(drop, x.scale))
    short = await truncate(party, aside, aside.scale - drop)
    return rescaled(short, short.scale - (aside.scale - x.scale))


def _broadcast(x: Share, y: Share) -> tuple[int, ...]:
    return np.broadcast_shapes(x.shape, y.shape)


def _empty(x: Share, scale: int | None) -> Share:
    field: Field = x.field
    return Share(field, field.zeros(x.shape), _ROUNDING_BITS if scale is None else scale, 0, leads=x.leads)
