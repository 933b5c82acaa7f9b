"""Our rows as the study's schema wants them, or what is wrong with them: counts by column, never values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.errors import DataError
from parties.data.convert import Style, convert

_NAMED = 20  # so many columns are named in an error


class ColumnLike(Protocol):
    """A column of a study's schema: :class:`parties.governance.schema.Column` is one."""

    @property
    def name(self) -> str:
        """Name in the study."""

    @property
    def type(self) -> str:
        """One of number, integer, boolean, category."""

    @property
    def lower(self) -> float | None:
        """Least value of a number or integer."""

    @property
    def upper(self) -> float | None:
        """Greatest value of a number or integer."""

    @property
    def categories(self) -> Sequence[str]:
        """Of a category: its values, in the order of their codes."""

    @property
    def missing(self) -> str:
        """``"refuse"``, ``"drop"`` or ``"keep"``: what becomes of a row without a value."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Table:
    """Rows that fit a study's schema.

    Attributes
    ----------
    columns : mapping of str to numpy.ndarray
        By name, in the order of the study; one entry a row, read-only. Numbers are float64, integers int64,
        booleans bool, categories int64 codes in the order of the study. Of columns whose missing values are
        kept, all but categories are float64, and a missing value is NaN; of categories it is -1.
    rows : int
    dropped : int
        How many rows were left out because a value was missing.
    """

    columns: Mapping[str, NDArray[Any]]
    rows: int
    dropped: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.columns)

    def matrix(self, names: Iterable[str] | None = None) -> NDArray[np.float64]:
        """Return columns side by side as float64, shape (rows, columns)."""
        chosen = self.names if names is None else tuple(names)
        matrix = np.empty((self.rows, len(chosen)))
        for place, name in enumerate(chosen):
            matrix[:, place] = self.columns[name]
        return matrix

    def __repr__(self) -> str:
        """Show sizes only."""
        return f"Table({self.rows} rows, {len(self.columns)} columns, {self.dropped} rows dropped)"


@dataclass(slots=True)
class _Faults:
    """How many rows of one column cannot be used, by reason."""

    missing: int = 0
    wrong: int = 0
    beyond: int = 0


@dataclass(slots=True)
class _Held:
    """What one column holds so far."""

    column: ColumnLike
    parts: list[NDArray[Any]] = field(default_factory=list)
    faults: _Faults = field(default_factory=_Faults)


class TableBuilder:
    """Take rows chunk by chunk, so that memory holds no more than the table itself.

    Parameters
    ----------
    schema : sequence of ColumnLike
    who : str
        Whose data it is, and from where; stands in errors.
    style : Style
        How values are written where they are text.
    """

    def __init__(self, schema: Sequence[ColumnLike], who: str, style: Style | None = None) -> None:
        self._who = who
        self._style = style or Style()
        self._held = [_Held(column) for column in schema]
        self._seen = 0
        self._kept = 0

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Take rows: for each column of the schema an array or a sequence, all of one length.

        Raises
        ------
        DataError
            A column is not there, or the lengths differ.
        """
        lengths = set()
        converted = []
        for held in self._held:
            name = held.column.name
            if name not in chunk:
                raise DataError(f"{self._who}: there is no column for {name!r}")
            found = convert(chunk[name], held.column, self._style)
            lengths.add(len(found.values))
            converted.append(found)
        if len(lengths) > 1:
            raise DataError(f"{self._who}: columns have different numbers of rows")
        rows = lengths.pop() if lengths else 0

        # Rows that are left out count for nothing else: they are not used.
        kept = np.ones(rows, np.bool_)
        for held, found in zip(self._held, converted, strict=True):
            if held.column.missing == "drop":
                kept &= ~found.missing
        everything = bool(kept.all())
        for held, found in zip(self._held, converted, strict=True):
            faults = held.faults
            values = found.values
            if held.column.missing == "keep":
                values = with_gaps(values, found.missing, held.column)
            else:
                faults.missing += int(np.count_nonzero(found.missing & kept))
            faults.wrong += int(np.count_nonzero(found.wrong & kept))
            faults.beyond += int(np.count_nonzero(found.beyond & kept))
            held.parts.append(values if everything else values[kept])
        self._seen += rows
        self._kept += int(np.count_nonzero(kept))

    def table(self) -> Table:
        """Return the table.

        Raises
        ------
        DataError
            Some rows cannot be used: for each column how many, and why. Never a value.
        """
        said = [text for held in self._held if (text := _said(held))]
        if said:
            more = f"; and {len(said) - _NAMED} more columns" if len(said) > _NAMED else ""
            raise DataError(
                f"{self._who}: of {self._seen} rows, {'; '.join(said[:_NAMED])}{more}. Correct the source, map the "
                "column to another one in your configuration, or agree on another schema in the study"
            )
        columns = {}
        for held in self._held:
            joined = np.concatenate(held.parts) if held.parts else _empty(held.column, self._style)
            held.parts.clear()
            joined.flags.writeable = False
            columns[held.column.name] = joined
        return Table(columns, self._kept, self._seen - self._kept)


def with_gaps(values: NDArray[Any], missing: NDArray[np.bool_], column: ColumnLike) -> NDArray[Any]:
    """Mark what is missing in the column itself; see :class:`Table`."""
    if column.type == "category":
        return np.where(missing, np.int64(-1), values)
    return np.where(missing, np.nan, values.astype(np.float64))


def _empty(column: ColumnLike, style: Style) -> NDArray[Any]:
    values = convert([], column, style).values
    return with_gaps(values, np.zeros(0, np.bool_), column) if column.missing == "keep" else values


def check_table(raw: Mapping[str, Any], schema: Sequence[ColumnLike], who: str) -> Table:
    """Check a table in memory against a study's schema.

    Parameters
    ----------
    raw : mapping
        For each column an array or a sequence; a dict or a pandas frame. Columns that the schema does not
        name are not looked at.
    schema : sequence of ColumnLike
    who : str
        Whose data it is; stands in errors.

    Raises
    ------
    DataError
        For each column the number of rows that are wrong, and why.
    """
    builder = TableBuilder(schema, who)
    builder.add({column.name: raw[column.name] for column in schema if column.name in raw})
    return builder.table()


def _said(held: _Held) -> str:
    """Say in words what is wrong with a column; empty if nothing is."""
    column, faults = held.column, held.faults
    kinds = {
        "number": "a number",
        "integer": "a whole number",
        "boolean": "yes or no",
        "category": f"one of the {len(column.categories)} categories",
    }
    reasons = []
    if faults.wrong:
        reasons.append(f"{faults.wrong} {_are(faults.wrong)} not {kinds[column.type]}")
    if faults.beyond:
        reasons.append(f"{faults.beyond} {_are(faults.beyond)} beyond [{column.lower:.15g}, {column.upper:.15g}]")
    if faults.missing:
        reasons.append(f"{faults.missing} {_are(faults.missing)} missing")
    return f"in column {column.name!r} {', '.join(reasons)}" if reasons else ""


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
