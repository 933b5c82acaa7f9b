"""Proportions of the pooled rows, with their intervals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, concatenate
from protocols.pools.joining import pool
from protocols.pools.variables import Categorical, Label, categorical
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, percent, table
from protocols.release.suppression import lines_of, open_counts
from protocols.tables.count_statistics import checked_confidence, proportion_interval

_METHODS = ("wilson", "clopper-pearson")


@dataclass(frozen=True, eq=False)
class ProportionResult(Result):
    """How often each category occurs.

    Attributes
    ----------
    names : tuple of str
        The variable.
    categories : tuple
        k of them, in order.
    counts : numpy.ndarray
        Shape (k,); NaN where withheld.
    total : float
        What the counts add up to; n, but for rounding.
    estimate : numpy.ndarray
        Shape (k,): parts of ``total``.
    conf_int : numpy.ndarray
        Shape (k, 2). Each holds for one category, not for all of them at once.
    confidence : float
    method : str
    n : int
        Rows in which the variable is not missing.
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    names: tuple[str, ...]
    categories: tuple[Label, ...]
    counts: NDArray[np.float64]
    total: float
    estimate: NDArray[np.float64]
    conf_int: NDArray[np.float64]
    confidence: float
    method: str
    n: int
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return a table with a line for each category."""
        rows = [
            [str(label), number(count, 0), percent(part), percent(low), percent(high)]
            for label, count, part, (low, high) in zip(
                self.categories, self.counts, self.estimate, self.conf_int, strict=True
            )
        ]
        level = f"{100 * self.confidence:g} %"
        head = [self.names[0], "n", "part", f"[{level}", f"{level}]"]
        text = table(head, rows, title=f"Proportions of {self.names[0]} ({self.method} intervals)")
        return "\n".join([text, *notes(self.n, self.missing, self.suppressed)])


async def proportion(
    party: Party,
    values: Any,
    *,
    level: Label | None = None,
    categories: Sequence[Label] | None = None,
    confidence: float = 0.95,
    method: str = "wilson",
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> ProportionResult | None:
    """Compute how often each category occurs in the pooled rows.

    Parameters
    ----------
    party : Party
    values : array_like or pandas.Series
        Our rows of a categorical or boolean variable, shape (rows,); with ``partition="columns"`` None at the
        parties that do not hold it.
    level : str or int, optional
        Count this category only, against all others: a table of two cells.
    categories : sequence, optional
        All categories, agreed in the study; see :func:`protocols.pools.variables.categorical`.
    confidence : float
    method : {"wilson", "clopper-pearson"}
        Of the intervals.
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks that learn the counts; all by default.
    disclosure : Disclosure, optional
        Cells below the minimum are withheld, and others that would tell them; counts are rounded where it says so.

    Returns
    -------
    ProportionResult or None
        None at a party that learns nothing.

    Raises
    ------
    AgreementError, DataError, DisclosureError
        See :func:`protocols.pools.joining.pool` and :meth:`protocols.pools.pool.Pool.open_sizes`.

    Notes
    -----
    All parties learn n, how many values are missing, what the pool tells (declared categories; without them the
    labels at each party), and with a minimum cell which cells are withheld. The recipients learn the counts, of
    which estimates and intervals are functions (of rounded counts, where they are rounded). Exact. Parties may cheat,
    where rows are split: see :mod:`protocols.cheating`.
    Cost with rows and declared categories: 5 rounds in all, 2 + k + 1 elements opened, and what a disclosure control
    takes; see :func:`protocols.release.suppression.open_counts`.
    """
    confidence = checked_confidence(confidence)
    if method not in _METHODS:
        raise ValueError(f"method is one of {', '.join(_METHODS)}")
    release = Release.of(party, to, disclosure)
    ours = None if values is None else categorical(values, rank=party.rank, what="values", categories=categories)
    terms = {"level": level, "confidence": confidence, "method": method}
    made = await pool(
        party.at("pool"),
        "proportion",
        {"values": ours},
        partition=partition,
        release=release,
        kinds={"values": Categorical},
        terms=terms,
    )
    shown = made.categories["values"]
    if level is not None and level not in shown:
        raise DataError("proportion: level is none of the categories")
    sizes, counts = await made.table("values")
    if level is not None:
        one = counts[shown.index(level)].reshape(1)
        counts, shown = concatenate([one, counts.sum().reshape(1) - one]), (level, "(all others)")
    opened = await open_counts(party.at("cells"), counts, lines_of((len(shown),)), release)
    if opened is None:
        return None
    total = float(opened.totals[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = opened.counts / total
    intervals = [proportion_interval(count, total, confidence, method) for count in opened.counts.tolist()]
    return ProportionResult(
        made.names["values"],
        shown,
        opened.counts,
        total,
        estimate,
        np.array(intervals),
        confidence,
        method,
        sizes.n,
        {made.names["values"][0]: sizes.missing["values"]},
        (*opened.reasons, *rounding_note(release)),
    )


def rounding_note(release: Release) -> tuple[str, ...]:
    """Say that numbers come from rounded counts, if they do."""
    disclosure = release.disclosure
    if disclosure is None or disclosure.rounding < 2:
        return ()
    return (f"counts are rounded to multiples of {disclosure.rounding}; all else is computed from these",)
