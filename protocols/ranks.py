"""Tests of ranks: ranks are found by sorting on shares, or by counting on an agreed grid; no rank is opened."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, less_than, matmul, open_, truncate
from mpc.elementary import divide
from protocols.disclosure import Disclosure, Release
from protocols.grids import Grid
from protocols.group_means import stated
from protocols.outcome import Result, notes, number, p_text, table
from protocols.pooling import Pool
from protocols.pools import pool
from protocols.rank_distributions import asymptotic_p_value, exact_p_value, newcombe_interval
from protocols.rank_sums import MOST_ROW_BITS, RankSums, in_steps, rank_sums
from protocols.rows import Bound
from protocols.variables import Categorical, Label, Numeric, categorical, numeric

_ALTERNATIVES = ("two-sided", "less", "greater")
# Up to so many rows in the smaller group, and without ties, p is exact: as SciPy's method="auto", which has no limit
# on the larger one.
_MOST_EXACT = 8
_MOST_PAIRS = 1 << 18
_TIE_SCALE = 76
_RANK_SCALE = 77
_ROOT_SCALE = 38
_RATIO_SCALE = 44


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
        ``1 - sum (t^3 - t) / (n^3 - n)`` over runs of t equal values.
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
        depend on the number of rows. See :class:`protocols.grids.Grid`.
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
    Cost, sorted: see :func:`mpc.sorting.argsort` and :func:`mpc.sorting.run_bounds`; then 2 rounds, 3 elements a row.
    With a grid of m points and g groups: 3 rounds, ``m (g + 4)`` elements.
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
    found = await rank_sums(party.at("ranks"), made, cells, resolution)
    opened = await open_(party.at("open"), found.doubled[:1], found.squares, to=release.to)
    if opened[0] is None:
        return None
    # In a rehearsal what is opened is 0.
    u = max(0.0, (int(opened[0][0]) - int(n[0] * (n[0] + 1))) / 2)
    ties = max(0, int(opened[1][0]) - made.sizes.n)
    return _mann_whitney_result(made, n, u, ties, alternative, confidence)


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
    Error of H: about ``n 2^-36``, and ``2^-29`` of it. Cost: that of the rank sums in :func:`mann_whitney`; then about
    30 rounds, a division and one comparison.
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
    found = await rank_sums(party.at("ranks"), made, cells, resolution)
    ratio, equal, factor = await _between_ranks(party.at("between"), found, n, party.rehearsing)
    opened = await open_(party.at("open"), ratio, equal, to=release.to)
    if opened[0] is None:
        return None
    statistic = math.nan if opened[1][0] else max(0.0, float(opened[0][0])) * factor
    return _kruskal_result(made, n[kept], kept, statistic)


async def _between_ranks(
    party: Party, found: RankSums, sizes: NDArray[np.int64], rehearsing: bool
) -> tuple[Share, Share, float]:
    """Return what H is a public multiple of, whether all values are equal, and the multiple.

    With ``d_k = 2 R_k - n_k (n + 1)`` and Q the sum of the squares of run lengths,
    ``H = 3 (n - 1) n^3 B / (n^3 - Q)``, ``B = sum_k (d_k / (n sqrt(n_k n)))^2 <= (n^3 - Q) / (3 n^3)``.
    """
    groups = len(sizes)
    if rehearsing:
        sizes = np.full(groups, max(1, found.rows // groups))
    n = int(sizes.sum())

    # 1. B, from roots that are public integers.
    expected = np.array([int(k) * (n + 1) for k in sizes.tolist()], dtype=object)
    apart = (found.doubled - expected).bounded_by(max(1, int(sizes.max()) * n))
    roots = [math.isqrt((1 << 2 * _RANK_SCALE) // (n**3 * int(k))) if k else 0 for k in sizes.tolist()]
    scaled = stated((apart * np.array(roots, dtype=object)).scaled_down(_RANK_SCALE), 1.01)
    deviations = await truncate(party, scaled, _ROOT_SCALE)
    square = (await matmul(party, deviations.reshape(1, groups), deviations.reshape(groups, 1))).bounded_by(0.5)

    # 2. 1 - Q / n^3, which is at least 3 (n - 1) / n^2 if not all values are equal.
    rest = (n**3 - found.squares).bounded_by(n**3)
    factor = (1 << _TIE_SCALE) // n**3
    part = stated((rest * factor).scaled_down(_TIE_SCALE), 1.0)
    ratio = await divide(
        party.at("ratio"), square.reshape(1), part, lower=2.0**-MOST_ROW_BITS, upper=1.0, scale=_RATIO_SCALE
    )
    equal = await less_than(party.at("equal"), part, 2.0**-MOST_ROW_BITS)
    return ratio, equal, 3 * (n - 1) * (n**3 * factor / 2**_TIE_SCALE)


# ---- results ------------------------------------------------------------------------------------


def _mann_whitney_result(
    made: Pool, n: NDArray[np.int64], u: float, ties: int, alternative: str, confidence: float
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
        1 - ties / cubes if cubes else math.nan,
        made.sizes.missing,
    )


def _kruskal_result(made: Pool, n: NDArray[np.int64], kept: NDArray[np.intp], statistic: float) -> KruskalResult:
    from scipy import stats

    total, df = made.sizes.n, n.size - 1
    return KruskalResult(
        (*made.names["x"], *made.names["group"]),
        tuple(str(made.categories["group"][k]) for k in kept),
        total,
        n,
        statistic,
        df,
        float(stats.chi2.sf(statistic, df)) if df else math.nan,
        statistic / (total - 1) if total > 1 else math.nan,
        made.sizes.missing,
        ("all values are equal",) if math.isnan(statistic) else (),
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
    cells = None
    if grid is not None:
        if partition != "rows" or resolution is not None:
            raise ValueError("grid is for partition='rows', and takes the place of resolution and bound")
        cells = Grid(*map(float, grid))
        bound = cells.bound
    column = None if x is None else numeric(x, rank=party.rank, what="x", bound=bound)
    if column is not None:
        if len(column.names) != 1:
            raise DataError(f"party {party.rank}: x has {len(column.names)} columns; it takes one")
        if cells is not None:
            cells.check(column, rank=party.rank)
        if resolution is not None:
            column = in_steps(column, resolution)
    made = await pool(
        party.at("pool"),
        protocol,
        {
            "x": column,
            "group": None
            if group is None
            else categorical(group, rank=party.rank, what="group", categories=categories),
        },
        kinds={"x": Numeric, "group": Categorical},
        partition=partition,
        release=release,
        terms={**terms, "grid": None if grid is None else list(map(float, grid)), "resolution": resolution},
    )
    await made.open_sizes()
    return made, cells
