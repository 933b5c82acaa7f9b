"""What the deviance and the tests of a regression of counts are made of: sums over all rows, on shares."""

from __future__ import annotations

import math
from typing import NamedTuple

from mpc import Party, Share, mask, multiply, truncate
from mpc.exponential import exp
from mpc.normalise import masked_at
from protocols.regression.count_model import HIGHEST, LOWEST, ROOM_BITS, predictors
from protocols.regression.count_rows import LARGEST_MEAN, TERM_SCALE, CountRows
from protocols.regression.fit import Fit

# Pearson's quotients y / mean are taken where a mean is above e^-16 units.
_LARGEST_INVERSE = 16.0
_REST_SCALE = 26


class Summed(NamedTuple):
    """Sums over rows, in units of ``2^top 4^weight_power`` (weight and exposure: of ``4^weight_power``); shape (1,).

    Attributes
    ----------
    likelihood : log-likelihood, less ``log(2^top)`` times the total of y: what a rounded logarithm would cost large
        counts is added in the clear.
    half_deviance : half the deviance, and that.
    pearson : Pearson's chi squared.
    total : of y.
    weight : of the weights, or the number of rows.
    exposure : of the exponentials of the offset, in units of ``2^exposure_power``.
    moved : of y times the offset, less ``log(y!)``.
    """

    likelihood: Share
    half_deviance: Share
    pearson: Share
    total: Share
    weight: Share
    exposure: Share
    moved: Share


class Kernel(NamedTuple):
    """Sums that say nothing of single counts, in the units of :class:`Summed`; shape (1,).

    Attributes
    ----------
    gained : ``y`` times the linear predictor without the offset, less the mean, and less ``log(2^top)`` times y; to
        about 2^-10 of a count.
    total, weight, exposure : see :class:`Summed`.
    """

    gained: Share
    total: Share
    weight: Share
    exposure: Share


_KERNEL_BITS = 10


async def kernel(party: Party, rows: CountRows, fit: Fit) -> Kernel:
    """Compute what the likelihood ratio test is made of, and nothing that depends on ``log(y!)`` or ``y log(y)``.

    Notes
    -----
    All of it is linear in y. At the maximum, where columns explain as much of y as of the means, ``gained`` is a
    function of the coefficients and the rows' columns and offsets alone. Nothing is revealed. Semi-honest. Cost: about
    40 rounds, ``20 rows`` elements.
    """
    plan, weights, scale = rows.plan, rows.weights, TERM_SCALE
    eta, _ = await predictors(party, rows, fit.coefficients)
    means = (await exp(party.at("exp"), eta, lower=LOWEST, upper=HIGHEST, scale=scale)).bounded_by(LARGEST_MEAN)
    y = await mask(party, rows.y)
    gained = await masked_at(party, await multiply(party, y, eta), scale) - means
    if rows.offset is not None:
        gained = gained - await masked_at(party, await multiply(party, y, rows.offset), scale)
    total = await _total(party, gained, weights, plan.row_bits)
    coarse = max(0, rows.top + 2 * rows.weight_power + _KERNEL_BITS)
    if total.scale > coarse:
        total = await truncate(party, total, coarse)
    return Kernel(total, *await _exact(party, rows))


async def _exact(party: Party, rows: CountRows) -> tuple[Share, Share, Share]:
    """Add up y, weights and exposures."""
    ones = party.constant(1, shape=(rows.plan.rows,))
    exact = [rows.y, ones, ones if rows.exposure is None else rows.exposure]
    if rows.weights is not None:
        exact = [await multiply(party, one, rows.weights) for one in exact]
    total, weight, exposed = (one.sum().reshape(1) for one in exact)
    return total, weight, exposed


async def summed(party: Party, rows: CountRows, fit: Fit) -> Summed:
    """Compute what deviance and tests are made of, at the final coefficients.

    Notes
    -----
    Nothing is revealed. Semi-honest. Cost: about 60 rounds, ``30 rows`` elements.
    """
    plan, weights = rows.plan, rows.weights
    eta, _ = await predictors(party, rows, fit.coefficients)
    scale = TERM_SCALE
    means = (await exp(party.at("exp"), eta, lower=LOWEST, upper=HIGHEST, scale=scale)).bounded_by(LARGEST_MEAN)
    inverse = await exp(party.at("inverse"), -eta, lower=-HIGHEST, upper=_LARGEST_INVERSE, scale=20)

    # 1. y eta - mean, where eta is less the logarithm of the unit.
    y = await mask(party, rows.y)
    explained = await masked_at(party, await multiply(party, y, eta), scale)
    gained = explained - means
    factorial, saturated = (rows.constants[:, k].lifted(scale) for k in range(2))
    moved = -factorial
    if rows.offset is not None:
        moved = await masked_at(party, await multiply(party, y, rows.offset), scale) - factorial

    # 2. (y - mean) (y / mean - 1).
    short = y if y.scale <= 30 else await truncate(party, y, 30)
    quotient = (await multiply(party, short, inverse)).bounded_by(4.3 * math.exp(_LARGEST_INVERSE))
    quotient = await masked_at(party, quotient, 16)
    rest = await masked_at(party, rows.y.lifted(scale) - means, _REST_SCALE)
    if weights is not None:  # here, where it costs no precision
        rest = await masked_at(party, await multiply(party, rest, weights), _REST_SCALE)
    squares = await multiply(party, rest, quotient - 1)

    rounded = [(gained - factorial, weights), (saturated - gained, weights), (squares, None), (moved, weights)]
    likelihood, deviance, pearson, shifted = [await _total(party, *one, plan.row_bits) for one in rounded]
    total, weight, exposed = await _exact(party, rows)
    return Summed(likelihood, deviance, pearson, total, weight, exposed, shifted)


async def _total(party: Party, terms: Share, weights: Share | None, row_bits: int) -> Share:
    """Add up terms as often as their rows count, and round."""
    spare = ROOM_BITS - 2 - row_bits - math.ceil(math.log2(max(terms.bound, 1.0)))
    spare -= 0 if weights is None else weights.scale
    terms = terms if terms.scale <= spare else await truncate(party, terms, spare)
    total = (terms if weights is None else await multiply(party, terms, weights)).sum().reshape(1)
    return await truncate(party, total, total.scale - 4)
