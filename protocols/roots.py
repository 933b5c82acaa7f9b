"""Reciprocals and square roots of secrets: normalise by a secret power of two, then a polynomial.

Nothing is divided. A positive secret is compared with public powers of two; the comparison bits add up
to the power that brings it into a narrow interval, where a polynomial of fixed degree does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from mpc import Party, Share, less_than, multiply, stack, truncate, truncate_all

# Arguments and powers inside this module.
SCALE = 40
_COEFFICIENT_SCALE = 32
_DEGREE = 12
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582")


@dataclass(frozen=True, slots=True)
class Series:
    """A polynomial in ``x - center``, with a bound that holds for every argument in ``[0, high]``."""

    center: float
    high: float
    coefficients: tuple[float, ...]
    bound: float


@lru_cache(maxsize=8)
def _fitted(function: Callable[[Decimal], Decimal], low: str, high: str) -> Series:
    """Interpolate at Chebyshev's nodes, in decimal arithmetic.

    The coefficients multiply summands that are random field elements, so they must be the same at all
    parties to the last bit, whatever their processors and libraries.
    """
    with localcontext(Context(prec=50)):
        center, radius = (Decimal(low) + Decimal(high)) / 2, (Decimal(high) - Decimal(low)) / 2
        nodes = [radius * _cosine(_PI * (2 * k + 1) / (2 * _DEGREE + 2)) for k in range(_DEGREE + 1)]
        # Newton's divided differences, then nested multiplication by (t - node).
        differences = [function(center + t) for t in nodes]
        for j in range(1, len(nodes)):
            for i in range(len(nodes) - 1, j - 1, -1):
                differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - j])
        polynomial = [Decimal(0)] * len(nodes)
        for difference, node in zip(reversed(differences), reversed(nodes), strict=True):
            shifted = [Decimal(0), *polynomial[:-1]]
            polynomial = [up - node * here for up, here in zip(shifted, polynomial, strict=True)]
            polynomial[0] += difference
        coefficients = tuple(float(c) for c in polynomial)
    middle, end = float(center), float(high)
    reached = np.abs(Polynomial(coefficients)(np.linspace(0.0, end * 1.01, 2000) - middle)).max()
    return Series(middle, end, coefficients, float(reached) * 1.01)


def _cosine(x: Decimal) -> Decimal:
    total, term, k = Decimal(0), Decimal(1), 0
    while abs(term) > Decimal("1e-48"):
        total += term
        term *= -x * x / ((2 * k + 1) * (2 * k + 2))
        k += 1
    return total


def _inverse_root(x: Decimal) -> Decimal:
    return 1 / x.sqrt()


def _root(x: Decimal) -> Decimal:
    return x.sqrt()


def _inverse(x: Decimal) -> Decimal:
    return 1 / x


def inverse_root_series() -> Series:
    """Return ``1 / sqrt(x)`` on [1/4, 1]; relative error below 1e-6."""
    return _fitted(_inverse_root, "0.25", "1")


def root_series() -> Series:
    """Return ``sqrt(x)`` on [1/4, 1]; relative error below 1e-6."""
    return _fitted(_root, "0.25", "1")


def inverse_series() -> Series:
    """Return ``1 / x`` on [1/2, 1]; relative error below 1e-9."""
    return _fitted(_inverse, "0.5", "1")


async def evaluate(party: Party, x: Share, series: Series, *, to: int) -> Share:
    """Evaluate a series on shares.

    Parameters
    ----------
    party : Party
    x : Share
        Scale 40, masked (born so by a truncation), in ``[0, 1.01 high]``.
    series : Series
    to : int
        Fraction bits of the result.

    Returns
    -------
    Share
        Masked. Off by the series' error and about ``2^-22`` of rounding.

    Notes
    -----
    Cost: 5 rounds; 12 elements an entry.
    """
    # 1. Powers of s = x - center, each a product of two masked ones: one truncation a generation.
    reach = max(series.center, 1.01 * series.high - series.center) + 2.0**-20  # a zero may come as -1 unit
    powers = {1: (x - series.center).bounded_by(reach)}
    while len(powers) < _DEGREE:
        half = len(powers)
        wanted = range(half + 1, min(2 * half, _DEGREE) + 1)
        shares = [await multiply(party, powers[half], powers[k - half]) for k in wanted]  # masked: nothing is sent
        truncated = await truncate_all(party, shares, SCALE)
        powers.update(zip(wanted, truncated, strict=True))

    # 2. The rest is a public linear combination.
    stacked = stack([powers[k] for k in range(1, _DEGREE + 1)])
    integers = np.rint(np.ldexp(series.coefficients[1:], _COEFFICIENT_SCALE)).astype(np.int64)
    total = (stacked.reshape(_DEGREE, -1).T @ integers).reshape(x.shape).scaled_down(_COEFFICIENT_SCALE)
    value = (total + series.coefficients[0]).bounded_by(series.bound)
    return (await truncate(party, value, to)).bounded_by(series.bound)


@dataclass(frozen=True, slots=True)
class Normalised:
    """A positive secret as ``mantissa * 2^top / factor^width``, with ``factor * cofactor = 2^(octaves - 1)``.

    Attributes
    ----------
    mantissa : Share
        Scale 40, masked; in [1/4, 1] (width 2) or [1/2, 1] (width 1), below where the secret is too small.
    factor : Share
        ``2^e`` with a secret e from 0 to ``octaves - 1``; scale 0.
    cofactor : Share
        ``2^(octaves - 1 - e)``; scale 0.
    too_small : Share
        0 or 1, scale 0: whether the secret is below the range.
    """

    mantissa: Share
    factor: Share
    cofactor: Share
    too_small: Share


async def normalise(party: Party, x: Share, *, top: int, octaves: int, width: int) -> Normalised:
    """Bring a positive secret into ``[2^-width, 1]`` by a secret power of ``2^width``.

    Parameters
    ----------
    party : Party
    x : Share
        A vector, masked, with ``0 <= x <= 1.001 * 2^top``.
    top : int
    octaves : int
        How many powers are told apart; below ``2^(top - width * octaves)`` x counts as too small.
    width : int
        2 before a square root, 1 before a reciprocal.

    Notes
    -----
    Cost: one comparison of ``octaves |x|`` entries; then 2 rounds and ``2 |x|`` elements.
    """
    # 1. below[k - 1] = [x < 2^(top - width k)], monotone in k.
    ladder = _ladder(top, width, octaves, x.size)
    thresholds = party.constant(ladder, scale=x.scale)
    copies = stack([x] * octaves)
    below = await less_than(party, copies, thresholds)

    # 2. The bits telescope: f_0 + sum_k below_k (f_k - f_(k-1)) = f_e, with e the number of thresholds above x.
    most = octaves - 1
    factor = _telescope(below, [1 << k for k in range(octaves)])
    cofactor = _telescope(below, [1 << (most - k) for k in range(octaves)])
    power = _telescope(below, [1 << (width * k) for k in range(octaves)])

    # 3. x * power is in the interval because the bits are exact; one product, one truncation.
    scaled = await multiply(party, x, power)
    mantissa = await truncate(party, scaled.bounded_by(1.002 * 2.0**top).scaled_down(top), SCALE)
    return Normalised(mantissa, factor, cofactor, below[most])


def _ladder(top: int, width: int, octaves: int, size: int) -> NDArray[np.float64]:
    return np.repeat(2.0 ** (top - width * np.arange(1.0, octaves + 1))[:, None], size, axis=1)


def _telescope(below: Share, values: list[int]) -> Share:
    total: Share | None = None
    for k in range(1, len(values)):
        term = below[k - 1] * (values[k] - values[k - 1])
        total = term if total is None else total + term
    if total is None:
        raise ValueError("normalise() tells at least two powers apart")
    return (total + values[0]).bounded_by(max(values))
