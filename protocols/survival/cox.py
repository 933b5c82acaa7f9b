"""Cox's proportional hazards on the data of all parties."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, less_than, multiply, open_, truncate
from mpc.elementary import inverse_sqrt, sqrt
from mpc.normalise import integers, masked_at, rescaled
from protocols.pools.joining import pool
from protocols.pools.pool import Pool
from protocols.pools.variables import Categorical, Column, Label, Numeric, Variable, categorical
from protocols.regression.coding import Bounds
from protocols.regression.results import ConvergenceWarning
from protocols.release.disclosure import Disclosure, Release
from protocols.survival.cox_concordance import concordance as harrell
from protocols.survival.cox_data import check_columns, read_places, read_predictors
from protocols.survival.cox_newton import COEFFICIENT_SCALE, DESIGN_SCALE, CoxFit, CoxPlan, cox_newton
from protocols.survival.cox_order import RiskOrder, risk_order
from protocols.survival.survival_results import CoxResult
from protocols.survival.time_grids import TimeGridLike, followed, grid_of

_STEPS = 8
_L2_RANGE = (1e-4, 1e4)
_CENTRE_SCALE = 40
_SLOPE_SCALE = 20
_SLOPE_BITS = 18
_RESULT_SCALE = 30
# Variances of standardised coefficients, for one event, are told up to 2^14.
_VARIANCE_BITS, _ERROR_SCALE = 14, 27
# A value that is to be truncated has at most so many bits: with seven parties, too, its mask has room then.
_ROOM_BITS = 78


async def cox_regression(
    party: Party,
    time: Any,
    event: Any,
    X: Any,
    *,
    grid: TimeGridLike | None = None,
    ties: str = "efron",
    strata: Any = None,
    strata_categories: Sequence[Label] | None = None,
    stratified: bool | None = None,
    l2: float = 0.0,
    columns: Sequence[Column] | None = None,
    bound: Bounds = None,
    names: Sequence[str] | None = None,
    steps: int | None = None,
    stop_early: bool = False,
    most_ties: int | None = None,
    concordance: bool = False,
    confidence: float = 0.95,
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> CoxResult | None:
    """Fit one proportional hazards model to the data of all parties, which stay where they are.

    Parameters
    ----------
    party : Party
    time, event : array_like
        Shape (rows,): how long each row was followed, at least 0; 1 or True if it had the event then, 0 or False
        if it was censored. With ``partition="columns"`` None where another party holds them.
    X : array_like, pandas.DataFrame or mapping of str to array_like
        Shape (rows, columns); categories become indicators of all labels but the first, see
        :func:`protocols.regression.coding.predictors`. NaN and None are missing, here as elsewhere: such rows are left
        out and counted. With ``partition="columns"`` our columns, or None; the model's are those of party 0, then of
        party 1 and so on.
    grid : sequence of float, (start, stop, step), or step, optional
        Public times that times are rounded up to, see :mod:`protocols.survival.time_grids`. By default times are
        compared as they are: no time is opened either way, and the fit costs the same.
    ties : {"efron", "breslow"}
    strata : array_like, optional
        A category for each row, with a baseline hazard of its own.
    strata_categories : sequence, optional
    stratified : bool, optional
        With ``partition="columns"``: True at all parties if one of them gives strata.
    l2 : float
        Penalty ``l2/2 |w|^2`` on the coefficients of the standardised columns: 0, or from 1e-4 to 1e4. That of
        lifelines is ``penalizer = l2 / rows``.
    columns : sequence of Column, optional
        What the parties agreed that the columns hold: types, categories, bounds.
    bound : float, (columns,) array_like or mapping of str to float, optional
        Public bound on the absolute values of X, agreed in the study; without it the parties learn the order of
        magnitude (the power of 16) of each column's largest value.
    names : sequence of str, optional
        Names of our columns; of a frame, which columns to take.
    steps : int, optional
        Newton steps, public and fixed; 8 by default.
    stop_early : bool
        Open one bit a step from the fifth on and stop when a step is short; ``steps`` is then the most.
    most_ties : int, optional
        Public bound on the number of events at one time (in a stratum). By default the parties learn the power
        of two above the largest number of tied events.
    concordance : bool
        Also compute Harrell's concordance, which takes a comparison for each pair of rows:
        :func:`protocols.survival.cox_concordance.concordance`.
    confidence : float
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional
        Rules for rows, parties and coefficients for each row; the minimum cell holds for events, for censored rows,
        for strata, and for both values of each column of X that holds only 0 and 1 (and first labels of categories),
        each also with and without event.

    Returns
    -------
    CoxResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Our data is infinite, of the wrong shape, beyond the bound, negative times; no event at all.
    AgreementError
        The parties name different parameters or columns.
    DisclosureError
        At all parties: a rule of the disclosure control does not hold.

    Warns
    -----
    ConvergenceWarning
        If the fit did not converge: too few steps, collinear columns, groups without any event.

    Notes
    -----
    **Who learns what.** All parties: how many rows are complete (with rows: at each party), in how many each variable
    is missing, how many have the event, how many each stratum has, the power of two above the largest number of tied
    events (without ``most_ties``), the orders of magnitude of times (without a grid) and columns (without a bound),
    with ``stop_early`` a bit a step, and what :func:`protocols.pools.joining.pool` says. Those in ``to``: coefficients
    and their standard errors, two partial log-likelihoods, the concordance if it was asked for, which columns are
    constant, and four bits (the information could be inverted, the last step was short, nothing was beyond its
    range, ties were no more than agreed). Times, the order of rows, risk sets, gradients and the way there stay
    shared. Semi-honest.

    **What is computed.** Rows are sorted on shares (:func:`mpc.sort`) by stratum and time; see
    :mod:`protocols.survival.cox_newton`. Without a grid times are told apart to 2^-31 of the power of 16 above the
    largest: whole numbers exactly. Linear predictors of standardised columns beyond 10 in size count as 10,
    coefficients beyond 16 as 16; either is reported. Compare lifelines' ``CoxPHFitter`` (Efron) and statsmodels'
    ``PHReg``: coefficients are off by about 1e-7 of their standard errors (1e-6 with ``stop_early``), standard errors
    by 1e-7 of themselves, log-likelihoods by 1e-6.

    **Cost** with n rows, d columns and L links of ties (the power of two above the largest number of tied events): each
    step about ``n (70 + 8 d + 2 L (d + 2)) + 1500`` elements in ``130 + 2 L`` rounds; before and after all steps about
    200 rounds, and ``n (160 + 6 d)`` elements with a grid of 2000 points. That is with a dealer; with ``prss`` and t
    possible colluders a step takes ``15 t`` rounds more, and of five or seven parties 3 or 4 times the elements.

    Sources: Cox, J. Roy. Statist. Soc. B 34, 1972; Efron, J. Amer. Statist. Assoc. 72, 1977; Breslow, Biometrics 30,
    1974; Therneau, Grambsch, "Modeling Survival Data", 2000, section 3.3.
    """
    steps = _checked(ties, l2, steps, most_ties, confidence, partition)
    release = Release.of(party, to, disclosure)
    scope, data = party.at("cox"), followed(time, event, rank=party.rank)
    options = {"ties": ties, "l2": float(l2), "steps": steps, "stop_early": bool(stop_early), "most_ties": most_ties}
    options |= {"concordance": bool(concordance), "confidence": float(confidence), **release.terms()}
    points = None if grid is None else grid_of(grid)
    terms = {"grid": None if points is None else points.describe(), **options}
    read = await read_predictors(
        scope.at("predictors"),
        "cox_regression",
        X,
        columns=columns,
        bound=bound,
        names=names,
        partition=partition,
        release=release,
        terms=terms,
    )
    times, places = await read_places(scope.at("times"), data, points)
    variables: dict[str, Variable | None] = {"X": read.X, **times, **read.single}
    kinds: dict[str, type[Variable]] = {"X": Numeric, "time": Numeric, "event": Categorical}
    kinds |= dict.fromkeys(read.single, Numeric)
    with_strata = strata is not None if stratified is None else stratified
    if with_strata:
        given = strata_categories
        variables["strata"] = (
            None if strata is None else categorical(strata, rank=party.rank, what="strata", categories=given)
        )
        kinds["strata"] = Categorical
    made = await pool(
        scope.at("pool"),
        "cox_regression",
        variables,
        partition=partition,
        release=release,
        kinds=kinds,
        terms=terms,
        spread=("X",),
    )
    named = _distinct(made.names["X"])
    sizes = await made.open_sizes(parameters=len(named))
    _, events = (await made.group_sizes("event")).tolist()
    await check_columns(scope.at("columns"), made, read)
    blocks = (await made.group_sizes("strata")).tolist() if with_strata else [sizes.n]
    if not events and not party.rehearsing:
        raise DataError("cox_regression: no row has an event")

    # 1. Standardised columns, in the order of times. Names of what follows hold the public numbers that it depends on.
    design = await _standardised(scope.at("standardise"), made)
    plan = CoxPlan(len(design.X), len(named), events, float(l2))
    scope = scope.at(f"{plan.rows} rows {events} events")
    order = await _ordered(scope.at("order"), made, design, plan, places, blocks, ties == "efron", most_ties)

    # 2. The fit, and what is opened of it.
    scope = scope.at(f"{len(order.links)} links")
    fit = await cox_newton(scope.at("newton"), order, design.constant, plan, steps=steps, stop_early=stop_early)
    pairs = await harrell(scope.at("concordance"), order, fit.coefficients) if concordance else None
    opened = await _opened(scope.at("result"), fit, design, pairs, plan, release)
    if opened is None:
        return None
    coef, std_err, likelihood, constant, checks, *rest = opened
    exponents = made.exponents["X"]
    found = _findings(checks, constant, std_err, named)
    if found and not party.rehearsing:
        warnings.warn("cox_regression: " + "; ".join(found), ConvergenceWarning, stacklevel=2)
    return CoxResult(
        np.where(constant, np.nan, np.ldexp(coef, -exponents)),
        np.where(constant | ~checks[0], np.nan, np.ldexp(std_err, -exponents) / 2 ** (plan.event_bits / 2)),
        float(likelihood[0]),
        float(likelihood[1]),
        sizes.n,
        int(events),
        ties,
        float(l2),
        float(confidence),
        float(rest[0][0]) if rest else math.nan,
        fit.iterations,
        bool(checks.all()),
        made.categories["strata"] if with_strata else (),
        {name: count for name, count in sizes.missing.items() if name != "X" or not read.single},
        (),
        named,
        found,
    )


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns' names; numbers, where several parties numbered theirs from 1."""
    return names if len(set(names)) == len(names) else tuple(f"x{k + 1}" for k in range(len(names)))


