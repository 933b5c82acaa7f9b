"""Analyses of a study that compare groups, and columns with each other."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mpc import Party
from parties.governance.analysis import NUMERIC, Reveals, Rows, listed
from parties.governance.schema import ColumnName, Schema
from parties.governance.tables import FACTORS, Named, OfRows, categories_of, labels_of, numbers_of, of_groups, of_values
from protocols.pools.pool import pair_rules
from protocols.pools.variables import Label
from protocols.release.disclosure import Disclosure
from protocols.release.outcome import Result


class _OfGroups(OfRows):
    """A comparison of a number between groups."""

    outcome: ColumnName
    group: ColumnName
    _sums: ClassVar[bool] = False  # whether sums of values are told

    def check(self, schema: Schema) -> None:
        self._take(schema, [self.outcome], ("number", "integer"))
        (group,) = self._take(schema, [self.group], FACTORS)
        self._check_groups(len(categories_of(group)))

    def _check_groups(self, count: int) -> None:
        """Refuse a number of groups that the test does not take."""

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        rules = [*super().rules(schema, disclosure), *of_groups(disclosure, self.group)]
        return [*rules, *of_values(disclosure, self.group, sums=self._sums)]

    def _values(self, ours: Rows, schema: Schema) -> tuple[NDArray[np.float64], list[Label | None], dict[str, Any]]:
        values, bounds = numbers_of(ours, schema, [self.outcome])
        options = {
            "bound": bounds,
            "categories": categories_of(schema[self.group]),
            "to": ours.to,
            "disclosure": ours.disclosure,
        }
        return values[:, 0], labels_of(ours, schema, self.group), options


class _OfTwoGroups(_OfGroups):
    alternative: Literal["two-sided", "less", "greater"] = "two-sided"

    def _check_groups(self, count: int) -> None:
        if count != 2:
            raise ValueError(f"analysis {self.name} compares two groups, {self.group} has {count} categories")


class TTest(_OfTwoGroups):
    """A t-test of a number between two groups; the first category less the second.

    Attributes
    ----------
    outcome, group : str
    kind : {"welch", "student"}
    alternative : {"two-sided", "less", "greater"}
    """

    protocol: Literal["t_test"]
    _sums: ClassVar[bool] = True
    kind: Literal["welch", "student"] = "welch"

    def asks(self) -> str:
        return f"a t-test ({self.kind}) of {self.outcome} between the two categories of {self.group}"

    def reveals(self) -> Reveals:
        spread = "their variances" if self.kind == "welch" else "the pooled variance"
        return Reveals(
            f"the difference of the groups' means, and {spread} (which follow from t and its degrees of freedom); "
            "not the means",
            "the number of rows in each group, and how many values are missing",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import t_test

        values, group, options = self._values(ours, schema)
        return await t_test(seat, values, group, kind=self.kind, alternative=self.alternative, **options)


class MannWhitney(_OfTwoGroups):
    """A Mann-Whitney test of a number between two groups.

    Attributes
    ----------
    outcome, group : str
    alternative : {"two-sided", "less", "greater"}
    """

    protocol: Literal["mann_whitney"]

    def asks(self) -> str:
        return f"a Mann-Whitney test of {self.outcome} between the two categories of {self.group}"

    def reveals(self) -> Reveals:
        return Reveals(
            "U, and how many values are tied (which follows from the p-value); with a minimum cell whether any are, "
            "whether there are few values, and a rounded correction; with few values U is rounded, too",
            "how many rows each party holds, the number of rows in each group, and how many values are missing",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import mann_whitney

        values, group, options = self._values(ours, schema)
        return await mann_whitney(seat, values, group, alternative=self.alternative, **options)


class Anova(_OfGroups):
    """A one-way analysis of variance.

    Attributes
    ----------
    outcome, group : str
    welch : bool
        Whether variances may differ between the groups.
    """

    protocol: Literal["anova"]
    _sums: ClassVar[bool] = True
    welch: bool = False

    def asks(self) -> str:
        return f"a one-way analysis of variance of {self.outcome} by {self.group}" + (" (Welch)" if self.welch else "")

    def reveals(self) -> Reveals:
        what = "the sums of squares between and within groups, and F"
        if self.welch:
            what = "the mean and standard deviation of each group, F and its degrees of freedom"
        return Reveals(what, "the number of rows in each group, and how many values are missing")

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import anova

        values, group, options = self._values(ours, schema)
        return await anova(seat, values, group, welch=self.welch, **options)


class KruskalWallis(_OfGroups):
    """A Kruskal-Wallis test.

    Attributes
    ----------
    outcome, group : str
    """

    protocol: Literal["kruskal_wallis"]

    def asks(self) -> str:
        return f"a Kruskal-Wallis test of {self.outcome} by {self.group}"

    def reveals(self) -> Reveals:
        return Reveals(
            "H, corrected for ties (with a minimum cell rounded), or that all values are equal",
            "how many rows each party holds, the number of rows in each group, and how many values are missing",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import kruskal_wallis

        values, group, options = self._values(ours, schema)
        return await kruskal_wallis(seat, values, group, **options)


class Correlation(OfRows):
    """Correlations of columns with each other.

    Attributes
    ----------
    columns : tuple of str
    kind : {"pearson", "spearman"}
    """

    protocol: Literal["correlation"]
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=2, max_length=64)]
    kind: Literal["pearson", "spearman"] = "pearson"

    def check(self, schema: Schema) -> None:
        self._take(schema, self.columns, NUMERIC)

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        rules = [*super().rules(schema, disclosure), *of_values(disclosure, sums=self.kind == "pearson")]
        return [*rules, *(pair_rules(disclosure) if disclosure.minimum_cell else [])]

    def asks(self) -> str:
        return f"the {self.kind.capitalize()} correlations of {listed(self.columns)}"

    def reveals(self) -> Reveals:
        each = "how many rows each party holds, " if self.kind == "spearman" else ""
        return Reveals(
            "the correlations, with intervals, and which columns are constant; no mean and no variance",
            f"{each}the total number of rows, and how many values are missing",
        )

    async def compute(self, seat: Party, ours: Rows, schema: Schema) -> Result | None:
        from protocols import correlation

        values, bounds = numbers_of(ours, schema, self.columns)
        named = Named(zip(self.columns, values.T, strict=True))
        return await correlation(seat, named, kind=self.kind, bound=bounds, to=ours.to, disclosure=ours.disclosure)
