"""Analyses of a study that fit models, or check their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from pydantic import model_validator

from mpc import Party
from parties.governance.analysis import NUMERIC, Reveals, Rows, listed
from parties.governance.schema import MOST_COLUMNS, Column, ColumnName, Schema
from parties.governance.tables import Columns, OfRows, labels_of, numbers_of
from protocols import LinearResult, LogisticResult, PoissonResult, logistic_regression
from protocols.pools.variables import Column as Declared
from protocols.regression.count_rows import LARGEST_UNASKED, MOST_COUNTED
from protocols.regression.options import checked_options
from protocols.regression.poisson import LARGEST_OFFSET
from protocols.regression.sample import counted_as
from protocols.release.disclosure import Disclosure
from protocols.release.outcome import Result

SIZES = "how many values of each column are missing"
Fitted = TypeVar("Fitted", LinearResult, LogisticResult, PoissonResult)


class OfFeatures(OfRows):
    """A regression; a feature that is a category stands for an indicator of each of its values but the first."""

    features: Columns
    _intercepts: ClassVar[int] = 1

    def _check_features(self, schema: Schema, apart: Sequence[str]) -> None:
        for name in apart:
            if name in self.features:
                raise ValueError(f"analysis {self.name} names {name} among the features as well")
        features = self._take(schema, self.features, (*NUMERIC, "category"))
        if len(coded_names(features)) > MOST_COLUMNS:
            raise ValueError(f"analysis {self.name}: the features' categories give more than {MOST_COLUMNS} columns")

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        coefficients = self._intercepts + len(coded_names([schema[name] for name in self.features]))
        rules = disclosure.rules(parameters=coefficients, sums=False)
        if disclosure.minimum_cell:
            least = disclosure.minimum_cell
            rules.append(f"at least {least} rows for each such value together with each value of a yes-no outcome")
        return rules

    def _predictors(self, ours: Rows, schema: Schema) -> tuple[dict[str, Any], list[Declared]]:
        """Return the features by name, and what is declared of them: the protocols code and check categories."""
        features = [schema[name] for name in self.features]
        values: dict[str, Any] = {
            one.name: labels_of(ours, schema, one.name)
            if one.type == "category"
            else np.asarray(ours.columns[one.name], dtype=np.float64)
            for one in features
        }
        return values, [declared(one) for one in features]

    def _named(self, result: Fitted | None, **beside: str | None) -> Fitted | None:
        """Return a result whose missing values are counted under the names of the study's columns."""
        if result is None:
            return None
        columns = beside | {counted_as(name): name for name in self.features}
        return replace(result, missing={columns[name] or name: count for name, count in result.missing.items()})


def declared(column: Column) -> Declared:
    """Return what a protocol is told of a column."""
    return Declared(column.name, column.type, column.unit, column.lower, column.upper, tuple(column.categories))


def coded_names(features: Sequence[Column]) -> list[str]:
    """Return the names of a regression's columns."""
    return [
        name for one in features for name in ([f"{one.name}[T.{value}]" for value in one.categories[1:]] or [one.name])
    ]


