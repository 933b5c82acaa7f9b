"""Poisson regression of counts on the data of all parties."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party
from protocols.pools.variables import Column
from protocols.regression.coding import Bounds
from protocols.regression.count_model import fit_counts
from protocols.regression.count_rows import CountRows, log_unit, prepare_counts
from protocols.regression.count_sums import Kernel, Summed, kernel, summed
from protocols.regression.estimates import Estimates, estimate
from protocols.regression.fit import Fit
from protocols.regression.regression_results import PoissonResult
from protocols.regression.results import ConvergenceWarning
from protocols.regression.sample import sample
from protocols.release.disclosure import Disclosure, Release

NAME = "poisson_regression"
_STEPS = 8
LARGEST_OFFSET = 20.0
_WITHHELD = (
    "log-likelihood, deviance, Pearson's chi squared and what is made of them are withheld: they would tell how many "
    "rows have which count"
)


async def poisson_regression(
    party: Party,
    X: Any,
    y: Any,
    *,
    offset: Any = None,
    weights: Any = None,
    names: Sequence[str] | None = None,
    columns: Sequence[Column] | None = None,
    partition: str = "rows",
    bound: Bounds = None,
    y_bound: float | None = None,
    steps: int = _STEPS,
    stop_early: bool = False,
    confidence: float = 0.95,
    missing: str = "drop",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> PoissonResult | None:
    """Fit one Poisson regression with the logarithm as link to the data of all parties, which stay where they are.

    Parameters
    ----------
    party : Party
    X, names, columns, partition, bound, confidence, missing, to, disclosure
        See :func:`protocols.regression.linear_regression`.
    y : array_like or None
        A count, or any number of at least 0, for each of our rows; below 2^20. With ``partition="columns"`` one party
        gives it, the others None.
    offset : array_like, optional
        Added to the linear predictors: logarithms of exposures, at most 20 in size. As y.
    weights : array_like, optional
        How often each row counts, at least 0; as y.
    y_bound : float, optional
        Public bound on y. Where it is above 16, or there is none, the parties find the power of 16 above the largest y,
        which all of them learn; so a loose bound does no harm. :func:`mpc.prepare` takes one.
    steps : int
        Public: Newton steps from the start that R's glm takes; one more is made to check.
    stop_early : bool
        Open one bit a step from the third on and stop when a step is short.

    Returns
    -------
    PoissonResult or None
        None at a party that is not in ``to``. If the information matrix could not be inverted, or a mean left the
        range, all that depends on the fit is NaN.

    Raises
    ------
    DataError, AgreementError, DisclosureError
        See :func:`protocols.logistic_regression`.

    Warns
    -----
    ConvergenceWarning
        If the fit did not converge: too few steps, collinear columns (with ``partition="columns"`` also one that
        varies, but not in the rows that are complete at all parties), a category in which all counts are 0.

    Notes
    -----
    **Who learns what.** All parties: each party's number of complete rows (or columns), for each variable in how many
    rows it is missing (with columns: at each party; with rows a number below a minimum cell is withheld), the power of
    16 above the largest y (not with a bound of at most 16), orders of magnitude where no bound is agreed (of weights
    always), with ``stop_early`` one bit a step. Those who learn the result: two bits (the last step was short; the
    information matrix could be inverted and no mean left the range), which columns are constant, coefficients and
    standard errors, and, rounded, the sums that its statistics are made of: log-likelihood, deviance, Pearson's chi
    squared, the total of y, of weights, of exposures, and the null deviance. Log-likelihood and deviance add up to a
    sum of ``y log(y) - log(y!)``, which tells how many rows have which count. So with a disclosure control that has a
    minimum cell neither these nor Pearson's chi squared are opened, but, to about 2^-10, the sum that the likelihood
    ratio test is made of, which is linear in y and at the maximum a function of coefficients and columns; the result
    has NaN for the others and says so in ``suppressed``. With ``partition="columns"`` a
    party learns its standardised coefficients, see :func:`protocols.logistic_regression`. Semi-honest.

    **What is computed.** Newton's method, which is Fisher scoring: means from :func:`mpc.exp`, the information matrix
    scaled by a secret power of four so that its trace is between 1/4 and 1, :func:`mpc.linear.solve`. Linear predictors
    are cut to the range from ``log(b) - 24`` to ``log(b) + 2``, b the power of 16 above the largest y, or the bound;
    where b is above 2^12 times the mean of y the fit fails, and says so. Against statsmodels
    coefficients are off by about 1e-6 of their standard errors (3e-6 where exposures differ a thousandfold), standard
    errors by about 1e-6 of themselves, log-likelihood and deviance by about ``2^-30`` of the total of y, Pearson's chi
    squared by about ``2^-16`` of the sum of ``|y - mean|`` (never seen to be twice that): with counts around 3e4
    it keeps four digits.
    Matrices whose condition number (standardised, weighted by means) is above about ``2^16 / columns`` count as
    singular.

    **Cost** with n rows and d columns: a step takes about 105 rounds with a dealer and about ``n (d + 22) + 60 d^2``
    elements; before and after about 280 rounds and ``n (2 d + 45)`` elements.

    Sources: McCullagh, Nelder, "Generalized Linear Models", 1989, sections 2.5 and 6.2; the start ``y + 0.1`` is that
    of R's ``poisson()``.
    """
    if steps != int(steps) or not 1 <= steps <= 1000:
        raise ValueError("steps is a whole number from 1 to 1000")
    if not 0.5 <= confidence < 1:
        raise ValueError("confidence goes from 0.5 to below 1")
    release = Release.of(party, to, disclosure)
    scope = party.at("poisson")
    ours = await sample(
        scope.at("sample"),
        NAME,
        X,
        {
            "y": (y, {"bound": y_bound, "least": 0.0}),
            "weights": (weights, {"least": 0.0}),
            "offset": (offset, {"bound": LARGEST_OFFSET}),
        },
        columns=columns,
        bound=bound,
        names=names,
        partition=partition,
        missing=missing,
        release=release,
        terms={"y_bound": y_bound, "steps": int(steps), "stop_early": stop_early, "confidence": confidence},
    )
    rows = await prepare_counts(scope.at("prepare"), NAME, ours, release, partition=partition, y_bound=y_bound)
    fit = await fit_counts(party.at("newton"), rows, steps=int(steps), stop_early=stop_early)
    guarded = disclosure is not None and disclosure.minimum_cell > 0
    sums = await (kernel if guarded else summed)(party.at("sums"), rows, fit)
    scope = party.at("estimate")
    estimates = await estimate(scope, rows.design, fit, rows.plan, rows.own, to=release.to, beside=sums)
    if estimates is None:
        return None
    figures = Kernel(*estimates.beside) if guarded else Summed(*estimates.beside)
    result = _result(estimates, figures, rows, fit, ours.names, confidence=confidence, partition=partition, steps=steps)
    if result.warnings and not party.rehearsing:
        warnings.warn(f"{NAME}: " + "; ".join(result.warnings), ConvergenceWarning, stacklevel=2)
    return result


def _result(
    estimates: Estimates,
    figures: Summed | Kernel,
    rows: CountRows,
    fit: Fit,
    names: tuple[str, ...],
    *,
    confidence: float,
    partition: str,
    steps: int,
) -> PoissonResult:
    lost = estimates.constant
    found = _findings(estimates.checks, lost, names, steps)
    unit = 4.0**rows.weight_power
    counts = math.ldexp(unit, rows.top)
    total, weight, exposure = (float(np.asarray(one)[0]) for one in (figures.total, figures.weight, figures.exposure))
    lift = log_unit(rows.top) * total
    null = math.nan
    if total > 0 and exposure > 0:
        # In counts: total log(total / exposure) - total; with what does not depend on the fit, the null model's.
        y, e = total * counts, math.ldexp(exposure * unit, rows.exposure_power)
        null = y * math.log(y / e) - y
    suppressed: tuple[str, ...] = ()
    if isinstance(figures, Kernel):
        likelihood = half_deviance = pearson = null_likelihood = math.nan
        llr = 2 * ((float(np.asarray(figures.gained)[0]) + lift) * counts - null)
        suppressed = (_WITHHELD,)
    else:
        opened = (figures.likelihood, figures.half_deviance, figures.pearson, figures.moved)
        likelihood, half_deviance, pearson, moved = (float(np.asarray(one)[0]) for one in opened)
        likelihood, half_deviance = (likelihood + lift) * counts, (half_deviance - lift) * counts
        pearson, moved = pearson * counts, moved * counts
        null_likelihood = null + moved
        llr = 2 * (likelihood - null_likelihood)
    intercept, coefficients = estimates.intercept, estimates.coefficients
    errors = estimates.std_err / math.sqrt(counts)
    errors = np.where(errors > 0, errors, math.nan)
    if not estimates.checks[0]:  # what came out has no meaning
        intercept, coefficients, errors = math.nan, coefficients * math.nan, errors * math.nan
        likelihood = half_deviance = pearson = llr = math.nan
    return PoissonResult.of(
        intercept,
        coefficients,
        errors,
        log_likelihood=likelihood,
        null_log_likelihood=null_likelihood,
        llr=llr,
        deviance=2 * half_deviance,
        pearson_chi2=pearson,
        total=total * counts,
        weight=weight * unit,
        n=rows.n,
        iterations=fit.iterations,
        converged=bool(estimates.checks.all()),
        confidence=confidence,
        partition=partition,
        names=names,
        missing=rows.missing,
        suppressed=suppressed,
        warnings=found,
    )


def _findings(
    checks: NDArray[np.bool_], constant: NDArray[np.bool_], names: tuple[str, ...], steps: int
) -> tuple[str, ...]:
    found = []
    if constant.any():
        named = ", ".join(names[j] for j in np.flatnonzero(constant)[:10])
        found.append(f"no spread in column {named}: it is left out")
    if not checks[0]:
        found.append(
            "the information matrix cannot be inverted, or means left the range of y: columns are collinear, in some "
            "category all counts are 0, or the largest count is more than 2^12 times the mean; drop columns, or look "
            "at the largest counts"
        )
    elif not checks[1]:
        found.append(
            f"not converged after {steps} steps; raise steps, or look for a category in which all counts are 0"
        )
    return tuple(found)
