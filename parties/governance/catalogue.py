"""What a study may ask for: one class for each protocol, with its parameters, its run and what it reveals.

Nothing is looked up by a name from a study's text: a protocol that is not a class here does not exist. To
add one, write its class, a subclass of :class:`Analysis`, and name it in ``AnyAnalysis``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mpc import DataError, Party
from parties.governance.analysis import NUMERIC, Analysis, Outcome, Reveals, Rows, TableLike, listed, plain
from parties.governance.comparisons import Anova, Correlation, KruskalWallis, MannWhitney, TTest
from parties.governance.models import LinearRegression, LogisticRegression, PoissonRegression
from parties.governance.predictions import Calibration, RocAuc
from parties.governance.schema import MOST_COLUMNS, Column, ColumnName, Schema, take
from parties.governance.survival import CoxRegression, KaplanMeier, LogRank
from parties.governance.tables import ContingencyTable, Histogram, Proportion, Quantile, TableOne
from protocols import secure_mean, secure_sum, secure_variance
from protocols.release.disclosure import Disclosure

if TYPE_CHECKING:
    from parties.governance.studies import Study


class _OfColumns(Analysis):
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=MOST_COLUMNS)]

    def check(self, schema: Schema) -> None:
        take(schema, self.columns, NUMERIC, f"analysis {self.name}")

    def _chosen(self, schema: Schema) -> list[Column]:
        return [schema[name] for name in self.columns]

    def _outcome(self, schema: Schema, label: str, values: Any) -> Outcome:
        by_column = {name: plain(value) for name, value in zip(self.columns, values, strict=True)}
        width = max(map(len, by_column))
        lines = [f"{self.name}: {label}"]
        for name, value in by_column.items():
            shown = "not available" if value is None else f"{value:.10g}"
            lines.append(f"  {name:<{width}}  {shown} {schema[name].unit}".rstrip())
        return Outcome({"protocol": label, "values": by_column}, "\n".join(lines))


class Sum(_OfColumns):
    """The sum of each column over all rows."""

    protocol: Literal["sum"]

    @property
    def holds_against_cheaters(self) -> bool:
        """See :class:`parties.governance.analysis.Analysis`."""
        return True

    def asks(self) -> str:
        return f"the sum of {listed(self.columns)}"

    def reveals(self) -> Reveals:
        return Reveals("the sums, and not how many rows there are")

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        return disclosure.rules()

    async def run(self, seat: Party, ours: Rows, schema: Schema) -> Outcome | None:
        columns = self._chosen(schema)
        array, bounds = ours.matrix(columns)
        sums = await secure_sum(seat, array, bound=bounds, to=ours.to, disclosure=ours.disclosure)
        if sums is None:
            return None
        # A sum of whole numbers is one, also where a column of fractions beside it made all of them floats.
        return self._outcome(
            schema, "sum", [s if c.type == "number" else round(s) for s, c in zip(sums, columns, strict=True)]
        )


class Mean(_OfColumns):
    """The mean of each column over all rows.

    Attributes
    ----------
    count : {"total", "secret"}
        Whether the total number of rows is opened as well, or stays secret (slower).
    """

    protocol: Literal["mean"]
    count: Literal["total", "secret"] = "total"

    @property
    def holds_against_cheaters(self) -> bool:
        """See :class:`parties.governance.analysis.Analysis`."""
        return self.count == "total"

    def asks(self) -> str:
        return f"the mean of {listed(self.columns)}"

    def reveals(self) -> Reveals:
        if self.count == "secret":
            return Reveals("the means, and not how many rows there are")
        return Reveals("the means and the total number of rows, and not who holds how many")

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        return disclosure.rules()

    async def run(self, seat: Party, ours: Rows, schema: Schema) -> Outcome | None:
        array, bounds = ours.matrix(self._chosen(schema))
        means = await secure_mean(seat, array, bound=bounds, count=self.count, to=ours.to, disclosure=ours.disclosure)
        return None if means is None else self._outcome(schema, "mean", means)


class Variance(_OfColumns):
    """The variance of each column over all rows.

    Attributes
    ----------
    ddof : {0, 1}
        1 divides by the number of rows less one, 0 by the number of rows.
    """

    protocol: Literal["variance"]
    ddof: Annotated[int, Field(ge=0, le=1)] = 1

    def asks(self) -> str:
        return f"the variance of {listed(self.columns)}, divided by n{' - 1' if self.ddof else ''}"

    def reveals(self) -> Reveals:
        return Reveals("the variances, and not the means", "the total number of rows, and not who holds how many")

    async def run(self, seat: Party, ours: Rows, schema: Schema) -> Outcome | None:
        array, bounds = ours.matrix(self._chosen(schema))
        variances = await secure_variance(
            seat, array, bound=bounds, ddof=self.ddof, to=ours.to, disclosure=ours.disclosure
        )
        return None if variances is None else self._outcome(schema, "variance", variances)


AnyAnalysis = Annotated[
    Sum
    | Mean
    | Variance
    | TableOne
    | Proportion
    | Histogram
    | Quantile
    | ContingencyTable
    | TTest
    | MannWhitney
    | Anova
    | KruskalWallis
    | Correlation
    | LinearRegression
    | LogisticRegression
    | PoissonRegression
    | RocAuc
    | Calibration
    | KaplanMeier
    | LogRank
    | CoxRegression,
    Field(discriminator="protocol"),
]


async def run_analyses(
    party: Party, study: Study, table: TableLike | None, note: Callable[[str], None]
) -> dict[str, Any] | None:
    """Compute everything that a study asks for, one analysis after the other.

    Parameters
    ----------
    party : Party
        Our seat; ranks are the positions in ``study.parties``.
    study : Study
        What all parties approved; nothing else says what is computed.
    table : TableLike or None
        Our rows; None at a recipient that contributes nothing.
    note : callable
        Told what begins, for people who watch.

    Returns
    -------
    dict or None
        ``{"analyses": {name: {...}}, "summary": text}`` of JSON's types; None at a party that learns nothing.

    Raises
    ------
    DataError
        Our table does not hold the study's columns; nothing was sent.
    DisclosureError
        At all parties: too few rows or contributors for the study's disclosure control.
    """
    if party.size != len(study.parties):
        raise ValueError(f"the study is for {len(study.parties)} parties, here are {party.size}")
    schema = study.columns_by_name
    ours = _own_rows(party, study, table)
    results: dict[str, Any] = {}
    texts = []
    for number, analysis in enumerate(study.analyses, 1):
        note(f"analysis {number} of {len(study.analyses)}: {analysis.name}")
        outcome = await analysis.run(party.at(analysis.name), ours, schema)
        if outcome is not None:
            results[analysis.name] = outcome.values
            texts.append(outcome.text)
    if party.rank not in ours.to:
        return None
    return {"analyses": results, "summary": "\n\n".join(texts)}


def disclosure_of(study: Study) -> Disclosure:
    """Return the study's disclosure control: its preset, with the number of contributors that it asks for."""
    return Disclosure.preset(study.disclosure).at_least(parties=study.minimum_parties)


def _own_rows(party: Party, study: Study, table: TableLike | None) -> Rows:
    name = study.parties[party.rank]
    to = tuple(sorted(study.parties.index(one) for one in study.recipients))
    disclosure = disclosure_of(study)
    if name not in study.contributors:
        if table is not None and table.rows:
            raise DataError(f"{name} contributes no rows to this study, but was given a table")
        empty: dict[str, NDArray[Any]] = {column.name: np.zeros(0) for column in study.columns}
        return Rows(empty, 0, to, disclosure)
    if table is None:
        raise DataError(f"{name} contributes rows to this study, but was given no table")
    for column in study.columns:
        if column.name not in table.columns:
            raise DataError(f"{name}: the table has no column {column.name}")
        if np.shape(table.columns[column.name]) != (table.rows,):
            raise DataError(f"{name}: column {column.name} does not have one entry for each row")
    return Rows(table.columns, table.rows, to, disclosure)
