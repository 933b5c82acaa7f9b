"""Tables of counts of two categorical variables, also by layers, and what is usually computed from them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party
from protocols.pools.joining import pool
from protocols.pools.variables import Categorical, Label, categorical
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, p_text, table
from protocols.release.suppression import OpenedCounts, lines_of, open_counts
from protocols.tables.count_statistics import (
    NO_ESTIMATE,
    NO_TEST,
    Estimate,
    HypothesisTest,
    Stratified,
    checked_confidence,
    conditional_odds_ratio,
    cramers_v,
    expected_counts,
    fisher,
    odds_ratio,
    pearson,
    risk_difference,
    risk_ratio,
    stratified,
)
from protocols.tables.proportions import rounding_note

_DIFFERENCES = ("newcombe", "wald")
# Fisher's test takes time and memory that grow with the smallest margin.
_MOST_EXACT = 1_000_000


@dataclass(frozen=True, eq=False)
class ContingencyResult(Result):
    """A table of counts; NaN where a count is withheld, and where a statistic would tell one.

    Attributes
    ----------
    names : tuple of str
        Of rows, columns, and strata where there are any.
    row_categories, column_categories, strata_categories : tuple
    counts : numpy.ndarray
        Shape (r, c), over all strata.
    row_totals, column_totals : numpy.ndarray
    total : float
        n, but for rounding.
    strata_counts : numpy.ndarray
        Shape (s, r, c); s = 0 without strata.
    expected : numpy.ndarray
        Shape (r, c): under independence.
    chi2, chi2_yates : HypothesisTest
        Pearson's test without and, for two rows and columns, with Yates's correction.
    cramers_v : float
    fisher_p : float
        Two-sided, two rows and columns.
    odds_ratio, odds_ratio_exact : Estimate
        Sample odds ratio with Woolf's interval; conditional estimate with the exact one. Two rows and columns.
    risk_ratio, risk_difference : Estimate
        Of the second column category, in the second row category against the first.
    difference_method : {"newcombe", "wald"}
    pooled : Stratified or None
        With strata and two rows and columns: Mantel-Haenszel and tests; see
        :class:`protocols.tables.count_statistics.Stratified`.
    confidence : float
    n : int
        Rows in which nothing is missing.
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    names: tuple[str, ...]
    row_categories: tuple[Label, ...]
    column_categories: tuple[Label, ...]
    strata_categories: tuple[Label, ...]
    counts: NDArray[np.float64]
    row_totals: NDArray[np.float64]
    column_totals: NDArray[np.float64]
    total: float
    strata_counts: NDArray[np.float64]
    expected: NDArray[np.float64]
    chi2: HypothesisTest
    chi2_yates: HypothesisTest
    cramers_v: float
    fisher_p: float
    odds_ratio: Estimate
    odds_ratio_exact: Estimate
    risk_ratio: Estimate
    risk_difference: Estimate
    difference_method: str
    pooled: Stratified | None
    confidence: float
    n: int
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the table and the statistics below it."""
        head = [f"{self.names[0]} / {self.names[1]}", *map(str, self.column_categories), "total"]
        rows = [
            [str(label), *(number(count, 0) for count in line), number(total, 0)]
            for label, line, total in zip(self.row_categories, self.counts, self.row_totals, strict=True)
        ]
        rows.append(["total", *(number(count, 0) for count in self.column_totals), number(self.total, 0)])
        lines = [table(head, rows, title=f"{self.names[0]} by {self.names[1]}")]
        tests = [("Chi-squared", self.chi2), ("with Yates's correction", self.chi2_yates)]
        if self.pooled is not None:
            pooled = self.pooled
            tests += [("Cochran-Mantel-Haenszel", pooled.cmh), ("Breslow-Day", pooled.breslow_day)]
        lines += [f"{name}: {t}" for name, t in tests if t.df]
        if not math.isnan(self.cramers_v):
            lines.append(f"Cramer's V: {number(self.cramers_v)}")
        if not math.isnan(self.fisher_p):
            lines.append(f"Fisher's exact test: p {p_text(self.fisher_p)}")
        lines += [f"{name}: {e}" for name, e in self._measures() if not math.isnan(e.value)]
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])

    def _measures(self) -> list[tuple[str, Estimate]]:
        level = f"{100 * self.confidence:g} % interval"
        found = [
            (f"Odds ratio, {level}", self.odds_ratio),
            (f"Odds ratio, conditional, exact {level}", self.odds_ratio_exact),
            (f"Risk ratio, {level}", self.risk_ratio),
            (f"Risk difference, {level} ({self.difference_method})", self.risk_difference),
        ]
        if self.pooled is not None:
            found.append((f"Odds ratio over strata (Mantel-Haenszel), {level}", self.pooled.odds_ratio))
        return found


async def contingency_table(
    party: Party,
    rows: Any,
    columns: Any,
    *,
    strata: Any = None,
    by_strata: bool | None = None,
    row_categories: Sequence[Label] | None = None,
    column_categories: Sequence[Label] | None = None,
    strata_categories: Sequence[Label] | None = None,
    confidence: float = 0.95,
    difference: str = "newcombe",
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> ContingencyResult | None:
    """Count the pooled rows by two categorical variables, and test whether these are independent.

    Parameters
    ----------
    party : Party
    rows, columns : array_like or pandas.Series
        Our rows of two categorical variables, shape (rows,); with ``partition="columns"`` None where another party
        holds one.
    strata : array_like or pandas.Series, optional
        A third one, whose categories are layers of the table.
    by_strata : bool, optional
        Whether there are strata; by default, whether ``strata`` is given. With ``partition="columns"`` parties that
        do not hold the strata say so here.
    row_categories, column_categories, strata_categories : sequence, optional
        All categories, agreed in the study; see :func:`protocols.pools.variables.categorical`. The first is the
        reference.
    confidence : float
        Of all intervals.
    difference : {"newcombe", "wald"}
        Interval of the risk difference.
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks that learn the counts; all by default.
    disclosure : Disclosure, optional
        Cells and totals below the minimum are withheld, and others that would tell them; counts are rounded where
        it says so.

    Returns
    -------
    ContingencyResult or None
        None at a party that learns nothing.

    Raises
    ------
    AgreementError, DataError, DisclosureError
        See :func:`protocols.pools.joining.pool` and :meth:`protocols.pools.pool.Pool.open_sizes`.

    Notes
    -----
    All parties learn n, in how many rows each variable is missing, what the pool tells (declared categories; without
    them the labels at each party), and with a minimum cell which counts are withheld. The recipients learn the counts
    of all cells and their totals (with strata: of the layers, and over them), as far as they are not withheld.
    All statistics are functions of the counts that were opened, computed in the clear at the recipients: of rounded
    counts, where they are rounded (then without exact tests). Where a cell is withheld, what is made of it is NaN.
    Counts are exact. Parties may cheat, where rows are split: see :mod:`protocols.cheating`.
    Cost with r x c cells, declared categories and rows: 5 rounds in all; 3 + (r + 1)(c + 1) elements opened, with s
    strata 4 + (r + 1)(c + 1)(s + 1); and what a disclosure control takes. With columns and q rows: ``q (r + c)``
    elements and a product of matrices more, with strata ``q (s + r)`` more and products of ``q s r`` entries.
    """
    confidence = checked_confidence(confidence)
    if difference not in _DIFFERENCES:
        raise ValueError(f"difference is one of {', '.join(_DIFFERENCES)}")
    release = Release.of(party, to, disclosure)
    layered = strata is not None if by_strata is None else by_strata
    if strata is not None and not layered:
        raise ValueError("strata are given, and by_strata=False says that there are none")
    given = {"stratum": ("strata", strata, strata_categories)} if layered else {}
    given |= {"row": ("rows", rows, row_categories), "column": ("columns", columns, column_categories)}
    made = await pool(
        party.at("pool"),
        "contingency_table",
        {
            place: None if values is None else categorical(values, rank=party.rank, what=what, categories=categories)
            for place, (what, values, categories) in given.items()
        },
        partition=partition,
        release=release,
        kinds=dict.fromkeys(given, Categorical),
        terms={"confidence": confidence, "difference": difference},
    )
    sizes, counts = await made.table(*given)
    opened = await open_counts(party.at("cells"), counts.reshape(-1), _lines(counts.shape), release)
    if opened is None:
        return None
    whole, layers = _tables(opened, counts.shape)
    exact = not rounding_note(release)
    unsaid = "; statistics that take them are not available" if opened.reasons else ""
    return ContingencyResult(
        names=tuple(made.names[what][0] for what in ("row", "column", "stratum") if what in given),
        row_categories=made.categories["row"],
        column_categories=made.categories["column"],
        strata_categories=made.categories["stratum"] if layered else (),
        counts=whole[:-1, :-1],
        row_totals=whole[:-1, -1],
        column_totals=whole[-1, :-1],
        total=float(whole[-1, -1]),
        strata_counts=layers,
        **_statistics(whole[:-1, :-1], layers, confidence, difference, exact),
        difference_method=difference,
        confidence=confidence,
        n=sizes.n,
        missing={made.names[what][0]: sizes.missing[what] for what in given},
        suppressed=(*(f"{reason}{unsaid}" for reason in opened.reasons), *rounding_note(release)),
    )


def _lines(shape: tuple[int, ...]) -> list[NDArray[np.int64]]:
    """Return the cells of each total: sums over one axis, over two, ..., over all; see :func:`_tables`."""
    if len(shape) == 2:
        return lines_of(shape)
    places = np.arange(math.prod(shape)).reshape(shape)
    found = []
    for kept in _margins(len(shape)):
        turned = np.transpose(places, (*kept, *(axis for axis in range(len(shape)) if axis not in kept)))
        found += list(turned.reshape(math.prod(shape[axis] for axis in kept), -1))
    return found


def _margins(axes: int) -> list[tuple[int, ...]]:
    """Return the axes that each group of totals keeps: all proper subsets, the large ones first."""
    return [kept for size in reversed(range(axes)) for kept in combinations(range(axes), size)]


def _tables(opened: OpenedCounts, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the table over all strata with its totals, shape (r + 1, c + 1), and the layers (s, r, c)."""
    *_, r, c = shape
    whole = np.full((r + 1, c + 1), np.nan)
    if len(shape) == 2:
        layers = np.empty((0, r, c))
        whole[:-1, :-1] = opened.counts.reshape(r, c)
        whole[:-1, -1], whole[-1, :-1] = opened.totals[:r], opened.totals[r : r + c]
        whole[-1, -1] = opened.totals[-1]
        return whole, layers
    layers, start = opened.counts.reshape(shape), 0
    targets = {(1, 2): whole[:-1, :-1], (1,): whole[:-1, -1], (2,): whole[-1, :-1], (): whole[-1:, -1]}
    for kept in _margins(3):
        size = math.prod(shape[axis] for axis in kept)
        if kept in targets:
            targets[kept][...] = opened.totals[start : start + size].reshape(targets[kept].shape)
        start += size
    return whole, layers


