"""Analyses of a study that describe: tables, proportions, quantiles; and what analyses of rows have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mpc import Party
from parties.governance.analysis import NUMERIC, Analysis, Outcome, Reveals, Rows, listed
from parties.governance.schema import MOST_COLUMNS, Column, ColumnName, Schema, take
from protocols.comparisons.quantiles import side_rule
from protocols.pools.pool import value_rules
from protocols.pools.variables import MOST_CATEGORIES, Label
from protocols.release.disclosure import Disclosure
from protocols.release.outcome import Result, plain

FACTORS = ("boolean", "category")
MOST_EDGES = MOST_CATEGORIES - 1
Columns = Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=MOST_COLUMNS)]


class OfRows(Analysis):
    """An analysis that leaves out rows in which something of it is missing, and says how many."""

    async def run(self, seat: Party, ours: Rows, schema: Schema) -> Outcome | None:
        result = await self.compute(seat, ours, schema)
        if result is None:
            return None
        protocol = str(getattr(self, "protocol", ""))
        return Outcome({"protocol": protocol, **plain(result.to_dict())}, f"{self.name}:\n{result.summary()}")

    @abstractmethod
    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        """Run the protocol; None at a party that learns nothing."""

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        return disclosure.rules(sums=False, cells=False)

    def _take(self, schema: Schema, names: Sequence[str], types: tuple[str, ...]) -> list[Column]:
        return take(schema, names, types, f"analysis {self.name}", gaps=True)


def numbers_of(ours: Rows, schema: Schema, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return numeric columns side by side, NaN where a value is missing, and their bounds."""
    arrays = [np.asarray(ours.columns[name], dtype=np.float64) for name in names]
    return np.stack(arrays, axis=1), np.array([schema[name].bound for name in names])


class Named(dict[str, NDArray[np.float64]]):
    """Columns by name, in the form of a data frame."""

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return list(self)


def categories_of(column: Column) -> tuple[Label, ...]:
    """Return the categories of a column that divides rows into groups."""
    return (0, 1) if column.type == "boolean" else tuple(column.categories)


def labels_of(ours: Rows, schema: Schema, name: str) -> list[Label | None]:
    """Return the categories of our rows, None where one is missing."""
    column = schema[name]
    known = categories_of(column)
    values = np.asarray(ours.columns[name], dtype=np.float64)
    return [None if np.isnan(value) or value < 0 else known[int(value)] for value in values]


def of_groups(disclosure: Disclosure, *factors: str) -> list[str]:
    """Return the rule for rows in a group, in the words of :meth:`protocols.pools.pool.Pool.group_sizes`."""
    least = disclosure.minimum_cell
    return [f"at least {least} rows for each category of {one}" for one in factors] if least else []


def of_values(disclosure: Disclosure, by: str | None = None, *, sums: bool) -> list[str]:
    """Return the rules for values, in the words of :meth:`protocols.pools.pool.Pool.check_values`."""
    return value_rules(disclosure if sums else replace(disclosure, dominance=0.0), by)


