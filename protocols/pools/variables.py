"""Variables: columns of numbers and of categories, with what is missing, declared alike at all parties.

A party's own data is checked here, before anything is sent. What is missing (None, NaN, NaT, pandas' NA) is
kept apart from the values; every analysis says how many rows it left out for it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpc import DataError
from protocols.rows import Bound, column_bounds, within

MOST_CATEGORIES = 256
_LONGEST_LABEL = 100
Kind = Literal["number", "integer", "boolean", "category"]
Label = str | int


@dataclass(frozen=True, slots=True)
class Column:
    """What the parties agreed that a column holds.

    Attributes
    ----------
    name : str
    type : {"number", "integer", "boolean", "category"}
    unit : str
        For people.
    lower, upper : float or None
        The least and the greatest value that a number or an integer may have.
    categories : tuple
        Of a category: its values, in the order in which tables show them; the first is the reference.
    """

    name: str
    type: Kind
    unit: str = ""
    lower: float | None = None
    upper: float | None = None
    categories: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.type not in ("number", "integer", "boolean", "category"):
            raise ValueError(f"column {self.name}: type is number, integer, boolean or category")
        if self.type == "category" and len(set(self.categories)) < 2:
            raise ValueError(f"column {self.name}: a category takes categories, at least two different ones")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"column {self.name}: lower is not below upper")

    @property
    def bound(self) -> float | None:
        """The greatest absolute value of an entry, if both ends are declared."""
        if self.lower is None or self.upper is None:
            return None
        return max(abs(self.lower), abs(self.upper)) or 1.0


@dataclass(frozen=True, slots=True)
class Numeric:
    """Columns of numbers.

    Attributes
    ----------
    names : tuple of str
    values : numpy.ndarray
        Shape (rows, columns), float64; 0 where a value is missing.
    present : numpy.ndarray
        Shape (rows, columns), bool.
    bounds : numpy.ndarray or None
        Public bound on the absolute values of each column; None if none is agreed.
    whole : bool
        Whether the values are whole numbers.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    bounds: NDArray[np.float64] | None = None
    whole: bool = False

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.values)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows in which nothing is missing."""
        return np.asarray(self.present.all(axis=1))

    def describe(self) -> dict[str, object]:
        """Return what must be the same at all parties."""
        bounds = None if self.bounds is None else self.bounds.tolist()
        return {"kind": "numbers", "columns": list(self.names), "bounds": bounds}

    def kept(self, rows: NDArray[np.bool_]) -> Numeric:
        """Return some of the rows."""
        return replace(self, values=self.values[rows], present=self.present[rows])


@dataclass(frozen=True, slots=True)
class Categorical:
    """A column of categories.

    Attributes
    ----------
    name : str
    categories : tuple or None
        In order; None as long as nobody declared them.
    known : tuple
        Labels that may occur here, all different; in the order in which they were met.
    places : numpy.ndarray
        Shape (rows,), int64: the place of each row's label among these; -1 where it is missing.
    """

    name: str
    categories: tuple[Label, ...] | None
    known: tuple[Label, ...]
    places: NDArray[np.int64]

    @classmethod
    def of_codes(cls, name: str, count: int, codes: NDArray[np.int64], present: NDArray[np.bool_]) -> Categorical:
        """Return a column whose categories are numbers below a count."""
        known = tuple(range(count))
        return cls(name, known, known, np.where(present, codes, -1).astype(np.int64))

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.places)

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows in which it is not missing."""
        return np.asarray(self.places >= 0)

    @property
    def own(self) -> tuple[Label, ...]:
        """The labels that occur here, sorted."""
        return ordered({self.known[place] for place in np.unique(self.places).tolist() if place >= 0})

    @property
    def labels(self) -> tuple[Label | None, ...]:
        """Of each row; None where it is missing."""
        return tuple(None if place < 0 else self.known[place] for place in self.places.tolist())

    @property
    def codes(self) -> NDArray[np.int64]:
        """Number of each row's category, from 0; -1 where it is missing."""
        if self.categories is None:
            raise ValueError(f"the categories of {self.name} are not agreed yet")
        number = {label: code for code, label in enumerate(self.categories)}
        # The last entry is for what is missing, whose place is -1.
        table = np.array([*(number.get(label, -1) for label in self.known), -1], dtype=np.int64)
        return np.asarray(table[self.places])

    def relabelled(self, labels: Mapping[Label, Label | None], categories: tuple[Label, ...]) -> Categorical:
        """Return the same rows under other labels, of these categories; None makes a label missing."""
        number = {label: code for code, label in enumerate(categories)}
        new = [labels[label] for label in self.known]
        table = np.array([*(-1 if label is None else number[label] for label in new), -1], dtype=np.int64)
        return replace(self, categories=categories, known=categories, places=table[self.places])

    def describe(self) -> dict[str, object]:
        """Return what must be the same at all parties."""
        return {"kind": "categories", "column": self.name, "categories": self.categories}

    def declared(self, categories: Sequence[Label], *, rank: int) -> Categorical:
        """Return the same column with agreed categories.

        Raises
        ------
        DataError
            Rows hold other labels; tells how many, not which.
        """
        categories = tuple(categories)
        if not 2 <= len(set(categories)) == len(categories) <= MOST_CATEGORIES:
            raise DataError(
                f"party {rank}: {self.name} takes from 2 to {MOST_CATEGORIES} different categories, here are "
                f"{len(categories)}"
            )
        allowed = set(categories)
        table = np.array([*(label not in allowed for label in self.known), False])
        other = int(table[self.places].sum())
        if other:
            raise DataError(
                f"party {rank}: {other} of {self.rows} values of {self.name} are none of its {len(categories)} "
                "categories; correct these rows, or agree on more categories in the study"
            )
        return replace(self, categories=categories)

    def kept(self, rows: NDArray[np.bool_]) -> Categorical:
        """Return some of the rows."""
        return replace(self, places=self.places[rows])


