"""The opened results of linear and Poisson regressions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.distributions import chi_squared_tail, f_tail, normal_half_width, normal_tail, t_quantile, t_tail
from protocols.regression.results import linear_predictor
from protocols.release.outcome import Result, notes

_WIDTH = 78


@dataclass(frozen=True, eq=False)
class Regression(Result):
    """What regressions have in common: estimates with errors, tests and intervals.

    Attributes
    ----------
    intercept : float
    coef : numpy.ndarray
        Shape (d,), in the units of the data; NaN for constant columns, which are left out.
    std_err, p_value : numpy.ndarray
        Shape (d + 1,), the intercept first. NaN where there is none.
    conf_int : numpy.ndarray
        Shape (d + 1, 2).
    n : int
        Complete rows of all parties.
    missing : dict of str to int or None
        By variable: rows in which it is missing (with ``partition="columns"``: by party); None where the disclosure
        control withholds the number. Predictors that are called y, weights or offset are counted as ``X.y`` and so on.
    """

    intercept: float
    coef: NDArray[np.float64]
    std_err: NDArray[np.float64]
    p_value: NDArray[np.float64]
    conf_int: NDArray[np.float64]
    n: int
    missing: dict[str, int | None]
    suppressed: tuple[str, ...]
    names: tuple[str, ...]
    partition: str
    confidence: float
    l2: float
    warnings: tuple[str, ...]

    @property
    def params(self) -> NDArray[np.float64]:
        """Intercept and coefficients in one array, shape (d + 1,)."""
        return np.concatenate([[self.intercept], self.coef])

    def _table(
        self, title: str, facts: Sequence[tuple[str, str, str, str]], test: str, tests: NDArray[np.float64]
    ) -> str:
        """Lay out the facts and the table of estimates as statsmodels does."""
        tail = (1 - self.confidence) / 2
        heads = ("coef", "std err", test, f"P>|{test}|", f"[{tail:.3g}", f"{1 - tail:.3g}]")
        label = min(28, max(16, *(len(name) + 1 for name in ("const", *self.names))))
        head = f"{'':{label}}" + "".join(f"{text:>{width}}" for text, width in zip(heads, _CELLS, strict=True))
        width = max(len(head), _WIDTH)
        lines = [title.center(width).rstrip(), "=" * width]
        lines += [f"{a:<18}{b:>18}   {c:<21}{d:>18}" for a, b, c, d in facts]
        lines += ["=" * width, head, "-" * width]
        rows = zip(("const", *self.names), self.params, self.std_err, tests, self.p_value, self.conf_int, strict=True)
        for name, estimate, error, statistic, p, (low, high) in rows:
            shown = name if len(name) < label else name[: label - 4] + "..."
            texts = (written(estimate), written(error), f"{statistic:.3f}", f"{p:.3f}", written(low), written(high))
            lines.append(f"{shown:<{label}}" + "".join(f"{t:>{w}}" for t, w in zip(texts, _CELLS, strict=True)))
        lines.append("=" * width)
        lines += notes(self.n, self.missing, self.suppressed)
        return "\n".join([*lines, *(f"Warning: {text}" for text in self.warnings)])


_CELLS = (11, 11, 10, 9, 11, 11)


def written(value: float) -> str:
    """Format as statsmodels does: four digits after the point, fewer for large numbers."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.2f}"


