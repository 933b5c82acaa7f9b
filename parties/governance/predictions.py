"""Analyses of a study that say how good predictions are."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mpc import Party
from parties.governance.analysis import Reveals, Rows, listed
from parties.governance.models import SIZES
from parties.governance.schema import ColumnName, Schema
from parties.governance.tables import OfRows, numbers_of, of_groups, of_values
from protocols.prediction.scores import MOST_EDGES
from protocols.release.disclosure import Disclosure
from protocols.release.outcome import Result


class RocAuc(OfRows):
    """How well a score tells the two values of an outcome apart.

    Attributes
    ----------
    score, outcome : str
    thresholds : tuple of float
        Increasing: where sensitivity and specificity are told. None by default: the area alone.
    """

    protocol: Literal["roc_auc"]
    score: ColumnName
    outcome: ColumnName
    thresholds: Annotated[tuple[float, ...], Field(max_length=MOST_EDGES)] = ()

    @model_validator(mode="after")
    def _thresholds_increase(self) -> Self:
        if any(not a < b for a, b in pairwise(self.thresholds)) or not np.isfinite(self.thresholds).all():
            raise ValueError("the thresholds of a ROC curve increase")
        return self

    def check(self, schema: Schema) -> None:
        self._take(schema, [self.score], ("number", "integer"))
        self._take(schema, [self.outcome], ("boolean",))

    def asks(self) -> str:
        curve = f", and the curve at {listed([f'{one:g}' for one in self.thresholds])}" if self.thresholds else ""
        return f"the area under the ROC curve of {self.score} for {self.outcome}{curve}"

    def reveals(self) -> Reveals:
        area = "the area and its standard error (with a minimum cell rounded), with an interval"
        everybody = f"how many rows each party holds, how many have either outcome, and {SIZES}"
        if not self.thresholds:
            return Reveals(area, everybody)
        return Reveals(
            f"{area}, and sensitivity and specificity at the thresholds; those that would tell of a few rows are left "
            "out",
            f"{everybody}, and which thresholds are left out",
        )

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        return [
            *super().rules(schema, disclosure),
            *of_groups(disclosure, self.outcome),
            *of_values(disclosure, self.outcome, sums=False),
        ]

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import roc_auc

        score, bounds = numbers_of(ours, schema, [self.score])
        outcome, _ = numbers_of(ours, schema, [self.outcome])
        return await roc_auc(
            seat,
            score[:, 0],
            outcome[:, 0],
            grid=self.thresholds or None,
            bound=float(bounds[0]),
            to=ours.to,
            disclosure=ours.disclosure,
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
            "score; small bins are put together",
            f"how many rows have either outcome, {SIZES}, and which bins are put together",
        )

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        return [
            *super().rules(schema, disclosure),
            *of_groups(disclosure, self.outcome),
            *of_values(disclosure, self.outcome, sums=False),
        ]

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import calibration

        probability, _ = numbers_of(ours, schema, [self.probability])
        outcome, _ = numbers_of(ours, schema, [self.outcome])
        return await calibration(
            seat, probability[:, 0], outcome[:, 0], bins=self.bins, to=ours.to, disclosure=ours.disclosure
        )
