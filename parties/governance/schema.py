"""The columns of a study: what every contributor's table must hold, agreed before anybody looks at data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from parties.governance.checks import ShortText, Strict, Unit

LARGEST_BOUND = 1e15  # whole numbers up to here are exact in float64
MOST_COLUMNS = 512
MOST_CATEGORIES = 256
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_. -]{0,62}[A-Za-z0-9_])?")


def _column_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("a column's name is a letter, then at most 63 letters, digits, spaces or any of _ . -")
    return text


ColumnName = Annotated[str, AfterValidator(_column_name)]


_MISSING = {
    "refuse": "rows without it are refused",
    "drop": "rows without it are left out",
    "keep": "rows without it count as missing where it is used",
}


class Column(Strict):
    """One column.

    Attributes
    ----------
    name : str
    type : {"number", "integer", "boolean", "category"}
    unit : str
        For people.
    lower, upper : float or None
        The least and the greatest value that a number or an integer may have.
    categories : tuple of str
        Of a category: its values; their order gives the codes 0, 1, ...
    missing : {"refuse", "drop", "keep"}
        Whether a row where it is missing is an error, is left out of the study, or stays: then each analysis of
        the column leaves out the rows that it cannot use, and says how many.
    """

    name: ColumnName
    type: Literal["number", "integer", "boolean", "category"]
    unit: Unit = ""
    lower: float | None = None
    upper: float | None = None
    categories: Annotated[tuple[ShortText, ...], Field(max_length=MOST_CATEGORIES)] = ()
    missing: Literal["refuse", "drop", "keep"] = "refuse"

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type == "category":
            if len(self.categories) < 2:
                raise ValueError(f"column {self.name}: a category takes categories, at least two")
            if len({one.casefold() for one in self.categories}) < len(self.categories):
                raise ValueError(f"column {self.name}: two categories are the same (but for capital letters)")
        elif self.categories:
            raise ValueError(f"column {self.name}: only a category takes categories")
        if self.type in ("number", "integer"):
            self._check_bounds()
        elif self.lower is not None or self.upper is not None:
            raise ValueError(f"column {self.name}: a {self.type} takes no bounds")
        return self

    def _check_bounds(self) -> None:
        if self.lower is None or self.upper is None:
            raise ValueError(f"column {self.name}: lower and upper are missing, the bounds of its values")
        for key, bound in (("lower", self.lower), ("upper", self.upper)):
            if not abs(bound) <= LARGEST_BOUND:
                raise ValueError(f"column {self.name}: bounds go to {LARGEST_BOUND:g}; use another unit")
            if self.type == "integer" and bound != int(bound):
                raise ValueError(f"column {self.name}: {key} is not a whole number")
        if not self.lower < self.upper:
            raise ValueError(f"column {self.name}: lower is not below upper")

    @property
    def bound(self) -> float:
        """The greatest absolute value that an entry of the column may have, as it is computed with."""
        if self.type == "category":
            return float(len(self.categories) - 1)
        return max(abs(self.lower or 0.0), abs(self.upper or 0.0)) or 1.0

    def describe(self) -> str:
        """Say in words what the column holds."""
        text = f"{self.name}: {self.type}"
        if self.lower is not None and self.upper is not None:
            text += f" from {self.lower:.15g} to {self.upper:.15g}"
        if self.unit:
            text += f" {self.unit}"
        if self.categories:
            text += " " + " | ".join(self.categories)
        return f"{text}, {_MISSING[self.missing]}"


Schema = Mapping[str, Column]


def schema_of(columns: Sequence[Column]) -> dict[str, Column]:
    """Return columns by name.

    Raises
    ------
    ValueError
        If two have the same name, also if only capital letters tell them apart.
    """
    seen: set[str] = set()
    for column in columns:
        if column.name.casefold() in seen:
            raise ValueError(f"two columns are named {column.name} (capital letters do not count)")
        seen.add(column.name.casefold())
    return {column.name: column for column in columns}


def take(
    schema: Schema, names: Sequence[str], types: tuple[str, ...], what: str, *, gaps: bool = False
) -> list[Column]:
    """Return the named columns; ``gaps``: whether the analysis takes columns with missing values.

    Raises
    ------
    ValueError
        If one is named twice, is not in the schema, or is of no fitting type.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"{what} names a column twice")
    columns = []
    for name in names:
        column = schema.get(name)
        if column is None:
            raise ValueError(f"{what} names column {name}, which is not among the study's columns")
        if column.type not in types:
            raise ValueError(f"{what} takes columns of type {', '.join(types)}; {name} is a {column.type}")
        if column.missing == "keep" and not gaps:
            raise ValueError(f"{what} takes no missing values: set missing of column {name} to refuse or drop")
        columns.append(column)
    return columns
