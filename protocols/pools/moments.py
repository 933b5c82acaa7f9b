"""Means and covariances on shares, of groups of rows, with nothing that cancels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, matmul, multiply, stack, truncate
from mpc.arithmetic import products
from protocols.pools.blocks import Spread
from protocols.shares import sum_of

MEAN_SCALE = 60
COVARIANCE_SCALE = 68
_CENTRE_SCALE = 38
_ROOT_SCALE = 38
_OWNED_SCALE = 56
# A value that is to be truncated has at most so many bits: with seven parties, too, its mask has room then.
_ROOM_BITS = 78
_FACTOR_BITS = 36
_SPREAD_BITS = 28
_MOST_ROW_BITS = 24


@dataclass(frozen=True, slots=True)
class Moments:
    """Means and covariances of d columns in g groups, shared, in units of ``2^exponents``.

    Attributes
    ----------
    n : numpy.ndarray
        Shape (g,): the public sizes of the groups. An empty group has means and covariances of 0.
    mean : Share
        Shape (g, d), scale 60.
    covariance : Share
        Shape (g, d, d), scale 68, with divisor n.
    exponents : numpy.ndarray
        Shape (d,), public.
    """

    n: NDArray[np.int64]
    mean: Share
    covariance: Share
    exponents: NDArray[np.int64]

    @property
    def variance(self) -> Share:
        """The diagonals, shape (g, d)."""
        d = len(self.exponents)
        return self.covariance.reshape(len(self.n), d * d)[:, :: d + 1]


async def row_moments(
    party: Party,
    ours: Spread,
    sizes: NDArray[np.int64],
    exponents: NDArray[np.int64],
) -> Moments:
    """Compute the moments of rows that are held by different parties.

    Parameters
    ----------
    party : Party
        A scope of its own.
    ours : Spread
        Our rows of each group, at most 1 in size.
    sizes : numpy.ndarray
        Public: rows of each group, of all parties.
    exponents : numpy.ndarray

    Returns
    -------
    Moments

    Notes
    -----
    Each party computes the scatter of its own rows around its own means in the clear; on shares only the scatter
    of the parties' means around the common ones is added (Chan, Golub, LeVeque, 1983, eq. 2.1). Nothing is
    revealed. Semi-honest. What a party does in the clear takes one pass, see :class:`protocols.pools.blocks.Spread`.
    Error of a variance: at most about ``2^-37`` times the distance between the parties' means and the common one,
    and ``2^-68``, in squared units; so columns whose bound is up to 2^14 standard deviations keep six digits.
    Cost with n parties: 4 rounds; ``2 n g d + g d`` elements opened, ``n g d (d + 1)`` products.
    """
    g, d = len(sizes), len(exponents)
    held = np.where(ours.weight > 0, sizes, 1)

    # 1. In the clear: our part of the rows, our means (on a grid), the scatter around them.
    means = np.rint(np.ldexp(ours.means, _CENTRE_SCALE)) * 2.0**-_CENTRE_SCALE
    scatters = ours.around(means) / held[:, np.newaxis, np.newaxis]
    sums, weights = ours.sums / held[:, np.newaxis], ours.weight / held
    roots = np.rint(np.ldexp(np.sqrt(weights), _ROOT_SCALE)) * 2.0**-_ROOT_SCALE

    # 2. Shares of sqrt(w), sqrt(w) m and w m, with w the part of a group's rows that a party holds.
    mean = sum_of(await party.share(sums, bound=1.001, scale=MEAN_SCALE, shape=(g, d))).bounded_by(1.001)
    within = sum_of(await party.share(scatters, bound=4.0, scale=2 * _CENTRE_SCALE, shape=(g, d, d)))
    parts, owned_parts = weights[:, np.newaxis] * means, roots[:, np.newaxis] * means
    centre = sum_of(await party.share(parts, bound=1.001, scale=_CENTRE_SCALE, shape=(g, d)))
    root = stack(await party.share(roots[:, np.newaxis], bound=1.001, scale=_ROOT_SCALE, shape=(g, 1)))
    owned = stack(await party.share(owned_parts, bound=1.001, scale=_OWNED_SCALE, shape=(g, d)))

    # 3. Between parties: sum_j (sqrt(w_j) m_j - sqrt(w_j) m) (the same)^T; the roots are (n, g, 1).
    product = await multiply(party, root, centre.bounded_by(1.001).reshape(1, g, d))
    apart = (owned.lifted(_ROOT_SCALE + _CENTRE_SCALE) - product).bounded_by(2.01)
    deviations = await truncate(party, apart, _CENTRE_SCALE)
    between = stack(
        await products(party, "between", [(deviations[:, k].T, deviations[:, k], "matmul") for k in range(g)])
    )
    covariance = (between.bounded_by(1.01) + within).bounded_by(1.02)
    return Moments(sizes, mean, await truncate(party, covariance, COVARIANCE_SCALE), exponents)


async def column_moments(
    party: Party, units: Share, groups: Share, sizes: NDArray[np.int64], exponents: NDArray[np.int64]
) -> Moments:
    """Compute the moments of columns that are held by different parties.

    Parameters
    ----------
    party : Party
        A scope of its own.
    units : Share
        Shape (rows, d), scale 40, at most 1 in size.
    groups : Share
        Shape (rows, g): 1 where a row counts for a group, else 0; at most one 1 in a row.
    sizes : numpy.ndarray
        Public: rows of each group.
    exponents : numpy.ndarray

    Returns
    -------
    Moments

    Notes
    -----
    Columns are centred on shares before they are multiplied, at a scale that leaves room for the sum over rows.
    Nothing is revealed. Semi-honest.
    Error of a covariance: about ``2^-27`` of it, ``2^-s`` of a standard deviation and ``2^(r - 47)`` in units
    (squared), for 2^r rows and s = 34 up to r = 7, half a bit less for each further one.
    A mean of k of 2^r rows is off by up to about ``2^(r - 39) / k`` of the bound.
    Cost with n rows: 9 rounds; about ``n (2 d + g + 1) + n d g`` elements opened.
    """
    rows, g = len(units), len(sizes)
    row_bits = max(1, (rows - 1).bit_length())
    if row_bits > _MOST_ROW_BITS:
        raise ValueError(f"columns of different parties have at most 2^{_MOST_ROW_BITS} rows")
    factors = np.array([_ratio(1 << _FACTOR_BITS + row_bits, n) for n in sizes.tolist()], dtype=object)

    # 1. Means: sums over rows, times 1 / n.
    sums = (await matmul(party, groups.T, units)).bounded_by(max(rows, 1))
    sums = await truncate(party, sums, units.scale - row_bits)
    shrunk = (sums * factors[:, np.newaxis]).scaled_down(_FACTOR_BITS + row_bits).bounded_by(1.001)
    centre = await truncate(party, shrunk, _CENTRE_SCALE)

    # 2. Deviations of the rows that count.
    counted = groups.sum(axis=1).bounded_by(1).reshape(rows, 1)
    kept, expected = await products(party, "centre", [(counted, units, "multiply"), (groups, centre, "matmul")])
    scale = min(34, (_ROOM_BITS - 3 - row_bits) // 2)
    deviations = await truncate(party, (kept - expected.bounded_by(1.001)).bounded_by(2.01), scale)

    # 3. Scatter of each group; as mean squares are at most 1, sums are at most the number of rows.
    parts = []
    for k in range(g):
        members = deviations if g == 1 else await multiply(party, groups[:, k : k + 1], deviations)
        parts.append(await matmul(party, members.T, deviations))
    scatter = stack(parts).bounded_by(1.02 * max(rows, 1)).scaled_down(row_bits)
    # A group may be much smaller than all rows: its scatter is at most its own size.
    scatter = await truncate(party, scatter.bounded_by(1.02), 48)
    ratios = np.array([_ratio(1 << _SPREAD_BITS + row_bits, n) for n in sizes.tolist()], dtype=object)
    covariance = (scatter * ratios.reshape(g, 1, 1)).scaled_down(_SPREAD_BITS).bounded_by(1.03)
    mean, covariance = await truncate(party, shrunk, MEAN_SCALE), await truncate(party, covariance, COVARIANCE_SCALE)
    return Moments(sizes, mean, covariance, exponents)


def _ratio(numerator: int, n: int) -> int:
    """Return a rounded quotient; 0 for nothing."""
    return (2 * numerator + n) // (2 * n) if n else 0


def unit_products(exponents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the exponents of products of two columns, shape (d, d)."""
    return np.asarray(exponents[:, np.newaxis] + exponents)
