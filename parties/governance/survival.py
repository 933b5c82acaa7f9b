"""Analyses of a study about times until an event."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from mpc import Party
from parties.governance.analysis import Reveals, Rows, listed
from parties.governance.models import SIZES, OfFeatures
from parties.governance.schema import ColumnName, Schema
from parties.governance.tables import FACTORS, OfRows, categories_of, labels_of, numbers_of, of_groups
from protocols.release.disclosure import Disclosure
from protocols.release.outcome import Result
from protocols.survival.log_rank import event_rules
from protocols.survival.time_grids import MOST_POINTS


class OfTimes(OfRows):
    """An analysis of times until an event, on an agreed grid.

    Attributes
    ----------
    time : str
        Until the event, or the end of observation.
    event : str
        Whether the event was observed.
    grid : tuple of float
        Start, end and step of the times at which events are told apart.
    """

    time: ColumnName
    event: ColumnName
    grid: tuple[float, float, float]

    @model_validator(mode="after")
    def _grid_goes_on(self) -> Self:
        start, stop, step = self.grid
        if not (0 <= start < stop and 0 < step <= stop - start and (stop - start) / step < MOST_POINTS):
            raise ValueError(f"grid is start, end and step: 0 <= start < end, and fewer than {MOST_POINTS:,} steps")
        return self

    def _check_times(self, schema: Schema) -> None:
        (time,) = self._take(schema, [self.time], ("number", "integer"))
        if time.lower is None or time.lower < 0:
            raise ValueError(f"analysis {self.name}: times are not negative; give {self.time} a lower bound of 0")
        self._take(schema, [self.event], ("boolean",))

    def _times(self, ours: Rows, schema: Schema) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, _ = numbers_of(ours, schema, [self.time, self.event])
        return values[:, 0], values[:, 1]

    def _on_grid(self) -> str:
        start, stop, step = self.grid
        return f"times of {self.time} from {start:g} to {stop:g} in steps of {step:g}"


class KaplanMeier(OfTimes):
    """Survival curves, by group.

    Attributes
    ----------
    group : str or None
    """

    protocol: Literal["kaplan_meier"]
    group: ColumnName | None = None

    def check(self, schema: Schema) -> None:
        self._check_times(schema)
        if self.group is not None:
            self._take(schema, [self.group], FACTORS)

    def asks(self) -> str:
        by = f" by {self.group}" if self.group else ""
        return f"Kaplan-Meier curves until {self.event}{by}, {self._on_grid()}"

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        return [*super().rules(schema, disclosure), *of_groups(disclosure, *([self.group] if self.group else []))]

    def reveals(self) -> Reveals:
        return Reveals(
            "for each interval of the grid how many rows have the event, and how many end without it; small intervals "
            "are merged",
            f"the total number of rows{', the number of rows in each group' if self.group else ''}, {SIZES}, and which "
            "intervals are merged",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import kaplan_meier

        time, event = self._times(ours, schema)
        group = None if self.group is None else labels_of(ours, schema, self.group)
        return await kaplan_meier(
            seat,
            time,
            event,
            grid=self.grid,
            group=group,
            categories=None if self.group is None else categories_of(schema[self.group]),
            to=ours.to,
            disclosure=ours.disclosure,
        )


class LogRank(OfTimes):
    """A log-rank test between groups.

    Attributes
    ----------
    group : str
    strata : str or None
    """

    protocol: Literal["log_rank"]
    group: ColumnName
    strata: ColumnName | None = None

    def check(self, schema: Schema) -> None:
        self._check_times(schema)
        self._take(schema, [self.group, *([self.strata] if self.strata else [])], FACTORS)

    def asks(self) -> str:
        within = f", within each {self.strata}" if self.strata else ""
        return f"a log-rank test of times until {self.event} by {self.group}{within}, {self._on_grid()}"

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        rules = [*super().rules(schema, disclosure), *of_groups(disclosure, self.group)]
        return [*rules, *event_rules(disclosure, with_strata=self.strata is not None)]

    def reveals(self) -> Reveals:
        return Reveals(
            "the statistic, for each group how many events were observed and how many expected, and the covariance of "
            "the differences (with a minimum cell differences and covariance rounded)",
            f"the number of rows in each group, and {SIZES}",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import log_rank

        time, event = self._times(ours, schema)
        strata: dict[str, Any] = {}
        if self.strata is not None:
            strata = {
                "strata": labels_of(ours, schema, self.strata),
                "strata_categories": categories_of(schema[self.strata]),
            }
        return await log_rank(
            seat,
            time,
            event,
            labels_of(ours, schema, self.group),
            grid=self.grid,
            categories=categories_of(schema[self.group]),
            to=ours.to,
            disclosure=ours.disclosure,
            **strata,
        )


class CoxRegression(OfTimes, OfFeatures):
    """A proportional hazards regression.

    Attributes
    ----------
    features : tuple of str
    ties : {"efron", "breslow"}
    """

    protocol: Literal["cox_regression"]
    _intercepts: ClassVar[int] = 0
    ties: Literal["efron", "breslow"] = "efron"

    def check(self, schema: Schema) -> None:
        self._check_times(schema)
        self._check_features(schema, [self.time, self.event])

    def asks(self) -> str:
        return f"Cox regression of times until {self.event} on {listed(self.features)} ({self.ties}), {self._on_grid()}"

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        return [*super().rules(schema, disclosure), *of_groups(disclosure, self.event)]

    def reveals(self) -> Reveals:
        return Reveals(
            "hazard ratios, their standard errors, the log-likelihoods with and without the features, which features "
            "are constant, and whether the fit converged",
            "how many rows each party holds, how many have the event, the power of two above the largest number of "
            f"events at one time, and {SIZES}",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import cox_regression

        time, event = self._times(ours, schema)
        X, columns = self._predictors(ours, schema)
        return await cox_regression(
            seat,
            time,
            event,
            X,
            grid=self.grid,
            ties=self.ties,
            columns=columns,
            to=ours.to,
            disclosure=ours.disclosure,
        )
