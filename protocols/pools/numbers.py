"""Columns of numbers, with what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError
from protocols.pools.blocks import blocks, read_only
from protocols.pools.labels import name_of, without_masked
from protocols.rows import Bound, column_bounds, within


class Numeric:
    """Columns of numbers.

    Parameters
    ----------
    names : tuple of str
    values : numpy.ndarray or list of numpy.ndarray
        Shape (rows, columns), of any type of numbers, or a vector for each column. They are not copied, and must not
        change until the protocol that takes them has returned.
    present : numpy.ndarray, optional
        Shape (rows, columns), bool; by default what is not NaN. Values that are not present are 0.
    bounds : numpy.ndarray, optional
        Public bound on the absolute values of each column; None if none is agreed.
    whole : bool
        Whether the values are whole numbers.
    gaps : bool, optional
        Whether anything is missing, if that is known already.

    Attributes
    ----------
    names, bounds, whole, gaps
    """

    __slots__ = ("_columns", "_present", "bounds", "gaps", "names", "whole")

    def __init__(
        self,
        names: tuple[str, ...],
        values: NDArray[Any] | list[NDArray[Any]],
        present: NDArray[np.bool_] | None = None,
        bounds: NDArray[np.float64] | None = None,
        whole: bool = False,
        *,
        gaps: bool | None = None,
    ) -> None:
        self.names = names
        self.bounds = bounds
        self.whole = whole
        self._columns = values
        self._present = present
        if gaps is None:
            gaps = True if present is None else not bool(present.all())
        self.gaps = gaps

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self._columns[0]) if isinstance(self._columns, list) else len(self._columns)

    def block(self, rows: slice) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return some of the rows: floats, 0 where one is missing, and which are present; not to be changed."""
        array = self._floats(rows)
        if not self.gaps:
            return array, np.broadcast_to(np.True_, array.shape)
        if self._present is not None:
            return array, self._present[rows]
        present = ~np.isnan(array)
        return np.where(present, array, 0.0), present

    def _floats(self, rows: slice) -> NDArray[np.float64]:
        """Return some of the rows as they were given, NaN where a value is missing."""
        if isinstance(self._columns, list):
            return np.stack([column[rows].astype(np.float64, copy=False) for column in self._columns], axis=1)
        return self._columns[rows].astype(np.float64, copy=False)

    @property
    def values(self) -> NDArray[np.float64]:
        """Shape (rows, columns), float64; 0 where a value is missing. Made when it is asked for, if need be."""
        return read_only(self.block(slice(None))[0])

    @property
    def present(self) -> NDArray[np.bool_]:
        """Shape (rows, columns), bool."""
        if not self.gaps:
            return np.broadcast_to(np.True_, (self.rows, len(self.names)))
        if self._present is not None:
            return self._present
        return np.concatenate([np.empty((0, len(self.names)), np.bool_), *(self.block(b)[1] for b in self.blocks())])

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Rows in which nothing is missing."""
        if not self.gaps:
            return np.broadcast_to(np.True_, (self.rows,))
        return np.concatenate([np.empty(0, np.bool_), *(self.block(rows)[1].all(axis=1) for rows in self.blocks())])

    @property
    def largest(self) -> NDArray[np.float64]:
        """The largest absolute value of each column; 0 without rows."""
        found = np.zeros(len(self.names))
        for rows in self.blocks():
            found = np.maximum(found, np.abs(self.block(rows)[0]).max(axis=0))
        return found

    def blocks(self) -> Iterator[slice]:
        """Cut the rows into blocks."""
        return blocks(self.rows, len(self.names))

    def describe(self) -> dict[str, object]:
        """Return what must be the same at all parties."""
        bounds = None if self.bounds is None else self.bounds.tolist()
        return {"kind": "numbers", "columns": list(self.names), "bounds": bounds}

    def kept(self, rows: NDArray[np.bool_]) -> Numeric:
        """Return some of the rows."""
        if rows.all():
            return self
        present = None if self._present is None else self._present[rows]
        columns = self._columns
        chosen = [column[rows] for column in columns] if isinstance(columns, list) else columns[rows]
        return Numeric(self.names, chosen, present, self.bounds, self.whole, gaps=None if self.gaps else False)

    def bounded(self, bounds: NDArray[np.float64] | None, *, rank: int, what: str) -> Numeric:
        """Look through the rows once, and return them with bounds; infinite ones and those beyond are refused.

        Raises
        ------
        DataError
            Naming party, columns and counts; never a value.
        """
        gaps, whole, infinite, beyond = False, True, 0, False
        for rows in self.blocks():
            values = self._floats(rows)
            low, high = values.min(axis=0), values.max(axis=0)
            if self._present is not None or np.isnan(low).any():
                values, present = self.block(rows)
                low, high = values.min(axis=0), values.max(axis=0)
                gaps = gaps or not present.all()
            whole = whole and bool((values == np.rint(values)).all())
            if np.isinf(low).any() or np.isinf(high).any():
                infinite += int(np.count_nonzero(np.isinf(values)))
            beyond = beyond or (bounds is not None and bool((np.maximum(-low, high) > bounds).any()))
        if infinite:
            raise DataError(
                f"party {rank}: {infinite} values of {what} are infinite; correct these rows, or leave them out"
            )
        if beyond and bounds is not None:
            within(self.values, bounds, rank=rank, what=what)
        return Numeric(self.names, self._columns, self._present, bounds, whole, gaps=gaps)


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
    held: NDArray[Any] | list[NDArray[Any]]
    if columns is not None:
        own_names: Sequence[str] = [str(name) for name in columns]
        held = [_numbers(column, rank=rank, what=f"{what} ({name})") for name, column in columns.items()]
        shapes = {one.shape for one in held}
        shape = (*shapes.pop(), len(held)) if len(shapes) == 1 else (0, 0)
    else:
        held = _numbers(values, rank=rank, what=what)
        shape = held.shape
        if held.ndim == 1:
            own_names = [name_of(values) or what]
            held = held[:, np.newaxis]
            shape = held.shape
        else:
            own_names = [f"{what}{j + 1}" for j in range(shape[1])] if len(shape) == 2 else []
    if len(shape) != 2 or shape[1] == 0:
        raise DataError(f"party {rank}: {what} has shape {shape}; it takes (rows,) or (rows, columns)")
    if names is not None:
        if len(names) != shape[1]:
            raise DataError(f"party {rank}: {what} has {shape[1]} columns and {len(names)} names")
        own_names = list(names)
    bounds = column_bounds(bound, shape[1], rank=rank)
    return Numeric(tuple(own_names), held).bounded(bounds, rank=rank, what=what)


def _columns_of(values: Any) -> dict[Any, Any] | None:
    """Return the columns of a data frame; None for anything else."""
    if hasattr(values, "columns") and hasattr(values, "items"):
        return {name: column for name, column in values.items()}
    return None


def _numbers(values: Any, *, rank: int, what: str) -> NDArray[Any]:
    """Return an array of numbers, the caller's own where that is one; floats with NaN where they can be missing."""
    dtype = getattr(values, "dtype", None)
    if hasattr(values, "to_numpy") and hasattr(values, "isna"):
        if getattr(dtype, "kind", "") in ("b", "i", "u", "f"):
            if isinstance(dtype, np.dtype):
                return np.asarray(values.to_numpy())
            return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
        missing = np.asarray(values.isna(), dtype=np.bool_)
        array = np.asarray(values.to_numpy(dtype=object, na_value=None), dtype=object)
        array = np.where(missing, np.nan, array)
    else:
        try:
            array = np.asarray(values)
        except ValueError:
            raise DataError(f"party {rank}: the rows of {what} are not all of the same length") from None
    if isinstance(values, np.ma.MaskedArray):
        array = without_masked(values)
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
    if array.dtype.kind not in "biuf":
        raise DataError(f"party {rank}: {what} is not made of numbers (numpy dtype {array.dtype})")
    return array
