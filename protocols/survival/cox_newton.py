"""Newton's method for the partial likelihood of Cox's model, wholly on shares, on rows in the order of their times.

With ``theta = exp(X w)`` the sums over risk sets are sums up to a row. Efron's correction makes the l-th of d tied
events see ``P(end) - l/d (P(end) - P(begin))``, with P the sum up to a row, at the end of the run of tied events and
before its beginning. With ``r = 1 / S0`` and ``m = S1 / S0`` for each event, the score is ``sum (x - m)`` and the
information ``sum_i theta_i h_i x_i x_i^T - sum m m^T``, where h_i adds up the parts of r of all risk sets that row i
is in: no matrix of rows times times, and no sum of squares for each risk set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpc import Party, Share, concatenate, less_than, mask, matmul, multiply, open_, stack, truncate
from mpc.elementary import exp, log
from mpc.linear import inverse
from mpc.normalise import masked_at, normalise, rescaled
from mpc.series import evaluate, reciprocal_series
from protocols.shares import clamped
from protocols.survival.cox_order import RiskOrder
from protocols.survival.endings import within

# Linear predictors of standardised columns are clamped to this size, coefficients to the other.
LARGEST_PREDICTOR = 10
LARGEST_COEFFICIENT = 16
COEFFICIENT_SCALE = 32
DESIGN_SCALE = 26
# A value that is to be truncated has at most so many bits: with seven parties, too, its mask has room then.
_ROOM_BITS = 78
# exp(10) and a power of two below exp(-10): literals, as bounds must be the same at all parties.
_LARGEST_THETA, _THETA_BITS, _SMALLEST_THETA_BITS = 22026.5, 15, 15
_PREDICTOR_SCALE = 28
_MEAN_SCALE = 30
# Scores are clamped: a longer step is made in several. Later steps are short; what they are clamped to is less by so
# many bits (from a step on), which leaves more fraction bits.
_LARGEST_SCORE = 4
_SHORTER = ((1, 0), (5, 6), (7, 14))
_SCORE_SCALE = 34
_TRACE_SCALE = 30
# The information of one event, summed over columns, is found down to 2^-6; its eigenvalues down to 2^-17 of that.
_LEAST_TRACE_BITS, _CONDITION_BITS = 6, 17
_LOG_SCALE = 32
_FIRST_STOP = 5
# The last step was shorter than this part of a standard error of any coefficient.
_STEP_TOLERANCE = 2.0**-14


@dataclass(frozen=True, slots=True)
class CoxPlan:
    """The public numbers of a fit.

    Attributes
    ----------
    rows, columns, events : int
    l2 : float
        Penalty ``l2/2 |w|^2`` on the coefficients of the standardised columns.
    """

    rows: int
    columns: int
    events: int
    l2: float

    @property
    def row_bits(self) -> int:
        """Bits of the number of rows."""
        return max(2, self.rows.bit_length())

    @property
    def event_bits(self) -> int:
        """Score and information are divided by ``2^event_bits``, the next power of two above the events."""
        return max(0, self.events - 1).bit_length()

    @property
    def reach(self) -> float:
        """Bound on standardised entries (Samuelson, 1968)."""
        return 1.02 * math.sqrt(max(1, self.rows))

    @property
    def sum_scale(self) -> int:
        """Fraction bits of sums over risk sets."""
        return min(30, 36 - -(-self.row_bits // 2), 44 - self.row_bits)

    @property
    def fraction_scale(self) -> int:
        """Fraction bits of ``l / d``."""
        return min(24, _ROOM_BITS - 2 - _THETA_BITS - self.row_bits - self.sum_scale)

    @property
    def sum_bound(self) -> float:
        """Bound on sums over risk sets, of theta and (by the Cauchy-Schwarz inequality) of theta times a column."""
        return 1.03 * self.rows * _LARGEST_THETA

    @property
    def mean_bound(self) -> float:
        """Bound on weighted means of a column, with rounding."""
        return 1.03 * self.reach + self.rows * 2.0 ** (18 - self.sum_scale)

    @property
    def rate_scale(self) -> int:
        """Fraction bits of one over a sum of thetas."""
        return min(36, _ROOM_BITS - 2 - self.sum_scale - self.row_bits)

    @property
    def square_scale(self) -> int:
        """Fraction bits of means, whose squares are added up."""
        return min(DESIGN_SCALE, (_ROOM_BITS - 2 - 2 * self.row_bits) // 2)

    @property
    def weighted_scale(self) -> int:
        """Fraction bits of weighted rows, whose products with rows are added up."""
        return min(DESIGN_SCALE, _ROOM_BITS - 1 - DESIGN_SCALE - 2 * self.row_bits)


class Evaluated(NamedTuple):
    """What is known of one vector of coefficients.

    Attributes
    ----------
    predictor, sums : Share
        Shape (rows,): linear predictors, and S0 for each event, at scale ``sum_scale``.
    score, information : Share
        Shapes (columns,) and (columns, columns), with the penalty; divided by ``2^event_bits``.
    clamped : Share
        How many linear predictors were beyond the range.
    """

    predictor: Share
    sums: Share
    score: Share
    information: Share
    clamped: Share


class CoxFit(NamedTuple):
    """A fit on shares, in units of the standardised columns.

    Attributes
    ----------
    coefficients : Share
        Scale 32.
    inverse : Share
        Of the information divided by ``2^event_bits`` and by a power of two above its trace; masked.
    trace_inverse : Share
        Shape (1,), masked integer: ``2^trace_bits`` over that power of two.
    trace_bits : int
    likelihood : Share
        Two log-likelihoods: at 0, and before the last step.
    checks : Share
        Four bits, 1 is good: the information could be inverted, the last step was short, no linear predictor
        or coefficient was beyond its range, no more ties than were agreed.
    iterations : int
    """

    coefficients: Share
    inverse: Share
    trace_inverse: Share
    trace_bits: int
    likelihood: Share
    checks: Share
    iterations: int


async def cox_newton(
    party: Party, order: RiskOrder, constant: Share, plan: CoxPlan, *, steps: int, stop_early: bool
) -> CoxFit:
    """Run Newton steps from zero.

    Parameters
    ----------
    party : Party
        A scope of its own.
    order : RiskOrder
    constant : Share
        Shape (columns,): 1 where a column is constant (and all zeros here), else 0.
    plan : CoxPlan
    steps : int
        Public and fixed, unless
    stop_early : bool
        opens one bit a step, from the fifth on: whether that step was short enough to be the last.

    Notes
    -----
    Nothing else is revealed. Semi-honest. The result has the last step in it; information and likelihood are those
    before it, which a short step does not change. Bounds hold whatever the data: sums by the Cauchy-Schwarz inequality
    and the clamped predictors, means because they are means.
    Cost of a step with n rows, d columns and L links of ties: about ``n (70 + 8 d + 2 L (d + 2)) + 1500`` elements
    (words of masked bits among them), in about ``130 + 2 L`` rounds with a dealer; with ``prss`` and t possible
    colluders ``15 t`` rounds more, and of five or seven parties 3 or 4 times the elements.
    """
    w = party.constant(0.0, scale=COEFFICIENT_SCALE, shape=(plan.columns,))
    explained = (order.event.reshape(1, -1), order.X)
    total = (await matmul(party, *explained)).reshape(-1)
    first: Evaluated | None = None
    made = 0
    while True:
        made += 1
        scope = party.at("step")
        found = await _evaluate(scope, order, w, total, constant, plan)
        first = found if first is None else first
        step = await _step(scope.at("solve"), found, plan, fewer=max(bits for start, bits in _SHORTER if made >= start))
        before, w = w, await clamped(scope.at("range"), w + step.delta, LARGEST_COEFFICIENT)
        moved = (w - before).bounded_by(2 * LARGEST_COEFFICIENT)
        # Where the score or the step was clamped this is long, too.
        length = (await multiply(scope.at("length"), moved, step.pull)).sum()
        if made == steps:
            break
        if stop_early and made >= _FIRST_STOP:
            short = 1 - await less_than(scope.at("long"), _tolerance(plan), length)
            if await open_(scope, short):
                break

    # Is it a result?
    scope = party.at("check")
    ends = await less_than(scope.at("ends"), LARGEST_COEFFICIENT * 0.99, concatenate([w, -w]))
    beyond = (ends.sum() + found.clamped).bounded_by(2 * plan.rows + 2 * plan.columns)
    short = 1 - await less_than(scope.at("long"), _tolerance(plan), length)
    counts = stack([beyond, order.longer.bounded_by(plan.rows)])
    within = 1 - await less_than(scope.at("within"), 0, counts)
    checks = concatenate([step.right.reshape(1), short.reshape(1), within])
    likelihood = await _likelihood(party.at("likelihood"), order, [first, found], plan)
    return CoxFit(w, step.inverse, step.trace_inverse, step.trace_bits, likelihood, checks, made)


def _tolerance(plan: CoxPlan) -> float:
    """Return the square of a short step's length, in units of what score and information are divided by."""
    return math.ldexp(_STEP_TOLERANCE**2, -plan.event_bits)