Variable = Numeric | Categorical


def numeric(values: Any, *, rank: int, what: str, bound: Bound = None, names: Sequence[str] | None = None) -> Numeric:
    """Return numbers with what is missing; see :class:`Numeric`.

    Parameters
    ----------
    values : array_like, pandas.Series or pandas.DataFrame
        Shape (rows,) or (rows, columns). NaN, None and pandas' NA are missing; infinities are errors.
    rank : int
        Ours, for errors.
    what : str
        Names the variable in errors; also its column, where it has no name of its own.
    bound : float or (columns,) array_like, optional
        Public bound on the absolute values, agreed in the study.
    names : sequence of str, optional
        Names of the columns.

    Raises
    ------
    DataError
        Naming party, columns and counts; never a value.
    """
    columns = _columns_of(values)
    if columns is not None:
        found = [_floats(column, rank=rank, what=f"{what} ({name})") for name, column in columns.items()]
        own_names: Sequence[str] = [str(name) for name in columns]
        array = np.stack(found, axis=1) if found else np.empty((0, 0))
    else:
        array = _floats(values, rank=rank, what=what)
        if array.ndim == 1:
            own_names = [_name_of(values) or what]
            array = array[:, np.newaxis]
        else:
            own_names = [f"{what}{j + 1}" for j in range(array.shape[1])] if array.ndim == 2 else []
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"party {rank}: {what} has shape {array.shape}; it takes (rows,) or (rows, columns)")
    if names is not None:
        if len(names) != array.shape[1]:
            raise DataError(f"party {rank}: {what} has {array.shape[1]} columns and {len(names)} names")
        own_names = list(names)
    present = ~np.isnan(array)
    filled = np.where(present, array, 0.0)
    if np.isinf(filled).any():
        count = int(np.isinf(filled).sum())
        raise DataError(f"party {rank}: {count} values of {what} are infinite; correct these rows, or leave them out")
    bounds = column_bounds(bound, array.shape[1], rank=rank)
    if bounds is not None:
        within(filled, bounds, rank=rank, what=what)
    whole = bool((filled == np.rint(filled)).all())
    return Numeric(tuple(own_names), filled, present, bounds, whole)


def categorical(values: Any, *, rank: int, what: str, categories: Sequence[Label] | None = None) -> Categorical:
    """Return a column of categories with what is missing; see :class:`Categorical`.

    Parameters
    ----------
    values : array_like or pandas.Series
        Shape (rows,): strings, whole numbers or booleans (which count as 0 and 1). A pandas Categorical
        declares its categories.
    rank, what
        See :func:`numeric`.
    categories : sequence, optional
        All categories, agreed in the study.

    Raises
    ------
    DataError
        Naming party, column and counts; never a label that was not agreed.
    """
    name = _name_of(values) or what
    if categories is None:
        categories = _declared_by(values)
    column = Categorical(name, None, *_parsed(values, rank=rank, what=what))
    if categories is None:
        return column
    labels = (_label(one, rank=rank, what=what) for one in categories)
    return column.declared([label for label in labels if label is not None], rank=rank)


def binary(values: Any, *, rank: int, what: str) -> Categorical:
    """Return a column of 0 and 1 (or booleans) with what is missing.

    Raises
    ------
    DataError
        Other values occur; tells how many.
    """
    return categorical(values, rank=rank, what=what, categories=(0, 1))


def ordered(labels: set[Label]) -> tuple[Label, ...]:
    """Sort labels: numbers by size, before strings."""
    numbers = sorted(label for label in labels if not isinstance(label, str))
    return (*numbers, *sorted(label for label in labels if isinstance(label, str)))


