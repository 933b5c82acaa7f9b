"""Least squares on shares: from second moments to coefficients, their covariances and the residual sum of squares.

Columns are brought to a standard deviation between 1/2 and 1 by secret powers of two, which cost nothing in
precision and come off exactly at the end: what is opened is a number between two powers of two, rounded, and
its power, both of which follow from the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import F127, Party, Share, concatenate, mask, matmul, multiply, truncate, truncate_all
from mpc.linear import solve
from mpc.normalise import integers, masked_at, octave, rescaled, room, weighted
from mpc.share import ceil_scaled
from protocols.pools.moments import Moments

# A column whose standard deviation is below 2^-18 of its unit counts as constant.
SPREAD_BITS = 18
# Cross-products of standardised columns, their solution, and what is opened.
CROSS_SCALE = 44
_CENTRE_SCALE = 40
_COARSE_SCALE = 40
_RESULT_SCALE = 36
_INVERSE_SCALE = 38
_SHORT_SCALE = 27
_DIRECTION_SCALE = 30
_REST_SCALE = 66
# What is opened was multiplied by a secret power of two, at most 2^4 times ``2^unit``; as many bits are dropped, since
# zeros at the end would tell the power.
_SHIFT_SCALE = 32
_SPREAD_SCALE = 28
_L2_SCALE = 28


@dataclass(frozen=True, slots=True)
class Standard:
    """Centred and scaled second moments of d predictors and the outcome, which is the last of ``k = d + 1``.

    Attributes
    ----------
    cross : Share
        Shape (k, k), scale 44, masked: mean products of the standardised columns, diagonal in [1/4, 1), 0 where a
        column is constant.
    centre : Share
        Shape (k,), scale 40: means in units of the standardised columns, at most 2^17.
    power : Share
        Shape (k,), integers: a column in its public unit times ``2^power`` is the standardised one.
    constant : Share
        Shape (k,): 1 where a column counts as constant.
    exponents : numpy.ndarray
        The public units, ``2^exponents``.
    """

    cross: Share
    centre: Share
    power: Share
    constant: Share
    exponents: NDArray[np.int64]


async def standardise_moments(party: Party, moments: Moments, *, spread_bits: int = SPREAD_BITS) -> Standard:
    """Scale the moments of one group.

    Parameters
    ----------
    party : Party
    moments : Moments
    spread_bits : int
        A column whose standard deviation is below ``2^-spread_bits`` of its unit counts as constant. The bound on
        means times ``2^spread_bits`` is at most 2^18.

    Notes
    -----
    Nothing is revealed. Semi-honest. Cost with k columns: one :func:`mpc.normalise.octave` of k entries, 3 rounds,
    ``2 k^2 + 3 k`` elements.
    """
    k = len(moments.exponents)
    covariance, mean = moments.covariance.reshape(k, k), moments.mean.reshape(k)
    scale = covariance.scale

    # 1. v 4^e / 4 is in [1/4, 1), with e from 0 up; too small is constant.
    variances = moments.variance.reshape(k).bounded_by(1.02)
    top = scale + 2
    found = await octave(party, integers(variances), low=top - 2 * (spread_bits + 1), top=top, width=2)
    count = len(found.hit)
    powers = weighted(found.hit, [1 << e for e in range(count)])
    inside = weighted(found.hit, [1] * count)

    # 2. Rows, then columns, times the powers; products are below 1 by Cauchy and Schwarz.
    powers = await mask(party, powers)
    half = await multiply(party, covariance, powers)
    half = half.bounded_by(1.03 * 2.0 ** (spread_bits + 1))
    cross = await multiply(party, half, powers.reshape(k, 1))
    cross = await truncate(party, cross.scaled_down(2).bounded_by(1.01), CROSS_SCALE)
    centre = (await multiply(party, mean, powers)).scaled_down(1)
    centre = await truncate(party, centre.bounded_by(1.002 * 2.0**SPREAD_BITS), _CENTRE_SCALE)
    power = weighted(found.hit, [e - 1 for e in range(count)])
    return Standard(cross, centre, power, 1 - inside, moments.exponents)


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """What is opened of a fit; every entry follows from the result. All are shares.

    Where the matrix could not be inverted, or the outcome is constant, all but the last two are 0.

    Attributes
    ----------
    shift, spread, power : Share
        Shape (d + 1,), the intercept first. With ``unit = 2^power`` (in public units): estimates are ``shift unit``
        in standardised units of the outcome, diagonals of the inverse ``spread unit^2``, the latter in
        [1/4, 1).
    residual, total : Share
        Mean squares of the residuals and of the outcome around its mean, in standardised units.
    outcome_power : Share
        That of the outcome, see :class:`Standard`.
    constant : Share
        Shape (d + 1,): of the predictors and of the outcome.
    right : Share
        Whether the matrix could be inverted.
    """

    shift: Share
    spread: Share
    power: Share
    residual: Share
    total: Share
    outcome_power: Share
    constant: Share
    right: Share

    def shares(self) -> list[Share]:
        """Return all of them, in order."""
        return [
            self.shift,
            self.spread,
            self.power,
            self.residual,
            self.total,
            self.outcome_power,
            self.constant,
            self.right,
        ]


def exactly(x: Share, bound: float) -> Share:
    """State a public bound that holds, also where the one at hand is tighter.

    Bounds decide on masks; one that comes from an opened number would not be known when material is prepared.
    """
    magnitude = ceil_scaled(bound, x.scale)
    return Share(x.field, x.values, x.scale, magnitude, leads=x.leads)


def ratio_bits(party: Party, size: int) -> int:
    """Return the logarithm of the largest quotient of eigenvalues for which a matrix counts as regular; public.

    With up to four parties and 10 columns 2^21, with seven parties 2^17: what :func:`mpc.linear.solve` has room
    for, and what is made of the inverse here.
    """
    columns = max(1, size)
    return min(room(party, F127) - 58 - math.ceil(math.log2(columns)), 20 + int(math.log2(columns) / 2))


async def least_squares(party: Party, standard: Standard, *, penalty: float) -> LeastSquares:
    """Fit the outcome to the predictors.

    Parameters
    ----------
    party : Party
        A scope of its own.
    standard : Standard
    penalty : float
        ``l2 / n``: minimised is the mean of ``(y - X b)^2`` plus the penalty times the squared coefficients of
        predictors with a variance of 1.

    Notes
    -----
    Nothing is revealed. Semi-honest. Where the matrix cannot be inverted all coefficients are 0.
    Bounds, for any data: ``r' A^-1 r <= 1`` bounds the length of what is explained, hence coefficients by
    ``sqrt(1 / smallest eigenvalue)`` and ``coefficient / sqrt(diagonal of the inverse)`` by 1.
    Cost with d predictors: :func:`mpc.linear.solve` with d + 1 sides; two octaves of 1 and of d + 1 entries; about 10
    rounds and ``2 d^2 + 12 d`` elements.
    """
    k = len(standard.exponents)
    d = k - 1
    cross, constant = standard.cross, standard.constant
    identity = np.eye(d, dtype=np.int64)
    R, r, total = cross[:d, :d], cross[:d, d], cross[d, d]

    # 1. (R + penalty D) b = r, divided by 1 + penalty, and the inverse; constant columns get a 1 on the diagonal.
    A, side = R.lifted(R.scale + _L2_SCALE), r.lifted(r.scale + _L2_SCALE)
    if penalty:
        part = round(math.ldexp(1 / (1 + penalty), _L2_SCALE))
        diagonal = R.reshape(d * d)[:: d + 1].broadcast_to((d, d)) * (identity * ((1 << _L2_SCALE) - part))
        A = exactly((R * np.array(part) + diagonal).scaled_down(_L2_SCALE), 1.01)
        side = exactly((r * np.array(part)).scaled_down(_L2_SCALE), 1.01)
    fill = constant[:d].broadcast_to((d, d)) * identity
    A = A.bounded_by(1.01) + fill.lifted(A.scale)
    largest = 1.02 * d
    bits = ratio_bits(party, d)
    sides = concatenate([side.reshape(d, 1), party.constant(np.eye(d), scale=CROSS_SCALE)], axis=1).bounded_by(1.01)
    solved = await solve(party.at("solve"), A, sides, largest=largest, smallest=largest * 2.0**-bits)
    most = 1.2 * math.sqrt(d) * 2.0**bits / largest  # a regular matrix' inverse, by its Frobenius norm
    reach = 1.1 * math.sqrt(most)
    b = await masked_at(party, solved.value[:, 0].bounded_by(reach), _RESULT_SCALE)
    V = solved.value[:, 1:].bounded_by(most)
    if penalty:
        V = await masked_at(party, V, _INVERSE_SCALE - 4)
        V = exactly((V * np.array(round(math.ldexp(1 / (1 + penalty), 24)))).scaled_down(24), most)
    V = await masked_at(party, V, _INVERSE_SCALE)

    # 2. Residuals: total - (2 r - R b)' b, exact for this very b.
    coarse = await truncate(party, cross[:d], _COARSE_SCALE)
    image = await masked_at(party, (await matmul(party, coarse[:, :d], b)).bounded_by(1.1), _COARSE_SCALE)
    explained = (await multiply(party, coarse[:, d] * 2 - image, b)).sum().bounded_by(1.1)
    residual = (total.lifted(explained.scale) - explained).bounded_by(1.05)
    residual = await truncate(party, residual, _REST_SCALE)

    # 3. The data's origin, as a direction 1/2 to 1 long and a power of two.
    centre = standard.centre
    direction, length, size_power = await _origin(party.at("origin"), centre[:d])
    short = await truncate(party, V, _SHORT_SCALE)
    turned = await masked_at(party, (await matmul(party, short, direction[1:])).bounded_by(1.1 * most), _SHORT_SCALE)
    lead = await multiply(party, direction[:1], direction[:1])
    first = (await multiply(party, direction[1:], turned)).sum().reshape(1) + lead
    first = await masked_at(party, first.bounded_by(1.1 * most + 1.1), V.scale)

    # 4. Octaves of the inverse's diagonal; estimates in units of their roots.
    spreads = concatenate([first, V.reshape(d * d)[:: d + 1]]).bounded_by(1.2 * most + 1.2)
    top = V.scale + 2 * math.ceil(math.log2(1.2 * most + 1.2) / 2)
    least = 2.0**-38 if d else 1.0
    low = max(0, V.scale + math.floor(math.log2(least)))
    low += (top - low) % 2
    found = await octave(party.at("spreads"), integers(spreads), low=low, top=top, width=2)
    count = len(found.hit)
    powers = await mask(party, weighted(found.hit, [1 << e for e in range(count)]))
    squares = weighted(found.hit, [1 << 2 * e for e in range(count)])
    spread = rescaled(await multiply(party, found.x, squares), top)
    spread = await truncate(party, spread.bounded_by(1.01), _SPREAD_SCALE)

    # The intercept: the outcome's centre less what the coefficients move the data's origin by.
    unit = (top - V.scale) // 2
    moved = (await multiply(party, direction[1:], b)).sum().bounded_by(1.1 * reach)
    outcome = (await multiply(party, centre[d:], length)).bounded_by(1.002 * 2.0**SPREAD_BITS)
    outcome, moved = await truncate_all(party, [outcome, moved.reshape(1)], _RESULT_SCALE)
    estimates = concatenate([outcome - moved, b])
    shift = rescaled(await multiply(party, estimates, powers), _RESULT_SCALE + unit)
    shift = await truncate(party, shift.bounded_by(1.1 * 2.0**SPREAD_BITS), _SHIFT_SCALE)
    steps = weighted(found.hit, [unit - e for e in range(count)])
    power = steps + concatenate([size_power, standard.power[:d]])

    # 5. Where there is no result, nothing else is opened either.
    keep = await mask(party, (await multiply(party, solved.right.reshape(1), 1 - constant[d:])).bounded_by(1))
    powers = await multiply(party, concatenate([power, standard.power[d:]]), keep)
    shift, spread = await multiply(party, shift, keep), await multiply(party, spread, keep)
    residual = (await multiply(party, residual.reshape(1), keep)).reshape(())
    total = (await multiply(party, total.reshape(1), keep)).reshape(())
    return LeastSquares(shift, spread, powers[:k], residual, total, powers[k], constant, solved.right)


async def _origin(party: Party, centre: Share) -> tuple[Share, Share, Share]:
    """Split ``(1, -centre)`` into a direction and a power of two.

    Returns
    -------
    direction : Share
        Shape (d + 1,), scale 30, masked: ``2^-s (1, centre)``, 1/2 to 1 long.
    length : Share
        Shape (1,), masked: ``2^-s``.
    power : Share
        Shape (1,), integers: s.
    """
    d = centre.size
    coarse = await truncate(party, centre, 20)
    squares = (await multiply(party, coarse, coarse)).sum() + 1.0
    top = 2 * SPREAD_BITS + d.bit_length() + 2
    top += top % 2
    # A little more than it is: where the data's centre is near zero, what is cut off must not bring it below 1, where
    # no octave is looked for.
    squares = await truncate(party, squares.bounded_by(2.0**top), 30) + 2.0**-20
    found = await octave(party, integers(squares.reshape(1)), low=30, top=30 + top, width=2)
    count = len(found.hit)
    # (1 + |c|^2) 4^e is in [1/4, 1) of 2^top; so 2^-s = 2^(e - top / 2).
    length = await mask(party, weighted(found.hit, [1 << e for e in range(count)]))
    point = concatenate([party.constant(1.0, scale=centre.scale, shape=(1,)), centre])
    direction = rescaled(await multiply(party, point, length), centre.scale + top // 2)
    direction = await truncate(party, direction.bounded_by(1.01), _DIRECTION_SCALE)
    power = weighted(found.hit, [top // 2 - e for e in range(count)])
    return direction, rescaled(length, top // 2), power
