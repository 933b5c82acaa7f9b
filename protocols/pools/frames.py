"""Frames: the rows of one party by column, checked against what the parties agreed that a column holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpc import DataError
from protocols.pools.variables import Categorical, Column, Numeric, Variable, categorical, check_rows, numeric

_NUMBERS = ("number", "integer")


class Frame:
    """Rows of one party, checked against the declared columns.

    Parameters
    ----------
    data : mapping of str to array_like, or pandas.DataFrame
        Columns by name; those that are not declared are not looked at.
    columns : sequence of Column, optional
        What each column holds, agreed in the study; by default what :func:`columns_of` sees in the data.
    rank : int
        Ours, for errors.
    partial : bool
        Whether declared columns may be missing here, as other parties hold them.

    Attributes
    ----------
    columns : tuple of Column
        All that are declared, in order.
    variables : dict of str to Numeric or Categorical
        Those that are here; what is missing (None, NaN, NaT, pandas' NA) is marked.

    Raises
    ------
    DataError
        A column is not here; values are of another type, beyond their bounds, or none of the categories. Names
        party, column and how many values; never a value.
    ValueError
        Two columns have one name, or none is declared.
    """

    def __init__(self, data: Any, columns: Sequence[Column] | None = None, *, rank: int, partial: bool = False) -> None:
        declared = tuple(columns_of(data, rank=rank) if columns is None else columns)
        if not declared:
            raise ValueError("a frame takes at least one column")
        if len({column.name for column in declared}) < len(declared):
            raise ValueError("two columns of a frame have the same name")
        self.columns = declared
        self.rank = rank
        self.variables: dict[str, Variable] = {}
        given = set(_names(data, rank))
        for column in declared:
            if column.name in given:
                self.variables[column.name] = _variable(data[column.name], column, rank)
            elif not partial:
                raise DataError(
                    f"party {rank}: column {column.name} is not in the data; with partition='rows' every party "
                    "has all declared columns"
                )
        if self.variables:
            check_rows(self.variables, rank=rank)

    @property
    def rows(self) -> int:
        """How many rows; 0 where none of the columns is here."""
        return next(iter(self.variables.values())).rows if self.variables else 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all declared columns."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """Return what is declared of a column.

        Raises
        ------
        ValueError
            There is none of this name.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise ValueError(f"there is no column {ascii(name)[:60]}; declared are {', '.join(self.names)}")

    def take(self, names: Sequence[str]) -> Frame:
        """Return a frame of some of the columns, in the given order."""
        chosen = object.__new__(Frame)
        chosen.columns = tuple(self.column(name) for name in names)
        chosen.rank = self.rank
        chosen.variables = {name: self.variables[name] for name in names if name in self.variables}
        return chosen

    def variable(self, name: str) -> Variable | None:
        """Return a column's values; None if another party holds it."""
        self.column(name)
        return self.variables.get(name)

    def describe(self) -> dict[str, object]:
        """Return what must be the same at all parties: an entry for each column, so that errors name it."""
        return {f"column {column.name}": describe(column) for column in self.columns}

    def __repr__(self) -> str:
        return f"Frame({self.rows} rows, {', '.join(self.names)})"  # never the values


def describe(column: Column) -> dict[str, object]:
    """Return what is declared of a column, in JSON's types."""
    return {
        "type": column.type,
        "unit": column.unit,
        "lower": column.lower,
        "upper": column.upper,
        "categories": list(column.categories),
    }


def columns_of(data: Any, *, rank: int) -> list[Column]:
    """Say what each column of the data holds, from its type alone.

    Numbers are of type "number", also where all of them are whole; booleans "boolean"; texts and pandas
    Categoricals "category". Nothing is said of bounds, nor of categories that the type does not declare.

    Raises
    ------
    DataError
        A column holds something else, such as dates.
    """
    return [_column_of(name, data[name], rank) for name in _names(data, rank)]


def kind_of(column: Column) -> type[Variable]:
    """Return the class of a column's values."""
    return Numeric if column.type in _NUMBERS else Categorical


def _names(data: Any, rank: int) -> list[str]:
    """Return the names of the columns."""
    if not isinstance(data, Mapping) and not (hasattr(data, "columns") and hasattr(data, "items")):
        raise DataError(f"party {rank}: the data is a mapping from names to columns, or a pandas DataFrame")
    names = [name for name, _ in data.items()]
    if not all(isinstance(name, str) and name for name in names):
        raise DataError(f"party {rank}: names of columns are texts")
    if len(set(names)) < len(names):
        raise DataError(f"party {rank}: two columns of the data have the same name")
    return names


def _column_of(name: str, values: Any, rank: int) -> Column:
    dtype: Any = getattr(values, "dtype", None)
    if getattr(dtype, "categories", None) is not None:
        labels = [one.item() if isinstance(one, np.generic) else one for one in dtype.categories]
        if all(isinstance(one, str | int) for one in labels) and len(labels) > 1:
            return Column(name, "category", categories=tuple(labels))
        raise DataError(f"party {rank}: the categories of {name} are at least two texts or whole numbers")
    # Of a list, numpy would make texts of numbers that stand beside texts.
    array = np.asarray(values, dtype=None if dtype is not None else object)
    if array.dtype.kind == "b":
        return Column(name, "boolean")
    if array.dtype.kind in "iuf":
        return Column(name, "number")
    if array.dtype.kind in "US":
        return _Undeclared(name, "category")
    if array.dtype.kind == "O":
        kinds = {_kind_of_value(value) for value in array.reshape(-1)} - {"missing"}
        # A nullable dtype of pandas says what it holds also where no row does.
        if not kinds and getattr(dtype, "kind", "O") in "biuf":
            kinds = {"boolean" if getattr(dtype, "kind", "") == "b" else "number"}
        if kinds == {"boolean"}:
            return Column(name, "boolean")
        if kinds == {"text"}:
            return _Undeclared(name, "category")
        if kinds == {"number"}:
            return Column(name, "number")
    raise DataError(
        f"party {rank}: column {name} holds neither numbers, nor booleans, nor texts, or several of these, or nothing: "
        "declare what it holds, columns=[Column(...)]"
    )


class _Undeclared(Column):
    """A category whose values nobody declared: the parties tell each other their labels."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Nothing is declared that could contradict itself."""


def _kind_of_value(value: Any) -> str:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return "missing"
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float | np.integer | np.floating):
        return "missing" if math.isnan(value) else "number"
    return "other"


