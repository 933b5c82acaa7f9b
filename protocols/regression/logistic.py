"""Logistic regression on the data of all parties."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from mpc import Party, open_
from protocols.pools.variables import Column
from protocols.regression.coding import Bounds
from protocols.regression.designs import Prepared, prepare
from protocols.regression.estimates import Estimates, estimate
from protocols.regression.fit import Fit, Plan
from protocols.regression.gradient import descend
from protocols.regression.likelihood import Likelihoods, likelihoods
from protocols.regression.model import SharedModel
from protocols.regression.newton import newton
from protocols.regression.options import Options, checked_options
from protocols.regression.results import ConvergenceWarning, LogisticResult
from protocols.release.disclosure import Disclosure, Release

# A mean log-likelihood above minus this is no more than rounding.
_PERFECT = 1e-5


@overload
async def logistic_regression(
    party: Party,
    X: Any,
    y: Any,
    *,
    l2: float = ...,
    solver: str = ...,
    partition: str = ...,
    bound: Bounds = ...,
    steps: int | None = ...,
    stop_early: bool = ...,
    learning_rate: float | None = ...,
    momentum: float = ...,
    limit: float = ...,
    names: Sequence[str] | None = ...,
    weights: Any = ...,
    offset: Any = ...,
    columns: Sequence[Column] | None = ...,
    missing: str = ...,
    reveal: Literal[True] = ...,
    to: None = ...,
    disclosure: Disclosure | None = ...,
) -> LogisticResult: ...


@overload
async def logistic_regression(
    party: Party,
    X: Any,
    y: Any,
    *,
    l2: float = ...,
    solver: str = ...,
    partition: str = ...,
    bound: Bounds = ...,
    steps: int | None = ...,
    stop_early: bool = ...,
    learning_rate: float | None = ...,
    momentum: float = ...,
    limit: float = ...,
    names: Sequence[str] | None = ...,
    weights: Any = ...,
    offset: Any = ...,
    columns: Sequence[Column] | None = ...,
    missing: str = ...,
    reveal: Literal[True] = ...,
    to: Collection[int] | None,
    disclosure: Disclosure | None = ...,
) -> LogisticResult | None: ...


@overload
async def logistic_regression(
    party: Party,
    X: Any,
    y: Any,
    *,
    l2: float = ...,
    solver: str = ...,
    partition: str = ...,
    bound: Bounds = ...,
    steps: int | None = ...,
    stop_early: bool = ...,
    learning_rate: float | None = ...,
    momentum: float = ...,
    limit: float = ...,
    names: Sequence[str] | None = ...,
    weights: Any = ...,
    offset: Any = ...,
    columns: Sequence[Column] | None = ...,
    missing: str = ...,
    reveal: Literal[False],
    to: None = ...,
    disclosure: Disclosure | None = ...,
) -> SharedModel: ...


async def logistic_regression(
    party: Party,
    X: Any,
    y: Any,
    *,
    l2: float = 0.0,
    solver: str = "newton",
    partition: str = "rows",
    bound: Bounds = None,
    steps: int | None = None,
    stop_early: bool = False,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    limit: float = 32.0,
    names: Sequence[str] | None = None,
    weights: Any = None,
    offset: Any = None,
    columns: Sequence[Column] | None = None,
    missing: str = "drop",
    reveal: bool = True,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> LogisticResult | SharedModel | None:
    """Fit one logistic regression to the data of all parties, which stay where they are.

    Parameters
    ----------
    party : Party
    X : array_like, pandas.DataFrame or mapping
        Shape (rows, columns). Columns of categories in a data frame or a mapping stand for an indicator of each
        category but the first; see :func:`protocols.regression.coding.predictors`.
        With ``partition="rows"`` our rows of the common columns (their number may
        differ between parties and be 0); with ``partition="columns"`` our columns of the common rows, in
        the same order at all parties; the model's columns are those of party 0, then of party 1 and so on.
    y : array_like or None
        0 or 1 for each of our rows. With ``partition="columns"`` one party gives it, the others None.
    l2 : float
        Penalty ``l2/2 |w|^2`` on the coefficients of the standardised columns, not on the intercept: 0, or
        from 1e-4 to 1e4. scikit-learn's C is ``1/l2``.
    solver : {"newton", "gradient"}
        Newton's method with the true Hessian and standard errors; or full-batch gradient descent from zero
        on the mean loss of the standardised columns, without standard errors.
    partition : {"rows", "columns"}
    bound : float or (columns,) array_like, optional
        With ``partition="rows"``: public bound on the absolute values of X, agreed in the study. Without it
        the parties find one, which tells all of them, for each column, the order of magnitude (the power
        of 16) of the largest value in the pooled data. A loose bound does no harm until it is more than
        2^17 standard deviations of a column.
    steps : int, optional
        Public and fixed: 10 for Newton, 100 for gradient descent.
    stop_early : bool
        Newton: open one bit a step from the third on and stop when a step is short; ``steps`` is then
        the most, and the number of steps is revealed.
    learning_rate, momentum : float
        Gradient descent: ``v <- momentum v + learning_rate g``, ``w <- w - v``. By default
        ``4 / (columns + 1 + 4 l2 / rows)``, with which no step overshoots.
    limit : float
        Gradient descent: the range of linear predictors in which the sigmoid is right; checked. (Newton
        needs none.)
    names : sequence of str, optional
        Names of all columns of the model; of a data frame, which columns to take.
    weights : array_like, optional
        For each of our rows, how often it counts (at least 0): frequencies, or weights of importance, as
        statsmodels' ``freq_weights``. All parties give them or none; with ``partition="columns"`` one party. Newton's
        method only.
    offset : array_like, optional
        Added to the linear predictors; at most 64 in size. As weights.
    columns : sequence of Column, optional
        What a data frame's columns hold, as agreed in the study.
    missing : {"drop", "raise"}
        Leave out rows in which anything is missing, and count them; or refuse them.
    reveal : bool
        False: return the model shared, for :func:`predict_proba`; only the bits below are opened, and what is missing.
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional
        Rules that must hold before anything is computed: rows, parties, coefficients for each row, and so
        many rows with either value of y, of each column of X that holds only 0 and 1, and with each value of both.

    Returns
    -------
    LogisticResult, SharedModel or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent: our X or y is infinite, of the wrong shape, beyond the bound, y is not
        0 or 1, or something is missing that is refused. The message names party, columns and counts, never values.
    AgreementError
        The parties name different parameters or different numbers of columns, or (partition by columns)
        different rows or not exactly one y.
    DisclosureError
        At all parties: a rule of the disclosure control does not hold.

    Warns
    -----
    ConvergenceWarning
        If the fit did not converge: too few steps, separable or collinear data (with ``partition="columns"`` also
        a column that varies, but not in the rows that are complete at all parties). ``result.warnings`` says what was
        found.

    Notes
    -----
    **Who learns what.** All parties: each party's number of rows (or columns), the orders of magnitude
    without a bound, two bits (the information matrix could be inverted; the last step was short), which
    columns are constant, and the result: coefficients, intercept and their standard errors, rounded; with Newton's
    method the log-likelihood and how many rows have y = 1, from which that of the intercept alone follows. With
    weights the latter count as often as the weights say, and their sum and the power of 16 above them are
    told; with ``missing="drop"`` in how many rows each variable is missing (with columns: at each party; with rows a
    number below a minimum cell is withheld). With ``partition="columns"`` that is all, too: a party learns its
    standardised coefficients, which it could compute from the result. Means, standard deviations, gradients, Hessians
    and the way there stay shared. Semi-honest; which parties may collude is up to the preprocessing.

    With ``to``, the parties that are not named learn each party's number of rows (or columns), what is missing, the
    orders of magnitude without a bound, with ``stop_early`` the bit a step, and nothing else: neither whether the fit
    converged nor which columns are constant. With ``partition="columns"`` the owners then learn nothing of
    their columns either; those who learn the result also learn the order of magnitude (the power of 16) of
    each column's standard deviation. With ``disclosure`` all learn one bit, whether there are enough rows
    of each kind; rules about rows and parties speak of what is public here, and the error says which failed.

    **What is computed.** See :class:`LogisticResult`. Against statsmodels or scikit-learn on the pooled
    data coefficients are off by about 1e-5 of their standard errors and standard errors by 1e-5 of
    themselves; both by up to 5e-4 where the data are nearly separable. A Hessian whose condition number is
    above 2^20 counts as singular, and the fit says so.

    **Cost** with n rows and d columns: a Newton step opens ``n (d + 8) + 2 k (d + 1)^2 + 6 (d + 1)`` field
    elements, all of them masked, and the masked bits of two comparisons of ``2 n`` and ``2 (d + 1)`` entries,
    in about ``25 + 2 k`` rounds (with a dealer), where k is 15 for l2 = 0, 11 for 30 columns, 569 rows and
    l2 = 1, and 7 or less in all but the last three steps. A gradient step opens ``2 n + d + 1`` elements in
    3 rounds. Before and after: about 120 rounds, ``2 n d`` elements; the log-likelihood takes 20 rounds and ``6 n``
    elements. Where ``disclosure`` speaks of cells it adds a comparison of ``6 d + 2`` entries and one of a single
    entry; with columns see :func:`protocols.regression.crossed.check_shared`.

    Sources: McCullagh, Nelder, "Generalized Linear Models", 1989, section 2.5 (Newton, which here is
    Fisher scoring); Pan, Schreiber, SIAM J. Sci. Stat. Comput. 12, 1991, sections 2 and 4 (the inverse).
    """
    options = checked_options(l2, solver, partition, steps, stop_early, learning_rate, momentum, limit, reveal)
    release = Release.of(party, to, disclosure)
    if not reveal and to is not None:
        raise ValueError("to names who learns the result; with reveal=False nobody does")
    scope = party.at("logistic")
    if solver != "newton" and (weights is not None or offset is not None):
        raise ValueError("weights and offset take solver='newton'")
    prepared = await prepare(
        scope,
        X,
        y,
        weights=weights,
        offset=offset,
        columns=columns,
        bound=bound,
        names=names,
        missing=missing,
        options=options,
        release=release,
    )
    if solver != "newton" and prepared.weights is not None:
        raise ValueError("rows with missing values in columns of several parties take solver='newton'")
    design, own, named = prepared.design, prepared.own, prepared.names
    rows, width = design.matrix.shape
    plan = Plan(rows, width, options.l2 / 4.0**prepared.weight_power, prepared.weight_power)
    fit = await _solve(party, prepared, plan, options)
    if not reveal:
        checks = np.asarray(await open_(party, fit.checks), dtype=np.bool_)
        found = _findings(checks, np.zeros(width - 1, np.bool_), named, options)
        model = SharedModel(
            coefficients=fit.coefficients,
            slope=design.slope,
            offset=design.offset,
            exponents=design.exponents,
            own=own,
            n=prepared.n,
            columns=width - 1,
            iterations=fit.iterations,
            converged=bool(checks.all()),
            warnings=found,
            partition=partition,
        )
        _warn(model.converged, found)
        return model
    beside = await likelihoods(party.at("likelihood"), prepared, fit) if solver == "newton" else []
    estimates = await estimate(party.at("estimate"), design, fit, plan, own, to=release.to, beside=beside)
    if estimates is None:
        return None
    unit = 4.0**prepared.weight_power
    opened = Likelihoods(*(float(one[0]) * unit for one in estimates.beside)) if beside else None
    return _result(estimates, prepared, fit, options, opened)


async def _solve(party: Party, prepared: Prepared, plan: Plan, options: Options) -> Fit:
    design, y = prepared.design, prepared.target
    if options.solver == "newton":
        return await newton(
            party,
            design,
            y,
            plan,
            steps=options.steps,
            stop_early=options.stop_early,
            weights=prepared.weights,
            offset=prepared.offset,
        )
    rate = options.learning_rate
    return await descend(
        party,
        design,
        y,
        plan,
        steps=options.steps,
        learning_rate=4 / (plan.width + 4 * plan.l2 / plan.rows) if rate is None else rate,
        momentum=options.momentum,
        limit=options.limit,
    )


def _findings(
    checks: NDArray[np.bool_], constant: NDArray[np.bool_], names: tuple[str, ...], options: Options
) -> tuple[str, ...]:
    """Say in words what the opened bits mean."""
    found = []
    if constant.any():
        named = ", ".join(names[j] for j in np.flatnonzero(constant)[:10])
        found.append(
            f"no spread in column {named}: constant, or below 2^-18 of its bound or 2^-10 of its mean; it is left out"
        )
    first, second = bool(checks[0]), bool(checks[1])
    if options.solver == "gradient":
        if not first:
            found.append(
                f"linear predictors left the range of +-{options.limit:g}, in which the sigmoid is right: this is not "
                "the result of gradient descent; lower learning_rate, or raise limit"
            )
        elif not second:
            found.append(f"the gradient is not yet zero after {options.steps} steps")
    elif not first:
        found.append(
            "the information matrix cannot be inverted: columns are collinear, or y can be predicted without error "
            "(separable data); drop columns, or set l2"
        )
    elif not second:
        found.append(
            f"not converged after {options.steps} steps: the data may be separable (y predicted without error), or "
            "need more steps; set l2, or raise steps"
        )
    return tuple(found)


def _result(
    estimates: Estimates, prepared: Prepared, fit: Fit, options: Options, opened: Likelihoods | None
) -> LogisticResult:
    names = prepared.names
    found = _findings(estimates.checks, estimates.constant, names, options)
    if opened is not None and opened.rows and opened.fit > -_PERFECT * opened.rows and options.l2 == 0:
        found = (
            *found,
            "y is predicted without error (separable data): coefficients and errors have no meaning; set l2",
        )
    converged = bool(estimates.checks.all())
    errors = estimates.std_err / 2.0**prepared.weight_power
    if options.solver == "newton" and not estimates.checks[0]:  # without an inverse there are none
        errors = errors * math.nan
    if options.solver == "newton":
        _warn(converged and not estimates.constant.any(), found)
    return LogisticResult(
        intercept=estimates.intercept,
        coef=estimates.coefficients,
        std_err=errors,
        n=prepared.n,
        iterations=fit.iterations,
        converged=converged,
        l2=options.l2,
        solver=options.solver,
        partition=options.partition,
        names=names,
        warnings=found,
        log_likelihood=math.nan if opened is None else opened.fit,
        null_log_likelihood=math.nan if opened is None or prepared.offset is not None else opened.null(),
        weight=opened.rows if opened is not None and prepared.weighted else math.nan,
        missing=prepared.missing,
    )


def _warn(fine: bool, found: tuple[str, ...]) -> None:
    if not fine:
        warnings.warn("logistic_regression: " + "; ".join(found), ConvergenceWarning, stacklevel=3)
