"""Quantiles: medians, quartiles and others, of which nothing but the value itself is opened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, less_than, open_, stack
from mpc.sorting import argsort
from protocols.comparisons.quantile_search import Wanted, rows_wanted, searched
from protocols.comparisons.rank_sums import ranked_keys, ranking, read_keys
from protocols.pools.grids import Grid, histogram, prefix_sums
from protocols.pools.joining import pool
from protocols.pools.pool import INPUT_SCALE, ROW_BITS, Pool
from protocols.pools.row_pool import RowPool
from protocols.pools.variables import Categorical, Label, Numeric, categorical
from protocols.release.disclosure import Disclosure, Release, refusal
from protocols.release.outcome import Result, notes, number, table
from protocols.rows import Bound

_METHODS = ("linear", "inverted_cdf")


@dataclass(frozen=True, eq=False)
class QuantileResult(Result):
    """Quantiles.

    Attributes
    ----------
    method : {"linear", "inverted_cdf"}
    names : tuple of str
        The numbers, and the factor if there is one.
    groups : tuple of str
        Categories; empty without a factor.
    q : numpy.ndarray
        Shape (k,).
    values : numpy.ndarray
        Shape (k,), or (groups, k) with a factor; NaN for a group without rows.
    n : int
    group_n : numpy.ndarray
        Rows of each group; one entry without a factor.
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    method: str
    names: tuple[str, ...]
    groups: tuple[str, ...]
    q: NDArray[np.float64]
    values: NDArray[np.float64]
    n: int
    group_n: NDArray[np.int64]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return a table with a column for each quantile."""
        values = self.values if self.groups else self.values[np.newaxis]
        labels = self.groups or (self.names[0],)
        rows = [
            [label, str(n), *map(number, row)]
            for label, n, row in zip(labels, self.group_n.tolist(), values.tolist(), strict=True)
        ]
        head = ["", "n", *(f"{100 * q:g} %" for q in self.q.tolist())]
        return "\n".join([table(head, rows, title="Quantiles"), *notes(self.n, self.missing, self.suppressed)])


async def quantile(
    party: Party,
    x: Any,
    q: float | Sequence[float],
    *,
    method: str = "linear",
    by: Any = None,
    grid: tuple[float, float, float] | None = None,
    resolution: float | None = None,
    partition: str = "rows",
    bound: Bound = None,
    categories: Sequence[Label] | None = None,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> QuantileResult | None:
    """Compute quantiles of a column over the rows of all parties, also for each category of another one.

    Parameters
    ----------
    party : Party
    x : array_like or None
        Our rows; with ``partition="columns"`` None at the parties that do not hold the column.
    q : float or sequence of float
        From 0 to 1; the same at all parties.
    method : {"linear", "inverted_cdf"}
        As in :func:`numpy.quantile`: between two rows if q lies there, or the first row that at least a part q of all
        rows is not above.
    by : array_like, optional
        A category of each row: quantiles within each. With ``partition="columns"`` a party that holds neither
        passes ``by=None``, and so does the holder of x; somebody must hold it if ``categories`` are given.
    grid : (lower, upper, step), optional
        With rows: values count as the nearest point of this grid.
    resolution : float, optional
        Values are rounded to multiples of it first, which takes fewer bits. By default they are told apart to 2^-40
        of the power of two above the bound.
    partition : {"rows", "columns"}
    bound : float, optional
        Public bound on the absolute values, agreed in the study.
    categories : sequence, optional
        Of ``by``, agreed in the study.
    to : collection of int, optional
        Ranks of the parties that learn the quantiles; all by default.
    disclosure : Disclosure, optional
        Rules that must hold. With a minimum cell m: at least m rows must be at or below each quantile and at least m at
        or above it, so there is no minimum and no maximum, and two quantiles are at least m rows apart.

    Returns
    -------
    QuantileResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent if our data is wrong; at all parties if there is no row.
    AgreementError
        The parties differ in a parameter.
    DisclosureError
        At all parties, before anything of the quantiles is opened: a rule does not hold.

    Notes
    -----
    All parties learn how many rows are used, how often each variable is missing, and the sizes of the groups. The
    recipients learn the quantiles. Semi-honest. A quantile that falls on one row (always with ``"inverted_cdf"``) is
    the value of somebody: see ``disclosure``.
    There are three ways, of which the parameters choose:

    - *search*, with rows of which all parties learn the quantiles: on which side of a public number the quantile
      lies is what its value will tell anyway, so that bit is opened, for 127 numbers at a time. The parties count their
      own rows up to each, and find those next to it, in the clear, and share that. Cost with k quantiles and three
      parties (prss), whatever the number of rows: 6 passes (42 bits at 7 a pass; fewer with a resolution) of 12
      rounds and 127 comparisons each; where one lies between two rows 47 rounds (10 of them beside others) and 635
      comparisons, and 36 rounds at the end: 72 or 318 rounds in all. With a dealer these are 60 and 264, of five
      parties (prss) 84 and 463, with 2.4 and 3.2 times the elements.
    - *grid*, where one is given: with m points one comparison of ``m k`` counts, ``2 m k`` between rows; 14 rounds.
    - *sort*, else: :func:`mpc.sorting.argsort`, of all groups at once. All parties learn how many complete rows each of
      them has (with rows).
    """
    if method not in _METHODS:
        raise ValueError(f"method is one of {', '.join(_METHODS)}, not {method!r}")
    wanted_q = np.atleast_1d(np.asarray(q, dtype=np.float64))
    if wanted_q.ndim != 1 or not wanted_q.size or not ((wanted_q >= 0) & (wanted_q <= 1)).all():
        raise ValueError("q goes from 0 to 1: one number, or several")
    release = Release.of(party, to, disclosure)
    terms: dict[str, object] = {"q": wanted_q.tolist(), "method": method, "resolution": resolution}
    made, cells = await _pooled(party, x, by, grid, resolution, partition, bound, categories, release, terms)
    sizes = await made.open_sizes()
    grouped = "by" in made.categories
    n = await made.group_sizes("by") if grouped else np.array([sizes.n])
    if not n.any() and not party.rehearsing:
        raise DataError("quantile: there is no row")
    wanted = rows_wanted(wanted_q, n, method, between=party.rehearsing and method == "linear")
    if not party.rehearsing:
        _check_contributors(release.disclosure, n, wanted)
    if cells is not None:
        found = await _on_grid(wanted.scope(party, "grid"), made, cells, wanted)
    elif isinstance(made, RowPool) and release.to is None:
        scope = ranking(wanted.scope(party, "search"), "whole", made, "x", resolution)
        found = await searched(scope, made, wanted, resolution)
    else:
        found = await _sorted(ranking(party, "sort", made, "x", resolution), made, wanted, n, resolution)
    if found is None:
        return None
    values = np.where(n[:, np.newaxis] > 0, found, np.nan)
    return QuantileResult(
        method,
        (*made.names["x"], *made.names.get("by", ())),
        tuple(map(str, made.categories["by"])) if grouped else (),
        wanted_q,
        values if grouped else values[0],
        sizes.n,
        n,
        sizes.missing,
    )


def _check_contributors(disclosure: Disclosure | None, sizes: NDArray[np.int64], wanted: Wanted) -> None:
    """Raise where a quantile is made of too few rows; these are public numbers."""
    if disclosure is None or not disclosure.minimum_cell:
        return
    least = disclosure.minimum_cell
    for n, lower, weights in zip(sizes.tolist(), wanted.lower, wanted.weights, strict=True):
        above = n - lower - (weights > 0)
        pairs = sorted({(int(k), int(w)) for k, w in zip(lower, weights, strict=True)})
        gaps = [after[0] - before[0] for before, after in pairwise(pairs)]
        if min(int((lower + 1).min()), int(above.min()), *gaps, least) < least:
            raise refusal(disclosure, "quantile", [side_rule(least)], known=True)


def side_rule(least: int) -> str:
    """Return the rule for rows around quantiles, in words."""
    return f"at least {least} rows on either side of each quantile, and between two of them"


# ---- by a grid, by sorting ----------------------------------------------------------------------


async def _on_grid(party: Party, made: Pool, cells: Grid, wanted: Wanted) -> NDArray[np.float64] | None:
    """Find quantiles from a histogram: how many points have too few rows at or below them."""
    counts = await histogram(party.at("histogram"), made, cells, by="by" if "by" in made.categories else None)
    below = prefix_sums(counts, 1 << ROW_BITS)
    groups, k = wanted.lower.shape
    ranks = wanted.lower[..., np.newaxis] + 1
    copies = stack([below] * k, axis=1)
    if not wanted.between:
        place = (await less_than(party.at("reached"), copies, ranks)).sum(axis=-1).bounded_by(cells.points)
    else:
        short = await less_than(party.at("reached"), stack([copies, copies]), np.stack([ranks, ranks + 1]))
        places = short.sum(axis=-1).bounded_by(cells.points)
        place = wanted.mixed(places[0], places[1])
    opened = await open_(party.at("open"), place.reshape(groups, k), to=made.release.to)
    return None if opened is None else cells.value(np.asarray(opened, dtype=np.float64))


async def _sorted(
    party: Party, made: Pool, wanted: Wanted, sizes: NDArray[np.int64], resolution: float | None
) -> NDArray[np.float64] | None:
    """Find quantiles by sorting all rows, by group and value."""
    members = (await made.vectors("by"))[0] if "by" in made.categories else None
    keys = await ranked_keys(party.at("keys"), made, "x", resolution, by=members)
    order = await argsort(party.at("order"), keys.values[:, 0], bits=keys.bits)
    (ordered,) = await order.apply(party.at("apply"), keys.values[:, 0])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])[:, np.newaxis]
    last = np.maximum(0, np.minimum(len(ordered) - 1, starts + np.maximum(sizes, 1)[:, np.newaxis] - 1))
    groups, k = wanted.lower.shape
    low = ordered[np.minimum(last, starts + wanted.lower).reshape(-1)].reshape(groups, k)
    high = ordered[np.minimum(last, starts + wanted.lower + 1).reshape(-1)].reshape(groups, k)
    offsets = np.array([[int(g) * keys.span + keys.largest] for g in range(groups)], dtype=object)
    opened = await open_(party.at("open"), wanted.mixed(low - offsets, high - offsets), to=made.release.to)
    if opened is None:
        return None
    if resolution is None:
        return np.asarray(np.ldexp(opened, int(made.exponents["x"][0]) - INPUT_SCALE))
    return np.asarray(opened * resolution)


async def _pooled(
    party: Party,
    x: Any,
    by: Any,
    grid: tuple[float, float, float] | None,
    resolution: float | None,
    partition: str,
    bound: Bound,
    categories: Sequence[Label] | None,
    release: Release,
    terms: dict[str, object],
) -> tuple[Pool, Grid | None]:
    """Make a pool of numbers, and of groups if there are any."""
    column, cells = read_keys(x, grid, resolution, partition=partition, bound=bound, rank=party.rank)
    variables: dict[str, Numeric | Categorical | None] = {"x": column}
    kinds: dict[str, type[Numeric] | type[Categorical]] = {"x": Numeric}
    if by is not None or categories is not None:
        variables["by"] = None if by is None else categorical(by, rank=party.rank, what="by", categories=categories)
        kinds["by"] = Categorical
    made = await pool(
        party.at("pool"),
        "quantile",
        variables,
        kinds=kinds,
        partition=partition,
        release=release,
        terms={**terms, "grid": None if grid is None else list(map(float, grid))},
    )
    return made, cells
