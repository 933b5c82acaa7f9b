"""Tests of ranks: ranks are found by sorting on shares, or by counting on an agreed grid; no rank is opened."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, concatenate, open_
from protocols.comparisons.grouped import grouped_pool
from protocols.comparisons.rank_distributions import asymptotic_p_value, exact_p_value, newcombe_interval
from protocols.comparisons.rank_sums import MOST_ROW_BITS, rank_sums, ranking, read_keys
from protocols.comparisons.rank_ties import TieSteps, between_ranks, rounded_ties, tie_steps, ties_of
from protocols.distributions import chi_squared_tail
from protocols.pools.grids import Grid
from protocols.pools.pool import Pool
from protocols.pools.variables import Label
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, p_text, table
from protocols.release.steps import MOST_BUCKETS, buckets_of, in_buckets, least_cell
from protocols.rows import Bound

_ALTERNATIVES = ("two-sided", "less", "greater")
# Up to so many rows in the smaller group, and without ties, p is exact: as SciPy's method="auto", which has no limit
# on the larger one.
_MOST_EXACT = 8
_MOST_PAIRS = 1 << 18
# What H is a multiple of is 0 below 2^14 units of 2^-44, where it is told in steps.
_LEAST_RATIO_BITS = 14


@dataclass(frozen=True, eq=False)
class MannWhitneyResult(Result):
    """The rank test of Mann, Whitney and Wilcoxon.

    Attributes
    ----------
    alternative : str
    names : tuple of str
        The numbers and the factor.
    groups : tuple of str
        Both categories.
    n : int
    group_n : numpy.ndarray
        Shape (2,).
    statistic : float
        U of the first group: pairs of rows in which its value is larger, ties counted half.
    estimate : float
        U as a part of all pairs: how likely the first group's value is the larger one, ties counted half.
    conf_int : numpy.ndarray
        Shape (2,): of the estimate, by Newcombe's fifth method (Statistics in Medicine 2006, 25, 559-573).
    confidence : float
    p_value : float
    exact : bool
        Whether p comes from the distribution of U itself, or from the normal one, corrected for ties and continuity.
    tie_correction : float
        ``1 - sum (t^3 - t) / (n^3 - n)`` over runs of t equal values; NaN if a disclosure control withholds it.
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    alternative: str
    names: tuple[str, ...]
    groups: tuple[str, ...]
    n: int
    group_n: NDArray[np.int64]
    statistic: float
    estimate: float
    conf_int: NDArray[np.float64]
    confidence: float
    p_value: float
    exact: bool
    tie_correction: float
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the numbers as R and SciPy give them."""
        low, high = f"[{(1 - self.confidence) / 2:.4g}", f"{(1 + self.confidence) / 2:.4g}]"
        first, second = self.groups
        row = [f"P({first} > {second})", number(self.estimate), *map(number, self.conf_int.tolist())]
        row += [number(self.statistic), p_text(self.p_value)]
        title = f"Mann-Whitney test ({self.alternative}, {'exact' if self.exact else 'asymptotic'})"
        lines = [table(["", "estimate", low, high, "U", "P"], [row], title=title)]
        lines.append(f"Groups: {first} {self.group_n[0]}, {second} {self.group_n[1]}")
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])


@dataclass(frozen=True, eq=False)
class KruskalResult(Result):
    """The rank test of Kruskal and Wallis.

    Attributes
    ----------
    names : tuple of str
        The numbers and the factor.
    groups : tuple of str
        Categories with at least one row.
    n : int
    group_n : numpy.ndarray
    statistic : float
        H, corrected for ties; NaN if all values are equal.
    df : int
    p_value : float
        From the chi-squared distribution.
    epsilon_squared : float
        ``H / (n - 1)``, from 0 to 1.
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    n: int
    group_n: NDArray[np.int64]
    statistic: float
    df: int
    p_value: float
    epsilon_squared: float
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the numbers as R gives them."""
        row = [self.names[-1], number(self.statistic), str(self.df), p_text(self.p_value), number(self.epsilon_squared)]
        lines = [table(["", "H", "df", "P", "epsilon^2"], [row], title="Kruskal-Wallis test")]
        lines.append("Groups: " + ", ".join(f"{g} {n}" for g, n in zip(self.groups, self.group_n, strict=True)))
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])


async def mann_whitney(
    party: Party,
    x: Any,
    group: Any,
    *,
    alternative: str = "two-sided",
    grid: tuple[float, float, float] | None = None,
    resolution: float | None = None,
    partition: str = "rows",
    bound: Bound = None,
    categories: Sequence[Label] | None = None,
    confidence: float = 0.95,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> MannWhitneyResult | None:
    """Test whether one group's values tend to be larger than the other's.

    Parameters
    ----------
    party : Party
    x, group : array_like or None
        Our rows; with ``partition="columns"`` None at the parties that do not hold the column. Two categories.
    alternative : {"two-sided", "less", "greater"}
        ``"greater"``: the first group's values tend to be larger.
    grid : (lower, upper, step), optional
        With rows: values count as the nearest point of this grid, and nothing is sorted; the cost does not
        depend on the number of rows. See :class:`protocols.pools.grids.Grid`.
    resolution : float, optional
        Values are rounded to multiples of it before they are sorted, which takes fewer bits.
    partition : {"rows", "columns"}
    bound : float, optional
        Public bound on the absolute values, agreed in the study.
    categories : sequence of two labels, optional
    confidence : float
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional

    Returns
    -------
    MannWhitneyResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent if our data is wrong; at all parties if a group is empty, or there are not two.
    AgreementError
        The parties differ in a parameter.
    DisclosureError
        At all parties: a rule does not hold.

    Notes
    -----
    All parties learn how many rows are used, how often each variable is missing, the sizes of the groups; with rows
    that are sorted, how many complete rows each party has. The recipients learn U and the sum ``sum (t^3 - t)`` over
    runs of equal values, which is in p. Both are exact. Without a resolution, values are told apart to ``2^-40`` of
    the bound. Semi-honest.
    Of a score with few levels that sum tells how many rows have each. So with a minimum cell m it stays shared: the
    recipients learn whether any values are equal, and if so ``y = 1 - sum t^3 / n^3``, which the variance is
    proportional to, rounded up to a multiple of ``m / (4 n)`` (at least 1/512). p is then that of a standard error
    up to a part ``m / (8 n y)`` (or ``1 / (1024 y)``) too large; where all values differ it is as without. Of all
    ways in which 60 rows can have three levels, one of them of 1 to 4 rows, y and n tell this number in 99 of 100
    cases, and rounded in 2. Where there are few values, ``12 sum t^3 > n^3`` (three or fewer that are as frequent), U
    tells them as well. Then it is told in steps too, as a part of all pairs in steps of ``m / (8 k)`` for k rows in the
    smaller group, and y is rounded up to a multiple of ``m / k`` (at least 1/128): z is off by ``0.22 m / sqrt(k)``
    at most.
    Cost, sorted: see :func:`mpc.sorting.argsort` and :func:`mpc.sorting.run_bounds`; then 2 rounds, 3 elements a row.
    With a grid of m points and g groups: 3 rounds, ``m (g + 4)`` elements. With a minimum cell one comparison of 642
    entries more, and about 20 rounds (with prss and t possible colluders ``4 t`` more).
    """
    if alternative not in _ALTERNATIVES:
        raise ValueError(f"alternative is one of {', '.join(_ALTERNATIVES)}, not {alternative!r}")
    if not 0 < confidence < 1:
        raise ValueError("confidence is between 0 and 1")
    release = Release.of(party, to, disclosure)
    terms: dict[str, object] = {"alternative": alternative, "confidence": confidence}
    made, cells = await _pooled(
        party, "mann_whitney", x, group, grid, resolution, partition, bound, categories, release, terms
    )
    if len(made.categories["group"]) != 2:
        raise DataError(
            f"mann_whitney compares two groups, {made.names['group'][0]} has {len(made.categories['group'])} categories"
            ": leave out the rows of the others, or use kruskal_wallis()"
        )
    n = await made.group_sizes("group")
    await made.check_values("x", by="group", sums=False)
    if not n.all() and not party.rehearsing:
        raise DataError(f"mann_whitney: groups of {n[0]} and {n[1]} rows are too small")
    scope = ranking(party, "ranks", made, "x", resolution)
    found = await rank_sums(scope, made, cells, resolution)
    steps = tie_steps(n, least_cell(release))
    doubled = (found.doubled[:1] - int(n[0]) * (int(n[0]) + 1)).reshape(1)
    told = concatenate([doubled, found.squares])
    if steps is not None:
        told = await rounded_ties(party.at("ties"), found, n, steps)
    opened = await open_(party.at("open"), told, to=release.to)
    if opened is None:
        return None
    twice_u, *about_ties = np.asarray(opened).tolist()
    u = min(max(0.0, int(twice_u) / 2), float(n[0] * n[1]))  # in a rehearsal what is opened is 0
    ties = ties_of(about_ties, made.sizes.n, steps)
    few = steps is not None and bool(about_ties[-1])
    return _mann_whitney_result(made, n, u, ties, alternative, confidence, _told(n, steps, ties, few))


async def kruskal_wallis(
    party: Party,
    x: Any,
    group: Any,
    *,
    grid: tuple[float, float, float] | None = None,
    resolution: float | None = None,
    partition: str = "rows",
    bound: Bound = None,
    categories: Sequence[Label] | None = None,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> KruskalResult | None:
    """Test whether several groups' values tend to be of different size.

    Parameters
    ----------
    party : Party
    x, group : array_like or None
        Our rows; with ``partition="columns"`` None at the parties that do not hold the column.
    grid, resolution, partition, bound, to, disclosure
        See :func:`mann_whitney`.
    categories : sequence, optional
        The groups, agreed in the study. Those without any row are left out.

    Returns
    -------
    KruskalResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError, AgreementError, DisclosureError
        See :func:`mann_whitney`; it takes less than 2^24 rows.

    Notes
    -----
    All parties learn what they learn in :func:`mann_whitney`. The recipients learn H, and whether all values are equal;
    the rank sums and the correction for ties stay shared. Semi-honest.
    Of few rows and levels all digits of H say more of the counts than that H is about so large: with a minimum cell m
    it is told to one part in ``4 n / m`` (at most 1024), and p follows from what is told.
    Error of H: about ``2^-34 sqrt(g n H)`` for g groups and ``2^-42 n``, whatever the ties, and ``2^-29`` of it.
    Cost: that of the rank sums in :func:`mann_whitney`; then about 30 rounds, with a minimum cell about 50 (with
    prss and t possible colluders ``8 t`` more).
    """
    release = Release.of(party, to, disclosure)
    made, cells = await _pooled(
        party, "kruskal_wallis", x, group, grid, resolution, partition, bound, categories, release, {}
    )
    sizes = made.sizes
    n = await made.group_sizes("group")
    await made.check_values("x", by="group", sums=False)
    kept = np.flatnonzero(n) if not party.rehearsing else np.arange(n.size)
    if (kept.size < 2 or sizes.n >> MOST_ROW_BITS) and not party.rehearsing:
        raise DataError(
            f"kruskal_wallis: {sizes.n} rows in {kept.size} groups; it takes two groups, and not too many rows"
        )
    scope = ranking(party, "ranks", made, "x", resolution)
    found = await rank_sums(scope, made, cells, resolution)
    ratio, varies, factor = await between_ranks(party.at("between"), found, n, party.rehearsing)
    buckets = buckets_of(release, sizes.n)
    if buckets is None:
        opened = await open_(party.at("open"), ratio, varies, to=release.to)
        size = None if opened[0] is None else float(opened[0][0])
    else:
        told = await in_buckets(party.at("told"), ratio, buckets, low=_LEAST_RATIO_BITS, most=MOST_BUCKETS)
        opened = await open_(party.at("open"), told.parts, varies, to=release.to)
        size = None if opened[0] is None else float(told.read(opened[0])[0])
    if size is None or opened[1] is None:
        return None
    statistic = max(0.0, size) * factor if opened[1][0] else math.nan
    return _kruskal_result(made, n[kept], kept, statistic, buckets)


# ---- results ------------------------------------------------------------------------------------


def _mann_whitney_result(
    made: Pool,
    n: NDArray[np.int64],
    u: float,
    ties: float,
    alternative: str,
    confidence: float,
    reasons: tuple[str, ...],
) -> MannWhitneyResult:
    total, pairs = made.sizes.n, int(n[0]) * int(n[1])
    exact = not ties and min(n) <= _MOST_EXACT and pairs <= _MOST_PAIRS
    p = exact_p_value(u, n, alternative) if exact and pairs else asymptotic_p_value(u, n, ties, alternative)
    estimate = u / pairs if pairs else math.nan
    cubes = total**3 - total
    return MannWhitneyResult(
        alternative,
        (*made.names["x"], *made.names["group"]),
        tuple(map(str, made.categories["group"])),
        total,
        n,
        u,
        estimate,
        newcombe_interval(estimate, n, confidence),
        confidence,
        p,
        bool(exact),
        1 - ties / cubes if cubes and not reasons else math.nan,
        made.sizes.missing,
        reasons,
    )


def _told(n: NDArray[np.int64], steps: TieSteps | None, ties: float, few: bool) -> tuple[str, ...]:
    """Say what is rounded."""
    if steps is None or not ties:
        return ()
    count = steps.few if few else steps.many
    reasons = [f"the correction for ties is rounded to one of {count} steps, so that a small p is rather too large"]
    if few:
        share = steps.width / (2 * int(n[0]) * int(n[1]))
        reasons.append(f"there are few different values: the estimate is told in steps of {share:.3g}, and U likewise")
    return tuple(reasons)


def _kruskal_result(
    made: Pool, n: NDArray[np.int64], kept: NDArray[np.intp], statistic: float, buckets: int | None
) -> KruskalResult:
    total, df = made.sizes.n, n.size - 1
    rounding = () if buckets is None else (f"H is told to one part in {2 * buckets}, and p is of what is told",)
    return KruskalResult(
        (*made.names["x"], *made.names["group"]),
        tuple(str(made.categories["group"][k]) for k in kept),
        total,
        n,
        statistic,
        df,
        chi_squared_tail(statistic, df) if df else math.nan,
        statistic / (total - 1) if total > 1 else math.nan,
        made.sizes.missing,
        ("all values are equal",) if math.isnan(statistic) else rounding,
    )


# ---- our own data -------------------------------------------------------------------------------


async def _pooled(
    party: Party,
    protocol: str,
    x: Any,
    group: Any,
    grid: tuple[float, float, float] | None,
    resolution: float | None,
    partition: str,
    bound: Bound,
    categories: Sequence[Label] | None,
    release: Release,
    terms: dict[str, object],
) -> tuple[Pool, Grid | None]:
    """Make a pool of numbers and groups, and open how many rows there are."""
    column, cells = read_keys(x, grid, resolution, partition=partition, bound=bound, rank=party.rank)
    made = await grouped_pool(
        party,
        protocol,
        column,
        group,
        categories=categories,
        partition=partition,
        release=release,
        terms={**terms, "grid": None if grid is None else list(map(float, grid)), "resolution": resolution},
    )
    return made, cells
