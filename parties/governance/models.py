"""Analyses of a study that fit models, or check their predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mpc import Party
from parties.governance.analysis import NUMERIC, Reveals, Rows, listed
from parties.governance.schema import MOST_COLUMNS, Column, ColumnName, Schema
from parties.governance.tables import Columns, OfRows, labels_of, numbers_of
from protocols import logistic_regression
from protocols.pools.variables import Column as Declared
from protocols.regression.count_rows import MOST_COUNTED
from protocols.regression.options import checked_options
from protocols.regression.poisson import LARGEST_OFFSET
from protocols.release.disclosure import Disclosure
from protocols.release.outcome import Result

SIZES = "how many values of each column are missing"


class OfFeatures(OfRows):
    """A regression; a feature that is a category stands for an indicator of each of its values but the first."""

    features: Columns

    def _check_features(self, schema: Schema, apart: Sequence[str]) -> None:
        for name in apart:
            if name in self.features:
                raise ValueError(f"analysis {self.name} names {name} among the features as well")
        features = self._take(schema, self.features, (*NUMERIC, "category"))
        if len(coded_names(features)) > MOST_COLUMNS:
            raise ValueError(f"analysis {self.name}: the features' categories give more than {MOST_COLUMNS} columns")

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        coefficients = 1 + len(coded_names([schema[name] for name in self.features]))
        return disclosure.rules(parameters=coefficients, sums=False)

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
        return await linear_regression(
            seat,
            X,
            y[:, 0],
            columns=columns,
            y_bound=float(y_bound[0]),
            to=ours.to,
            disclosure=ours.disclosure,
        )


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
        gaps = any(schema[name].missing == "keep" for name in (self.outcome, *self.features))
        return await logistic_regression(
            seat,
            X,
            outcome[:, 0] if gaps else outcome[:, 0].astype(np.int64),
            l2=self.l2,
            solver=self.solver,
            columns=columns,
            steps=self.steps,
            stop_early=self.stop_early,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            limit=self.limit,
            missing="drop" if gaps else "raise",
            to=ours.to,
            disclosure=ours.disclosure,
        )


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
            f"how many rows each party holds, and {SIZES}",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import poisson_regression

        X, columns = self._predictors(ours, schema)
        y, y_bound = numbers_of(ours, schema, [self.outcome])
        offset = None
        if self.exposure is not None:
            exposures, _ = numbers_of(ours, schema, [self.exposure])
            offset = np.log(exposures[:, 0])
        return await poisson_regression(
            seat,
            X,
            y[:, 0],
            offset=offset,
            columns=columns,
            y_bound=float(y_bound[0]),
            to=ours.to,
            disclosure=ours.disclosure,
        )


class RocAuc(OfRows):
    """How well a score tells the two values of an outcome apart.

    Attributes
    ----------
    score, outcome : str
    """

    protocol: Literal["roc_auc"]
    score: ColumnName
    outcome: ColumnName

    def check(self, schema: Schema) -> None:
        self._take(schema, [self.score], ("number", "integer"))
        self._take(schema, [self.outcome], ("boolean",))

    def asks(self) -> str:
        return f"the area under the ROC curve of {self.score} for {self.outcome}"

    def reveals(self) -> Reveals:
        return Reveals(
            "the area with its interval, and sensitivity and specificity at the thresholds 0, 0.05, and so on to 1; "
            "those that would tell of a few rows are left out",
            f"how many rows each party holds, how many have either outcome, which thresholds are left out, and {SIZES}",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import roc_auc

        score, bounds = numbers_of(ours, schema, [self.score])
        outcome, _ = numbers_of(ours, schema, [self.outcome])
        return await roc_auc(
            seat, score[:, 0], outcome[:, 0], bound=float(bounds[0]), to=ours.to, disclosure=ours.disclosure
        )


class Calibration(OfRows):
    """Whether predicted probabilities are as frequent as they say.

    Attributes
    ----------
    probability, outcome : str
    bins : int
    """

    protocol: Literal["calibration"]
    probability: ColumnName
    outcome: ColumnName
    bins: Annotated[int, Field(ge=2, le=100)] = 10

    def check(self, schema: Schema) -> None:
        (probability,) = self._take(schema, [self.probability], ("number",))
        if (probability.lower, probability.upper) != (0, 1):
            raise ValueError(f"analysis {self.name}: give {self.probability} the bounds 0 and 1")
        self._take(schema, [self.outcome], ("boolean",))

    def asks(self) -> str:
        return f"the calibration of {self.probability} for {self.outcome}, in {self.bins} bins"

    def reveals(self) -> Reveals:
        return Reveals(
            "for each bin how many rows it has, the mean prediction and how often the outcome occurs, and the Brier "
            "score; small bins are withheld",
            f"the total number of rows, {SIZES}, and which bins are withheld",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import calibration

        probability, _ = numbers_of(ours, schema, [self.probability])
        outcome, _ = numbers_of(ours, schema, [self.outcome])
        return await calibration(
            seat, probability[:, 0], outcome[:, 0], bins=self.bins, to=ours.to, disclosure=ours.disclosure
        )