def _checked(ties: str, l2: float, steps: int | None, most_ties: int | None, confidence: float, partition: str) -> int:
    """Check the public parameters; return the number of steps."""
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties is 'efron' or 'breslow', not {ties!r}")
    if partition not in ("rows", "columns"):
        raise ValueError(f"partition is 'rows' or 'columns', not {partition!r}")
    if not (l2 == 0 or _L2_RANGE[0] <= l2 <= _L2_RANGE[1]):
        raise ValueError(f"l2 is 0 or from {_L2_RANGE[0]:g} to {_L2_RANGE[1]:g}")
    if not 0 < confidence < 1:
        raise ValueError("confidence is between 0 and 1")
    if most_ties is not None and not 1 <= most_ties <= 1 << 24:
        raise ValueError("most_ties is a whole number from 1 to 2^24")
    steps = _STEPS if steps is None else steps
    if not 1 <= steps <= 100 or steps != int(steps):
        raise ValueError("steps is a whole number from 1 to 100")
    return int(steps)


class _Design:
    """Standardised columns.

    Attributes
    ----------
    X : Share
        Shape (rows, columns), scale 26; 0 in rows that do not count.
    slope : Share
        Shape (columns,), masked: one over standard deviations in units of ``2^exponents``; 0 for constant columns.
    constant : Share
        Shape (columns,): 1 where a column is constant, else 0.
    """

    def __init__(self, X: Share, slope: Share, constant: Share) -> None:
        self.X, self.slope, self.constant = X, slope, constant


