"""The opened result of a regression."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.distributions import chi_squared_tail
from protocols.release.outcome import Result, plain

# 97.5 % quantile of the normal distribution.
_TWO_SIDED_95 = 1.959963984540054
_WIDTH = 78


class ConvergenceWarning(UserWarning):
    """A result whose numbers should not be relied on; its ``warnings`` say why."""


def linear_predictor(X: Any, coef: NDArray[np.float64], intercept: float) -> NDArray[np.float64]:
    """Return linear predictors of rows in the clear; columns that were left out (NaN) add nothing."""
    kept = ~np.isnan(coef)
    return np.asarray(np.asarray(X, dtype=np.float64)[..., kept] @ coef[kept] + intercept)


@dataclass(frozen=True, eq=False)
class LogisticResult(Result):
    """A logistic regression, the same at all parties.

    Attributes
    ----------
    intercept : float
    coef : numpy.ndarray
        Shape (d,), in the units of the data; NaN for constant columns, which are left out.
    std_err, z, p_value : numpy.ndarray
        Shape (d + 1,), the intercept first. NaN where there is none: gradient descent, constant columns.
    conf_int : numpy.ndarray
        Shape (d + 1, 2): the ends of the 95 % intervals.
    n : int
        Number of rows of all parties.
    iterations : int
        Steps that were made.
    converged : bool
        Whether the result may be relied on; if not, ``warnings`` say why.
    l2 : float
    solver, partition : str
    names : tuple of str
        Names of the d columns.
    warnings : tuple of str
    log_likelihood, null_log_likelihood : float
        Of the fit, without the penalty, and of the model with the intercept alone; NaN where not computed:
        gradient descent, and the latter with an offset.
    weight : float
        Sum of the weights, where there are any.
    missing : dict of str to int or None
        By variable (with ``partition="columns"`` by party): rows in which it is missing; None where the disclosure
        control withholds the number. Predictors that are called y, weights or offset are counted as ``X.y`` and so on.

    Notes
    -----
    The fit minimises ``sum_i log(1 + exp(-s_i (b + w' x_i))) + l2/2 |w|^2`` over the standardised columns
    of the pooled data (mean 0, variance 1 with divisor n; s_i = +-1 for y = 1, 0), the intercept not
    penalised: scikit-learn's ``LogisticRegression(C=1/l2)`` after ``StandardScaler``; with ``l2=0``
    statsmodels' ``Logit``. Standard errors come from the inverse of the penalised Hessian at the optimum,
    brought to the units of the data; with ``l2=0`` that is the inverse Fisher information. With a penalty
    they describe the curvature, not the bias that it brings: intervals and p-values are approximate.
    """

    intercept: float
    coef: NDArray[np.float64]
    std_err: NDArray[np.float64]
    n: int
    iterations: int
    converged: bool
    l2: float
    solver: str
    partition: str
    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    log_likelihood: float = math.nan
    null_log_likelihood: float = math.nan
    weight: float = math.nan
    missing: dict[str, int | None] = field(default_factory=dict)
    z: NDArray[np.float64] = field(init=False)
    p_value: NDArray[np.float64] = field(init=False)
    conf_int: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        """Derive what follows from coefficients and standard errors."""
        estimates = self.params
        with np.errstate(divide="ignore", invalid="ignore"):
            z = estimates / self.std_err
        half = _TWO_SIDED_95 * self.std_err
        object.__setattr__(self, "z", z)
        object.__setattr__(self, "p_value", np.array([math.erfc(abs(value) / math.sqrt(2)) for value in z]))
        object.__setattr__(self, "conf_int", np.stack([estimates - half, estimates + half], axis=1))

    @property
    def params(self) -> NDArray[np.float64]:
        """Intercept and coefficients in one array, shape (d + 1,)."""
        return np.concatenate([[self.intercept], self.coef])

    @property
    def odds_ratios(self) -> NDArray[np.float64]:
        """Factor by which one unit of each column changes the odds, shape (d,)."""
        return np.asarray(np.exp(self.coef))

    @property
    def df_resid(self) -> int:
        """Rows less the number of estimates."""
        return self.n - self.df_model - 1

    @property
    def df_model(self) -> int:
        """Number of columns that have a coefficient."""
        return int(np.isfinite(self.coef).sum())

    @property
    def deviance(self) -> float:
        """Minus twice the log-likelihood."""
        return -2 * self.log_likelihood

    @property
    def null_deviance(self) -> float:
        """The same of the model with the intercept alone."""
        return -2 * self.null_log_likelihood

    @property
    def aic(self) -> float:
        """Akaike's criterion; with a penalty of the penalised estimates."""
        return self.deviance + 2 * (self.df_model + 1)

    @property
    def bic(self) -> float:
        """Schwarz's criterion; rows count as often as their weights say."""
        rows = self.n if math.isnan(self.weight) else self.weight
        return self.deviance + math.log(rows) * (self.df_model + 1) if rows > 0 else math.nan

    @property
    def pseudo_r_squared(self) -> float:
        """McFadden's: one less the quotient of the log-likelihoods."""
        return 1 - self.log_likelihood / self.null_log_likelihood if self.null_log_likelihood else math.nan

    @property
    def llr(self) -> float:
        """Likelihood ratio statistic against the model with the intercept alone."""
        return 2 * (self.log_likelihood - self.null_log_likelihood)

    @property
    def llr_p_value(self) -> float:
        """Its p-value; NaN with a penalty."""
        if self.l2 or not self.df_model or math.isnan(self.llr):
            return math.nan
        return chi_squared_tail(self.llr, self.df_model)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of y = 1 for rows in the clear, shape (rows,)."""
        predictor = linear_predictor(X, self.coef, self.intercept)
        return np.asarray(0.5 * (1 + np.tanh(predictor / 2)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, fit for JSON: what is not a number is None."""
        names = (
            *(
                "intercept",
                "coef",
                "std_err",
                "z",
                "p_value",
                "conf_int",
                "odds_ratios",
                "n",
                "iterations",
                "converged",
            ),
            *("l2", "solver", "partition", "names", "warnings", "missing"),
        )
        found = {name: plain(getattr(self, name)) for name in names}
        return found | {name: plain(value) for name, value in self._likelihoods().items()}

    def _likelihoods(self) -> dict[str, float]:
        names = ("log_likelihood", "null_log_likelihood", "deviance", "null_deviance", "aic", "bic")
        return {name: getattr(self, name) for name in (*names, "pseudo_r_squared", "llr", "llr_p_value", "weight")}

    def summary(self) -> str:
        """Return the table that users of statsmodels know."""
        facts = [
            ("Model:", "Logit", "No. Observations:", str(self.n)),
            ("Method:", f"{self.solver}, on shares", "Df Residuals:", str(self.df_resid)),
            ("Data held by:", self.partition, "Df Model:", str(self.df_model)),
            ("Converged:", str(self.converged), "No. Iterations:", str(self.iterations)),
            ("Penalty (l2):", f"{self.l2:g}", "Covariance Type:", "nonrobust"),
        ]
        if not math.isnan(self.log_likelihood):
            facts += [
                ("Log-Likelihood:", f"{self.log_likelihood:.5g}", "LL-Null:", f"{self.null_log_likelihood:.5g}"),
                ("Pseudo R-squ.:", f"{self.pseudo_r_squared:.4g}", "LLR p-value:", f"{self.llr_p_value:.3e}"),
                ("AIC:", f"{self.aic:.5g}", "BIC:", f"{self.bic:.5g}"),
            ]
        lines = ["Logistic Regression on Shared Data".center(_WIDTH).rstrip(), "=" * _WIDTH]
        lines += [f"{a:<16}{b:>20}   {c:<19}{d:>20}" for a, b, c, d in facts]
        label = max(16, *(len(name) + 1 for name in self.names)) if self.names else 16
        label = min(label, 28)
        head = f"{'':{label}}{'coef':>10}{'std err':>11}{'z':>10}{'P>|z|':>9}{'[0.025':>11}{'0.975]':>11}"
        width = len(head)
        lines += ["=" * max(width, _WIDTH), head, "-" * max(width, _WIDTH)]
        rows = zip(("const", *self.names), self.params, self.std_err, self.z, self.p_value, self.conf_int, strict=True)
        for name, coef, error, z, p, (low, high) in rows:
            shown = name if len(name) < label else name[: label - 4] + "..."
            cells = f"{_number(coef):>10}{_number(error):>11}{z:>10.3f}{p:>9.3f}{_number(low):>11}{_number(high):>11}"
            lines.append(f"{shown:<{label}}{cells}")
        lines.append("=" * max(width, _WIDTH))
        gone = [
            f"{name} {'withheld' if count is None else count}" for name, count in self.missing.items() if count != 0
        ]
        lines += ["Missing: " + ", ".join(gone)] if gone else []
        lines += [f"Warning: {text}" for text in self.warnings]
        return "\n".join(lines)

    def __str__(self) -> str:
        """Return the summary."""
        return self.summary()


def _number(value: float) -> str:
    """Format as statsmodels does: four digits after the point, fewer for large numbers."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.2f}"
