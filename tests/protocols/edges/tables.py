"""Small pooled tables that Hypothesis draws, the edges that they are bent to, and how rows are dealt out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

BOUND = 10.0
LAST_TIME = 12.0
MOST_ROWS = 40
TWO, THREE = ("a", "b"), ("a", "b", "c")

Column = NDArray[Any]
Table = dict[str, Column]

# By column: x and z are numbers, g and h groups, y an outcome, e an event, w a count, t a time, p a probability.
_PALETTES: dict[str, Sequence[Any]] = {
    "x": (-3.0, 1.5, 0.0, 7.25, -8.0, 2.0, 4.5, -0.125, 10.0, 1 / 3, -6.5, 1.5, 5.0, -10.0),
    "z": (2.0, -1.0, 0.5, 9.0, -4.25, 6.0, 0.1, -7.0, 3.0, -2.0, 8.5, 0.5, -9.75),
    "w": (2.0, 0.0, 1.0, 3.0, 1.0, 5.0, 0.0, 4.0, 10.0),
    "t": (3.0, 7.0, 5.0, 11.0, 2.0, 9.0, 2.5, 12.0, 6.0, 0.0, 3.0, 14.0),
    "p": (0.25, 0.7, 0.5, 0.9, 0.1, 0.35, 1.0, 0.6, 0.0, 0.5),
    "g": THREE,
    "h": TWO,
    "y": (1, 0),
    "e": (1, 0),
}
NUMBERS, GROUPS, BITS = ("x", "z", "w", "t", "p"), ("g", "h"), ("y", "e")


def rows_of(table: Table) -> int:
    """Return how many rows a table has."""
    return len(next(iter(table.values())))


def taken(table: Table, rows: Any) -> Table:
    """Return some of the rows."""
    return {name: column[rows] for name, column in table.items()}


def absent(column: Column) -> NDArray[np.bool_]:
    """Return which entries are missing."""
    return np.array([one is None or one != one for one in column], dtype=np.bool_)


def complete(table: Table) -> Table:
    """Return the rows in which nothing is missing; numbers as floats, the others as they are."""
    kept = ~np.any([absent(column) for column in table.values()], axis=0)
    kinds = {**dict.fromkeys(NUMBERS, np.float64), **dict.fromkeys(BITS, np.int64), **dict.fromkeys(GROUPS, object)}
    return {name: column[kept].astype(kinds[name]) for name, column in table.items()}


# ---- edges --------------------------------------------------------------------------------------


def _spread(table: Table, values: dict[str, tuple[Any, ...]]) -> Table:
    """Let the columns have these values only, each entry the one that its place among the palette's says."""
    found = dict(table)
    for name, allowed in values.items():
        if name in table:
            places = [list(_PALETTES[name]).index(one) for one in table[name]]
            found[name] = np.array([allowed[place % len(allowed)] for place in places], dtype=table[name].dtype)
    return found


def _no_row(table: Table) -> Table:
    return taken(table, slice(0, 0))


def _one_row(table: Table) -> Table:
    return taken(table, slice(0, 1))


def _two_rows(table: Table) -> Table:
    return taken(table, slice(0, 2))


def _empty_group(table: Table) -> Table:
    return _spread(table, {"g": ("b", "c"), "h": ("b",), "y": (1,)})


def _last_group_empty(table: Table) -> Table:
    return _spread(table, {"g": ("a", "b"), "h": ("a",), "y": (0,)})


def _group_of_one(table: Table) -> Table:
    found = _spread(table, {"g": ("b", "c"), "h": ("b",), "y": (1,)})
    for name, first in (("g", "a"), ("h", "a"), ("y", 0)):
        if name in found:
            found[name][:1] = first
    return found


def _all_equal(table: Table) -> Table:
    return {name: np.full_like(column, column[0]) if name in NUMBERS and len(column) else column.copy()
            for name, column in table.items()}  # fmt: skip


