"""The opened table of baseline characteristics, and the measures of balance between its groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from protocols.distributions import f_tail
from protocols.pools.variables import Label
from protocols.release.outcome import Result, notes, number, p_text, percent, table
from protocols.tables.count_statistics import NO_TEST, HypothesisTest, pearson


@dataclass(frozen=True, eq=False)
class Characteristic(Result):
    """One variable of the table: an entry for all rows, then one for each group; NaN where it is withheld.

    Attributes
    ----------
    name, unit : str
    kind : {"number", "category"}
    n : numpy.ndarray
        Rows in which the variable is not missing.
    missing : numpy.ndarray
        Rows in which it is.
    mean, sd, median, q1, q3 : numpy.ndarray
        Of numbers; the standard deviation has divisor n - 1.
    levels : tuple
        k categories.
    counts, parts : numpy.ndarray
        Shape (k, 1 + groups): rows of each category, and as parts of n.
    smd : float
        Standardised mean difference; of more than two groups, the largest of any two.
    test : HypothesisTest
        Of no difference between groups: Welch's analysis of variance, or Pearson's chi-squared.
    suppressed : tuple of str
    """

    name: str
    unit: str
    kind: str
    n: NDArray[np.float64]
    missing: NDArray[np.float64]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    median: NDArray[np.float64]
    q1: NDArray[np.float64]
    q3: NDArray[np.float64]
    levels: tuple[Label, ...]
    counts: NDArray[np.float64]
    parts: NDArray[np.float64]
    smd: float
    test: HypothesisTest
    suppressed: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TableOneResult(Result):
    """Baseline characteristics, overall and by group.

    Attributes
    ----------
    by : str
        The variable that groups; empty without one.
    groups : tuple
        Its categories.
    group_n : numpy.ndarray
        Rows of each group; NaN where withheld.
    characteristics : tuple of Characteristic
    p_values : bool
        Whether tests were asked for.
    n : int
        Rows in which ``by`` is not missing.
    missing : dict of str to int or None
        Of ``by``; those of the variables stand with them.
    suppressed : tuple of str
    """

    by: str
    groups: tuple[Label, ...]
    group_n: NDArray[np.float64]
    characteristics: tuple[Characteristic, ...]
    p_values: bool
    n: int
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables, in order."""
        return tuple(one.name for one in self.characteristics)

    def __getitem__(self, name: str) -> Characteristic:
        """Return one variable."""
        return self.characteristics[self.names.index(name)]

    def summary(self) -> str:
        """Return the table as papers show it."""
        head = ["", "overall", *map(str, self.groups)]
        sizes = [self.n, *self.group_n.tolist()] if self.groups else [self.n]
        rows = [["n", *(number(float(n), 0) for n in sizes)]]
        for one in self.characteristics:
            rows += _lines(one)
        if self.groups:
            head.append("SMD")
            extra = iter([""] + [number(one.smd, 3) for one in self.characteristics])
            rows = [[*row, next(extra) if not row[0].startswith(" ") else ""] for row in rows]
        if self.p_values and self.groups:
            head.append("p")
            tests = iter([""] + [p_text(one.test.p_value) for one in self.characteristics])
            rows = [[*row, next(tests) if not row[0].startswith(" ") else ""] for row in rows]
        title = f"Characteristics by {self.by}" if self.by else "Characteristics"
        reasons = list(self.suppressed)
        reasons += [f"{one.name}: {text}" for one in self.characteristics for text in one.suppressed]
        return "\n".join([table(head, rows, title=title), *notes(self.n, self.missing, reasons)])


