"""Labels of categories: what a party's values mean, whether they are texts, numbers or booleans."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError
from protocols.pools.blocks import blocks

_LONGEST_LABEL = 100
# Whole numbers that are no further apart are looked up in a table.
_MOST_APART = 1 << 16
Label = str | int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The place of each row's label in a list of labels; looked up where it is needed.

    Attributes
    ----------
    source : numpy.ndarray
        Shape (rows,): the caller's own array, where it holds whole numbers or codes.
    least : int
        The smallest number in it.
    table : numpy.ndarray
        The place that each number from there means; -1 for what is missing. What is no number has the last place.
    """

    source: NDArray[Any]
    least: int
    table: NDArray[np.signedinteger]

    @classmethod
    def of_places(cls, places: NDArray[Any], count: int) -> Rows:
        """Return rows that are places already, below a count; -1 where a label is missing."""
        return cls(places, -1, compact(np.arange(-1, count)))

    def __len__(self) -> int:
        return len(self.source)

    def block(self, rows: slice) -> NDArray[np.signedinteger]:
        """Return the places of some rows."""
        part = self.source[rows]
        if part.dtype.kind == "f":
            # NaN, which is missing, is one beyond the last number.
            part = np.where(np.isnan(part), float(self.least + len(self.table) - 1), part.astype(np.float64))
        numbers = part.astype(np.int64)
        numbers -= self.least
        return np.asarray(self.table[numbers])

    def through(self, table: NDArray[Any]) -> Rows:
        """Return the same rows with other places: the table's entries, of which the last is for what is missing."""
        return Rows(self.source, self.least, compact(table[self.table]))

    def kept(self, rows: NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        return Rows(self.source[rows], self.least, self.table)


def compact(places: NDArray[Any]) -> NDArray[np.signedinteger]:
    """Return whole numbers in the smallest type that holds them."""
    largest = int(places.max(initial=0))
    return np.asarray(
        places, dtype=next(t for t in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(t).max)
    )


def parsed(values: Any, *, rank: int, what: str) -> tuple[tuple[Label, ...], Rows]:
    """Return the labels that occur, and the place of each row's among them.

    Raises
    ------
    DataError
        Naming party and column; never a value.
    """
    codes = getattr(getattr(values, "cat", values), "codes", None)
    declared = declared_by(values)
    if codes is not None and declared is not None:
        found = [label(one, rank=rank, what=what) for one in declared]
        return tuple(one for one in found if one is not None), Rows.of_places(np.asarray(codes), len(declared))
    if isinstance(values, np.ma.MaskedArray):
        array = without_masked(values)
    elif isinstance(getattr(values, "dtype", None), np.dtype):
        array = np.asarray(values)
    elif (nullable := _nullable(values)) is not None and (read := _numbers(nullable)) is not None:
        return read
    else:  # of a list, numpy would make texts of numbers that stand beside texts
        array = np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise DataError(f"party {rank}: {what} has shape {array.shape}; it takes (rows,)")
    if array.dtype.kind in "biuf" and (read := _numbers(array)) is not None:
        return read
    known: dict[Label, int] = {}
    places = np.empty(len(array), dtype=np.int32)
    for rows in blocks(len(array)):
        if array.dtype.kind in "biufU":
            # Several of the distinct ones may be one label (NaN, and letters that can be written in two ways).
            distinct, inverse = np.unique(array[rows], return_inverse=True)
            places[rows] = _places(distinct.astype(object), known, rank=rank, what=what)[inverse]
        else:
            places[rows] = _places(array[rows], known, rank=rank, what=what)
    return tuple(known), Rows.of_places(places, len(known))


def _nullable(values: Any) -> NDArray[np.float64] | None:
    """Return whole numbers of a pandas type that knows missing values; None for anything else."""
    if getattr(getattr(values, "dtype", None), "kind", "") in ("b", "i", "u") and hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    return None


def _numbers(array: NDArray[Any]) -> tuple[tuple[Label, ...], Rows] | None:
    """Return the labels of whole numbers near each other, and where they are; None for other numbers."""
    floats = array.dtype.kind == "f"
    low, high = math.inf, -math.inf
    for rows in blocks(len(array)):
        part = array[rows]
        if floats:
            part = part[~np.isnan(part)]
            if not (part == np.rint(part)).all():
                return None
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    # Beyond 2^53 floats are not all whole numbers of their own; these are read one by one.
    if low > high or max(abs(low), abs(high)) >= 2**53 or high - low >= _MOST_APART:
        return None
    least, seen = int(low), np.zeros(int(high - low) + 1, dtype=np.bool_)
    for rows in blocks(len(array)):
        part = array[rows]
        if floats:
            part = part[~np.isnan(part)]
        seen[part.astype(np.int64) - least] = True
    table = np.where(seen, np.cumsum(seen) - 1, -1)
    return tuple((np.flatnonzero(seen) + least).tolist()), Rows(array, least, compact(np.append(table, -1)))


def _places(array: NDArray[Any], known: dict[Label, int], *, rank: int, what: str) -> NDArray[np.int32]:
    """Return the place of each value's label; labels that are new are added to those that are known."""
    seen: dict[Any, int] = {}
    places = np.empty(len(array), dtype=np.int32)
    for row, value in enumerate(array):
        try:
            place = seen.get(value)
        except TypeError:  # a list, say
            place = None
        if place is None:
            one = label(value, rank=rank, what=what)
            place = -1 if one is None else known.setdefault(one, len(known))
            if one is not None:
                seen[value] = place
        places[row] = place
    return places


def label(value: Any, *, rank: int, what: str) -> Label | None:
    """Return a label as a string or an integer; None if it is missing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        if float(value).is_integer() and abs(float(value)) < 2**53:
            return int(value)
    if isinstance(value, bool | np.bool_ | int | np.integer) and abs(int(value)) < 2**63:
        return int(value)
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_LABEL and value.isprintable():
        return unicodedata.normalize("NFC", value)  # two ways to write one letter are one category
    raise DataError(
        f"party {rank}: a value of {what} is no category: they are whole numbers, booleans, or texts of at most "
        f"{_LONGEST_LABEL} printable characters"
    )


def ordered(labels: set[Label]) -> tuple[Label, ...]:
    """Sort labels: numbers by size, before strings."""
    numbers = sorted(one for one in labels if not isinstance(one, str))
    return (*numbers, *sorted(one for one in labels if isinstance(one, str)))


def declared_by(values: Any) -> Sequence[Label] | None:
    """Return the categories that a pandas Categorical declares."""
    dtype = getattr(values, "dtype", None)
    found = getattr(dtype, "categories", None)
    return None if found is None else list(found)


def without_masked(values: np.ma.MaskedArray[Any, Any]) -> NDArray[Any]:
    """Return an array of objects, None where numpy's mask says that a value does not count."""
    array = np.asarray(values.data, dtype=object).copy()
    array[np.ma.getmaskarray(values)] = None
    return array


def name_of(values: Any) -> str:
    """Return the name of a pandas Series."""
    name = getattr(values, "name", None)
    return name if isinstance(name, str) and name and hasattr(values, "index") else ""