@dataclass(frozen=True, eq=False)
class LinearResult(Regression):
    """A linear regression, the same at all parties that learn it.

    Attributes
    ----------
    t : numpy.ndarray
        Shape (d + 1,).
    r_squared, adj_r_squared : float
    f_statistic, f_p_value : float
        Against the model of the intercept alone; NaN with a penalty.
    sigma : float
        Standard error of the residuals.
    df_model, df_resid : int
        Columns that are not constant; rows less estimates.
    ssr, centered_tss : float
        Sums of squares of the residuals and of y around its mean (weighted, where there are weights).
    log_likelihood, aic, bic : float
        Of the normal model, as statsmodels computes them.
    weighted : bool

    Notes
    -----
    statsmodels' ``OLS`` or ``WLS`` with a constant. With a penalty, standard errors come from the inverse of the
    penalised cross-products and the variance of the residuals: they describe the curvature, not the bias.
    """

    t: NDArray[np.float64]
    r_squared: float
    adj_r_squared: float
    f_statistic: float
    f_p_value: float
    sigma: float
    df_model: int
    df_resid: int
    ssr: float
    centered_tss: float
    log_likelihood: float
    aic: float
    bic: float
    weighted: bool

    @classmethod
    def of(
        cls,
        estimates: NDArray[np.float64],
        diagonal: NDArray[np.float64],
        *,
        residual: float,
        total: float,
        log_weights: float,
        weighted: bool,
        n: int,
        l2: float,
        confidence: float,
        partition: str,
        names: tuple[str, ...],
        missing: Mapping[str, int | None],
        warnings: tuple[str, ...],
    ) -> LinearResult:
        """Derive what follows from estimates, the diagonal of the inverse cross-products, and two sums of squares."""
        model = int(np.isfinite(diagonal[1:]).sum())
        free = n - model - 1
        variance = residual / free if free > 0 else math.nan
        errors = np.sqrt(diagonal * variance)
        half = t_quantile((1 + confidence) / 2, free) * errors if free > 0 else errors * math.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            t = estimates / errors
        explained = 1 - residual / total if total > 0 else math.nan
        plain_fit = l2 == 0 and model > 0 and free > 0 and residual > 0
        f = (total - residual) / model / variance if plain_fit else math.nan
        likelihood = math.nan
        if residual > 0:
            likelihood = -n / 2 * (math.log(2 * math.pi * residual / n) + 1) + log_weights / 2
        return cls(
            intercept=float(estimates[0]),
            coef=estimates[1:],
            std_err=errors,
            p_value=2 * t_tail(np.abs(t), free) if free > 0 else errors * math.nan,
            conf_int=np.stack([estimates - half, estimates + half], axis=1),
            n=n,
            missing=dict(missing),
            suppressed=(),
            names=names,
            partition=partition,
            confidence=confidence,
            l2=l2,
            warnings=warnings,
            t=t,
            r_squared=explained,
            adj_r_squared=1 - (1 - explained) * (n - 1) / free if free > 0 else math.nan,
            f_statistic=f,
            f_p_value=f_tail(f, model, free) if plain_fit else math.nan,
            sigma=math.sqrt(variance) if variance >= 0 else math.nan,
            df_model=model,
            df_resid=free,
            ssr=residual,
            centered_tss=total,
            log_likelihood=likelihood,
            aic=2 * (model + 1) - 2 * likelihood,
            bic=math.log(n) * (model + 1) - 2 * likelihood,
            weighted=weighted,
        )

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the expected outcome for rows in the clear, shape (rows,)."""
        return linear_predictor(X, self.coef, self.intercept)

    def summary(self) -> str:
        """Return the table that users of statsmodels know."""
        facts = [
            ("Model:", "WLS" if self.weighted else "OLS", "R-squared:", f"{self.r_squared:.3f}"),
            ("Method:", "least squares", "Adj. R-squared:", f"{self.adj_r_squared:.3f}"),
            ("Data held by:", self.partition, "F-statistic:", f"{self.f_statistic:.4g}"),
            ("No. Observations:", str(self.n), "Prob (F-statistic):", f"{self.f_p_value:.3g}"),
            ("Df Residuals:", str(self.df_resid), "Log-Likelihood:", f"{self.log_likelihood:.5g}"),
            ("Df Model:", str(self.df_model), "AIC:", f"{self.aic:.4g}"),
            ("Residual std err:", f"{self.sigma:.4g}", "BIC:", f"{self.bic:.4g}"),
            ("Penalty (l2):", f"{self.l2:g}", "Covariance Type:", "nonrobust"),
        ]
        return self._table("Linear Regression on Shared Data", facts, "t", self.t)


@dataclass(frozen=True, eq=False)
class PoissonResult(Regression):
    """A Poisson regression, the same at all parties that learn it.

    Attributes
    ----------
    z : numpy.ndarray
        Shape (d + 1,).
    rate_ratios : numpy.ndarray
        Shape (d,): factor by which one unit of each column changes the rate.
    rate_ratio_intervals : numpy.ndarray
        Shape (d, 2).
    log_likelihood, null_log_likelihood : float
        Of the fit, and of the model with the intercept alone.
    deviance, null_deviance : float
    pearson_chi2, dispersion : float
        Pearson's chi squared, and its quotient by the degrees of freedom: far above 1 where counts vary more than
        Poisson's.
    aic, bic : float
        From the log-likelihood.
    llr, llr_p_value : float
        Likelihood ratio test against the model with the intercept alone.
    pseudo_r_squared : float
        McFadden's.
    df_model, df_resid : int
        The latter may be a fraction where weights are.
    total : float
        Sum of y.
    weight : float
        Sum of the weights, or the number of rows.
    iterations : int
    converged : bool

    Notes
    -----
    statsmodels' ``GLM(y, X, family=Poisson())`` with a constant, ``offset`` and ``freq_weights``. Under a disclosure
    control with a minimum cell, log-likelihoods, deviances, Pearson's chi squared, dispersion, aic, bic and pseudo R
    squared are NaN, and ``llr`` is known to about 0.002.
    """

    z: NDArray[np.float64]
    rate_ratios: NDArray[np.float64]
    rate_ratio_intervals: NDArray[np.float64]
    log_likelihood: float
    null_log_likelihood: float
    deviance: float
    null_deviance: float
    pearson_chi2: float
    dispersion: float
    aic: float
    bic: float
    llr: float
    llr_p_value: float
    pseudo_r_squared: float
    df_model: int
    df_resid: float
    total: float
    weight: float
    iterations: int
    converged: bool

    @classmethod
    def of(
        cls,
        intercept: float,
        coef: NDArray[np.float64],
        std_err: NDArray[np.float64],
        *,
        log_likelihood: float,
        null_log_likelihood: float,
        llr: float,
        deviance: float,
        pearson_chi2: float,
        total: float,
        weight: float,
        n: int,
        iterations: int,
        converged: bool,
        confidence: float,
        partition: str,
        names: tuple[str, ...],
        missing: Mapping[str, int | None],
        suppressed: tuple[str, ...],
        warnings: tuple[str, ...],
    ) -> PoissonResult:
        """Derive what follows from estimates, errors and sums over rows."""
        model = int(np.isfinite(std_err[1:]).sum())
        free = weight - model - 1
        estimates = np.concatenate([[intercept], coef])
        half = normal_half_width(confidence) * std_err
        with np.errstate(divide="ignore", invalid="ignore"):
            z = estimates / std_err
        intervals = np.stack([estimates - half, estimates + half], axis=1)
        with np.errstate(over="ignore"):
            ratios, ratio_intervals = np.exp(coef), np.exp(intervals[1:])
        return cls(
            intercept=intercept,
            coef=coef,
            std_err=std_err,
            p_value=2 * normal_tail(np.abs(z)),
            conf_int=intervals,
            n=n,
            missing=dict(missing),
            suppressed=suppressed,
            names=names,
            partition=partition,
            confidence=confidence,
            l2=0.0,
            warnings=warnings,
            z=z,
            rate_ratios=ratios,
            rate_ratio_intervals=ratio_intervals,
            log_likelihood=log_likelihood,
            null_log_likelihood=null_log_likelihood,
            deviance=deviance,
            null_deviance=deviance + llr,
            pearson_chi2=pearson_chi2,
            dispersion=pearson_chi2 / free if free > 0 else math.nan,
            aic=2 * (model + 1) - 2 * log_likelihood,
            bic=math.log(weight) * (model + 1) - 2 * log_likelihood if weight > 0 else math.nan,
            llr=llr,
            llr_p_value=chi_squared_tail(llr, model) if model and llr == llr else math.nan,
            pseudo_r_squared=1 - log_likelihood / null_log_likelihood if null_log_likelihood else math.nan,
            df_model=model,
            df_resid=free,
            total=total,
            weight=weight,
            iterations=iterations,
            converged=converged,
        )

    def predict(self, X: Any, offset: Any = 0.0) -> NDArray[np.float64]:
        """Return expected counts for rows in the clear, shape (rows,)."""
        return np.asarray(np.exp(linear_predictor(X, self.coef, self.intercept) + np.asarray(offset)))

    def summary(self) -> str:
        """Return the table that users of statsmodels know."""
        facts = [
            ("Model:", "GLM", "No. Observations:", str(self.n)),
            ("Model Family:", "Poisson", "Df Residuals:", f"{self.df_resid:g}"),
            ("Link Function:", "Log", "Df Model:", str(self.df_model)),
            ("Method:", "Newton, on shares", "Log-Likelihood:", f"{self.log_likelihood:.5g}"),
            ("Data held by:", self.partition, "Deviance:", f"{self.deviance:.5g}"),
            ("Converged:", str(self.converged), "Pearson chi2:", f"{self.pearson_chi2:.4g}"),
            ("No. Iterations:", str(self.iterations), "Dispersion:", f"{self.dispersion:.4g}"),
            ("Pseudo R-squ.:", f"{self.pseudo_r_squared:.4g}", "LLR p-value:", f"{self.llr_p_value:.3e}"),
            ("Covariance Type:", "nonrobust", "AIC:", f"{self.aic:.5g}"),
        ]
        return self._table("Poisson Regression on Shared Data", facts, "z", self.z)