def _lines(one: Characteristic) -> list[list[str]]:
    """Return the lines of one variable: its name first, further lines indented."""
    unit = f" ({one.unit})" if one.unit else ""
    gaps = [["  missing", *(number(count, 0) for count in one.missing)]] if np.nansum(one.missing) else []
    if one.kind == "number":
        means = [f"{number(m, 2)} ({number(s, 2)})" for m, s in zip(one.mean, one.sd, strict=True)]
        found = [[f"{one.name}{unit}, mean (SD)", *means]]
        if not np.isnan(one.median).all():
            quartiles = zip(one.median, one.q1, one.q3, strict=True)
            found.append(
                ["  median [IQR]", *(f"{number(m, 2)} [{number(a, 2)}, {number(b, 2)}]" for m, a, b in quartiles)]
            )
        return found + gaps
    found = [[f"{one.name}{unit}, n (%)", *[""] * len(one.n)]]
    for label, counts, parts in zip(one.levels, one.counts, one.parts, strict=True):
        found.append([f"  {label}", *(f"{number(c, 0)} ({percent(p)})" for c, p in zip(counts, parts, strict=True))])
    return found + gaps


def difference_of_means(mean: NDArray[np.float64], sd: NDArray[np.float64]) -> float:
    """Return the largest standardised difference of two groups' means, ``|m1 - m2| / sqrt((s1^2 + s2^2) / 2)``.

    NaN where fewer than two groups are known; infinite where means differ and nothing varies.
    """
    found = []
    for a, b in combinations(range(len(mean)), 2):
        apart, spread = abs(float(mean[a] - mean[b])), math.sqrt(float(sd[a] ** 2 + sd[b] ** 2) / 2)
        if not math.isnan(apart + spread):
            found.append(apart / spread if spread else (math.inf if apart else 0.0))
    return max(found, default=math.nan)


def difference_of_parts(parts: NDArray[np.float64]) -> float:
    """Return the largest standardised difference of two groups' categories.

    Parameters
    ----------
    parts : numpy.ndarray
        Shape (k, groups): of each group, adding up to 1; NaN where they are not known.

    Notes
    -----
    The Mahalanobis distance of Yang, Dalton (SAS Global Forum 2012, paper 335) over all categories but the first, with
    the mean of the two multinomial covariances, and its pseudo-inverse where categories do not occur.
    """
    found = []
    for a, b in combinations(range(parts.shape[1]), 2):
        first, second = parts[1:, a], parts[1:, b]
        if np.isnan(first).any() or np.isnan(second).any():
            continue
        apart = first - second
        spread = (_multinomial(first) + _multinomial(second)) / 2
        solved = np.linalg.pinv(spread, hermitian=True) @ apart
        within = np.abs(spread @ solved - apart).max() < 1e-9
        found.append(math.sqrt(max(float(apart @ solved), 0.0)) if within else math.inf)
    return max(found, default=math.nan)


def _multinomial(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.diag(parts) - np.outer(parts, parts))


def welch_anova(n: NDArray[np.float64], mean: NDArray[np.float64], sd: NDArray[np.float64]) -> HypothesisTest:
    """Return Welch's analysis of variance, of two groups his t-test; none where a group does not vary.

    Notes
    -----
    Welch, Biometrika 38 (1951). The statistic is F; ``df`` of the result is that of the numerator.
    """
    k = len(n)
    if k < 2 or np.isnan(n).any() or np.isnan(mean + sd).any() or (n < 2).any() or (sd <= 0).any():
        return NO_TEST
    weight = n / sd**2
    part = weight / weight.sum()
    centre = float((part * mean).sum())
    lack = float(((1 - part) ** 2 / (n - 1)).sum())
    between = float((weight * (mean - centre) ** 2).sum()) / (k - 1)
    statistic = between / (1 + 2 * (k - 2) / (k * k - 1) * lack)
    return HypothesisTest(statistic, k - 1, f_tail(statistic, k - 1, (k * k - 1) / (3 * lack)))


def chi_squared_of_counts(counts: NDArray[np.float64]) -> HypothesisTest:
    """Return Pearson's chi-squared test of counts, shape (k, groups), without categories that do not occur."""
    if np.isnan(counts).any():
        return NO_TEST
    kept = counts[counts.sum(axis=1) > 0]
    return pearson(kept) if len(kept) > 1 else NO_TEST