def _variable(values: Any, column: Column, rank: int) -> Variable:
    """Return a column's values, checked."""
    what = column.name
    if column.type == "boolean":
        return categorical(values, rank=rank, what=what, categories=(0, 1))
    if column.type == "category":
        return categorical(values, rank=rank, what=what, categories=column.categories or None)
    found = numeric(values, rank=rank, what=what, bound=column.bound, names=[what])
    if len(found.names) != 1:
        raise DataError(f"party {rank}: {what} takes one column")
    count, broken, outside = 0, 0, 0
    for rows in found.blocks():
        values, present = found.block(rows)
        entries = values[present]
        count += len(entries)
        broken += int(np.count_nonzero(entries != np.rint(entries)))
        if column.lower is not None:
            outside += int(np.count_nonzero(entries < column.lower))
        if column.upper is not None:
            outside += int(np.count_nonzero(entries > column.upper))
    if column.type == "integer":
        _refuse(broken, count, "no whole numbers", what, rank)
    _refuse(outside, count, f"outside the declared bounds{_range(column)}", what, rank)
    return found


def _range(column: Column) -> str:
    lower, upper = column.lower, column.upper
    if lower is None:
        return f", above {upper:g}" if upper is not None else ""
    return f", below {lower:g}" if upper is None else f", {lower:g} to {upper:g}"


def _refuse(bad: int, of: int, why: str, what: str, rank: int) -> None:
    if bad:
        raise DataError(
            f"party {rank}: {bad} of {of} values of {what} are {why}; correct these rows, or agree on other bounds"
        )