def _one_constant(table: Table) -> Table:
    return _spread(table, {"z": (3.0,), "p": (0.7,)})


def _collinear(table: Table) -> Table:
    return {**table, "z": -table["x"]} if {"x", "z"} <= set(table) else table


def _separated(table: Table) -> Table:
    """Everything follows the order of the first column of numbers."""
    found, rows = dict(table), rows_of(table)
    first = next((name for name in NUMBERS if name in table), None)
    if first is None:
        return table
    values = table[first].astype(float)
    place = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    above = values > np.median(values) if rows else np.zeros(0, bool)
    for name in table:
        if name in ("y", "e"):
            found[name] = above.astype(np.int64)
        elif name == "h":
            found[name] = np.where(above, "b", "a").astype(object)
        elif name == "g":
            found[name] = np.array([THREE[3 * k // max(rows, 1)] for k in place], dtype=object)
        elif name == "t" and first != "t":
            found[name], found["e"] = 1.0 + place % 12, np.ones(rows, np.int64)
    return {name: found[name] for name in table}


def _heavy_ties(table: Table) -> Table:
    few = {"x": (-1.0, 1.0), "z": (0.0, 2.0), "w": (0.0, 1.0), "t": (2.0, 5.0), "p": (0.25, 0.75)}
    return _spread(table, few)


def _at_the_bounds(table: Table) -> Table:
    ends = {"x": (-BOUND, BOUND), "z": (BOUND, -BOUND, 0.0), "w": (0.0, BOUND), "t": (0.0, LAST_TIME), "p": (0.0, 1.0)}
    return _spread(table, ends)


def _near_the_bounds(table: Table) -> Table:
    """Constant but for one row, at the ends of the range."""
    found = _spread(table, {"x": (BOUND,), "z": (-BOUND,), "w": (BOUND,), "t": (LAST_TIME,), "p": (1.0,)})
    for name, other in (("x", -BOUND), ("z", BOUND), ("w", 0.0), ("t", 0.0), ("p", 0.0)):
        if name in found:
            found[name][:1] = other
    return found


def _objects(table: Table) -> Table:
    return {name: np.array(column.tolist(), dtype=object) for name, column in table.items()}


# An edge bends a table; those that need a column leave tables without it as they are.
EDGES: dict[str, Callable[[Table], Table]] = {
    "as drawn": lambda table: table,
    "no row": _no_row,
    "one row": _one_row,
    "two rows": _two_rows,
    "an empty group": _empty_group,
    "the last group empty": _last_group_empty,
    "a group of one": _group_of_one,
    "all values equal": _all_equal,
    "a constant column": _one_constant,
    "collinear": _collinear,
    "separated": _separated,
    "all censored": lambda table: _spread(table, {"e": (0,)}),
    "no one censored": lambda table: _spread(table, {"e": (1,)}),
    "heavy ties": _heavy_ties,
    "at the bounds": _at_the_bounds,
    "one row apart": _near_the_bounds,
    "objects": _objects,
    "missing": lambda table: table,  # by :func:`drawn`
    "a column all missing": lambda table: table,  # the same
}
# What an edge is about; without any of these columns it says nothing.
ABOUT: dict[str, tuple[str, ...]] = {
    "an empty group": ("g", "h", "y"),
    "the last group empty": ("g", "h", "y"),
    "a group of one": ("g", "h", "y"),
    "all values equal": NUMBERS,
    "a constant column": ("z", "p"),
    "collinear": ("z",),
    "separated": ("g", "h", "y", "e"),
    "all censored": ("e",),
    "no one censored": ("e",),
    "heavy ties": NUMBERS,
    "at the bounds": NUMBERS,
    "one row apart": NUMBERS,
}


def edges_of(columns: Sequence[str], *, gaps: bool) -> list[str]:
    """Return the edges that say something of these columns."""
    found = [name for name in EDGES if set(ABOUT.get(name, columns)) & set(columns)]
    return found if gaps else [name for name in found if "missing" not in name]


def with_gaps(table: Table, gone: NDArray[np.bool_]) -> Table:
    """Return a table with gaps: NaN in numbers, None in the others."""
    found: Table = {}
    for k, (name, column) in enumerate(table.items()):
        if name in NUMBERS:
            found[name] = np.where(gone[:, k], np.nan, column.astype(np.float64))
        else:
            found[name] = column.astype(object)
            found[name][gone[:, k]] = None
    return found


# ---- what Hypothesis draws ----------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Pooled data and who holds it.

    Attributes
    ----------
    table : dict of str to numpy.ndarray
    owner : numpy.ndarray
        The party of each row.
    parties : int
    preprocessing, partition : str
    """

    table: Table
    owner: NDArray[np.int64]
    parties: int
    preprocessing: str
    partition: str

    def __repr__(self) -> str:
        columns = {name: column.tolist() for name, column in self.table.items()}
        return f"World({columns}, {self.owner.tolist()}, {self.parties}, {self.preprocessing!r}, {self.partition!r})"


@st.composite
def worlds(
    draw: st.DrawFn,
    columns: Sequence[str],
    edge: str,
    partitions: Sequence[str],
    *,
    start: int,
    most: int = MOST_ROWS,
    few_columns: bool = False,
) -> World:
    """Draw data at an edge; where columns are held by different parties, of two parties if there are few.

    The simplest example is no table of zeros, which is an edge of its own, but one that ``start`` says.
    """
    base = np.random.default_rng(start)
    rows = (draw(st.integers(0, most)) + int(base.integers(most // 3, most))) % (most + 1)
    drawn = np.frombuffer(draw(st.binary(min_size=rows * len(columns), max_size=rows * len(columns))), np.uint8)
    places = drawn.reshape(len(columns), rows).astype(np.int64) + base.integers(0, 250, (len(columns), rows))
    table: Table = {}
    for name, row in zip(columns, places, strict=True):
        kind: Any = np.float64 if name in NUMBERS else (np.int64 if name in BITS else object)
        table[name] = np.array([_PALETTES[name][k % len(_PALETTES[name])] for k in row], dtype=kind)
    table = EDGES[edge](table)
    rows = rows_of(table)
    if edge == "missing":
        often = draw(st.sampled_from((4, 2, 10)))
        table = with_gaps(table, base.integers(0, often, (rows, len(columns))) == 0)
    elif edge == "a column all missing":
        table = with_gaps(table, np.arange(len(columns)) == np.full((rows, 1), draw(st.integers(0, len(columns) - 1))))
    shift = int(base.integers(0, 12))
    parties, preprocessing = [(2, "dealer"), (3, "prss"), (3, "dealer")][(draw(st.integers(0, 2)) + shift) % 3]
    partition = partitions[(draw(st.integers(0, len(partitions) - 1)) + shift) % len(partitions)]
    if few_columns and partition == "columns":
        parties, preprocessing = 2, "dealer"
    if partition == "columns" and {"t", "x"} <= set(table):
        # Cox: whether times are beyond the grid is nobody's to see who does not hold both times and events.
        table = {**table, "t": np.where(table["t"] == 14.0, LAST_TIME, table["t"])}
    dealt = np.frombuffer(draw(st.binary(min_size=rows, max_size=rows)), np.uint8)
    owner = (dealt + base.integers(0, 250, rows)) % parties
    how = ("spread", "no row at the last", "one row at the first", "all at one")
    kind = how[(draw(st.integers(0, 3)) + shift) % 4]
    if kind == "no row at the last":
        owner = owner % (parties - 1)
    elif kind == "one row at the first":
        owner = np.where(np.arange(rows) == rows // 2, 0, 1 + owner % (parties - 1))
    elif kind == "all at one":
        owner = np.full(rows, parties - 1)
    return World(table, owner.astype(np.int64), parties, preprocessing, partition)
