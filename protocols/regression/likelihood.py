"""The log-likelihood of a logistic regression, on shares: one sum over all rows."""

from __future__ import annotations

import math
from typing import NamedTuple

from mpc import Party, Share, mask, matmul, multiply, truncate
from mpc.sigmoid import softplus
from protocols.regression.designs import Prepared
from protocols.regression.fit import Fit
from protocols.regression.newton import LARGEST_PREDICTOR
from protocols.regression.standardise import Design
from protocols.shares import clamped

_PREDICTOR_SCALE = 22
_TERM_SCALE = 36
_SUM_SCALE = 24
_MARGIN = 4
_ERROR = 1e-6


async def log_likelihood(
    party: Party, design: Design, y: Share, fit: Fit, *, weights: Share | None = None, offset: Share | None = None
) -> Share:
    """Compute the log-likelihood of a fit, without the penalty.

    Parameters
    ----------
    party : Party
        A scope of its own.
    design : Design
    y : Share
        Shape (rows,), 0 and 1.
    fit : Fit
    weights, offset : Share, optional
        See :func:`protocols.regression.newton.newton`.

    Returns
    -------
    Share
        Shape (1,), scale 24, in units of the weights.

    Notes
    -----
    The sum of ``y z - log(1 + exp(z))``, with z cut to +-18, beyond which a row's term is 0 to within 2e-8, or says
    that the fit is bad. Error: with n rows about ``5e-7 sqrt(n)``, as the errors of the rows have either sign (at
    most 1e-6 each and rounding). Nothing is revealed. Semi-honest.
    Cost: a comparison of ``2 n`` entries, 7 rounds (weights: 1 more) and 6 (8) elements a row.
    """
    w = await mask(party, fit.coefficients)
    z = await matmul(party, design.matrix, w)
    z = await truncate(party, z if offset is None else z + offset, _PREDICTOR_SCALE)
    z = await clamped(party, z, LARGEST_PREDICTOR)
    lost = await softplus(party, z, limit=LARGEST_PREDICTOR + _MARGIN, error=_ERROR)
    lost = await truncate(party, lost, _TERM_SCALE)
    won = await multiply(party, y, z)
    terms = (won.lifted(_TERM_SCALE) - lost).bounded_by(LARGEST_PREDICTOR + 1)
    if weights is None:
        return await truncate(party, terms.sum().reshape(1), _SUM_SCALE)
    total = (await multiply(party, terms, weights)).sum().bounded_by(terms.bound * len(y))
    return await truncate(party, total.reshape(1), _SUM_SCALE)


class Likelihoods(NamedTuple):
    """Opened: the log-likelihood, how many rows have y = 1, and how many there are, each as often as it counts."""

    fit: float
    events: float
    rows: float

    def null(self) -> float:
        """Return the log-likelihood of the model with the intercept alone."""
        others = self.rows - self.events
        return sum(count * math.log(count / self.rows) for count in (self.events, others) if count > 0)


async def likelihoods(party: Party, prepared: Prepared, fit: Fit) -> list[Share]:
    """Compute what :class:`Likelihoods` are made of, in units of the weights; shares of shape (1,)."""
    y, weights = prepared.target, prepared.weights
    scope = party.at("sum")
    total = await log_likelihood(scope, prepared.design, y, fit, weights=weights, offset=prepared.offset)
    if weights is None:
        return [total, y.sum().reshape(1), party.constant(prepared.n, shape=(1,))]
    events = (await multiply(party, y, weights)).sum()
    return [total, events.reshape(1), weights.sum().reshape(1)]
