"""Tests of means: t-tests, of which only the agreed numbers are opened."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, open_, truncate_all
from protocols.comparisons.group_means import coarse, spread_floor, weighted
from protocols.comparisons.grouped import grouped_pool, one_column
from protocols.distributions import t_quantile, t_tail
from protocols.pools.joining import pool
from protocols.pools.moments import COVARIANCE_SCALE, MEAN_SCALE, Moments
from protocols.pools.pool import Pool
from protocols.pools.variables import Label, Numeric, numeric
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, p_text, table
from protocols.rows import Bound

_KINDS = ("welch", "student", "paired", "one_sample")
_ALTERNATIVES = ("two-sided", "less", "greater")
_TITLES = {"welch": "Welch's t-test", "student": "Student's t-test", "paired": "Paired t-test", "one_sample": "t-test"}


@dataclass(frozen=True, eq=False)
class TTestResult(Result):
    """A t-test.

    Attributes
    ----------
    kind, alternative : str
    names : tuple of str
        What was compared.
    groups : tuple of str
        The two categories, the first less the second one; for pairs the two columns; else empty.
    n : int
        Rows used.
    group_n : numpy.ndarray
        Rows of each group; one entry where there are no groups.
    estimate : float
        Difference of the means; with one sample its mean.
    std_err : float
    statistic, df, p_value : float
    conf_int : numpy.ndarray
        Shape (2,); one end is infinite with a one-sided alternative.
    confidence : float
    std_dev : numpy.ndarray
        Welch: of each group. Student: the pooled one. Else that of the differences, or of the sample.
    missing : dict of str to int or None
    suppressed : tuple of str
        Notes on what there is not, and why.
    """

    kind: str
    alternative: str
    names: tuple[str, ...]
    groups: tuple[str, ...]
    n: int
    group_n: NDArray[np.int64]
    estimate: float
    std_err: float
    statistic: float
    df: float
    p_value: float
    conf_int: NDArray[np.float64]
    confidence: float
    std_dev: NDArray[np.float64]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the numbers as R and SciPy give them."""
        if self.groups:
            what = f"mean({self.groups[0]}) - mean({self.groups[1]})"
        else:
            what = f"mean({', '.join(self.names)})"
        low, high = f"[{(1 - self.confidence) / 2:.4g}", f"{(1 + self.confidence) / 2:.4g}]"
        cells = [number(v) for v in (self.estimate, self.std_err, self.statistic, self.df)]
        row = [what, *cells, p_text(self.p_value), *(number(v) for v in self.conf_int.tolist())]
        head = ["", "estimate", "std err", "t", "df", "P>|t|" if self.alternative == "two-sided" else "P", low, high]
        lines = [table(head, [row], title=f"{_TITLES[self.kind]} ({self.alternative})")]
        if len(self.groups) == 2 and self.kind != "paired":
            lines.append("Groups: " + ", ".join(f"{g} {n}" for g, n in zip(self.groups, self.group_n, strict=True)))
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])


# ---- t-tests ------------------------------------------------------------------------------------


