"""Variables: columns of numbers and of categories, with what is missing, declared alike at all parties.

A party's own data is checked here, before anything is sent. What is missing (None, NaN, NaT, pandas' NA) is
kept apart from the values; every analysis says how many rows it left out for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpc import DataError
from protocols.pools.blocks import blocks
from protocols.pools.labels import Label, Rows, declared_by, label, name_of, ordered, parsed
from protocols.pools.numbers import Numeric, numeric

MOST_CATEGORIES = 256
Kind = Literal["number", "integer", "boolean", "category"]


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
class Categorical:
    """A column of categories.

    Attributes
    ----------
    name : str
    categories : tuple or None
        In order; None as long as nobody declared them.
    known : tuple
        Labels that may occur here, all different.
    places : Rows
        The place of each row's label among these. The caller's array is not copied, and must not change until the
        protocol that takes it has returned.
    """

    name: str
    categories: tuple[Label, ...] | None
    known: tuple[Label, ...]
    places: Rows

    @classmethod
    def of_codes(cls, name: str, count: int, codes: NDArray[np.int64], present: NDArray[np.bool_]) -> Categorical:
        """Return a column whose categories are numbers below a count."""
        known = tuple(range(count))
        places = np.empty(len(codes), np.int16 if count < 1 << 15 else np.int32)
        for rows in blocks(len(codes)):
            places[rows] = np.where(present[rows], codes[rows], -1)
        return cls(name, known, known, Rows.of_places(places, count))

    @classmethod
    def of_numbers(cls, name: str, count: int, numbers: Numeric, code: Callable[..., NDArray[Any]]) -> Categorical:
        """Return a column whose categories are what a function makes of one column of numbers, block by block."""
        known = tuple(range(count))
        places = np.empty(numbers.rows, np.int16 if count < 1 << 15 else np.int32)
        for rows in numbers.blocks():
            values, present = numbers.block(rows)
            places[rows] = np.where(present[:, 0], code(values[:, 0]), -1)
        return cls(name, known, known, Rows.of_places(places, count))

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.places)

    def blocks(self) -> Iterator[slice]:
        """Cut the rows into blocks."""
        return blocks(self.rows)

    def _all(self, rows: Rows, dtype: Any) -> NDArray[Any]:
        """Return what is looked up for each row."""
        found = np.empty(self.rows, dtype)
        for block in self.blocks():
            found[block] = rows.block(block)
        return found

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows in which it is not missing."""
        return np.asarray(self._all(self.places.through(np.append(np.ones(len(self.known), np.int8), 0)), np.bool_))

    @property
    def own(self) -> tuple[Label, ...]:
        """The labels that occur here, sorted."""
        seen = np.zeros(len(self.known) + 1, np.bool_)
        for block in self.blocks():
            seen[self.places.block(block)] = True
        return ordered({self.known[place] for place in np.flatnonzero(seen[:-1]).tolist()})

    @property
    def labels(self) -> tuple[Label | None, ...]:
        """Of each row; None where it is missing."""
        return tuple(None if place < 0 else self.known[place] for place in self._all(self.places, np.int64).tolist())

    @property
    def coded(self) -> Rows:
        """Number of each row's category, from 0; -1 where it is missing. Looked up where it is needed."""
        if self.categories is None:
            raise ValueError(f"the categories of {self.name} are not agreed yet")
        number = {one: code for code, one in enumerate(self.categories)}
        # The last entry is for what is missing, whose place is -1.
        return self.places.through(np.array([*(number.get(one, -1) for one in self.known), -1]))

    @property
    def codes(self) -> NDArray[np.int64]:
        """Number of each row's category, from 0; -1 where it is missing."""
        return self._all(self.coded, np.int64)

    def relabelled(self, labels: Mapping[Label, Label | None], categories: tuple[Label, ...]) -> Categorical:
        """Return the same rows under other labels, of these categories; None makes a label missing."""
        number = {one: code for code, one in enumerate(categories)}
        new = [labels[one] for one in self.known]
        table = np.array([*(-1 if one is None else number[one] for one in new), -1])
        return replace(self, categories=categories, known=categories, places=self.places.through(table))

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
        table = np.array([*(one not in allowed for one in self.known), False], np.int8)
        if table.any():
            rest = self.places.through(table)
            other = sum(int(rest.block(rows).sum(dtype=np.int64)) for rows in self.blocks())
            if other:
                raise DataError(
                    f"party {rank}: {other} of {self.rows} values of {self.name} are none of its {len(categories)} "
                    "categories; correct these rows, or agree on more categories in the study"
                )
        return replace(self, categories=categories)

    def kept(self, rows: NDArray[np.bool_]) -> Categorical:
        """Return some of the rows."""
        return self if rows.all() else replace(self, places=self.places.kept(rows))


Variable = Numeric | Categorical


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
    name = name_of(values) or what
    if categories is None:
        categories = declared_by(values)
    column = Categorical(name, None, *parsed(values, rank=rank, what=what))
    if categories is None:
        return column
    labels = (label(one, rank=rank, what=what) for one in categories)
    return column.declared([one for one in labels if one is not None], rank=rank)


def binary(values: Any, *, rank: int, what: str) -> Categorical:
    """Return a column of 0 and 1 (or booleans) with what is missing.

    Raises
    ------
    DataError
        Other values occur; tells how many.
    """
    return categorical(values, rank=rank, what=what, categories=(0, 1))


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


__all__ = [
    "MOST_CATEGORIES",
    "Categorical",
    "Column",
    "Label",
    "Numeric",
    "Variable",
    "binary",
    "categorical",
    "check_rows",
    "numeric",
    "ordered",
]
