"""Histograms of the pooled rows over agreed edges."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party
from protocols.pools.joining import pool
from protocols.pools.variables import MOST_CATEGORIES, Categorical, numeric
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, table
from protocols.release.suppression import lines_of, open_counts
from protocols.tables.proportions import rounding_note

_MOST_BINS = MOST_CATEGORIES - 2


@dataclass(frozen=True, eq=False)
class HistogramResult(Result):
    """Counts of values between edges.

    Attributes
    ----------
    names : tuple of str
        The variable.
    edges : numpy.ndarray
        Shape (k + 1,).
    counts : numpy.ndarray
        Shape (k,): of ``edges[j] <= x < edges[j + 1]``, the last bin with its right edge; NaN where withheld.
    below, above : float
        Values outside all bins; NaN where withheld.
    density : numpy.ndarray
        Shape (k,): parts of the values within the edges, for each unit of x; NaN where it is not known.
    n : int
        Rows in which the variable is not missing.
    missing : dict of str to int or None
    suppressed : tuple of str
    joined : bool
        Whether values outside count in the outermost bins; ``below`` and ``above`` are NaN then.
    """

    names: tuple[str, ...]
    edges: NDArray[np.float64]
    counts: NDArray[np.float64]
    below: float
    above: float
    density: NDArray[np.float64]
    n: int
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()
    joined: bool = False

    def summary(self) -> str:
        """Return a table with a line for each bin."""
        last = len(self.counts) - 1
        names = [
            f"[{low:g}, {high:g}{']' if k == last else ')'}"
            for k, (low, high) in enumerate(zip(self.edges[:-1], self.edges[1:], strict=True))
        ]
        rows = [] if self.joined else [[f"below {self.edges[0]:g}", number(self.below, 0), ""]]
        rows += [[name, number(c, 0), number(d)] for name, c, d in zip(names, self.counts, self.density, strict=True)]
        if not self.joined:
            rows += [[f"above {self.edges[-1]:g}", number(self.above, 0), ""]]
        text = table([self.names[0], "n", "density"], rows, title=f"Histogram of {self.names[0]}")
        return "\n".join([text, *notes(self.n, self.missing, self.suppressed)])


async def histogram(
    party: Party,
    x: Any,
    *,
    bins: Any,
    outside: str = "count",
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> HistogramResult | None:
    """Count the pooled values between agreed edges.

    Parameters
    ----------
    party : Party
    x : array_like or pandas.Series
        Our rows of a numeric variable, shape (rows,); with ``partition="columns"`` None at the parties that do not
        hold it.
    bins : array_like
        From 2 to 255 edges, increasing; agreed in the study, not taken from the data.
    outside : {"count", "join"}
        What lies below the first edge and above the last is counted apart, or with the first and the last bin. Where
        the edges go as far as the values may, nothing lies there, and a disclosure control that withholds empty
        cells withholds others with them: then ``"join"``.
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks that learn the counts; all by default.
    disclosure : Disclosure, optional
        Cells below the minimum, an empty one too, are withheld, and others that would tell them; counts are rounded
        where it says so.

    Returns
    -------
    HistogramResult or None
        None at a party that learns nothing.

    Raises
    ------
    AgreementError, DataError, DisclosureError
        See :func:`protocols.pools.joining.pool` and :meth:`protocols.pools.pool.Pool.open_sizes`.

    Notes
    -----
    Bins are half open, but for the last one, which has both its edges: the rule of ``numpy.histogram``. What lies
    below the first edge and above the last is counted as well.
    Whoever holds a value finds its bin in the clear. All parties learn n, how many values are missing, and with a
    minimum cell which counts are withheld; the recipients learn the counts. Exact. Parties may cheat, where rows are
    split: see :mod:`protocols.cheating`.
    Cost with rows and k bins: 5 rounds in all, 2 + k + 3 elements opened, and what a disclosure control takes.
    """
    edges = _checked_edges(bins)
    if outside not in ("count", "join"):
        raise ValueError(f"outside is 'count' or 'join', not {outside!r}")
    joined = outside == "join"
    k = len(edges) - 1 if joined else len(edges) + 1
    if k < 2:
        raise ValueError("outside='join' takes at least two bins: one would hold all values")
    release = Release.of(party, to, disclosure)
    name, ours = "", None
    if x is not None:
        found = numeric(x, rank=party.rank, what="x")
        if len(found.names) != 1:
            raise DataError(f"party {party.rank}: a histogram takes one column, x has {len(found.names)}")
        name = found.names[0]

        def place(values: NDArray[np.float64]) -> NDArray[np.int64]:
            places = _places(values, edges)
            return np.clip(places, 1, k) - 1 if joined else places

        ours = Categorical.of_numbers(name, k, found, place)
    made = await pool(
        party.at("pool"),
        "histogram",
        {"x": ours},
        partition=partition,
        release=release,
        kinds={"x": Categorical},
        terms={"bins": edges.tolist(), "outside": outside},
    )
    sizes, counted = await made.table("x")
    opened = await open_counts(party.at("cells"), counted, lines_of((k,)), release)
    if opened is None:
        return None
    below, above, counts = math.nan, math.nan, opened.counts
    if not joined:
        below, above, counts = float(counts[0]), float(counts[-1]), counts[1:-1]
    within = counts.sum()
    if np.isnan(within):
        within = opened.totals[0] - (0 if joined else below + above)
    with np.errstate(invalid="ignore", divide="ignore"):
        density = counts / within / np.diff(edges)
    return HistogramResult(
        made.names["x"],
        edges,
        counts,
        below,
        above,
        density,
        sizes.n,
        {made.names["x"][0]: sizes.missing["x"]},
        (*opened.reasons, *rounding_note(release)),
        joined,
    )


def _checked_edges(bins: Any) -> NDArray[np.float64]:
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or not 2 <= edges.size <= _MOST_BINS + 1:
        raise ValueError(f"bins takes from 2 to {_MOST_BINS + 1} edges")
    if not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise ValueError("the edges of bins are finite and increasing")
    return edges


def _places(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return 0 below all bins, then the number of the bin from 1, one more above all."""
    places = np.searchsorted(edges, values, side="right")
    places[values == edges[-1]] = len(edges) - 1
    return np.asarray(places, dtype=np.int64)
