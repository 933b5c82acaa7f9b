"""Standardised columns on shares: nobody learns a mean or a standard deviation of the pooled data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, less_than, mask, multiply, stack, truncate, truncate_all
from mpc.normalise import normalise
from mpc.series import evaluate, inverse_root_series
from protocols.shares import sum_of

# Columns are shared in units of their bound: one bit of sign, 44 of fraction.
INPUT_SCALE = 44
# Standardised entries are kept at this scale; at most sqrt(n) in size (Samuelson's inequality).
DESIGN_SCALE = 26
SLOPE_SCALE = 20
# A column whose standard deviation is below 2^-18 of its bound, or below 2^-10 of its mean, counts as
# constant: it could not be told from rounding.
SPREAD_OCTAVES = 18
MEAN_BITS = 10
_MEAN_SCALE = 38
_SPREAD_SCALE = 60


@dataclass(frozen=True, slots=True)
class Design:
    """Standardised columns with a column of ones in front, and what leads back to the data's units.

    Attributes
    ----------
    matrix : Share
        Shape (rows, columns + 1), masked, scale 26: ``1`` and ``slope * u - offset``, where u is the data
        in units of ``2^exponents``.
    slope : Share or None
        Shape (columns,), masked: one over the standard deviation of u; 0 where a column is constant. None
        where each party knows its own columns'.
    offset : Share
        Shape (columns,), masked: mean over standard deviation; at most 2^10.
    constant : Share
        Shape (columns,): 1 where a column counts as constant, else 0.
    exponents : numpy.ndarray
        Public.
    """

    matrix: Share
    slope: Share | None
    offset: Share
    constant: Share
    exponents: NDArray[np.int64]


async def standardise_rows(
    party: Party, X: NDArray[np.float64], counts: list[int], exponents: NDArray[np.int64]
) -> Design:
    """Standardise columns whose rows are held by different parties.

    Parameters
    ----------
    party : Party
    X : numpy.ndarray
        Our rows.
    counts : list of int
        Public: how many rows each party has.
    exponents : numpy.ndarray
        Public, for each column: no value of any party is above ``2^exponent``.

    Returns
    -------
    Design

    Notes
    -----
    Each party computes mean and squared deviations of its own rows in the clear; the pooled variance
    adds, on shares, the deviations of the parties' means from the common mean (Chan, Golub, LeVeque,
    1983), so nothing cancels. One over the standard deviation comes from :mod:`mpc.normalise` and :mod:`mpc.series`.
    Nothing is revealed. Semi-honest.
    Error: the columns have mean 0 and variance 1 to about 1e-5, which is the same for all parties and
    enters the intercept and (as a factor) the penalty only: data, slope and offset belong together to
    within ``2^-26``.
    Cost: 36 rounds with a dealer; ``2 rows columns`` elements opened, and ``39 columns + 60``, besides bits.
    """
    n, columns = sum(counts), X.shape[1]

    # 1. In the clear: our rows in units of the bound, their mean (on a grid) and their spread.
    u = np.ldexp(X, -exponents)
    own_mean = np.rint(np.ldexp(u.mean(axis=0), 36)) * 2.0**-36 if len(u) else np.zeros(columns)
    own_spread = ((u - own_mean) ** 2).sum(axis=0) / n
    shapes: list[tuple[int | None, ...]] = [(rows, columns) for rows in counts]
    data = concatenate(await party.share(u, bound=1.0, scale=INPUT_SCALE, shape=shapes))
    means = stack(await party.share(own_mean, bound=1.0, scale=36, shape=(columns,)))
    spread = sum_of(await party.share(own_spread, bound=4.0, scale=2 * _MEAN_SCALE, shape=(columns,)))

    # 2. The common mean m, and sqrt(n_j / n) (m_j - m) for every party j.
    weights = _weights(counts)
    common = means.T @ weights
    factors = np.rint(np.sqrt(np.array(counts) / n) * 2.0**20).astype(np.int64)
    deviations = ((means * (1 << 16) - common) * factors[:, None]).scaled_down(36).bounded_by(2.01)
    mean, deviations = await truncate_all(party, [common.scaled_down(16), deviations], _MEAN_SCALE)

    # 3. The variance, at most 1 because |u| <= 1; and the square of the mean over 2^10.
    between = (await multiply(party, deviations, deviations)).sum(axis=0)
    square = (await multiply(party, mean, mean)).bounded_by(1.001)
    variance, square = await truncate_all(
        party, [(between + spread).bounded_by(1.001), square.scaled_down(2 * MEAN_BITS)], _SPREAD_SCALE
    )

    # 4. One over the standard deviation, as 2^e y; 0 where there is too little spread.
    offcentre = await less_than(party.at("mean"), variance, square)
    low, top = _SPREAD_SCALE - 2 * SPREAD_OCTAVES, _SPREAD_SCALE + 2
    powers = [1 << k for k in range(SPREAD_OCTAVES + 1)]
    scaled = await normalise(party.at("spread"), variance, low=low, top=top, width=2, weights=[powers])
    varies = await multiply(party, scaled.inside, 1 - offcentre)
    inverse = await evaluate(party, scaled.t, inverse_root_series(), to=SLOPE_SCALE + 2, where=scaled.inside)
    factor = (await multiply(party, scaled.factors[0], varies)).bounded_by(1 << SPREAD_OCTAVES)
    slope = await truncate(party, (await multiply(party, factor, inverse)).scaled_down(1), SLOPE_SCALE)

    # 5. slope * (u - m): at most sqrt(n) in size, as no value is further from any point than that many
    #    root mean squares (Samuelson, 1968).
    centred = await multiply(party, data - mean, slope)
    ones = party.constant(1.0, scale=centred.scale, shape=(n, 1))
    matrix = concatenate([ones, centred.bounded_by(reach(n))], axis=1)
    offset = (await multiply(party, mean, slope)).bounded_by(1.01 * 2**MEAN_BITS)
    matrix, offset = await truncate_all(party, [matrix, offset], DESIGN_SCALE)
    return Design(matrix, slope, offset, 1 - varies, exponents)


def reach(rows: int) -> float:
    """Return the bound on standardised entries; a little above 1 for the column of ones, too."""
    return 1.02 * math.sqrt(max(1, rows))


def _weights(counts: list[int]) -> NDArray[np.int64]:
    """Return the parts of the rows in units of 2^-16, summing to exactly 2^16."""
    edges = np.rint(np.cumsum([0, *counts]) / sum(counts) * 65536).astype(np.int64)
    return np.diff(edges)


@dataclass(frozen=True, slots=True, repr=False)
class OwnColumns:
    """What a party knows of its own columns where the parties hold different columns of the same rows.

    Attributes
    ----------
    mean, deviation : numpy.ndarray
        A deviation of 0 marks a constant column.
    counts : tuple of int
        Public: how many columns each party has.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    counts: tuple[int, ...]

    def apply(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise; constant columns become 0."""
        safe = np.where(self.deviation > 0, self.deviation, 1.0)
        return np.asarray(np.where(self.deviation > 0, (X - self.mean) / safe, 0.0))


def own_columns(party: Party, X: NDArray[np.float64], counts: tuple[int, ...] = ()) -> OwnColumns:
    """Compute mean and standard deviation of our own columns, in the clear; counts are those of all parties' columns.

    Raises
    ------
    DataError
        A column's mean is more than 2^10 standard deviations from 0.
    """
    mean = X.mean(axis=0)
    deviation = X.std(axis=0)
    deviation = np.where(deviation > 2.0**-40 * np.abs(X).max(axis=0, initial=0.0), deviation, 0.0)
    far = (deviation > 0) & (np.abs(mean) > 2**MEAN_BITS * deviation)
    if far.any():
        named = ", ".join(str(j) for j in np.flatnonzero(far)[:10])
        raise DataError(
            f"party {party.rank}: the mean of column {named} of X is more than {2**MEAN_BITS} standard deviations "
            "from 0; subtract a round number from the column first"
        )
    return OwnColumns(mean, deviation, counts)


async def standardise_columns(party: Party, X: NDArray[np.float64], own: OwnColumns) -> Design:
    """Standardise columns that are each held by one party as a whole.

    Parameters
    ----------
    party : Party
    X : numpy.ndarray
        Our columns; the same rows at all parties.
    own : OwnColumns

    Returns
    -------
    Design
        The columns of party 0 first, then those of party 1 and so on.

    Notes
    -----
    Every party standardises its columns in the clear. Nothing is revealed.
    Cost: 4 rounds; ``rows (columns + 1)`` elements opened.
    """
    n = len(X)
    standard = np.clip(own.apply(X), -reach(n), reach(n))
    offset = np.where(own.deviation > 0, own.mean / np.where(own.deviation > 0, own.deviation, 1.0), 0.0)
    constant = (own.deviation == 0).astype(np.int64)
    expected: list[tuple[int | None, ...]] = [(n, width) for width in own.counts or (None,) * party.size]
    data = await party.share(standard, bound=reach(n), scale=DESIGN_SCALE, shape=expected)
    shapes = [one.shape[1:] for one in data]
    offsets = concatenate(await party.share(offset, bound=2.0**MEAN_BITS, scale=DESIGN_SCALE, shape=shapes))
    constants = concatenate(await party.share(constant, bound=1, shape=shapes))
    ones = party.constant(1.0, scale=DESIGN_SCALE, shape=(n, 1))
    matrix = await mask(party, concatenate([ones, *data], axis=1))
    offsets = await mask(party, offsets)
    exponents = np.zeros(offsets.size, np.int64)
    return Design(matrix, None, offsets, constants, exponents)