async def _evaluate(
    party: Party, order: RiskOrder, w: Share, total: Share, constant: Share, plan: CoxPlan
) -> Evaluated:
    """Compute score and information at w."""
    scale, rows, columns = plan.sum_scale, plan.rows, plan.columns
    XT = order.X.T

    # 1. Linear predictors and their exponentials.
    w = await mask(party.at("coefficients"), w)
    eta = await truncate(party, await matmul(party, order.X, w), _PREDICTOR_SCALE)
    eta, beyond = await _in_range(party.at("predictor"), eta)
    theta = await exp(party.at("exp"), eta, lower=-LARGEST_PREDICTOR, upper=LARGEST_PREDICTOR, scale=scale)
    theta = theta.bounded_by(1.001 * _LARGEST_THETA)

    # 2. Sums of theta and theta x over risk sets, for each event those that Efron's correction gives it.
    product = await truncate(party, await multiply(party, XT, theta.reshape(1, -1)), scale)
    both = concatenate([theta.reshape(1, -1), product], axis=0)
    upto = order.up_to(both, math.ceil(plan.sum_bound * 2**scale))
    before = None if order.fraction is None else (upto - both).bounded_by(plan.sum_bound)
    upto, before = await order.gather(party.at("gather"), upto, before)
    if before is not None and order.fraction is not None:
        part = await multiply(party, upto - before, order.fraction.reshape(1, -1))
        sums = (upto - part).bounded_by(1.001 * plan.sum_bound)
        upto = await truncate(party, sums, scale)
    s0 = upto[0].bounded_by(1.002 * plan.sum_bound)

    # 3. One over the sums, as a power of two and a number from 1 to 2; 0 in rows without event.
    top = s0.magnitude.bit_length()
    low = scale - _SMALLEST_THETA_BITS - 1
    octaves = top - low
    found = await normalise(party.at("octave"), s0, low=low, top=top, weights=[[1 << k for k in range(octaves)]])
    fine = min(32, _ROOM_BITS - 3 - octaves)
    mantissa = await evaluate(party, found.t, reciprocal_series(), to=fine, where=found.inside)
    factor = await multiply(party, found.factors[0], order.event)
    factor = await mask(party, factor.bounded_by(1 << octaves - 1))

    # 4. The means m = S1 / S0, and the score.
    shifted = rescaled(await multiply(party, upto[1:], factor.reshape(1, -1)), top)
    shifted = await truncate(party, shifted.bounded_by(plan.mean_bound), _MEAN_SCALE)
    means = (await multiply(party, shifted, mantissa.reshape(1, -1))).bounded_by(2.1 * plan.mean_bound)
    means = await truncate(party, means, plan.square_scale)
    means = means.bounded_by(1.1 * plan.mean_bound)
    score = total - means.sum(axis=1)

    # 5. The part of the information that is linear in theta: sum_i theta_i h_i x_i x_i^T.
    rate = rescaled(await multiply(party, mantissa, factor), fine + top - scale)
    rate = rate.bounded_by(2.1 * _LARGEST_THETA)
    h = await _added_up(party.at("scatter"), order, await truncate(party, rate, plan.rate_scale), plan)
    weight = (await multiply(party, theta, h)).bounded_by(1.1 * rows + 1)
    weight = await truncate(party, weight, DESIGN_SCALE - plan.row_bits // 2)
    weighted = (await multiply(party, XT, weight.reshape(1, -1))).bounded_by((1.1 * rows + 1) * plan.reach)
    weighted = await truncate(party, weighted, plan.weighted_scale)
    squares = await matmul(party, weighted, order.X) - await matmul(party, means, means.T)
    information = squares.bounded_by(1.2 * (rows + 1) * plan.reach**2)

    # 6. For one event; with the penalty, and something on the diagonal of constant columns.
    per_event = rescaled(information, information.scale + plan.event_bits)
    information = await truncate(party, per_event, _TRACE_SCALE)
    identity = np.eye(columns, dtype=np.int64)
    information = information + constant.broadcast_to((columns, columns)) * identity
    score = rescaled(score, score.scale + plan.event_bits)
    if plan.l2:
        ridge = round(math.ldexp(plan.l2, _TRACE_SCALE - plan.event_bits))
        information = information + party.constant(identity * ridge).scaled_down(_TRACE_SCALE)
        score = score - rescaled(w * ridge, w.scale + _TRACE_SCALE)
    return Evaluated(eta, s0, score, information, beyond)


async def _in_range(party: Party, eta: Share) -> tuple[Share, Share]:
    """Clamp linear predictors; also return how many were beyond the range."""
    size = eta.size
    beyond = await less_than(party, LARGEST_PREDICTOR, concatenate([eta, -eta]))
    above, below = beyond[:size], beyond[size:]
    kept = await multiply(party, eta, (1 - above - below).bounded_by(1))
    return (kept + (above - below) * LARGEST_PREDICTOR).bounded_by(LARGEST_PREDICTOR), beyond.sum()


async def _added_up(party: Party, order: RiskOrder, rate: Share, plan: CoxPlan) -> Share:
    """Return for each row the sum of the rates of all risk sets that it is in, each with its part of it."""
    bound = math.ceil(plan.rows * 2.2 * _LARGEST_THETA * 2**plan.rate_scale)
    last, first = rate, None
    if order.fraction is not None:
        first = await truncate(party, await multiply(party, rate, order.fraction), plan.rate_scale)
        last = rate - first
    last = within(last, bound)
    last, first = await order.scatter(party, last, None if first is None else within(first, bound))
    h = order.from_on(last, bound)
    if first is not None:
        h = h + (order.from_on(first, bound) - first)
    return within(h, bound)


class _Step(NamedTuple):
    delta: Share
    pull: Share
    inverse: Share
    right: Share
    trace_inverse: Share
    trace_bits: int


async def _step(party: Party, found: Evaluated, plan: CoxPlan, *, fewer: int) -> _Step:
    """Solve for a Newton step; see :class:`CoxFit` for the inverse.

    The information is divided by a secret power of two that is above its trace, so that it need not be known
    how large it is.
    """
    columns = plan.columns
    H = found.information
    diagonal = H.reshape(-1)[:: columns + 1]
    trace = diagonal.sum().reshape(1)
    trace = trace.bounded_by(columns * H.bound)
    top = trace.magnitude.bit_length()
    low = _TRACE_SCALE - _LEAST_TRACE_BITS
    size = await normalise(party.at("trace"), trace, low=low, top=top, weights=[[1 << k for k in range(top - low)]])
    factor = size.factors[0]  # 2^k, with 2^(top - k - 1) <= trace < 2^(top - k)
    unit = rescaled(await multiply(party, H, factor), H.scale + top - _TRACE_SCALE).bounded_by(1.001)
    unit = await truncate(party, unit, 54) if unit.scale > 54 else unit
    solved = await inverse(party.at("inverse"), unit, largest=1.0, smallest=2.0**-_CONDITION_BITS)

    # The step: V g 2^k / 2^(top - scale), with a score that is clamped.
    score = await masked_at(party, found.score, _SCORE_SCALE)
    pull = await clamped(party.at("score"), rescaled(score, score.scale - fewer), _LARGEST_SCORE)
    pull = rescaled(pull, pull.scale + fewer)
    g = await multiply(party, pull, factor)
    g = rescaled(g, g.scale + top - _TRACE_SCALE)
    g = g.bounded_by(_LARGEST_SCORE * 2.0 ** (_LEAST_TRACE_BITS + 1 - fewer))
    reach = 1.1 * columns * 2.0**_CONDITION_BITS
    bits = math.ceil(math.log2(reach * g.bound * columns)) + 1
    spare = _ROOM_BITS - 1 - bits
    g = await masked_at(party, g, min(g.scale, spare * 3 // 5))
    V = await masked_at(party, solved.value.bounded_by(reach), min(36, _ROOM_BITS - 2 - math.ceil(math.log2(reach))))
    coarse = await masked_at(party, V, spare - spare * 3 // 5)
    delta = (await matmul(party, coarse, g)).bounded_by(2.0 ** (bits - 1))
    delta = await masked_at(party, delta, COEFFICIENT_SCALE)
    return _Step(delta, pull, V, solved.right, factor, top - _TRACE_SCALE)


async def _likelihood(party: Party, order: RiskOrder, found: list[Evaluated], plan: CoxPlan) -> Share:
    """Return partial log-likelihoods."""
    sums = concatenate([one.sums for one in found])
    lower = 2.0 ** -(_SMALLEST_THETA_BITS + 1)
    logs = await log(party.at("log"), sums, lower=lower, scale=_LOG_SCALE)
    predictors = concatenate([one.predictor for one in found])
    terms = (predictors - logs).reshape(len(found), plan.rows)
    total = (await multiply(party, terms, order.event.reshape(1, -1))).sum(axis=1)
    return await truncate(party, total, 26)
