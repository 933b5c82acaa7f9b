"""Polynomials on shares: powers of a masked argument, then one public linear combination.

The coefficients multiply summands that are random field elements, so they are integers that must be the
same at all parties to the last bit. They come from decimal arithmetic: the function is interpolated at
Chebyshev's nodes (Newton's divided differences), with 50 digits, and the coefficients are rounded to
``2^-38`` once. No floating point is involved, hence nothing that depends on a processor or a library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mpc.arithmetic import multiply, truncate, truncate_all
from mpc.share import stack

if TYPE_CHECKING:
    from mpc.party import Party
    from mpc.share import Share

# A product of two powers has 79 bits: what seven parties can still mask.
POWER_SCALE = 39
COEFFICIENT_SCALE = 38
_DIGITS = 50
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582")


@dataclass(frozen=True, slots=True)
class Series:
    """A polynomial in t with public integer coefficients.

    Attributes
    ----------
    coefficients : tuple of int
        Units of ``2^-38``, constant first.
    reach : float
        It is meant for ``|t| <= reach``.
    bound : float
        At least its absolute value there.
    """

    coefficients: tuple[int, ...]
    reach: float
    bound: float


def fitted(function: Callable[[Decimal], Decimal], reach: str, degree: int, bound: float) -> Series:
    """Interpolate a function of t at Chebyshev's nodes of ``[-reach, reach]``.

    Parameters
    ----------
    function : callable
        Decimal to decimal; rounded correctly by every implementation of decimal arithmetic.
    reach : str
    degree : int
    bound : float
        On the absolute value of the polynomial for ``|t| <= 1.01 reach``; a test compares.
    """
    with localcontext(Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN)):
        nodes = [Decimal(reach) * _cosine(_PI * (2 * k + 1) / (2 * degree + 2)) for k in range(degree + 1)]
        # Newton's divided differences, then nested multiplication by (t - node).
        differences = [function(node) for node in nodes]
        for j in range(1, len(nodes)):
            for i in range(len(nodes) - 1, j - 1, -1):
                differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - j])
        polynomial = [Decimal(0)] * len(nodes)
        for difference, node in zip(reversed(differences), reversed(nodes), strict=True):
            shifted = [Decimal(0), *polynomial[:-1]]
            polynomial = [up - node * here for up, here in zip(shifted, polynomial, strict=True)]
            polynomial[0] += difference
        unit = Decimal(1 << COEFFICIENT_SCALE)
        coefficients = tuple(int((c * unit).to_integral_value()) for c in polynomial)
    return Series(coefficients, float(reach) * 1.01, bound)


def _cosine(x: Decimal) -> Decimal:
    total, term, k = Decimal(0), Decimal(1), 0
    while abs(term) > Decimal("1e-48"):
        total += term
        term *= -x * x / ((2 * k + 1) * (2 * k + 2))
        k += 1
    return total


# ---- the functions that this package needs --------------------------------------------------------
# On one octave, m = (t + 3) / 4 in [1/2, 1]; on two octaves, m = (t + 5/4) / 2 in [1/4, 1].


@lru_cache(maxsize=1)
def reciprocal_series() -> Series:
    """Return ``1 / m`` on one octave; relative error below 2^-34."""
    return fitted(lambda t: 4 / (t + 3), "1", 14, 2.05)


@lru_cache(maxsize=1)
def log_series() -> Series:
    """Return the natural logarithm of m on one octave; error below 2^-35."""
    return fitted(lambda t: ((t + 3) / 4).ln(), "1", 13, 0.71)


@lru_cache(maxsize=1)
def root_series() -> Series:
    """Return ``sqrt(m)`` on two octaves; relative error below 2^-34."""
    return fitted(lambda t: ((t + Decimal("1.25")) / 2).sqrt(), "0.75", 20, 1.02)


@lru_cache(maxsize=1)
def inverse_root_series() -> Series:
    """Return ``1 / sqrt(m)`` on two octaves; relative error below 2^-34."""
    return fitted(lambda t: 1 / ((t + Decimal("1.25")) / 2).sqrt(), "0.75", 22, 2.05)


@lru_cache(maxsize=1)
def power_series() -> Series:
    """Return ``2^((t + 1) / 2)`` for t from -1 to 1; relative error below 2^-36."""
    return fitted(lambda t: (Decimal(2).ln() * (t + 1) / 2).exp(), "1.01", 8, 2.05)


async def evaluate(party: Party, t: Share, series: Series, *, to: int, where: Share | None = None) -> Share:
    """Evaluate a series on shares.

    Parameters
    ----------
    party : Party
    t : Share
        A vector, scale 39, masked, at most ``series.reach`` in size.
    series : Series
    to : int
        Fraction bits of the result, below 77.
    where : Share, optional
        0 or 1 for each entry, scale 0: where it is 0, t must be 0 (to rounding), and so is the result.

    Returns
    -------
    Share
        Masked.

    Notes
    -----
    With u the largest error of a truncation to scale 39, the power ``t^k`` is off by at most ``(2 k - 1) u``,
    so that the result is off by ``sum |c_k| (2 k - 1) u`` (below 4 u for the series here), the error of the
    series, and one truncation. Nothing is revealed. Semi-honest.
    Cost with degree d: ``ceil(log2(d)) + 1`` rounds; d elements an entry; ``d - 1`` triples.
    """
    degree = len(series.coefficients) - 1

    # 1. Powers, each a product of two masked ones: one truncation a generation, as many as are doubled.
    powers = {1: t.bounded_by(series.reach)}
    while len(powers) < degree:
        half = len(powers)
        wanted = range(half + 1, min(2 * half, degree) + 1)
        shares = [await multiply(party, powers[half], powers[k - half]) for k in wanted]  # masked: nothing is sent
        powers.update(zip(wanted, await truncate_all(party, shares, POWER_SCALE), strict=True))

    # 2. The rest is a public linear combination.
    constant, *others = series.coefficients
    stacked = stack([powers[k] for k in range(1, degree + 1)], axis=-1)
    total = (stacked @ np.array(others, dtype=np.int64)).scaled_down(COEFFICIENT_SCALE)
    ones = party.constant(np.ones(t.shape, np.int64)) if where is None else where
    first = (ones * constant).scaled_down(COEFFICIENT_SCALE)
    return (await truncate(party, (total + first).bounded_by(series.bound), to)).bounded_by(series.bound)
