"""Rows that fit a study's schema and belong to nobody: for trying a study before real data is touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.prg import Prg, Stream, new_seed
from parties.data.columns import ColumnLike, Table, with_gaps

_MOST_ROWS = 10_000_000


def synthetic(schema: Sequence[ColumnLike], rows: int, *, seed: bytes | None = None) -> Table:
    """Make up rows.

    Parameters
    ----------
    schema : sequence of ColumnLike
    rows : int
    seed : bytes, optional
        32 bytes; fresh ones by default.

    Returns
    -------
    Table
        Columns are independent of each other: numbers uniform between their bounds, integers too; of a
        category, and of yes and no, each value occurs as often as the others (to within one), in random
        order, so that rules about small cells let a dry run pass. Nothing is missing.

    Notes
    -----
    Nothing of anybody's data goes in, only the schema. The numbers come from AES-CTR.
    """
    if not 0 <= rows <= _MOST_ROWS:
        raise ValueError(f"synthetic tables have 0 to {_MOST_ROWS} rows")
    source = Prg(new_seed() if seed is None else seed)
    columns = {}
    for place, column in enumerate(schema):
        values = _made_up(column, rows, source.stream(f"synthetic|{place}"))
        if column.missing == "keep":
            values = with_gaps(values, np.zeros(rows, np.bool_), column)
        values.flags.writeable = False
        columns[column.name] = values
    return Table(columns, rows, 0)


def _made_up(column: ColumnLike, rows: int, stream: Stream) -> NDArray[Any]:
    match column.type:
        case "boolean":
            return np.asarray(_balanced(2, rows, stream) == 1)
        case "category":
            return _balanced(len(column.categories), rows, stream)
    low, high = (0.0, 1.0) if column.lower is None or column.upper is None else (column.lower, column.upper)
    if column.type == "integer":
        return _whole(int(low), int(high), rows, stream)
    part = (_words(rows, stream) >> np.uint64(11)) / 2.0**53
    return np.asarray(np.clip(low * (1 - part) + high * part, low, high))


def _whole(low: int, high: int, rows: int, stream: Stream) -> NDArray[np.int64]:
    """Draw integers from low to high; off from uniform by less than their number over 2^64."""
    drawn = _words(rows, stream)
    span = high - low + 1
    offsets = drawn if span >= 1 << 64 else drawn % np.uint64(span)
    return (offsets + np.uint64(low % (1 << 64))).view(np.int64)


def _balanced(values: int, rows: int, stream: Stream) -> NDArray[np.int64]:
    """Deal values out in turn, beginning with any of them, and shuffle."""
    first = int(_words(1, stream)[0]) % values
    dealt = (np.arange(rows, dtype=np.int64) + first) % values
    return dealt[np.argsort(_words(rows, stream), kind="stable")]


def _words(count: int, stream: Stream) -> NDArray[np.uint64]:
    """Draw uniform words of 64 bits."""
    return stream.raw(8 * count).view("<u8").astype(np.uint64)
