"""Newton's method for counts with a logarithmic link, wholly on shares.

Every bound holds for any data: it follows from the Cauchy-Schwarz inequality on standardised columns, from the trace
of the information matrix, or it is enforced by clamping. Whether the result is right is checked on shares at the end.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mpc import F127, Party, Share, concatenate, less_than, mask, matmul, multiply, open_, truncate, truncate_all
from mpc.exponential import exp
from mpc.linear import solve
from mpc.normalise import integers, masked_at, octave, rescaled, room, weighted
from protocols.regression.count_rows import LARGEST_MEAN, TERM_SCALE, CountRows, log_unit
from protocols.regression.fit import COEFFICIENT_SCALE, LARGEST_COEFFICIENT, Fit, Plan
from protocols.regression.least_squares import exactly
from protocols.shares import clamped

# Linear predictors less the logarithm of the unit, cut to [-24, 2]: means from e^-24 to e^2 units.
_MIDDLE, _HALF = 11, 13
LOWEST, HIGHEST = -24.0, 2.0
_PREDICTOR_SCALE = 24
_WEIGHTED_SCALE = 28
_MATRIX_SCALE = 40
ROOM_BITS = 78
# The trace is at least 4^-8 of its bound, eigenvalues at least 2^-16 of the trace.
_TRACE_OCTAVES = 8
_RATIO_BITS = 16
# Scaled gradients are cut to this size; the last step's to 2^-8, for it must be short.
_FIRST_GRADIENT, _GRADIENT, _LAST_BITS = 32, 4, 8
_STEP_TOLERANCE = 2.0**-16
_FIRST_STOP = 3


class _System(NamedTuple):
    """Information matrix and gradient, scaled so that the trace is between 1/4 and 1."""

    matrix: Share
    gradient: Share
    scale: Share  # 4^a, masked
    down: int  # the matrix was multiplied by 4^a 2^-down


async def fit_counts(party: Party, rows: CountRows, *, steps: int, stop_early: bool) -> Fit:
    """Run Newton steps.

    Returns
    -------
    Fit
        Two checks: the matrix was regular and no mean was at the upper end; the last step was short.

    Notes
    -----
    The first step is that of iteratively reweighted least squares from ``y + 0.1``. The last one, whose gradient must
    be small, is made with a finer unit; at its start the inverse is taken. Nothing is revealed but, with
    ``stop_early``, one bit a step.
    """
    scope = party.at("start")
    y, weights = rows.y, rows.weights
    counted = y if weights is None else await multiply(scope, weights, y)
    if counted.scale > _mean_scale(rows.plan):
        counted = await truncate(scope, counted, _mean_scale(rows.plan))
    explained = await matmul(scope, rows.design.matrix.T, counted)
    means, responses = rows.start[:, 0].bounded_by(1.2), rows.start[:, 1]
    if rows.offset is not None:
        moved = await masked_at(scope, await multiply(scope, means, rows.offset), TERM_SCALE)
        responses = responses - moved
    fine = _mean_scale(rows.plan), _mean_scale(rows.plan, 64.0)
    if weights is not None:
        means = await multiply(scope, await masked_at(scope, means, fine[0]), weights)
        responses = await multiply(scope, await masked_at(scope, responses, fine[1]), weights)
    means, responses = await masked_at(scope, means, fine[0]), await masked_at(scope, responses, fine[1])
    sums = await matmul(scope, rows.design.matrix.T, responses)
    system = await _system(
        scope, rows, means, -sums.bounded_by(1.02 * responses.bound * rows.plan.rows), _FIRST_GRADIENT
    )
    zero = scope.constant(0.0, scale=COEFFICIENT_SCALE, shape=(rows.plan.width,))
    w, _ = await _moved(scope, rows, zero, system)

    made = 1
    while made < steps:
        scope = party.at("step")
        made += 1
        means, _, _ = await _means(scope, rows, w)
        system = await _system(scope, rows, *await _gradient(scope, rows, means, explained), _GRADIENT)
        before = w
        w, _ = await _moved(scope, rows, before, system)
        if stop_early and made >= _FIRST_STOP and made < steps:
            long = await _long(scope.at("length"), w - before)
            if not await open_(scope, await less_than(scope, 0, long)):
                break

    scope = party.at("last")
    means, above, _ = await _means(scope, rows, w)
    system = await _system(scope, rows, *await _gradient(scope, rows, means, explained), 2.0**-_LAST_BITS)
    after, inverse, right = await _last(scope, rows, w, system)
    long = await _long(scope.at("length"), after - w)
    bad = concatenate([(1 - right).reshape(1) + above.reshape(1), long.reshape(1)])
    return Fit(after, inverse, await less_than(scope.at("checks"), bad, 1), made)


def _mean_scale(plan: Plan, bound: float = 8.0) -> int:
    """Return the fraction bits of means that leave room for sums over rows of products with columns."""
    return min(38, ROOM_BITS - 26 - math.ceil(math.log2(bound)) - plan.row_bits - 1)


async def predictors(party: Party, rows: CountRows, w: Share) -> tuple[Share, Share]:
    """Return linear predictors less the logarithm of the unit, cut to the range, and how many were above it."""
    z = await matmul(party, rows.design.matrix, await mask(party, w))
    z = z if rows.offset is None else z + rows.offset
    widest = z.bound + max(_MIDDLE, log_unit(rows.limit)) + 0.5  # the same in a rehearsal, which does not know the unit
    z = await truncate(party, exactly(z + (_MIDDLE - log_unit(rows.top)), widest), _PREDICTOR_SCALE)
    size = z.size
    beyond = await less_than(party, _HALF, concatenate([z, -z]))
    above, below = beyond[:size], beyond[size:]
    inside = await multiply(party, z, (1 - above - below).bounded_by(1))
    cut = (inside + (above - below) * _HALF).bounded_by(_HALF)
    if rows.weights is not None and rows.weights.scale == 0:
        above = await multiply(party, above, rows.weights)
    return (cut - _MIDDLE).bounded_by(-LOWEST), above.sum()


async def _means(party: Party, rows: CountRows, w: Share) -> tuple[Share, Share, Share]:
    """Return means, as often as their rows count; how many were cut; and the linear predictors."""
    eta, above = await predictors(party, rows, w)
    scale = _mean_scale(rows.plan)
    means = await exp(party.at("exp"), eta, lower=LOWEST, upper=HIGHEST, scale=scale)
    means = means.bounded_by(LARGEST_MEAN)
    if rows.weights is not None:
        means = await masked_at(party, await multiply(party, means, rows.weights), scale)
    return means.bounded_by(LARGEST_MEAN), above, eta


async def _gradient(party: Party, rows: CountRows, means: Share, explained: Share) -> tuple[Share, Share]:
    sums = await matmul(party, rows.design.matrix.T, means)
    return means, (sums - explained).bounded_by(1.02 * (LARGEST_MEAN + 1) * rows.plan.rows)


async def _system(party: Party, rows: CountRows, means: Share, gradient: Share, limit: float) -> _System:
    """Form the information matrix of the given means, and scale it together with the gradient."""
    A, plan, width = rows.design.matrix, rows.plan, rows.plan.width
    row_bits = plan.row_bits

    # 1. H = A' diag(means) A; its trace in units of a public bound.
    counted = await multiply(party, A, means.reshape(plan.rows, 1))
    counted = await truncate(party, counted, min(_WEIGHTED_SCALE, ROOM_BITS - 31 - row_bits))
    sums = (await matmul(party, counted.T, A)).bounded_by(1.03 * LARGEST_MEAN * plan.rows)
    H, g = await truncate_all(party, [sums.scaled_down(row_bits), gradient.scaled_down(row_bits)], _MATRIX_SCALE)
    H = H.bounded_by(1.04 * LARGEST_MEAN)
    down = math.ceil(math.log2(1.05 * LARGEST_MEAN * width))
    trace = rescaled(H.reshape(width * width)[:: width + 1].sum(), H.scale + down).bounded_by(1.0)

    # 2. 4^a 2^-down times the trace is in [1/4, 1): so no eigenvalue is above 1.
    found = await octave(
        party.at("trace"), integers(trace.reshape(1)), low=trace.scale - 2 * _TRACE_OCTAVES, top=trace.scale, width=2
    )
    scale = await mask(party, weighted(found.hit, [4**a for a in range(len(found.hit))]))
    matrix = rescaled(await multiply(party, H, scale), H.scale + down).bounded_by(1.01)
    pulled = rescaled(await multiply(party, g, scale), g.scale + down)
    matrix = await masked_at(party, matrix, 44)
    bits = max(0, -math.floor(math.log2(limit)))
    pulled = rescaled(pulled, pulled.scale - bits)  # in units of 2^-bits
    keep = min(44, ROOM_BITS - 2 - math.ceil(math.log2(pulled.bound)))
    pulled = await clamped(party.at("gradient"), await masked_at(party, pulled, keep), max(1, int(limit)))
    fill = rows.design.constant.broadcast_to((width - 1, width - 1)) * np.eye(width - 1, dtype=np.int64)
    spread = np.zeros((width, width - 1), np.int64)
    spread[1:] = np.eye(width - 1, dtype=np.int64)
    filler = ((fill @ spread.T).T @ spread.T).bounded_by(1)
    matrix = matrix + rescaled(filler, 2).lifted(matrix.scale)
    return _System(matrix, rescaled(pulled, pulled.scale + bits), scale, down)


def _smallest(party: Party, width: int) -> float:
    """Return the eigenvalue, of a matrix with a trace of at most 1, below which it counts as singular."""
    return 2.0 ** -min(_RATIO_BITS, room(party, F127) - 58 - math.ceil(math.log2(width)))


async def _moved(party: Party, rows: CountRows, w: Share, system: _System) -> tuple[Share, Share]:
    """Make a step; returns the new coefficients and whether the matrix was regular."""
    smallest = _smallest(party, rows.plan.width)
    solved = await solve(party.at("solve"), system.matrix, system.gradient, largest=1.27, smallest=smallest)
    delta = await masked_at(party, solved.value, COEFFICIENT_SCALE)
    return await clamped(party, w - delta, LARGEST_COEFFICIENT), solved.right


async def _last(party: Party, rows: CountRows, w: Share, system: _System) -> tuple[Share, Share, Share]:
    """Make the last step, and bring the inverse to units that are public."""
    width = rows.plan.width
    smallest = _smallest(party, width)
    finer = rescaled(system.gradient, system.gradient.scale - _LAST_BITS)
    sides = concatenate([finer.reshape(width, 1), party.constant(np.eye(width), scale=finer.scale)], axis=1)
    solved = await solve(party.at("solve"), system.matrix, sides.bounded_by(1.001), largest=1.27, smallest=smallest)
    delta = rescaled(solved.value[:, 0], solved.value.scale + _LAST_BITS)
    delta = await masked_at(party, delta, COEFFICIENT_SCALE)
    after = await clamped(party, w - delta, LARGEST_COEFFICIENT)

    # H^-1 = 4^a 2^-down times the scaled inverse.
    most = 1.2 * math.sqrt(width) / smallest  # a regular matrix' inverse, by its Frobenius norm
    V = await masked_at(party, solved.value[:, 1:].bounded_by(most), 38)
    bound = math.ldexp(most * 4 ** (_TRACE_OCTAVES - 1), -system.down)
    product = rescaled(await multiply(party, V, system.scale), V.scale + system.down).bounded_by(bound)
    inverse = await truncate(party, product, min(30, 45 - math.ceil(math.log2(bound))))
    return after, inverse, solved.right


async def _long(party: Party, moved: Share) -> Share:
    """Count the coefficients that moved by more than the tolerance."""
    return (await less_than(party, _STEP_TOLERANCE, concatenate([moved, -moved]))).sum()