async def _standardised(party: Party, made: Pool) -> _Design:
    """Subtract means and divide by standard deviations, on shares; a spread below 2^-18 of the bound is none.

    Cost: moments of the pool; 1 inverse root and 1 comparison a column; 2 rounds, ``2 rows columns`` elements.
    """
    (units,) = await made.vectors("X")
    rows, columns = units.shape
    counted = rows if party.rehearsing else made.sizes.n  # a rehearsal does not know the number yet
    moments = await made.moments("X", None, np.array([counted]))
    variance = moments.variance.reshape(columns).bounded_by(1.03)
    constant = await less_than(party.at("constant"), variance, 2.0 ** (-2 * _SLOPE_BITS))
    slope = await inverse_sqrt(
        party.at("slope"), variance, lower=2.0 ** (-2 * _SLOPE_BITS), upper=1.03, scale=_SLOPE_SCALE
    )
    varies = await multiply(party, slope.bounded_by(2.0 ** (_SLOPE_BITS + 1)), 1 - constant)
    slope = await masked_at(party, varies.bounded_by(1.01 * 2.0**_SLOPE_BITS), _SLOPE_SCALE)
    mean = await truncate(party, moments.mean.reshape(columns), _CENTRE_SCALE)
    centred = (units - mean.reshape(1, columns).broadcast_to(units.shape)).bounded_by(2.01)
    if made.weight is not None:
        centred = (await multiply(party, centred, made.weight.reshape(rows, 1))).bounded_by(2.01)
    scaled = (await multiply(party, centred, slope.reshape(1, columns))).bounded_by(1.02 * math.sqrt(max(1, rows)))
    X = await truncate(party, scaled, DESIGN_SCALE)
    return _Design(X.bounded_by(1.02 * math.sqrt(max(1, rows)) + 1e-3), slope, constant)


