"""The analysis of variance, of which only the agreed numbers are opened."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, open_
from protocols.comparisons.group_means import between, coarse, spread_floor, weighted
from protocols.comparisons.grouped import grouped_pool, one_column
from protocols.distributions import f_tail
from protocols.pools.moments import Moments
from protocols.pools.pool import Pool
from protocols.pools.variables import Label
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, p_text, table
from protocols.rows import Bound


@dataclass(frozen=True, eq=False)
class AnovaResult(Result):
    """A one-way analysis of variance.

    Attributes
    ----------
    welch : bool
        Whether it is Welch's, which allows for unequal variances; then the sums of squares are NaN.
    names : tuple of str
        The numbers and the factor.
    groups : tuple of str
        Categories with at least one row.
    n : int
    group_n : numpy.ndarray
    statistic, df_between, df_within, p_value : float
    sum_squares_between, sum_squares_within : float
    eta_squared : float
        Part of the sum of squares that is between the groups; NaN for Welch's.
    mean, std_dev : numpy.ndarray
        Of each group; Welch's only, else empty.
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    welch: bool
    names: tuple[str, ...]
    groups: tuple[str, ...]
    n: int
    group_n: NDArray[np.int64]
    statistic: float
    df_between: float
    df_within: float
    p_value: float
    sum_squares_between: float
    sum_squares_within: float
    eta_squared: float
    mean: NDArray[np.float64]
    std_dev: NDArray[np.float64]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the table that users of statsmodels know."""
        title = "Welch's analysis of variance" if self.welch else "Analysis of variance"
        head = ["", "df", "sum_sq", "mean_sq", "F", "PR(>F)"]
        rows = []
        for name, df, squares, last in [
            (self.names[-1], self.df_between, self.sum_squares_between, [number(self.statistic), p_text(self.p_value)]),
            ("Residual", self.df_within, self.sum_squares_within, ["", ""]),
        ]:
            rows.append([name, number(df), number(squares), number(squares / df if df else math.nan), *last])
        lines = [table(head, rows, title=title)]
        if not self.welch:
            lines.append(f"Eta squared: {number(self.eta_squared)}")
        lines.append("Groups: " + ", ".join(f"{g} {n}" for g, n in zip(self.groups, self.group_n, strict=True)))
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])


async def anova(
    party: Party,
    x: Any,
    group: Any,
    *,
    welch: bool = False,
    partition: str = "rows",
    bound: Bound = None,
    categories: Sequence[Label] | None = None,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> AnovaResult | None:
    """Compare the means of several groups: the one-way analysis of variance.

    Parameters
    ----------
    party : Party
    x, group : array_like or None
        Our rows; with ``partition="columns"`` None at the parties that do not hold the column.
    welch : bool
        Allow for unequal variances (Welch, Biometrika 1951).
    partition, bound, to, disclosure
        See :func:`t_test`.
    categories : sequence, optional
        The groups, agreed in the study. Those without any row are left out.

    Returns
    -------
    AnovaResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError, AgreementError, DisclosureError
        See :func:`t_test`.

    Notes
    -----
    All parties learn what they learn in :func:`t_test`. The recipients learn the sums of squares between and within
    the groups; with ``welch`` mean and standard deviation of each group. Semi-honest.
    Error: with sums of squares in units of rows and squared bounds, ``2^-66`` within and ``2^-36`` times the standard
    deviation of the groups' means between, besides that of :mod:`protocols.pools.moments`. F, df and p do not depend on
    the size of the bound; sums of squares beyond floats are infinite or 0.
    Cost with rows and g groups, besides that of making the pool: sizes (2 rounds), :meth:`Pool.moments`, then 8
    rounds and ``4 g + 7`` elements; with ``welch`` 1 round and 2 g elements.
    """
    release = Release.of(party, to, disclosure)
    made = await grouped_pool(
        party,
        "anova",
        one_column(x, rank=party.rank, bound=bound),
        group,
        categories=categories,
        partition=partition,
        release=release,
        terms={"welch": bool(welch)},
    )
    sizes = made.sizes
    n = await made.group_sizes("group")
    kept = np.flatnonzero(n) if not party.rehearsing else np.arange(n.size)
    least = int(n[kept].min(initial=sizes.n))
    if (kept.size < 2 or sizes.n <= kept.size or (welch and least < 2)) and not party.rehearsing:
        raise DataError(f"anova: {sizes.n} rows in {kept.size} groups, of which the smallest has {least}, are too few")
    await made.check_values("x", by="group")
    m = await made.moments("x", "group", n)
    if welch:
        return await _welch_anova(party, made, m, n, kept)
    within = await weighted(party.at("within"), m.variance, n)
    apart = await between(party.at("between"), m, n)
    opened = await open_(party.at("open"), apart, within, to=release.to)
    if opened[0] is None:
        return None
    floor = spread_floor(made, sizes.n)
    squares = [sizes.n * max(0.0, float(one.item())) for one in opened]
    return _anova_result(made, n[kept], kept, squares, int(m.exponents[0]), varies=float(opened[1].item()) > floor)


def _anova_result(
    made: Pool, n: NDArray[np.int64], kept: NDArray[np.intp], squares: list[float], exponent: int, *, varies: bool
) -> AnovaResult:
    """Make the test of sums of squares in units of ``4^exponent``."""
    between, within = squares[0], squares[1] if varies else 0.0
    df = (float(n.size - 1), float(n.sum() - n.size))
    reasons: tuple[str, ...] = ()
    statistic = p_value = math.nan
    if varies and min(df) > 0:
        statistic = (between / df[0]) / (within / df[1])
        p_value = f_tail(statistic, *df)
        reasons = coarse(within / made.sizes.n)
    else:
        reasons = ("there is no F: the values do not vary within the groups, or by less than the bound lets be seen",)
    total = between + within
    with np.errstate(over="ignore", under="ignore"):
        sum_between, sum_within = (float(np.ldexp(one, 2 * exponent)) for one in (between, within))
    none = np.empty(0)
    return AnovaResult(
        False,
        _names(made),
        _labels(made, kept),
        made.sizes.n,
        n,
        statistic,
        *df,
        p_value,
        sum_between,
        sum_within,
        between / total if varies and total > 0 else math.nan,
        none,
        none,
        made.sizes.missing,
        reasons,
    )


async def _welch_anova(
    party: Party, made: Pool, m: Moments, n: NDArray[np.int64], kept: NDArray[np.intp]
) -> AnovaResult | None:
    """Open means and variances of the groups, and make Welch's test of them."""
    opened = await open_(party.at("open"), m.mean[kept, 0], m.variance[kept, 0], to=made.release.to)
    if opened[0] is None:
        return None
    n = np.maximum(n[kept], 1)
    exponent, means = int(m.exponents[0]), opened[0]
    variances = np.where(opened[1] > spread_floor(made, n), opened[1], 0.0) * n / np.maximum(n - 1, 1)
    g = n.size
    reasons: tuple[str, ...] = ()
    statistic = df = p_value = math.nan
    if (variances > 0).all() and g > 1:
        weights = n / variances
        total = weights.sum()
        centre = float(weights @ means / total)
        spread = float((((1 - weights / total) ** 2) / np.maximum(n - 1, 1)).sum())
        numerator = float(weights @ (means - centre) ** 2) / (g - 1)
        statistic = numerator / (1 + 2 * (g - 2) / (g**2 - 1) * spread)
        df = (g**2 - 1) / (3 * spread)
        p_value = f_tail(statistic, g - 1, df)
        reasons = coarse(variances)
    else:
        reasons = ("there is no F: the values of a group do not vary, or by less than the bound lets be seen",)
    return AnovaResult(
        True,
        _names(made),
        _labels(made, kept),
        made.sizes.n,
        n,
        statistic,
        float(g - 1),
        df,
        p_value,
        math.nan,
        math.nan,
        math.nan,
        np.ldexp(means, exponent),
        np.ldexp(np.sqrt(variances), exponent),
        made.sizes.missing,
        reasons,
    )


def _names(made: Pool) -> tuple[str, ...]:
    return (*made.names["x"], *made.names["group"])


def _labels(made: Pool, kept: NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(str(made.categories["group"][k]) for k in kept)
