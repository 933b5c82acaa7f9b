"""What the solvers of a regression have in common: the public numbers, and a fit on shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Share

# Standardised coefficients are kept at this scale and clamped to this size: one standard deviation of a
# column may shift the log odds by 64.
COEFFICIENT_SCALE = 28
LARGEST_COEFFICIENT = 64
# Matrices with a condition number above 2^20 count as singular.
_SMALLEST_EIGENVALUE = 2.0**-20
# The intercept has no penalty; steps are planned for a mean weight p (1 - p) down to this.
_SMALLEST_WEIGHT = 2.0**-9
_ROUGH_EIGENVALUE = 2.0**-10


@dataclass(frozen=True, slots=True)
class Plan:
    """The public numbers of a fit, the same at all parties.

    Attributes
    ----------
    rows : int
    width : int
        Number of columns with the ones.
    l2 : float
        In units of the weights.
    weight_power : int
        Rows are weighted in units of ``4^weight_power``.
    """

    rows: int
    width: int
    l2: float
    weight_power: int = 0

    @property
    def row_bits(self) -> int:
        """Sums over rows are divided by ``2^row_bits``, the next power of two."""
        return (self.rows - 1).bit_length()

    @property
    def largest_eigenvalue(self) -> float:
        """Bound on the eigenvalues of the information matrix: its trace, as weights are at most 1/4."""
        return math.ldexp(1.03 * (self.width * self.rows / 4 + self.l2), -self.row_bits)

    def schulz_factors(self, *, rough: bool) -> list[float]:
        """Return the over-relaxation c of each Schulz step ``V <- c V (2 I - H V)``, a multiple of 1/8.

        With the eigenvalues x of ``H V`` in [low, high], one step maps them to ``c x (2 - x)``. As c stays
        below 2, no eigenvalue ever turns negative, whatever the matrix; the factors make small ones grow
        almost fourfold a step instead of twofold (Pan, Schreiber, SIAM J. Sci. Stat. Comput. 12, 1991,
        section 4).
        """
        low = min(math.ldexp(self.l2, -self.row_bits), _SMALLEST_WEIGHT) / self.largest_eigenvalue
        low = max(low, _SMALLEST_EIGENVALUE)
        if rough:
            low = max(low, _ROUGH_EIGENVALUE)
        high, factors = 1.0, []
        while low < 0.5:
            smallest = min(low * (2 - low), high * (2 - high))
            factor = math.floor(8 * min(1.875, 2 / (1 + smallest))) / 8
            factors.append(factor)
            low, high = factor * smallest, factor
        return factors + [1.0] * (1 if rough else 4)


@dataclass(frozen=True, slots=True)
class Fit:
    """A fit on shares, in units of the standardised columns; the intercept comes first.

    Attributes
    ----------
    coefficients : Share
        Scale 28, at most 64 in size.
    inverse : Share or None
        Masked: the inverse of the information matrix divided by ``2^row_bits``.
    checks : Share
        Two bits, 1 is good; which two is up to the solver.
    iterations : int
        Public.
    """

    coefficients: Share
    inverse: Share | None
    checks: Share
    iterations: int


def penalised(width: int) -> NDArray[np.int64]:
    """Return 0 for the intercept, 1 for the rest."""
    return np.concatenate([np.zeros(1, np.int64), np.ones(width - 1, np.int64)])