def check_rows(variables: Mapping[str, Variable], *, rank: int) -> int:
    """Return how many rows the variables have, all of them the same.

    Raises
    ------
    DataError
        Naming two that differ.
    """
    sizes = {what: variable.rows for what, variable in variables.items()}
    (first, rows), *others = sizes.items()
    for what, size in others:
        if size != rows:
            raise DataError(f"party {rank}: {first} has {rows} rows and {what} has {size}; they describe the same rows")
    return rows


def _columns_of(values: Any) -> dict[Any, Any] | None:
    """Return the columns of a data frame; None for anything else."""
    if hasattr(values, "columns") and hasattr(values, "items"):
        return {name: column for name, column in values.items()}
    return None


def _name_of(values: Any) -> str:
    """Return the name of a pandas Series."""
    name = getattr(values, "name", None)
    return name if isinstance(name, str) and name and hasattr(values, "index") else ""


def _declared_by(values: Any) -> Sequence[Label] | None:
    """Return the categories that a pandas Categorical declares."""
    dtype = getattr(values, "dtype", None)
    found = getattr(dtype, "categories", None)
    return None if found is None else list(found)


def _parsed(values: Any, *, rank: int, what: str) -> tuple[tuple[Label, ...], NDArray[np.int64]]:
    """Return the labels that occur, and the place of each row's among them; -1 where it is missing."""
    codes = getattr(getattr(values, "cat", values), "codes", None)
    declared = _declared_by(values)
    if codes is not None and declared is not None:
        found = [_label(one, rank=rank, what=what) for one in declared]
        return tuple(one for one in found if one is not None), np.asarray(codes, dtype=np.int64)
    if isinstance(values, np.ma.MaskedArray):
        array = _without_masked(values)
    elif isinstance(getattr(values, "dtype", None), np.dtype):
        array = np.asarray(values)
    else:  # of a list, numpy would make texts of numbers that stand beside texts
        array = np.asarray(values, dtype=object)
    if array.ndim != 1:
        raise DataError(f"party {rank}: {what} has shape {array.shape}; it takes (rows,)")
    if array.dtype.kind not in "biufU":
        return _parsed_objects(array.astype(object), rank=rank, what=what)
    distinct, places = np.unique(array, return_inverse=True)
    # Several of them may be one label (NaN, and letters that can be written in two ways).
    known, table = _parsed_objects(distinct.astype(object), rank=rank, what=what)
    return known, table[places]


def _parsed_objects(array: NDArray[Any], *, rank: int, what: str) -> tuple[tuple[Label, ...], NDArray[np.int64]]:
    known: dict[Label, int] = {}
    seen: dict[Any, int] = {}
    places = np.empty(len(array), dtype=np.int64)
    for row, value in enumerate(array):
        try:
            place = seen.get(value)
        except TypeError:  # a list, say
            place = None
        if place is None:
            label = _label(value, rank=rank, what=what)
            place = -1 if label is None else known.setdefault(label, len(known))
            if label is not None:
                seen[value] = place
        places[row] = place
    return tuple(known), places


def _without_masked(values: np.ma.MaskedArray[Any, Any]) -> NDArray[Any]:
    """Return an array of objects, None where numpy's mask says that a value does not count."""
    array = np.asarray(values.data, dtype=object).copy()
    array[np.ma.getmaskarray(values)] = None
    return array


def _floats(values: Any, *, rank: int, what: str) -> NDArray[np.float64]:
    """Return numbers as floats, NaN where they are missing."""
    if hasattr(values, "to_numpy") and hasattr(values, "isna"):
        missing = np.asarray(values.isna(), dtype=np.bool_)
        array = np.asarray(values.to_numpy(dtype=object, na_value=None), dtype=object)
        array = np.where(missing, np.nan, array)
    else:
        try:
            array = np.asarray(values)
        except ValueError:
            raise DataError(f"party {rank}: the rows of {what} are not all of the same length") from None
    if isinstance(values, np.ma.MaskedArray):
        array = _without_masked(values)
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if array.dtype.kind == "O":
        array = array.copy()
        array[np.array([value is None for value in array.flat], dtype=np.bool_).reshape(array.shape)] = np.nan
        allowed = (int, float, np.integer, np.floating, np.bool_)
        wrong = sum(not isinstance(value, allowed) for value in array.flat)
        if wrong:
            raise DataError(f"party {rank}: {wrong} of {array.size} values of {what} are no numbers")
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise DataError(f"party {rank}: a value of {what} is beyond 1e308") from None
    if array.dtype.kind != "f":
        raise DataError(f"party {rank}: {what} is not made of numbers (numpy dtype {array.dtype})")
    return array.astype(np.float64)


def _label(value: Any, *, rank: int, what: str) -> Label | None:
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