class LinearRegression(OfFeatures):
    """A linear regression by least squares.

    Attributes
    ----------
    outcome : str
    features : tuple of str
    """

    protocol: Literal["linear_regression"]
    outcome: ColumnName

    def check(self, schema: Schema) -> None:
        self._take(schema, [self.outcome], ("number", "integer"))
        self._check_features(schema, [self.outcome])

    def asks(self) -> str:
        return f"linear regression of {self.outcome} on {listed(self.features)}"

    def reveals(self) -> Reveals:
        return Reveals(
            "intercept and coefficients, their standard errors, the residual standard error, R squared, and which "
            "features are constant or collinear",
            f"the total number of rows, and {SIZES}",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import linear_regression

        X, columns = self._predictors(ours, schema)
        y, y_bound = numbers_of(ours, schema, [self.outcome])
        result = await linear_regression(
            seat,
            X,
            y[:, 0],
            columns=columns,
            y_bound=float(y_bound[0]),
            to=ours.to,
            disclosure=ours.disclosure,
        )
        return self._named(result, y=self.outcome)


class LogisticRegression(OfFeatures):
    """A logistic regression; parameters as of :func:`protocols.logistic_regression`.

    A feature that is a category stands for an indicator of each of its values but the first.
    """

    protocol: Literal["logistic_regression"]
    outcome: ColumnName
    l2: float = 0.0
    solver: Literal["newton", "gradient"] = "newton"
    steps: int | None = None
    stop_early: bool = False
    learning_rate: float | None = None
    momentum: float = 0.0
    limit: float = 32.0

    @model_validator(mode="after")
    def _parameters_are_allowed(self) -> Self:
        checked_options(
            self.l2,
            self.solver,
            "rows",
            self.steps,
            self.stop_early,
            self.learning_rate,
            self.momentum,
            self.limit,
            reveal=True,
        )
        return self

    def check(self, schema: Schema) -> None:
        (outcome,) = self._take(schema, [self.outcome], ("boolean", "integer"))
        if outcome.type == "integer" and (outcome.lower, outcome.upper) != (0, 1):
            raise ValueError(f"analysis {self.name}: the outcome is 0 or 1; give {self.outcome} the bounds 0 and 1")
        self._check_features(schema, [self.outcome])

    def asks(self) -> str:
        penalty = f", l2 = {self.l2:g}" if self.l2 else ""
        return f"logistic regression of {self.outcome} on {listed(self.features)} ({self.solver}{penalty})"

    def reveals(self) -> Reveals:
        errors = ""
        if self.solver == "newton":
            errors = ", their standard errors, the log-likelihood and how many rows have the outcome"
        early = ", and after how many steps the fit stops" if self.stop_early else ""
        return Reveals(
            f"intercept and coefficients{errors}, which features are constant, and whether the fit converged",
            f"how many rows each party holds, and {SIZES}{early}",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        X, columns = self._predictors(ours, schema)
        outcome, _ = numbers_of(ours, schema, [self.outcome])
        result = await logistic_regression(
            seat,
            X,
            outcome[:, 0],
            l2=self.l2,
            solver=self.solver,
            columns=columns,
            steps=self.steps,
            stop_early=self.stop_early,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            limit=self.limit,
            to=ours.to,
            disclosure=ours.disclosure,
        )
        return self._named(result, y=self.outcome)


class PoissonRegression(OfFeatures):
    """A Poisson regression with logarithmic link.

    Attributes
    ----------
    outcome : str
        Counts.
    features : tuple of str
    exposure : str or None
        A column of positive numbers; its logarithm is the offset.
    """

    protocol: Literal["poisson_regression"]
    outcome: ColumnName
    exposure: ColumnName | None = None

    def check(self, schema: Schema) -> None:
        (outcome,) = self._take(schema, [self.outcome], ("integer",))
        if outcome.lower is not None and outcome.lower < 0:
            raise ValueError(f"analysis {self.name}: counts are not negative; give {self.outcome} a lower bound of 0")
        if outcome.upper is not None and outcome.upper > MOST_COUNTED:
            raise ValueError(
                f"analysis {self.name}: counts go up to {MOST_COUNTED}; give {self.outcome} an upper bound near the "
                "largest count that occurs"
            )
        if self.exposure is not None:
            (exposure,) = self._take(schema, [self.exposure], ("number", "integer"))
            if exposure.lower is None or exposure.lower <= 0:
                raise ValueError(
                    f"analysis {self.name}: an exposure is positive; give {self.exposure} such a lower bound"
                )
            if math.log(exposure.lower) < -LARGEST_OFFSET or math.log(exposure.upper or 1.0) > LARGEST_OFFSET:
                raise ValueError(
                    f"analysis {self.name}: exposures go from {math.exp(-LARGEST_OFFSET):.2g} to "
                    f"{math.exp(LARGEST_OFFSET):.2g}; give {self.exposure} such bounds, or take another unit"
                )
        self._check_features(schema, [self.outcome, *([self.exposure] if self.exposure else [])])

    def asks(self) -> str:
        exposed = f" per {self.exposure}" if self.exposure else ""
        return f"Poisson regression of {self.outcome}{exposed} on {listed(self.features)}"

    def reveals(self) -> Reveals:
        return Reveals(
            "intercept and coefficients, their standard errors, the totals of the outcome and of the exposure, "
            "deviance, Pearson's chi squared and log-likelihood (under a minimum cell the likelihood ratio alone), "
            "which features are constant, and whether the fit converged",
            f"how many rows each party holds, {SIZES}, and, where counts above {LARGEST_UNASKED} are allowed, the "
            "power of 16 above the largest",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import poisson_regression

        X, columns = self._predictors(ours, schema)
        y, y_bound = numbers_of(ours, schema, [self.outcome])
        offset = None
        if self.exposure is not None:
            exposures, _ = numbers_of(ours, schema, [self.exposure])
            offset = np.log(exposures[:, 0])
        result = await poisson_regression(
            seat,
            X,
            y[:, 0],
            offset=offset,
            columns=columns,
            y_bound=float(y_bound[0]),
            to=ours.to,
            disclosure=ours.disclosure,
        )
        return self._named(result, y=self.outcome, offset=self.exposure)