async def t_test(
    party: Party,
    x: Any,
    group: Any = None,
    *,
    kind: str = "welch",
    y: Any = None,
    mean: float = 0.0,
    alternative: str = "two-sided",
    partition: str = "rows",
    bound: Bound = None,
    categories: Sequence[Label] | None = None,
    confidence: float = 0.95,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> TTestResult | None:
    """Compare the means of two groups, of paired values, or one mean with a number.

    Parameters
    ----------
    party : Party
    x : array_like or None
        Our rows; with ``partition="columns"`` None at the parties that do not hold the column.
    group : array_like, optional
        For ``"welch"`` and ``"student"``: the group of each row, of two categories.
    kind : {"welch", "student", "paired", "one_sample"}
    y : array_like, optional
        For ``"paired"``: the values that x is compared with, row by row.
    mean : float
        What the difference of means, or the mean, is under the null hypothesis; public.
    alternative : {"two-sided", "less", "greater"}
        ``"greater"``: the first group's mean (or x's) is greater.
    partition : {"rows", "columns"}
    bound : float, optional
        Public bound on the absolute values, agreed in the study.
    categories : sequence of two labels, optional
        The groups, agreed in the study; the difference is that of the first less the second one.
    confidence : float
        Of the interval.
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional

    Returns
    -------
    TTestResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent if our data is wrong, see :func:`protocols.pools.variables.numeric`; at all parties if
        a group has too few rows.
    AgreementError
        The parties differ in a parameter.
    DisclosureError
        At all parties: a rule does not hold.

    Notes
    -----
    All parties learn how many rows are used, how often each variable is missing, and the sizes of the groups.
    The recipients learn the difference of the means and: the standard deviation of each group (Welch, which says
    no more than t, df and the difference, but for which is whose); the pooled one (Student); that of the
    differences (paired). No mean of a group is opened. Semi-honest. See :func:`protocols.pools.joining.pool` for what
    is learnt where bound or categories are not declared.
    Error: that of :mod:`protocols.pools.moments`; a standard deviation below about ``2^-28`` of the bound (rows) counts
    as none, and t is NaN. t, df and p do not depend on the size of the bound; the other numbers are infinite or 0
    where they are beyond floats.
    Cost with rows and n parties, besides that of making the pool: sizes (2 rounds), :meth:`Pool.moments` (5
    rounds), and 1 round and 3 elements for the result; Student 2 rounds and 3 elements more.
    """
    _check_choices(kind, alternative, confidence)
    release = Release.of(party, to, disclosure)
    terms: dict[str, object] = {"kind": kind, "mean": float(mean), "alternative": alternative, "confidence": confidence}
    _check_given(party.rank, kind, x, y, group, partition)
    common: dict[str, Any] = {"partition": partition, "release": release, "terms": terms}
    if kind in ("welch", "student"):
        column = one_column(x, rank=party.rank, bound=bound)
        made = await grouped_pool(party, "t_test", column, group, categories=categories, **common)
        found = await _two_groups(party, made, kind)
    else:
        what = "pair" if kind == "paired" else "x"
        numbers = _pairs(party, x, y, bound) if kind == "paired" else one_column(x, rank=party.rank, bound=bound)
        kinds = {what: Numeric}
        made = await pool(party.at("pool"), "t_test", {what: numbers}, kinds=kinds, spread=("pair",), **common)
        await made.open_sizes()
        found = await _one_group(party, made, kind)
    sizes = made.sizes
    if found is None:
        return None
    exponent, centre, variances, n, error, df = found
    reasons: tuple[str, ...] = ()
    # t is a quotient of numbers in the same units; what follows has the data's own, and may be beyond floats.
    with np.errstate(over="ignore", under="ignore"):
        null = float(np.ldexp(mean, -exponent))
        estimate, std_err = (float(np.ldexp(value, exponent)) for value in (centre, error))
        std_dev = np.ldexp(np.sqrt(variances), exponent)
    if not error > 0:
        reasons = ("there is no t: the values do not vary, or by less than the bound lets them be told apart",)
        statistic = p_value = math.nan
        interval = np.array([math.nan, math.nan])
    else:
        reasons = coarse(variances)
        statistic = (centre - null) / error
        p_value = _p_value(df, statistic, alternative)
        interval = _interval(centre, error, df, alternative, confidence)
        with np.errstate(over="ignore", under="ignore"):
            interval = np.ldexp(interval, exponent)
    groups = tuple(map(str, made.categories["group"])) if "group" in made.categories else ()
    return TTestResult(
        kind,
        alternative,
        tuple(name for names in made.names.values() for name in names),
        ("x", "y") if kind == "paired" else groups,
        sizes.n,
        n,
        estimate,
        std_err,
        statistic,
        df,
        p_value,
        interval,
        confidence,
        std_dev,
        sizes.missing,
        reasons,
    )


# In units of 2^exponent, the first one: estimate, variances, sizes, standard error, degrees of freedom.
_Found = tuple[int, float, NDArray[np.float64], NDArray[np.int64], float, float]


async def _two_groups(party: Party, made: Pool, kind: str) -> _Found | None:
    """Open the difference of two means and what its standard error is made of."""
    categories = made.categories["group"]
    if len(categories) != 2:
        raise DataError(
            f"t_test compares two groups, {made.names['group'][0]} has {len(categories)} categories: leave out the "
            "rows of the others, or use anova()"
        )
    n = await made.group_sizes("group")
    needed = 2 if kind == "welch" else 1
    if (n.min() < needed or n.sum() < 3) and not party.rehearsing:
        raise DataError(f"t_test: groups of {n[0]} and {n[1]} rows are too small")
    await made.check_values("x", by="group")
    m = await made.moments("x", "group", n)
    difference = m.mean[:1, 0] - m.mean[1:, 0]
    total = int(n.sum())
    if kind == "student":
        spread = await weighted(party.at("pooled"), m.variance, n)
        factors = np.array([total / max(1, total - 2)])
    else:
        spread = m.variance[:, 0]
        factors = n / np.maximum(n - 1, 1)
    opened = await open_(party.at("open"), difference, spread, to=made.release.to)
    if opened[0] is None:
        return None
    exponent, estimate = int(m.exponents[0]), float(opened[0][0])
    small = np.array([spread_floor(made, total)]) if kind == "student" else spread_floor(made, n)
    variances = factors * np.where(opened[1] > small, opened[1], 0.0)
    if kind == "student":
        error = math.sqrt(variances[0] * (1 / max(n[0], 1) + 1 / max(n[1], 1)))
        return exponent, estimate, variances, n, error, float(total - 2)
    parts = variances / np.maximum(n, 1)
    below = float((parts**2 / np.maximum(n - 1, 1)).sum())
    df = float(parts.sum() ** 2 / below) if below else math.nan
    return exponent, estimate, variances, n, math.sqrt(parts.sum()), df


async def _one_group(party: Party, made: Pool, kind: str) -> _Found | None:
    """Open a mean and a variance: of one sample, or of the differences of pairs."""
    n = made.sizes.n
    if n < 2 and not party.rehearsing:
        raise DataError(f"t_test: {n} rows are too few")
    what = "pair" if kind == "paired" else "x"
    if kind == "paired" and sorted(made.names[what]) != ["x", "y"]:
        raise DataError("t_test: one party gives x, and one gives y")
    await made.check_values(what)
    if kind == "paired":
        await made.check_pairs(what)
    m = await made.moments(what)
    if kind == "paired":
        exponent = int(m.exponents.max()) + 1
        mean, variance = await _of_differences(party.at("differences"), m, made.names[what].index("x"), exponent)
    else:
        exponent, mean, variance = int(m.exponents[0]), m.mean[:, 0], m.variance[:, 0]
    opened = await open_(party.at("open"), mean, variance, to=made.release.to)
    if opened[0] is None:
        return None
    floor = spread_floor(made, n)
    spread = np.where(opened[1] > floor, opened[1], 0.0) * (n / max(n - 1, 1))
    return exponent, float(opened[0][0]), spread, np.array([n]), math.sqrt(spread[0] / max(n, 1)), float(n - 1)


async def _of_differences(party: Party, m: Moments, first: int, exponent: int) -> tuple[Share, Share]:
    """Return mean and variance of x - y in units of ``2^exponent``, from the moments of both.

    Cost: 1 round, 2 elements.
    """
    second = 1 - first
    shifts = [int(exponent - m.exponents[first]), int(exponent - m.exponents[second])]
    x, y = m.mean[:, first].scaled_down(shifts[0]), m.mean[:, second].scaled_down(shifts[1])
    squares = [
        m.covariance[:, first, first].scaled_down(2 * shifts[0]),
        m.covariance[:, second, second].scaled_down(2 * shifts[1]),
        m.covariance[:, first, second].scaled_down(sum(shifts) - 1),  # twice the covariance
    ]
    x, y = await truncate_all(party.at("means"), [x, y], MEAN_SCALE)
    xx, yy, xy = await truncate_all(party.at("squares"), squares, COVARIANCE_SCALE)
    return x - y, xx + yy - xy


# ---- our own data -------------------------------------------------------------------------------


def _check_choices(kind: str, alternative: str, confidence: float) -> None:
    if kind not in _KINDS:
        raise ValueError(f"kind is one of {', '.join(_KINDS)}, not {kind!r}")
    if alternative not in _ALTERNATIVES:
        raise ValueError(f"alternative is one of {', '.join(_ALTERNATIVES)}, not {alternative!r}")
    if not 0 < confidence < 1:
        raise ValueError("confidence is between 0 and 1")


def _check_given(rank: int, kind: str, x: Any, y: Any, group: Any, partition: str) -> None:
    """Refuse what a kind of t-test does not take."""
    if kind == "paired":
        if partition == "rows" and (x is None or y is None):
            raise DataError(f"party {rank}: a paired t-test takes x and y")
        if group is not None:
            raise ValueError("a paired t-test takes x and y, no group")
        return
    if y is not None:
        raise ValueError(f"{kind}: y is for paired values; two groups are told apart by group")
    if kind == "one_sample" and group is not None:
        raise ValueError("one_sample: there is no group")


def _pairs(party: Party, x: Any, y: Any, bound: Bound) -> Numeric | None:
    """Read x and y, as far as we hold them."""
    given = {name: value for name, value in (("x", x), ("y", y)) if value is not None}
    columns = {name: numeric(value, rank=party.rank, what=name, bound=bound) for name, value in given.items()}
    return _joined(columns, party.rank) if columns else None


def _joined(columns: dict[str, Numeric], rank: int) -> Numeric:
    """Put columns side by side."""
    parts = list(columns.values())
    for name, part in columns.items():
        if len(part.names) != 1:
            raise DataError(f"party {rank}: {name} has {len(part.names)} columns; it takes one")
        if part.rows != parts[0].rows:
            raise DataError(f"party {rank}: x has {parts[0].rows} rows and {name} has {part.rows}; they are paired")
    bounds = [part.bounds for part in parts if part.bounds is not None]
    return Numeric(
        tuple(columns),
        np.concatenate([part.values for part in parts], axis=1),
        np.concatenate([part.present for part in parts], axis=1),
        np.concatenate(bounds) if bounds else None,
        all(part.whole for part in parts),
    )


def _p_value(df: float, statistic: float, alternative: str) -> float:
    if alternative == "less":
        return float(t_tail(-statistic, df))
    if alternative == "greater":
        return float(t_tail(statistic, df))
    return float(2 * t_tail(abs(statistic), df))


def _interval(estimate: float, std_err: float, df: float, alternative: str, confidence: float) -> NDArray[np.float64]:
    if alternative == "two-sided":
        half = std_err * t_quantile((1 + confidence) / 2, df)
        return np.array([estimate - half, estimate + half])
    reach = std_err * t_quantile(confidence, df)
    return np.array([-np.inf, estimate + reach] if alternative == "less" else [estimate - reach, np.inf])
