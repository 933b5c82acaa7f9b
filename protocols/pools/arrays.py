"""A party's own array of numbers: checked and added up in passes that copy nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError
from protocols.magnitudes import exponents_of
from protocols.pools.blocks import Spread, Total, blocks, in_units
from protocols.release.disclosure import Disclosure
from protocols.rows import Bound, column_bounds, numbers, within

# Floats without an agreed bound: up to 2^40 (10^12).
DEFAULT_EXPONENT = 40


def own_array(
    rank: int, values: Any, bound: Bound, *, found_together: bool = False
) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Check our own values, which are not copied; the bounds come back with one entry for each column.

    Parameters
    ----------
    rank : int
        Ours, for errors.
    values : array_like
        At most (rows, columns).
    bound : float or (columns,) array_like, optional
    found_together : bool
        Whether the parties find a bound together, where none is agreed.

    Raises
    ------
    DataError
        Naming party, columns and counts; never a value.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not _finite(array):
        array = numbers(values, rank=rank, what="the input")
    if array.ndim > 2:
        raise DataError(f"party {rank}: the input has shape {array.shape}; it takes at most (rows, columns)")
    columns = array.shape[1] if array.ndim == 2 else 1
    bounds = column_bounds(bound, columns, rank=rank)
    limits = bounds
    if limits is None and kind_of(array) == "f" and not found_together:
        limits = np.full(columns, 2.0**DEFAULT_EXPONENT)
    if limits is not None:
        shaped = array if array.ndim == 2 else array.reshape(-1, 1)
        if not all(_is_within(shaped[part], limits) for part in blocks(*shaped.shape)):
            within(plain(shaped), limits, rank=rank, what="the input")
    return array, bounds


def _is_within(part: NDArray[Any], limits: NDArray[np.float64]) -> bool:
    entries = plain(part)
    return not ((entries > limits) | (entries < -limits)).any()


def _finite(array: NDArray[Any]) -> bool:
    """Whether numbers are all finite."""
    if array.dtype.kind != "f":
        return True
    if array.ndim == 0:
        return bool(np.isfinite(array))
    return all(bool(np.isfinite(array[part]).all()) for part in blocks(len(array), math.prod(array.shape[1:])))


def kind_of(array: NDArray[Any]) -> str:
    """Return "f" for floats, "i" for integers of whatever type."""
    return "f" if array.dtype.kind == "f" else "i"


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy in the type that numbers are computed with."""
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    return array.astype(np.int64 if array.dtype.kind == "b" else array.dtype)


def check_shape(rank: int, array: NDArray[Any]) -> None:
    if array.ndim not in (1, 2):
        raise DataError(f"party {rank}: values have shape {array.shape}; they take (rows,) or (rows, columns)")


def local_sum(array: NDArray[Any]) -> NDArray[Any]:
    """Sum our own rows, block by block; integers exactly, whatever their size."""
    if array.dtype.kind == "O":
        return np.asarray(array.sum(axis=0), dtype=object)
    table = as_columns(array)
    if array.dtype.kind == "f":
        sums = Total((table.shape[1],))
        for rows in blocks(*table.shape):
            sums.add(np.array(table[rows].T, dtype=np.float64, order="C").sum(axis=1))
        return sums.value.reshape(array.shape[1:])
    exact = np.zeros(table.shape[1], dtype=object)
    for rows in blocks(*table.shape):
        part = table[rows]
        if part.dtype.itemsize < 8:
            exact += part.sum(axis=0, dtype=np.int64).astype(object)
        else:  # high and low halves each sum without overflow
            high, low = part >> 32, part & 0xFFFFFFFF
            exact += high.sum(axis=0).astype(object) * (1 << 32) + low.sum(axis=0).astype(object)
    return np.asarray(exact.reshape(array.shape[1:]), dtype=object)


def largest_of(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return the largest absolute value of each column; 0 without rows."""
    table = as_columns(array)
    found = np.zeros(table.shape[1])
    for rows in blocks(*table.shape):
        found = np.maximum(found, np.abs(table[rows].astype(np.float64)).max(axis=0))
    return found


def spread_of(
    table: NDArray[Any], largest: NDArray[np.float64] | None, bounds: NDArray[np.float64] | None
) -> tuple[Spread, NDArray[np.int64]]:
    """Return means and squared deviations of our rows, and the exponents of the units that they are in."""
    found = largest if bounds is None else bounds
    units = exponents_of(np.zeros(0) if found is None else found)
    spread = Spread(1, table.shape[1], diagonal=True)
    for rows in blocks(*table.shape):
        spread.add(in_units(table[rows].astype(np.float64), units))
    return spread, units


def cells_of(table: NDArray[Any], disclosure: Disclosure | None) -> NDArray[Any]:
    """Return few rows that keep the rule for cells as all of them do.

    They are a 2 in columns that hold other values than 0 and 1; in others so many of each of these as there are, as far
    as that matters to the minimum cell.
    """
    least = 0 if disclosure is None else disclosure.minimum_cell
    if not least or len(table) <= 2 * least:
        return table
    ones, zeros = np.zeros(table.shape[1], np.int64), np.zeros(table.shape[1], np.int64)
    for rows in blocks(*table.shape):
        ones += np.count_nonzero(table[rows] == 1, axis=0)
        zeros += np.count_nonzero(table[rows] == 0, axis=0)
    few = np.where(ones <= zeros, np.minimum(ones, least), 2 * least - np.minimum(zeros, least))
    columns = (np.arange(2 * least)[:, np.newaxis] < few).astype(np.int64)
    return np.where(ones + zeros == len(table), columns, 2)


def as_columns(array: NDArray[Any]) -> NDArray[Any]:
    """Return the same numbers with the shape (rows, columns)."""
    return array.reshape(len(array), math.prod(array.shape[1:]))
