"""Checks of our own data: everything that can be wrong with it is said before anything is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError

Bound = float | NDArray[Any] | list[float] | tuple[float, ...] | None


def numbers(values: Any, *, rank: int, what: str) -> NDArray[Any]:
    """Return values as an array of integers (of any size) or of finite float64.

    Raises
    ------
    DataError
        Naming party, columns and counts; never a value.
    """
    array = np.asarray(values)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind == "O":
        flat = list(array.flat)
        if flat and all(isinstance(v, int | np.integer | np.bool_) for v in flat):
            return array
        if all(isinstance(v, int | float | np.integer | np.floating | np.bool_) for v in flat):
            array = array.astype(np.float64)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        refuse(~np.isfinite(array), "NaN or infinite", "drop or impute these rows first", rank=rank, what=what)
    elif array.dtype.kind not in "iu":
        raise DataError(f"party {rank}: {what} is not made of numbers (numpy dtype {array.dtype})")
    return array


def matrix(values: Any, *, rank: int, what: str) -> NDArray[np.float64]:
    """Return values as finite float64 of shape (rows, columns)."""
    array = numbers(values, rank=rank, what=what).astype(np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"party {rank}: {what} has shape {array.shape}; it takes (rows, columns), at least one column")
    return array


def labels(values: Any, *, rank: int, rows: int) -> NDArray[np.int64]:
    """Return y as integers 0 and 1, one for each row."""
    array = numbers(values, rank=rank, what="y")
    if array.shape == (rows, 1):
        array = array[:, 0]
    if array.shape != (rows,):
        raise DataError(f"party {rank}: y has shape {array.shape}, X has {rows} rows; y takes ({rows},)")
    refuse(np.asarray((array != 0) & (array != 1)), "neither 0 nor 1", "code y as 0 and 1", rank=rank, what="y")
    return array.astype(np.int64)


def column_bounds(bound: Bound, columns: int, *, rank: int) -> NDArray[np.float64] | None:
    """Return the public bound of each column; None if none was agreed."""
    if bound is None:
        return None
    bounds = np.asarray(bound, dtype=np.float64)
    if bounds.shape not in ((), (columns,)):
        raise DataError(f"party {rank}: bound has shape {bounds.shape}; it takes one number or {columns}")
    if not np.isfinite(bounds).all() or (bounds <= 0).any():
        raise DataError(f"party {rank}: bounds are finite numbers above 0")
    return np.broadcast_to(bounds, (columns,)).copy()


def stated(bound: Bound, bounds: NDArray[np.float64] | None) -> object:
    """Return a bound in the form that parties compare: one number, or one for each column."""
    if bounds is None:
        return None
    return bounds.tolist() if np.asarray(bound, dtype=np.float64).ndim else float(bounds[0])


def within(array: NDArray[Any], bounds: NDArray[np.float64], *, rank: int, what: str) -> None:
    """Refuse values beyond the bounds of their columns (the last axis)."""
    beyond = np.asarray((array > bounds) | (array < -bounds), dtype=np.bool_)
    if not beyond.any():
        return
    shown = f"{bounds.flat[0]:g}" if np.ptp(bounds) == 0 else "their column"
    remedy = "agree on a wider bound in the study, or correct these values"
    refuse(beyond, f"beyond the agreed bound of {shown}", remedy, rank=rank, what=what, bounds=bounds)


def refuse(
    bad: NDArray[np.bool_],
    why: str,
    remedy: str,
    *,
    rank: int,
    what: str,
    bounds: NDArray[np.float64] | None = None,
) -> None:
    """Raise if any entry is bad, naming columns and counts."""
    count = int(np.count_nonzero(bad))
    if not count:
        return
    where = ""
    if bad.ndim == 2:
        by_column = np.count_nonzero(bad, axis=0)
        columns = np.flatnonzero(by_column)
        uneven = bounds is not None and np.ptp(bounds) > 0
        named = [
            f"{j} ({by_column[j]} rows" + (f", bound {bounds[j]:g})" if uneven and bounds is not None else ")")
            for j in columns[:10]
        ]
        more = ", ..." if columns.size > 10 else ""
        where = f" in column{'s' if columns.size > 1 else ''} {', '.join(named)}{more}"
    raise DataError(f"party {rank}: {count} of {bad.size} values of {what} are {why}{where}; {remedy}")