async def _ordered(
    party: Party,
    made: Pool,
    design: _Design,
    plan: CoxPlan,
    places: int,
    blocks: list[int],
    efron: bool,
    most_ties: int | None,
) -> RiskOrder:
    """Sort rows by stratum, time (falling) and event; rows that do not count come last."""
    whats = ["time", "event", *(["strata"] if "strata" in made.categories else [])]
    found = await made.vectors(*whats)
    key = integers(found[0].reshape(plan.rows))  # shared in units of 2^40 with 40 fraction bits
    event = found[1][:, 1]
    if len(whats) == 3:
        strata = len(made.categories["strata"])
        key = found[2] @ (np.arange(strata, dtype=np.int64) * places) + key
        most = strata * places
    else:
        most = places
    bits = (2 * most - 1).bit_length()
    key = key * 2 + event
    if made.weight is not None:
        event = (await multiply(party, event, made.weight)).bounded_by(1)
        key = key + (1 - made.weight) * (1 << bits)
        bits += 1
    key = key.bounded_by((1 << bits) - 1)
    rest = plan.rows - sum(blocks)
    return await risk_order(
        party,
        key,
        bits,
        design.X,
        event,
        [*blocks, max(0, rest)],
        efron=efron,
        most_ties=most_ties,
        fraction_scale=plan.fraction_scale,
    )


async def _opened(
    party: Party, fit: CoxFit, design: _Design, pairs: Share | None, plan: CoxPlan, release: Release
) -> list[NDArray[Any]] | None:
    """Open coefficients and standard errors, in units of the columns' exponents, and the rest of the result."""
    columns = plan.columns
    coef = await multiply(party, await masked_at(party, fit.coefficients, COEFFICIENT_SCALE), design.slope)
    coef = await truncate(party, coef, _RESULT_SCALE)

    # Variances, times 2^event_bits: V 2^k / 2^trace_bits.
    variance = fit.inverse.reshape(-1)[:: columns + 1]
    scaled = await multiply(party, variance, fit.trace_inverse)
    variance = rescaled(scaled, scaled.scale + fit.trace_bits)
    reach = fit.inverse.bound * 2.0**7
    scale = min(40, _ROOM_BITS - 2 - math.ceil(math.log2(reach)))
    variance = await masked_at(party, variance.bounded_by(reach), scale)
    # No variance is below one over the largest information that an event can bring; of one above 2^14 the root is 0.
    least = 2.0 ** -(plan.row_bits + 2)
    errors = await sqrt(party.at("errors"), variance, lower=least, upper=2.0**_VARIANCE_BITS, scale=_ERROR_SCALE)
    product = await multiply(party, errors, design.slope)
    errors = await truncate(party, product, _RESULT_SCALE)
    shown = [coef, errors, fit.likelihood, design.constant, fit.checks, *([] if pairs is None else [pairs])]
    opened = await open_(party, *shown, to=release.to)
    if opened[0] is None:
        return None
    b, e, likelihood, constant, checks, *rest = (np.asarray(one) for one in opened)
    e = np.where(e < math.sqrt(least) / 2, np.nan, e)
    return [b, e, likelihood, constant.astype(np.bool_), checks.astype(np.bool_), *rest]


def _findings(
    checks: NDArray[np.bool_], constant: NDArray[np.bool_], std_err: NDArray[np.float64], names: Sequence[str]
) -> tuple[str, ...]:
    """Say in words what the opened bits mean."""
    texts = (
        "the information matrix is singular: columns are collinear, or no event tells them apart",
        "the last step was long: take more steps, or a penalty (a column may separate rows with events from others)",
        "a coefficient or linear predictor was beyond its range: rescale outliers, or take a penalty",
        "there were more tied events than most_ties allows",
    )
    found = [text for text, good in zip(texts, checks, strict=True) if not good]
    if constant.any():
        listed = ", ".join(names[j] for j in np.flatnonzero(constant)[:10])
        found.append(f"constant columns, which are left out: their coefficients are NaN ({listed})")
    unknown = np.isnan(std_err) & ~constant
    if checks[0] and unknown.any():
        listed = ", ".join(names[j] for j in np.flatnonzero(unknown)[:10])
        found.append(f"columns that hardly vary where events are, or nearly collinear ones: {listed}")
    return tuple(found)