class TableOne(OfRows):
    """Columns described overall, and by the categories of another: means, medians, counts.

    Attributes
    ----------
    columns : tuple of str
    by : str or None
    p_values : bool
    """

    protocol: Literal["table_one"]
    columns: Columns
    by: ColumnName | None = None
    p_values: bool = False

    def check(self, schema: Schema) -> None:
        self._take(schema, self.columns, (*NUMERIC, "category"))
        if self.by is not None:
            self._take(schema, [self.by], FACTORS)
            if self.by in self.columns:
                raise ValueError(f"analysis {self.name}: {self.by} divides the table and is no row of it")

    def asks(self) -> str:
        return f"table 1 of {listed(self.columns)}" + (f" by {self.by}" if self.by else "")

    def reveals(self) -> Reveals:
        return Reveals(
            "of each column, overall and by group: rows, missing values, mean, standard deviation, quartiles or "
            "counts, and standardised differences; cells that are too small are withheld",
            "the total number of rows, how many values of each column are missing"
            + (", how many rows each shown group has, of these how many with a value of each column" if self.by else "")
            + ", and which cells are withheld",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import table_one
        from protocols.pools.variables import Column as Declared

        chosen = [*self.columns, *([self.by] if self.by else [])]
        frame: dict[str, Any] = {}
        for name in chosen:
            factor = schema[name].type in FACTORS
            frame[name] = labels_of(ours, schema, name) if factor else np.asarray(ours.columns[name], dtype=np.float64)
        declared = [
            Declared(
                name=one.name,
                type="category" if one.type in FACTORS else one.type,
                unit=one.unit,
                lower=one.lower,
                upper=one.upper,
                categories=categories_of(one) if one.type in FACTORS else (),
            )
            for one in (schema[name] for name in chosen)
        ]
        return await table_one(
            seat,
            frame,
            by=self.by,
            columns=declared,
            p_values=self.p_values,
            to=ours.to,
            disclosure=ours.disclosure,
        )


class Proportion(OfRows):
    """How many rows each category of a column has, with intervals.

    Attributes
    ----------
    column : str
    confidence : float
    """

    protocol: Literal["proportion"]
    column: ColumnName
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95

    @property
    def holds_against_cheaters(self) -> bool:
        """See :class:`parties.governance.analysis.Analysis`."""
        return True

    def check(self, schema: Schema) -> None:
        self._take(schema, [self.column], FACTORS)

    def asks(self) -> str:
        return f"the proportions of {self.column}, with intervals of {100 * self.confidence:g} %"

    def reveals(self) -> Reveals:
        return Reveals(
            "how many rows each category has; small ones are withheld",
            "the total number of rows, how many values are missing, and which counts are withheld",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import proportion

        return await proportion(
            seat,
            labels_of(ours, schema, self.column),
            categories=categories_of(schema[self.column]),
            confidence=self.confidence,
            to=ours.to,
            disclosure=ours.disclosure,
        )


class Histogram(OfRows):
    """How many rows lie between agreed values of a column.

    Attributes
    ----------
    column : str
    edges : tuple of float
        Increasing; what is beyond the outermost counts in the first and the last bin.
    """

    protocol: Literal["histogram"]
    column: ColumnName
    edges: Annotated[tuple[float, ...], Field(min_length=3, max_length=MOST_EDGES)]

    @model_validator(mode="after")
    def _edges_increase(self) -> Self:
        if any(not a < b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError("the edges of a histogram increase")
        return self

    @property
    def holds_against_cheaters(self) -> bool:
        """See :class:`parties.governance.analysis.Analysis`."""
        return True

    def check(self, schema: Schema) -> None:
        self._take(schema, [self.column], ("number", "integer"))

    def asks(self) -> str:
        return (
            f"a histogram of {self.column} in {len(self.edges) - 1} bins from {self.edges[0]:g} to {self.edges[-1]:g}"
        )

    def reveals(self) -> Reveals:
        return Reveals(
            "how many rows each bin has; small ones are withheld",
            "the total number of rows, how many values are missing, and which counts are withheld",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import histogram

        values = np.asarray(ours.columns[self.column], dtype=np.float64)
        return await histogram(seat, values, bins=self.edges, outside="join", to=ours.to, disclosure=ours.disclosure)


class ContingencyTable(OfRows):
    """Counts of the combinations of two columns' categories, and what follows from them.

    Attributes
    ----------
    rows, columns : str
    strata : str or None
        Divides the table into several, for Mantel-Haenszel estimates.
    confidence : float
    """

    protocol: Literal["contingency_table"]
    rows: ColumnName
    columns: ColumnName
    strata: ColumnName | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95

    @property
    def holds_against_cheaters(self) -> bool:
        """See :class:`parties.governance.analysis.Analysis`."""
        return True

    def check(self, schema: Schema) -> None:
        names = [self.rows, self.columns, *([self.strata] if self.strata else [])]
        self._take(schema, names, FACTORS)

    def asks(self) -> str:
        return f"a table of {self.rows} by {self.columns}" + (f", within each {self.strata}" if self.strata else "")

    def reveals(self) -> Reveals:
        return Reveals(
            "how many rows each combination of categories has, with totals and what follows from them (chi-squared, "
            "odds ratio and so on); small cells are withheld, and those that would tell them",
            "the total number of rows, how many values are missing, and which cells are withheld",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import contingency_table

        strata = None if self.strata is None else labels_of(ours, schema, self.strata)
        return await contingency_table(
            seat,
            labels_of(ours, schema, self.rows),
            labels_of(ours, schema, self.columns),
            strata=strata,
            row_categories=categories_of(schema[self.rows]),
            column_categories=categories_of(schema[self.columns]),
            strata_categories=None if self.strata is None else categories_of(schema[self.strata]),
            confidence=self.confidence,
            to=ours.to,
            disclosure=ours.disclosure,
        )


class Quantile(OfRows):
    """Quantiles of a column.

    Attributes
    ----------
    column : str
    q : tuple of float
    """

    protocol: Literal["quantile"]
    column: ColumnName
    q: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1, max_length=99)]

    def check(self, schema: Schema) -> None:
        self._take(schema, [self.column], ("number", "integer"))

    def asks(self) -> str:
        return f"the quantiles {', '.join(f'{q:g}' for q in self.q)} of {self.column}"

    def reveals(self) -> Reveals:
        return Reveals(
            "the quantiles; one that falls on a row is that row's value",
            "the total number of rows, and how many values are missing; where all parties are recipients, on which "
            "side of public numbers the quantiles lie, else how many rows each party holds",
        )

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        rules = super().rules(schema, disclosure)
        if disclosure.minimum_cell:
            rules.append(side_rule(disclosure.minimum_cell))
        return rules

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import quantile

        values, bounds = numbers_of(ours, schema, [self.column])
        return await quantile(seat, values[:, 0], list(self.q), bound=bounds, to=ours.to, disclosure=ours.disclosure)
