"""Newton's method for penalised logistic regression, wholly on shares.

Every bound in here holds for any data: it follows from the Cauchy-Schwarz inequality on standardised
columns, from the eigenvalues of the information matrix, or it is enforced by clamping. Whether the
result is right as well (enough steps, a matrix that can be inverted) is checked on shares at the end.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mpc import (
    Party,
    Share,
    concatenate,
    less_than,
    mask,
    matmul,
    multiply,
    open_,
    sigmoid,
    stack,
    truncate,
    truncate_all,
)
from mpc.tasks import side_by_side
from protocols.regression.fit import COEFFICIENT_SCALE, LARGEST_COEFFICIENT, Fit, Plan, penalised
from protocols.regression.standardise import Design
from protocols.shares import clamped

LARGEST_PREDICTOR = 18
_PREDICTOR_SCALE = 20
_PROBABILITY_SCALE = 30
_GRADIENT_SCALE = 32
_WEIGHTED_SCALE = 28
_INFORMATION_SCALE = 38
# The inverse is kept as a block float: 40 bits below its public bound.
_INVERSE_BITS = 40
_RESIDUAL_SCALE = 34
_L2_SCALE = 28
# The error of the sigmoid is the same function in every row, so it does not average out; it is smaller
# by exp(-4) where the series is meant for a range that is wider by 4.
_SIGMOID_ERROR = 1e-6
_SIGMOID_MARGIN = 4
_SIGMOID_BIAS = 2e-7
# Early steps do with a rougher inverse: later ones make up for it.
_ACCURATE_STEPS = 3
_FIRST_STOP = 3
# What the opened bits say: the inverse is off by less than 2^-10 (Frobenius norm of I - H V), and the
# last step was shorter than 2^-11 standard errors of any coefficient.
_STEP_TOLERANCE = 2.0**-11
_RESIDUAL_TOLERANCE = 2.0**-10
# A last correction of the inverse: what it starts from, and the bits it adds.
_CORRECTION_SCALE = 44
_REFINED_BITS = 5


class Rows(NamedTuple):
    """What there is of each row beside the design.

    Attributes
    ----------
    explained : Share
        The columns' (weighted) products with the outcome.
    weights, offset : Share or None
        Masked, shape (rows,), at most 1 in size; the offset with any bound.
    """

    explained: Share
    weights: Share | None
    offset: Share | None


async def newton(
    party: Party,
    design: Design,
    y: Share,
    plan: Plan,
    *,
    steps: int,
    stop_early: bool,
    weights: Share | None = None,
    offset: Share | None = None,
) -> Fit:
    """Run Newton steps from zero.

    Parameters
    ----------
    party : Party
    design : Design
    y : Share
        Shape (rows,), integers 0 and 1.
    plan : Plan
    steps : int
        Public and fixed, unless
    stop_early : bool
        opens one bit a step, from the third on: whether that step was short enough to be the last.
    weights : Share, optional
        Shape (rows,), from 0 to 1, in units of ``4^weight_power``: rows count so often.
    offset : Share, optional
        Shape (rows,): added to the linear predictors.

    Returns
    -------
    Fit
        Two checks: the inverse is right, and the last step was short.

    Notes
    -----
    A step: with ``p = sigmoid(A w)``, gradient ``g = A^T (p - y) + l2 w`` and information
    ``H = A^T diag(p (1 - p)) A + l2`` (not on the intercept), ``w <- w - H^-1 g``. All sums over rows are
    kept divided by ``2^row_bits``. The inverse starts from a multiple of the identity each time, so that
    its convergence does not hang on how the weights changed. Nothing is revealed. Semi-honest.
    Cost of a step with n rows, w columns (with the ones) and k Schulz steps: ``n (w + 7) + 2 k w^2 + 6 w``
    field elements opened, besides the bits of two comparisons of ``2 n`` and ``2 w`` entries; with a dealer
    about ``25 + 2 k`` rounds. Weights take ``2 n`` elements and 2 rounds more.
    """
    # A^T y, once for all steps.
    if weights is not None:
        weights = await mask(party, weights)
        y = await multiply(party, weights, y)
    rows = Rows(await matmul(party, design.matrix.T, y), weights, offset)
    ridge = _ridge(plan, design.constant)
    w = party.constant(0.0, scale=COEFFICIENT_SCALE, shape=(plan.width,))
    made = 0
    while True:
        scope = party.at("newton")
        made += 1
        rough = made < _FIRST_STOP if stop_early else made <= steps - _ACCURATE_STEPS
        step = await _step(scope, design.matrix, w, rows, ridge, plan, rough=rough)
        w = step.after
        if made == steps:
            break
        if stop_early and made >= _FIRST_STOP:
            long = await _step_is_long(scope.at("step"), plan, step)
            if not await open_(scope, await less_than(scope, 0, long)):
                break

    # Is it a result? Both checks at once.
    scope = party.at("check")
    async with side_by_side() as group:
        off = group.create_task(_inverse_is_off(scope.at("inverse"), plan, step))
        long_step = group.create_task(_step_is_long(scope.at("step"), plan, step))
    checks = await less_than(scope, stack([off.result(), long_step.result()]), 1)
    inverse = await _refined(party.at("refine"), plan, step, checks[0])
    return Fit(w, inverse, checks, made)


class _Step(NamedTuple):
    before: Share
    after: Share
    gradient: Share
    information: Share
    inverse: Share


async def _step(scope: Party, A: Share, w: Share, rows: Rows, ridge: Share, plan: Plan, *, rough: bool) -> _Step:
    """Make one Newton step."""
    down = plan.row_bits

    # 1. Linear predictors and probabilities; beyond +-18 these are 0 and 1 to within 2e-8.
    w = await mask(scope, w)
    z = await matmul(scope, A, w)
    z = await truncate(scope, z if rows.offset is None else z + rows.offset, _PREDICTOR_SCALE)
    z = await clamped(scope, z, LARGEST_PREDICTOR)
    p = await sigmoid(scope, z, limit=LARGEST_PREDICTOR + _SIGMOID_MARGIN, error=_SIGMOID_ERROR, bias=_SIGMOID_BIAS)
    p = await truncate(scope, p, _PROBABILITY_SCALE)
    counted = p  # p as often as its row counts
    if rows.weights is not None:
        counted = await multiply(scope, p, rows.weights)
        counted = (await truncate(scope, counted, _PROBABILITY_SCALE)).bounded_by(1.001)

    # 2. Gradient; |A^T (p - y)| <= rows, because columns have mean square 1 and |p - y| <= 1.
    residual = (await matmul(scope, A.T, counted) - rows.explained).bounded_by(1.02 * plan.rows)
    pull = (w * (penalised(plan.width) * round(math.ldexp(plan.l2, _L2_SCALE)))).scaled_down(_L2_SCALE)

    # 3. Weights p (1 - p); one round truncates both.
    weights = (await multiply(scope, counted, 1 - p)).bounded_by(0.251)
    gradient = (residual + pull).scaled_down(down)
    scale = _GRADIENT_SCALE - max(0, math.ceil(math.log2(gradient.bound)))  # less where a penalty makes it large
    g, weights = await truncate_all(scope, [gradient, weights], scale)

    # 4. Information matrix; its entries are at most its largest eigenvalue.
    weighted = await multiply(scope, A, weights.reshape(plan.rows, 1))
    weighted = await truncate(scope, weighted, _WEIGHTED_SCALE)
    sums = (await matmul(scope, weighted.T, A)).bounded_by(0.26 * plan.rows)
    H = await truncate(scope, (sums + ridge).scaled_down(down), _INFORMATION_SCALE)
    H = H.bounded_by(plan.largest_eigenvalue)

    # 5. Its inverse, and the step.
    V = await _inverse(scope, H, plan, rough=rough)
    delta = (await matmul(scope, V, g)).bounded_by(1.05 * V.bound * g.bound * math.sqrt(plan.width))
    delta = await truncate(scope, delta, COEFFICIENT_SCALE)
    after = await clamped(scope, w - delta, LARGEST_COEFFICIENT)
    return _Step(w, after, g, H, V)


def _ridge(plan: Plan, constant: Share) -> Share:
    """Return the diagonal matrix of the penalty; constant columns get an entry that keeps H invertible."""
    # With the penalty they stay below the largest eigenvalue, and far above the smallest.
    filler = max(1, math.floor(plan.largest_eigenvalue * 2**plan.row_bits / 2 - plan.l2))
    identity = np.eye(plan.width - 1, dtype=np.int64)
    fillers = constant.broadcast_to((plan.width - 1, plan.width - 1)) * (identity * filler)
    public = round(math.ldexp(plan.l2, _L2_SCALE)) * identity
    return _bordered(fillers.lifted(_L2_SCALE) + np.ldexp(public.astype(np.float64), -_L2_SCALE))


def _bordered(block: Share) -> Share:
    """Put a row and a column of zeros in front."""
    size = len(block)
    spread = np.zeros((size + 1, size), np.int64)
    spread[1:] = np.eye(size, dtype=np.int64)
    return (block @ spread.T).T @ spread.T


async def _inverse(party: Party, H: Share, plan: Plan, *, rough: bool) -> Share:
    """Invert a positive definite matrix by Schulz steps ``V <- c V (2 I - H V)``.

    With exact arithmetic the eigenvalues of ``H V`` stay in (0, 2), so V at most grows by ``2 c`` a step,
    and ``|H V| <= 2``, also where H is singular; the bounds below leave 5 % (and a factor 2) for rounding.
    """
    largest, identity = plan.largest_eigenvalue, np.eye(plan.width)
    first, *others = plan.schulz_factors(rough=rough)

    # 1. From V = I / largest, the first step is linear in H.
    bound = 2 * first / largest
    start = -(H * (first / largest**2) - 2 * first / largest * identity)
    V = await truncate(party, start.bounded_by(bound * 1.01), _inverse_scale(bound))
    for factor in others:
        # 2. H V, then V (2 I - H V): both are products of masked matrices and cost one truncation each.
        product = (await matmul(party, H, V)).bounded_by(4)
        product = await truncate(party, product, _RESIDUAL_SCALE)
        V = await matmul(party, V, product - 2 * identity)
        bound *= 2.1 * factor
        V = (V * -round(8 * factor)).scaled_down(3).bounded_by(bound)
        V = await truncate(party, V, _inverse_scale(bound))
    return V


def _inverse_scale(bound: float) -> int:
    return min(38, _INVERSE_BITS - math.ceil(math.log2(bound)))


async def _refined(party: Party, plan: Plan, step: _Step, right: Share) -> Share:
    """Return the inverse with five bits more, ``V + V (I - H V)``, if it is right; else as it is.

    Where it is right, ``|I - H V|`` was checked to be below 2^-10. Cost: 4 rounds, ``3 w^2 + 1`` elements.
    """
    V = step.inverse
    rest = -(await matmul(party, step.information, V)).bounded_by(4) + np.eye(plan.width)
    rest = (await multiply(party, rest, right.reshape(1, 1))).bounded_by(1.1 * _RESIDUAL_TOLERANCE)
    rest = await truncate(party, rest, _CORRECTION_SCALE)
    scale = V.scale + _REFINED_BITS
    correction = (await matmul(party, V, rest)).bounded_by(1.2 * V.bound * _RESIDUAL_TOLERANCE * math.sqrt(plan.width))
    refined = V.lifted(scale) + await truncate(party, correction, scale)
    return await mask(party, refined.bounded_by(1.001 * V.bound))


async def _inverse_is_off(party: Party, plan: Plan, step: _Step) -> Share:
    """Return 1 if ``|I - H V|`` is above the tolerance (Frobenius norm), else 0."""
    product = await truncate(party, (await matmul(party, step.information, step.inverse)).bounded_by(4), 24)
    rest = product - np.eye(plan.width)
    squares = (await multiply(party, rest, rest)).sum()
    return await less_than(party, _RESIDUAL_TOLERANCE**2, squares)


async def _step_is_long(party: Party, plan: Plan, step: _Step) -> Share:
    """Return 0 if the step was short and nothing was clamped, else a positive number.

    ``g' H^-1 g`` is the squared length of the step; no coefficient moved by more standard errors than that.
    """
    moved = (step.after - step.before).bounded_by(2 * LARGEST_COEFFICIENT)
    length = -(await multiply(party, step.gradient, moved)).sum()
    async with side_by_side() as group:
        tolerance = _STEP_TOLERANCE**2 / 2**plan.row_bits / 4.0 ** max(plan.weight_power, 0)
        long = group.create_task(less_than(party.at("length"), tolerance, length))
        ends = concatenate([step.after, -step.after])
        at_end = group.create_task(less_than(party.at("ends"), LARGEST_COEFFICIENT * 0.99, ends))
    return long.result() + at_end.result().sum()
