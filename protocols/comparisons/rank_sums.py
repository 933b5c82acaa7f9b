"""Ranks on shares: by sorting, or by counting on an agreed grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mpc import DataError, Party, Share, matmul, multiply
from mpc.arithmetic import products
from mpc.normalise import integers
from mpc.sorting import argsort, run_bounds
from protocols.pools.grids import Grid, histogram, prefix_sums
from protocols.pools.pool import INPUT_SCALE, Pool
from protocols.pools.variables import Numeric, numeric
from protocols.rows import Bound

_Job = tuple[Share, Share, Literal["multiply", "matmul"]]

# Third powers of rows are to be divided on shares.
MOST_ROW_BITS = 24


@dataclass(frozen=True, slots=True)
class RankSums:
    """What rank tests are made of, shared; all exact integers.

    Attributes
    ----------
    doubled : Share
        Shape (groups,): twice the sum of the mid-ranks of each group.
    squares : Share
        Shape (1,): over all rows the square of the length of their run of equal values, ``sum t^3`` over runs.
    rows : int
        Public: no more rows than these.
    """

    doubled: Share
    squares: Share
    rows: int


async def rank_sums(party: Party, made: Pool, cells: Grid | None, resolution: float | None) -> RankSums:
    return await _sorted_sums(party, made, resolution) if cells is None else await _grid_sums(party, made, cells)


async def _sorted_sums(party: Party, made: Pool, resolution: float | None) -> RankSums:
    """Find rank sums by sorting."""
    keys = await ranked_keys(party.at("keys"), made, "x", resolution)
    (members,) = await made.vectors("group")
    rows, groups = members.shape
    if made.weight is not None:
        members = (await multiply(party, members, made.weight.reshape(rows, 1))).bounded_by(1)
    order = await argsort(party.at("sort"), keys.values[:, 0], bits=keys.bits)
    key, members = await order.apply(party.at("sort"), keys.values[:, 0], members)
    first, last = await run_bounds(party.at("runs"), key)
    doubled = (first + last + 2).bounded_by(2 * rows).reshape(1, rows)
    length = (last - first + 1).bounded_by(rows).reshape(1, rows)
    sums, squares = await products(party, "rank sums", [(doubled, members, "matmul"), (length, length.T, "matmul")])
    sums, squares = sums.reshape(groups).bounded_by(2 * rows * rows), squares.reshape(1).bounded_by(rows**3)
    if made.weight is not None:
        # Rows that do not count are equal, and behind all others.
        left_out = 0 if party.rehearsing else rows - made.sizes.n
        squares = squares - left_out**3
    return RankSums(sums, squares.bounded_by(rows**3), rows)


async def _grid_sums(party: Party, made: Pool, cells: Grid) -> RankSums:
    """Find rank sums by counting on a grid: products of counts, as many as there are points."""
    if made.sizes.n >> MOST_ROW_BITS and not party.rehearsing:
        raise DataError(f"{made.protocol}: a grid is for less than 2^{MOST_ROW_BITS} rows")
    counts = await histogram(party.at("histogram"), made, cells, by="group")  # (groups, points)
    together = counts.sum(axis=0).bounded_by(1 << MOST_ROW_BITS)
    below = prefix_sums(together, 1 << MOST_ROW_BITS) - together
    doubled = (below * 2 + together + 1).bounded_by(3 << MOST_ROW_BITS)
    jobs: list[_Job] = [
        (counts, doubled.reshape(-1, 1), "matmul"),
        (together, together, "multiply"),
    ]
    sums, squares = await products(party, "rank sums", jobs)
    cubes = await matmul(party, squares.reshape(1, -1), together.reshape(-1, 1))
    rows = 1 << MOST_ROW_BITS
    return RankSums(sums.reshape(-1).bounded_by(2 * rows * rows), cubes.reshape(1).bounded_by(rows**3), rows)


@dataclass(frozen=True, slots=True)
class Keys:
    """Numbers as they are sorted.

    Attributes
    ----------
    values : Share
        Shape (rows, d): integers from 0, below ``2^bits``. Rows that do not count are ``groups * span``, above all.
    bits : int
    span : int
        A row of group k is ``k * span + largest + number``.
    largest : int
        No number is larger in size.
    """

    values: Share
    bits: int
    span: int
    largest: int


def read_keys(
    x: Any,
    grid: tuple[float, float, float] | None,
    resolution: float | None,
    *,
    partition: str,
    bound: Bound,
    rank: int,
) -> tuple[Numeric | None, Grid | None]:
    """Read a column that is to be sorted or counted on a grid.

    Returns
    -------
    Numeric or None
        In steps of the resolution, if there is one; None where we do not hold the column.
    Grid or None

    Raises
    ------
    DataError
        x is no single column, or not on the grid.
    """
    cells = None
    if grid is not None:
        if partition != "rows" or resolution is not None or bound is not None:
            raise ValueError("grid is for partition='rows', and takes the place of resolution and bound")
        cells = Grid(*map(float, grid))
        bound = cells.bound
    column = None if x is None else numeric(x, rank=rank, what="x", bound=bound)
    if column is not None:
        if len(column.names) != 1:
            raise DataError(f"party {rank}: x has {len(column.names)} columns; it takes one")
        if cells is not None:
            cells.check(column, rank=rank)
        if resolution is not None:
            column = in_steps(column, resolution)
    return column, cells


def in_steps(data: Numeric, resolution: float) -> Numeric:
    """Return our numbers as multiples of a public number, rounded.

    Raises
    ------
    ValueError
        The resolution is no positive number.
    """
    if not (resolution > 0 and math.isfinite(resolution)):
        raise ValueError("resolution is a positive number")
    bounds = None if data.bounds is None else np.maximum(1.0, np.ceil(data.bounds / resolution))
    return Numeric(data.names, np.rint(data.values / resolution), data.present, bounds, whole=True)


async def ranked_keys(
    party: Party, made: Pool, what: str, resolution: float | None, *, by: Share | None = None
) -> Keys:
    """Share numbers as integers for sorting.

    Parameters
    ----------
    party : Party
        A scope of its own.
    made : Pool
    what : str
        A numeric variable; with a resolution one that went through :func:`in_steps`.
    resolution : float or None
        None: values are told apart to ``2^-40`` of the power of two above the bound.
    by : Share, optional
        Shape (rows, groups), 0 and 1: rows are sorted by their group first.

    Notes
    -----
    With a resolution the shared numbers are multiples of a public power of two, which is divided out: exact, local.
    Nothing is revealed. Cost: none; where rows may be incomplete 1 round and ``rows (d + 1)`` elements.
    """
    (entries,) = await made.vectors(what)
    rows = len(entries)
    values, largest = integers(entries), 1 << INPUT_SCALE
    if resolution is not None:
        largest = whole_bound(made, what)
        # A rehearsal may know no more of the exponents than that they are not above 2^56.
        values = _divided(values, [INPUT_SCALE - min(max(0, int(e)), INPUT_SCALE) for e in made.exponents[what]])
    span = 4 * largest
    groups = 1 if by is None else by.shape[1]
    above = span * groups
    values = (values + largest).bounded_by(2 * largest)
    if by is not None:
        codes = (by * np.arange(groups, dtype=np.int64)).sum(axis=1).bounded_by(groups - 1).reshape(rows, 1)
        values = (values + codes * span).bounded_by(above)
    if made.weight is not None:
        less = (values - above).bounded_by(above)
        kept = await multiply(party, less, made.weight.reshape(rows, 1))
        values = (kept + above).bounded_by(above)
    return Keys(values, above.bit_length(), span, largest)


def ranking(party: Party, name: str, made: Pool, what: str, resolution: float | None) -> Party:
    """Return a scope for what is done with numbers that went through :func:`in_steps`.

    Without a bound their size is opened, and masks depend on it: each size has a name of its own, so that a rehearsal
    (:func:`mpc.prepare`), which does not know it, prepares nothing of the wrong size. With one it knows it.
    """
    return party.at(name if resolution is None else f"{name} to {whole_bound(made, what)}")


def whole_bound(made: Pool, what: str) -> int:
    """Return the bound of numbers that went through :func:`in_steps`: a power of two.

    Raises
    ------
    DataError
        The resolution is too fine for the bound.
    """
    most = int(made.exponents[what].max())
    if made.party.rehearsing:
        most = min(most, INPUT_SCALE)
    if most > INPUT_SCALE:
        raise DataError(f"{made.protocol}: the resolution is below 2^-{INPUT_SCALE} of the bound")
    return 1 << max(0, most)


def _divided(x: Share, shifts: list[int]) -> Share:
    """Divide columns by ``2^shift``, which all their entries are multiples of."""
    modulus = x.field.modulus
    inverses = x.field.encode(np.array([pow(1 << shift, -1, modulus) for shift in shifts], dtype=object))
    largest = x.magnitude >> min(shifts)
    return Share(x.field, x.field.mul(x.values, inverses), 0, largest, leads=x.leads)


async def doubled_ranks(party: Party, keys: Share, bits: int) -> Share:
    """Return twice the mid-rank of each entry, from 2; integers, in the order of the keys.

    Notes
    -----
    Cost: :func:`mpc.sorting.argsort`, :func:`mpc.sorting.run_bounds`, and two arrays put into order.
    """
    order = await argsort(party.at("sort"), keys, bits=bits)
    (ordered,) = await order.apply(party.at("apply"), keys)
    first, last = await run_bounds(party.at("runs"), ordered)
    (ranks,) = await order.undo(party.at("undo"), first + last + 2)
    return ranks.bounded_by(2 * len(keys))