def _statistics(
    counts: NDArray[np.float64], layers: NDArray[np.float64], confidence: float, difference: str, exact: bool
) -> dict[str, Any]:
    """Return all that follows from the counts; NaN where one of them is withheld."""
    two_by_two, known = counts.shape == (2, 2), not np.isnan(counts).any()
    found: dict[str, Any] = {
        "expected": expected_counts(counts) if known else np.full(counts.shape, np.nan),
        "chi2": pearson(counts),
        "chi2_yates": pearson(counts, yates=True) if two_by_two else NO_TEST,
        "cramers_v": cramers_v(counts),
        "fisher_p": math.nan,
        "odds_ratio": NO_ESTIMATE,
        "odds_ratio_exact": NO_ESTIMATE,
        "risk_ratio": NO_ESTIMATE,
        "risk_difference": NO_ESTIMATE,
        "pooled": None,
    }
    if two_by_two and known:
        # The second category against the first, which is the reference.
        turned = counts[::-1, ::-1]
        found["odds_ratio"] = odds_ratio(turned, confidence)
        found["risk_ratio"] = risk_ratio(turned, confidence)
        found["risk_difference"] = risk_difference(turned, confidence, difference)
        if exact and counts.sum() <= _MOST_EXACT:
            found["fisher_p"] = fisher(counts)
            found["odds_ratio_exact"] = conditional_odds_ratio(counts, confidence)
    if two_by_two and len(layers):
        found["pooled"] = stratified(layers, confidence)
    return found
