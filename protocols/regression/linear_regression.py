"""Linear regression on the data of all parties."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party, open_
from protocols.pools.variables import Column
from protocols.regression.coding import Bounds
from protocols.regression.least_squares import least_squares
from protocols.regression.linear_moments import NAME, from_columns, from_rows
from protocols.regression.regression_results import LinearResult
from protocols.regression.results import ConvergenceWarning
from protocols.regression.sample import sample
from protocols.release.disclosure import Disclosure, Release

_L2_RANGE = (1e-4, 1e4)


async def linear_regression(
    party: Party,
    X: Any,
    y: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    l2: float = 0.0,
    names: Sequence[str] | None = None,
    columns: Sequence[Column] | None = None,
    partition: str = "rows",
    bound: Bounds = None,
    y_bound: float | None = None,
    confidence: float = 0.95,
    missing: str = "drop",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> LinearResult | None:
    """Fit one linear regression by least squares to the data of all parties, which stay where they are.

    Parameters
    ----------
    party : Party
    X : array_like, pandas.DataFrame or mapping
        With ``partition="rows"`` our rows of the common columns (their number may differ between parties and be 0);
        with ``partition="columns"`` our columns of the common rows, in the same order at all parties; the columns
        are those of party 0, then of party 1 and so on. Columns of categories stand for an indicator of each
        category but the first; see :func:`protocols.regression.coding.predictors`.
    y : array_like or None
        One number for each of our rows. With ``partition="columns"`` one party gives it, the others None.
    weights : array_like, optional
        ``partition="rows"`` only: a weight of at least 0 for each row, of which an observation's variance is the
        inverse (up to a factor). All parties give them, or none.
    offset : array_like, optional
        Taken off y before the fit. As y.
    l2 : float
        Penalty ``l2/2 |w|^2`` on the coefficients of columns that are standardised to a variance of 1 (divisor n),
        not on the intercept: 0, or from 1e-4 to 1e4. scikit-learn's ``Ridge(alpha=l2)`` after ``StandardScaler``.
    names : sequence of str, optional
        Names of all columns of an array; of a data frame, which columns to take.
    columns : sequence of Column, optional
        What a data frame's columns hold, as agreed in the study.
    partition : {"rows", "columns"}
    bound, y_bound : float, array_like or mapping, optional
        With ``partition="rows"``: public bounds on the absolute values of X and of y, agreed in the study. Without them
        the parties find some, which tells all of them the order of magnitude (the power of 16) of the largest
        value of each column in the pooled data.
    confidence : float
        Of the intervals.
    missing : {"drop", "raise"}
        Leave out rows in which anything is missing, and count them; or refuse them.
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional
        Rules that must hold before anything of the result is opened; see :func:`protocols.logistic_regression`.

    Returns
    -------
    LinearResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent: our data is infinite, of the wrong shape, beyond a bound.
    AgreementError
        The parties name different parameters, columns or rows.
    DisclosureError
        At all parties: a rule of the disclosure control does not hold.

    Warns
    -----
    ConvergenceWarning
        Columns are collinear or constant; ``result.warnings`` says which.

    Notes
    -----
    **Who learns what.** All parties: the names of columns, how many complete rows there are in all, for each variable
    how many are missing (a number below a minimum cell is withheld), with weights their sum, and what
    :func:`protocols.regression.coding.code_rows` says of categories and bounds. With ``partition="columns"``: how many
    columns each party has, the number of rows, at which parties something is ever missing and in how many rows (nothing
    is withheld, as all know the number of all rows). Those who learn the result also
    learn which columns are constant and whether the matrix could be inverted. Opened are, rounded: the estimates in
    units of a power of two that is given by the diagonal of the inverse cross-product matrix, this diagonal, residual
    and total sum of squares; all of them follow from estimates, standard errors, R squared and the residual
    standard error, which are the result; where columns are collinear or y is constant there is none, and zeros are
    opened. Means, correlations and sums of products stay shared. Semi-honest; who
    may collude is up to the preprocessing.

    **What is computed.** Means and second moments (rows: each party's own in the clear, Chan, Golub, LeVeque, 1983; so
    the cost does not depend on the number of rows), standardised by secret powers of two; one inverse on shares
    (:func:`mpc.linear.solve`); the sum of squares of the residuals from the coefficients. An eigenvalue of the
    correlation matrix below about ``4 d 2^-r`` counts as 0, so that columns count as collinear: a shared bit finds
    that, and the result says so; r is 21 for 10 columns and up to four parties, 17 for seven, see
    :func:`protocols.regression.least_squares.ratio_bits`. Up to there, estimates are off by less than 1e-6 of their
    standard errors (measured: 2e-7 at a condition number of 10^5) and standard errors by less than 1e-6 of themselves.
    Residuals below 1e-8 of the outcome's variance are rounding. A column counts as constant where its standard
    deviation is below ``2^-18`` of its bound; with ``partition="columns"`` and rows left out, where on complete rows
    it is below ``2^-7`` of that in all rows where its party has a value; below ``2^-6`` where fewer than a quarter of
    the rows are complete, below ``2^-5`` where fewer than a 16th are, and so on.

    **Cost** with d columns: about 135 rounds with a dealer (125 with agreed bounds), and with ``partition="rows"``
    about ``75 d^2 + 160 d`` elements opened; with ``partition="columns"`` and n rows ``2 n (d + 2)`` more.
    """
    _check(l2, confidence)
    release = Release.of(party, to, disclosure)
    if weights is not None and partition == "columns":
        raise ValueError("weights take partition='rows': with columns they would have to be multiplied on shares")
    scope = party.at("linear")
    ours = await sample(
        scope.at("sample"),
        NAME,
        X,
        {"y": (y, {"bound": y_bound}), "weights": (weights, {"least": 0.0}), "offset": (offset, {})},
        columns=columns,
        bound=bound,
        names=names,
        partition=partition,
        missing=missing,
        release=release,
        terms={"l2": l2, "confidence": confidence, "y_bound": y_bound},
    )
    if partition == "rows":
        prepared = await from_rows(scope, ours, release, y_bound)
    else:
        prepared = await from_columns(scope, ours, release)
    logs = prepared.log_weights
    fit = await least_squares(scope.at("fit"), prepared.standard, penalty=l2 / prepared.weight)
    opened = await open_(scope.at("result"), *fit.shares(), *([] if logs is None else [logs]), to=release.to)
    if opened[0] is None:
        return None
    result = _result(
        opened,
        prepared.standard.exponents,
        n=prepared.n,
        weight=prepared.weight,
        weighted=logs is not None,
        l2=l2,
        confidence=confidence,
        partition=partition,
        names=ours.names,
        missing=prepared.missing,
        least=prepared.least,
    )
    if result.warnings and not party.rehearsing:
        warnings.warn(f"{NAME}: " + "; ".join(result.warnings), ConvergenceWarning, stacklevel=2)
    return result


def _check(l2: float, confidence: float) -> None:
    low, high = _L2_RANGE
    if not (l2 == 0 or low <= l2 <= high):
        raise ValueError(f"l2 is 0 or from {low:g} to {high:g}")
    if not 0.5 <= confidence < 1:
        raise ValueError("confidence goes from 0.5 to below 1")


def _result(
    opened: Sequence[Any],
    exponents: NDArray[np.int64],
    *,
    n: int,
    weight: float,
    weighted: bool,
    l2: float,
    confidence: float,
    partition: str,
    names: tuple[str, ...],
    missing: dict[str, int | None],
    least: str,
) -> LinearResult:
    """Bring what was opened to the units of the data."""
    shift, spread, power, residual, total, outcome_power, constant, right, *logs = opened
    lost = np.asarray(constant, dtype=np.bool_)
    fine = bool(right) and not lost[-1]
    units = np.asarray(power, np.int64) - np.concatenate([[0], exponents[:-1]])
    scale = int(exponents[-1]) - int(outcome_power)
    estimates = np.ldexp(np.asarray(shift), units + scale)
    diagonal = np.ldexp(np.asarray(spread), 2 * units) / weight
    gone = np.concatenate([[False], lost[:-1]])
    estimates, diagonal = np.where(gone, np.nan, estimates), np.where(gone, np.nan, diagonal)
    if not fine:
        estimates, diagonal = np.full(len(units), np.nan), np.full(len(units), np.nan)
    return LinearResult.of(
        estimates,
        diagonal,
        residual=math.ldexp(max(float(residual), 0.0), 2 * scale) * weight if fine else math.nan,
        total=math.ldexp(float(total), 2 * scale) * weight if fine else math.nan,
        log_weights=float(np.asarray(logs[0])[0]) if weighted else 0.0,
        weighted=weighted,
        n=n,
        l2=l2,
        confidence=confidence,
        partition=partition,
        names=names,
        missing=missing,
        warnings=_findings(fine, lost, names, least),
    )


def _findings(fine: bool, constant: NDArray[np.bool_], names: tuple[str, ...], least: str) -> tuple[str, ...]:
    found = []
    if constant[-1]:
        found.append(f"y is constant, or its spread is {least}: there is nothing to explain")
    if constant[:-1].any():
        named = ", ".join(names[j] for j in np.flatnonzero(constant[:-1])[:10])
        found.append(f"no spread in column {named}: constant, or {least}; it is left out")
    if not fine and not constant[-1]:
        found.append("the columns are collinear; drop columns, or set l2")
    return tuple(found)
