"""Logistic regression on the data of all parties."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from mpc import AgreementError, DataError, Party, Share, concatenate, open_
from protocols.agreement import agree
from protocols.disclosure import Disclosure, Release, check_cells, check_public
from protocols.estimates import Estimates, estimate
from protocols.fit import Fit, Plan
from protocols.gradient import descend
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.model import SharedModel
from protocols.newton import newton
from protocols.options import Options, checked_options
from protocols.results import ConvergenceWarning, LogisticResult
from protocols.rows import Bound, column_bounds, labels, matrix, stated, within
from protocols.standardise import Design, OwnColumns, own_columns, standardise_columns, standardise_rows


@overload
async def logistic_regression(
    party: Party,
    X: Any,
    y: Any,
    *,
    l2: float = ...,
    solver: str = ...,
    partition: str = ...,
    bound: Bound = ...,
    steps: int | None = ...,
    stop_early: bool = ...,
    learning_rate: float | None = ...,
    momentum: float = ...,
    limit: float = ...,
    names: Sequence[str] | None = ...,
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
    bound: Bound = ...,
    steps: int | None = ...,
    stop_early: bool = ...,
    learning_rate: float | None = ...,
    momentum: float = ...,
    limit: float = ...,
    names: Sequence[str] | None = ...,
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
    bound: Bound = ...,
    steps: int | None = ...,
    stop_early: bool = ...,
    learning_rate: float | None = ...,
    momentum: float = ...,
    limit: float = ...,
    names: Sequence[str] | None = ...,
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
    bound: Bound = None,
    steps: int | None = None,
    stop_early: bool = False,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    limit: float = 32.0,
    names: Sequence[str] | None = None,
    reveal: bool = True,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> LogisticResult | SharedModel | None:
    """Fit one logistic regression to the data of all parties, which stay where they are.

    Parameters
    ----------
    party : Party
    X : array_like
        Shape (rows, columns). With ``partition="rows"`` our rows of the common columns (their number may
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
        Names of all columns of the model.
    reveal : bool
        False: return the model shared, for :func:`predict_proba`; only the bits below are opened.
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional
        Rules that must hold before anything is computed: rows, parties, coefficients for each row, and so
        many rows with either value of y and of each column of X that holds only 0 and 1.

    Returns
    -------
    LogisticResult, SharedModel or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent: our X or y is NaN, infinite, of the wrong shape, beyond the bound, y is not
        0 or 1. The message names party, columns and counts, never values.
    AgreementError
        The parties name different parameters or different numbers of columns, or (partition by columns)
        different rows or not exactly one y.
    DisclosureError
        At all parties: a rule of the disclosure control does not hold.

    Warns
    -----
    ConvergenceWarning
        If the fit did not converge: too few steps, separable or collinear data. ``result.warnings`` says
        what was found.

    Notes
    -----
    **Who learns what.** All parties: each party's number of rows (or columns), the orders of magnitude
    without a bound, two bits (the information matrix could be inverted; the last step was short), which
    columns are constant, and the result: coefficients, intercept and their standard errors, rounded. With
    ``partition="columns"`` that is all, too: a party learns its standardised coefficients, which it could
    compute from the result. Means, standard deviations, gradients, Hessians and the way there stay
    shared. Semi-honest; which parties may collude is up to the preprocessing.

    With ``to``, the parties that are not named learn each party's number of rows (or columns), the orders of
    magnitude without a bound, with ``stop_early`` the bit a step, and nothing else: neither whether the fit
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
    3 rounds. Before and after: about 120 rounds, ``2 n d`` elements. ``disclosure`` adds a comparison of
    ``2 (d + 1)`` entries and one of a single entry, where it speaks of cells.

    Sources: McCullagh, Nelder, "Generalized Linear Models", 1989, section 2.5 (Newton, which here is
    Fisher scoring); Pan, Schreiber, SIAM J. Sci. Stat. Comput. 12, 1991, sections 2 and 4 (the inverse).
    """
    options = checked_options(l2, solver, partition, steps, stop_early, learning_rate, momentum, limit, reveal)
    release = Release.of(party, to, disclosure)
    if not reveal and to is not None:
        raise ValueError("to names who learns the result; with reveal=False nobody does")
    data = matrix(X, rank=party.rank, what="X")
    prepare = _prepare_rows if partition == "rows" else _prepare_columns
    design, target, own, named = await prepare(party.at("logistic"), data, y, bound, options, names, release)
    rows, width = design.matrix.shape
    plan = Plan(rows, width, options.l2)
    fit = await _solve(party, design, target, plan, options)
    if not reveal:
        checks = np.asarray(await open_(party, fit.checks), dtype=np.bool_)
        found = _findings(checks, np.zeros(width - 1, np.bool_), named, options)
        model = SharedModel(
            coefficients=fit.coefficients,
            slope=design.slope,
            offset=design.offset,
            exponents=design.exponents,
            own=own,
            n=rows,
            columns=width - 1,
            iterations=fit.iterations,
            converged=bool(checks.all()),
            warnings=found,
            partition=partition,
        )
        _warn(model.converged, found)
        return model
    estimates = await estimate(party.at("estimate"), design, fit, plan, own, to=release.to)
    return None if estimates is None else _result(estimates, plan, fit, named, options)


def _named(names: Sequence[str] | None, columns: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{j + 1}" for j in range(columns))
    if len(names) != columns:
        raise AgreementError(f"logistic_regression: {len(names)} names for {columns} columns")
    return tuple(str(name) for name in names)


async def _prepare_rows(
    party: Party,
    X: NDArray[np.float64],
    y: Any,
    bound: Bound,
    options: Options,
    names: Sequence[str] | None,
    release: Release,
) -> tuple[Design, Share, OwnColumns | None, tuple[str, ...]]:
    """Agree, share and standardise, where the parties hold different rows."""
    rows, columns = X.shape
    if y is None:
        raise DataError(f"party {party.rank}: with partition='rows' every party gives y for its rows")
    ours = labels(y, rank=party.rank, rows=rows)
    bounds = column_bounds(bound, columns, rank=party.rank)
    if bounds is not None:
        within(X, bounds, rank=party.rank, what="X")
    terms = {"columns": columns, "bound": stated(bound, bounds), **options.terms(names), **release.terms()}
    counts = [one["rows"] for one in await agree(party, "logistic_regression", terms, {"rows": rows})]
    named = _named(names, columns)
    if not sum(counts):
        raise DataError("logistic_regression: no party has a row")
    check_public(
        release.disclosure,
        "logistic_regression",
        rows=sum(counts),
        parties=sum(count > 0 for count in counts),
        parameters=columns + 1,
    )
    cells = np.column_stack([ours, X])
    await check_cells(party.at("disclosure"), release.disclosure, "logistic_regression", cells)
    if bounds is None:
        exponents = await agree_exponents(party.at("bounds"), X)
    else:
        exponents = exponents_of(bounds)
    target = concatenate(await party.share(ours, bound=1))
    design = await standardise_rows(party.at("standardise"), X, counts, exponents)
    return design, target, None, named


async def _prepare_columns(
    party: Party,
    X: NDArray[np.float64],
    y: Any,
    bound: Bound,
    options: Options,
    names: Sequence[str] | None,
    release: Release,
) -> tuple[Design, Share, OwnColumns | None, tuple[str, ...]]:
    """Agree, standardise and share, where the parties hold different columns."""
    rows, columns = X.shape
    if not rows:
        raise DataError(f"party {party.rank}: X has no rows")
    bounds = column_bounds(bound, columns, rank=party.rank)
    if bounds is not None:
        within(X, bounds, rank=party.rank, what="X")
    ours = None if y is None else labels(y, rank=party.rank, rows=rows)
    own = own_columns(party, X)
    declared = await agree(
        party,
        "logistic_regression",
        {"rows": rows, **options.terms(names), **release.terms()},
        {"columns": columns, "gives y": int(ours is not None)},
    )
    givers = [rank for rank, one in enumerate(declared) if one["gives y"]]
    if len(givers) != 1:
        said = "no party gives y" if not givers else f"parties {', '.join(map(str, givers))} give y"
        raise AgreementError(f"logistic_regression: {said}; with partition='columns' exactly one does")
    counts = tuple(one["columns"] for one in declared)
    named = _named(names, sum(counts))
    check_public(release.disclosure, "logistic_regression", rows=rows, parties=party.size, parameters=sum(counts) + 1)
    cells = X if ours is None else np.column_stack([ours, X])
    await check_cells(party.at("disclosure"), release.disclosure, "logistic_regression", cells, pooled=False)
    target = await party.share(ours, bound=1, owner=givers[0], shape=(rows,))
    own = OwnColumns(own.mean, own.deviation, counts)
    design = await standardise_columns(party.at("standardise"), X, own)
    return design, target, own, named


async def _solve(party: Party, design: Design, y: Share, plan: Plan, options: Options) -> Fit:
    if options.solver == "newton":
        return await newton(party, design, y, plan, steps=options.steps, stop_early=options.stop_early)
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
            f"no spread in column {named}: constant, or below 2^-18 of its bound or 2^-10 of its mean; "
            "its coefficient is set to 0"
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


def _result(estimates: Estimates, plan: Plan, fit: Fit, names: tuple[str, ...], options: Options) -> LogisticResult:
    found = _findings(estimates.checks, estimates.constant, names, options)
    converged = bool(estimates.checks.all())
    if options.solver == "newton":
        _warn(converged and not estimates.constant.any(), found)
    return LogisticResult(
        intercept=estimates.intercept,
        coef=estimates.coefficients,
        std_err=estimates.std_err,
        n=plan.rows,
        iterations=fit.iterations,
        converged=converged,
        l2=options.l2,
        solver=options.solver,
        partition=options.partition,
        names=names,
        warnings=found,
    )


def _warn(fine: bool, found: tuple[str, ...]) -> None:
    if not fine:
        warnings.warn("logistic_regression: " + "; ".join(found), ConvergenceWarning, stacklevel=3)
