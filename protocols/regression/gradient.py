"""Full-batch gradient descent for penalised logistic regression on shares.

The matrix was masked once; a step opens one number a row twice and one a column once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mpc import Party, Share, concatenate, less_than, matmul, multiply, sigmoid, stack, truncate, truncate_all
from mpc.tasks import side_by_side
from protocols.regression.fit import COEFFICIENT_SCALE, LARGEST_COEFFICIENT, Fit, Plan, penalised
from protocols.regression.standardise import DESIGN_SCALE, Design, reach
from protocols.shares import clamped

_SIGMOID_ERROR = 2e-5
# Bits of what is truncated in a step, and of the learning rate in it.
_STEP_BITS = 77
_RATE_BITS = 18
_MOMENTUM_SCALE = 16
_RANGE_SCALE = 6
# How many linear predictors are kept before their range is checked.
_KEPT = 1 << 18
_LARGEST_REACH = 2.0**16
# The mean gradient counts as zero below this norm.
_GRADIENT_TOLERANCE = 1e-4


async def descend(
    party: Party,
    design: Design,
    y: Share,
    plan: Plan,
    *,
    steps: int,
    learning_rate: float,
    momentum: float,
    limit: float,
) -> Fit:
    """Run gradient steps from zero.

    Parameters
    ----------
    party : Party
    design : Design
    y : Share
        Shape (rows,), integers 0 and 1.
    plan : Plan
    steps : int
        Public and fixed.
    learning_rate, momentum : float
    limit : float
        Range of linear predictors in which the sigmoid is right.

    Returns
    -------
    Fit
        Without an inverse. Two checks: all linear predictors of all steps were within the limit, and the
        last gradient was short.

    Notes
    -----
    ``v <- momentum v + rate (A^T (sigmoid(A w) - y) + l2 w) / rows`` (no penalty on the intercept),
    ``w <- w - v``. As A w is linear in w, the predictors are kept and updated: only v is opened masked.
    Bounds: no gradient entry is above ``1.02 + l2 |w| / rows``, whatever the data. Nothing is revealed.
    Semi-honest.
    Cost of a step: 3 rounds; ``2 rows + columns + 1`` elements opened. At the end one comparison of
    ``2 rows steps`` entries.
    """
    A, n = design.matrix, plan.rows
    explained = await matmul(party, A.T, y)
    rate_shift = _RATE_BITS + math.floor(math.log2(n / learning_rate))
    rate = round(math.ldexp(learning_rate / n, rate_shift))
    growth = math.ceil(math.log2(1 / (1 - momentum)))
    probability_scale = min(26, _STEP_BITS - growth - DESIGN_SCALE - _RATE_BITS - plan.row_bits)
    if probability_scale < 8:
        raise ValueError(f"gradient descent takes fewer rows than {n}, or less momentum: use solver='newton'")

    z = party.constant(0.0, scale=DESIGN_SCALE + COEFFICIENT_SCALE, shape=(n,))
    w = party.constant(0.0, scale=COEFFICIENT_SCALE, shape=(plan.width,))
    reaches = _reaches(plan, steps=steps, learning_rate=learning_rate, momentum=momentum)
    v: Share | None = None
    # The penalty's part of a step, at the scale of the rest.
    pull_shift = DESIGN_SCALE + probability_scale + rate_shift - COEFFICIENT_SCALE
    pull = penalised(plan.width) * round(math.ldexp(learning_rate * plan.l2 / n, pull_shift))
    before = gradient = w
    beyond: list[Share] = []
    kept: list[Share] = []
    for step in range(steps):
        scope = party.at("descend")
        # 1. Probabilities.
        if z.bound > limit:
            kept.append(z)
        p = await sigmoid(scope, z, limit=limit + 1, error=_SIGMOID_ERROR, allow_beyond=True)
        p = await truncate(scope, p, probability_scale)

        # 2. The gradient, times the number of rows; columns have mean square 1, and |p - y| <= 1.
        gradient = (await matmul(scope, A.T, p) - explained).bounded_by(1.02 * n)

        # 3. The step.
        before = w
        moved = (gradient * np.array(rate)).scaled_down(rate_shift) + (w * pull).scaled_down(pull_shift)
        if v is not None and momentum:
            moved = moved + (v * np.array(round(math.ldexp(momentum, _MOMENTUM_SCALE)))).scaled_down(_MOMENTUM_SCALE)
        v = await truncate(scope, moved.bounded_by(reaches[step].step), COEFFICIENT_SCALE)
        w = (w - v).bounded_by(reaches[step].coefficient)
        if step < steps - 1:
            z = (z - await matmul(scope, A, v)).bounded_by(plan.width * reach(n) * w.bound)
        if n * len(kept) >= _KEPT or (kept and step == steps - 1):
            beyond.append(await _beyond(scope.at("range"), kept, limit))
            kept = []

    # 4. Is it a result?
    scope = party.at("check")
    outside = party.constant(0)
    for count in beyond:
        outside = outside + count
    async with side_by_side() as group:
        long = group.create_task(_gradient_is_long(scope.at("gradient"), gradient, before, plan))
        small = group.create_task(_held(scope.at("size"), w))
    checks = await less_than(scope, stack([outside, long.result()]), 1)
    return Fit(small.result(), None, checks, steps)


class _Reach(NamedTuple):
    step: float
    coefficient: float


def _reaches(plan: Plan, *, steps: int, learning_rate: float, momentum: float) -> list[_Reach]:
    """Bound steps and coefficients: gradients of the data's part are at most 1.02, whatever the data.

    Each coordinate is a linear system driven by its gradients, so the sum of the absolute impulse
    response is the bound. It does not depend on the data.
    """
    decays = np.array([0.0, learning_rate * plan.l2 / plan.rows])  # of the intercept, and of the others
    reaches = []
    v, w = np.ones(2), -np.ones(2)
    step, coefficient = np.zeros(2), np.zeros(2)
    slack = 1.03 * learning_rate
    for _ in range(steps):
        step += np.abs(v)
        coefficient += np.abs(w)
        reaches.append(_Reach(slack * float(step.max()) + 2.0**-10, slack * float(coefficient.max()) + 2.0**-10))
        v = momentum * v + decays * w
        w = w - v
    if not reaches[-1].coefficient < _LARGEST_REACH:
        raise ValueError("learning_rate is too high for this l2 and momentum: coefficients would grow without end")
    return reaches


async def _held(party: Party, w: Share) -> Share:
    return w if w.bound <= LARGEST_COEFFICIENT else await clamped(party, w, LARGEST_COEFFICIENT)


async def _beyond(party: Party, predictors: list[Share], limit: float) -> Share:
    """Count linear predictors beyond the limit."""
    coarse = await truncate(party, concatenate(predictors), _RANGE_SCALE)
    return (await less_than(party, limit + 0.5, concatenate([coarse, -coarse]))).sum()


async def _gradient_is_long(party: Party, gradient: Share, w: Share, plan: Plan) -> Share:
    """Return 1 if the gradient of the mean loss is longer than the tolerance, else 0."""
    pull = (w * (penalised(plan.width) * round(math.ldexp(plan.l2, 20)))).scaled_down(20)
    parts = [gradient.scaled_down(plan.row_bits), pull.scaled_down(plan.row_bits)]
    data, penalty = await truncate_all(party, parts, COEFFICIENT_SCALE)
    g = data + penalty
    squares = (await multiply(party, g, g)).sum()
    tolerance = _GRADIENT_TOLERANCE * plan.rows / 2**plan.row_bits
    return await less_than(party, tolerance**2, squares)
