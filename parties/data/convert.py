"""From what files and databases hold to what is computed with: one column of one chunk at a time.

Arrays of numbers are converted as a whole. Text takes the fast way if all of it is plainly written, and is
looked at value by value if it is not. No value that could be read in two ways is guessed at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from parties.data.columns import ColumnLike

MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null")
_TRUE = frozenset({"true", "yes", "t", "y", "1", "1.0"})
_FALSE = frozenset({"false", "no", "f", "n", "0", "0.0"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# What plainly written numbers are made of. Python reads more: 1_000, nan, infinity, the digits of all scripts.
_PLAIN = b"0123456789+-.,eE"
# Every whole number up to here is one in float64, and no other is rounded to it.
_LARGEST_EXACT = 2**53 - 1
_LONGEST_DECIMAL = 40
_DTYPES: dict[str, Any] = {"number": np.float64, "integer": np.int64, "boolean": np.bool_, "category": np.int64}


@dataclass(frozen=True, slots=True)
class Style:
    """How values are written where they are text.

    Attributes
    ----------
    decimal : str
        The decimal sign, ``"."`` or ``","``. The other one is then part of no number: what it separates
        (thousands, or again decimals) depends on who wrote it.
    missing : tuple of str
        What stands for a missing value, unless it is a category; spaces around a value do not count.
    """

    decimal: str = "."
    missing: tuple[str, ...] = MISSING


class Converted(NamedTuple):
    """Values of a column's type, and masks of the rows that have none; where one is set the value means nothing."""

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    beyond: NDArray[np.bool_]


def convert(values: Any, column: ColumnLike, style: Style) -> Converted:
    """Convert one column.

    Parameters
    ----------
    values : array_like
        An array of numbers or booleans; or a sequence of text, numbers, decimals, booleans, None.
    column : ColumnLike
    style : Style
    """
    if not isinstance(values, np.ndarray) and hasattr(values, "to_numpy"):  # pandas
        values = values.to_numpy()
    if isinstance(values, np.ma.MaskedArray):
        return _masked(values, column, style)
    if not isinstance(values, np.ndarray):
        found = _from_objects(list(values), column, style)
    elif values.ndim == 1 and values.dtype.kind in "biuf":
        found = _from_array(values, column)
    else:
        found = _from_objects(values.tolist(), column, style)
    return _within(found, column) if column.type in ("number", "integer") else found


def _masked(values: Any, column: ColumnLike, style: Style) -> Converted:
    """Convert an array that says itself which entries are missing."""
    mask = np.ma.getmaskarray(values)
    found = convert(np.where(mask, np.zeros(1, values.dtype), values.data), column, style)
    return Converted(found.values, found.missing | mask, found.wrong & ~mask, found.beyond & ~mask)


def _blank(column: ColumnLike, rows: int) -> Converted:
    masks = (np.zeros(rows, np.bool_) for _ in range(3))
    return Converted(np.zeros(rows, _DTYPES[column.type]), *masks)


def _within(found: Converted, column: ColumnLike) -> Converted:
    """Mark values beyond the bounds."""
    values = found.values
    low = -math.inf if column.lower is None else column.lower
    high = math.inf if column.upper is None else column.upper
    outside = ~((values >= low) & (values <= high)) & ~found.missing & ~found.wrong
    return found._replace(beyond=found.beyond | outside)


# ---- arrays -------------------------------------------------------------------------------------


def _from_array(array: NDArray[Any], column: ColumnLike) -> Converted:
    """Convert numbers or booleans; NaN is a missing value, infinity is none."""
    found = _blank(column, len(array))
    if array.dtype.kind == "f":
        array = array.astype(np.float64, copy=False)
        found = found._replace(missing=np.isnan(array), wrong=np.isinf(array))
        array = np.where(found.missing | found.wrong, 0.0, array)
    match column.type:
        case "number":
            return found._replace(values=array.astype(np.float64))
        case "integer":
            return _whole(array, found)
        case "boolean":
            return found._replace(values=array == 1, wrong=found.wrong | ~((array == 0) | (array == 1)))
    texts: list[object] = array.tolist()
    codes = _codes(column)
    values = np.array([codes.get(_as_text(value), -1) for value in texts], np.int64)
    return found._replace(values=values, wrong=found.wrong | ((values < 0) & ~found.missing))


def _whole(array: NDArray[Any], found: Converted) -> Converted:
    """Turn an array of numbers into int64."""
    if array.dtype.kind == "f":
        fraction = array != np.rint(array)
        huge = np.abs(array) > _LARGEST_EXACT
        plain = np.where(fraction | huge, 0.0, array).astype(np.int64)
        return found._replace(values=plain, wrong=found.wrong | fraction, beyond=huge & ~fraction)
    if array.dtype.kind == "u":
        huge = array > np.uint64(2**63 - 1)
        return found._replace(values=np.where(huge, 0, array).astype(np.int64), beyond=huge)
    return found._replace(values=array.astype(np.int64))


# ---- text and objects ---------------------------------------------------------------------------


def _from_objects(values: list[Any], column: ColumnLike, style: Style) -> Converted:
    """Convert Python's values: at once if they are plainly written numbers, else each different text once."""
    texts = set(map(type, values)) <= {str, NoneType}
    if texts and column.type in ("number", "integer") and (quick := _quick(values, column, style)) is not None:
        return quick
    found = _blank(column, len(values))
    masks = {"missing": found.missing, "wrong": found.wrong, "beyond": found.beyond}
    reader, codes, gone = _READERS[column.type], _codes(column), frozenset(style.missing)
    answers: Iterable[tuple[Any, str]]
    if texts:
        by_text = {text: _read(text, reader, codes, gone, style) for text in set(values)}
        if not any(fault for _, fault in by_text.values()):
            plain = {text: value for text, (value, _) in by_text.items()}
            return found._replace(values=np.array([plain[text] for text in values], found.values.dtype))
        answers = map(by_text.__getitem__, values)
    else:
        answers = (_read(value, reader, codes, gone, style) for value in values)
    for row, (value, fault) in enumerate(answers):
        if fault:
            masks[fault][row] = True
        else:
            found.values[row] = value
    return found


def _quick(values: list[Any], column: ColumnLike, style: Style) -> Converted | None:
    """Convert text if all of it is plainly written, or missing. None if it is not."""
    gone = frozenset(style.missing)
    found = _blank(column, len(values))
    if None in values:
        found.missing[:] = [text is None for text in values]
        values = ["0" if text is None else text for text in values]
    if not _is_plain("".join(values)):
        values = [text.strip() for text in values]
    if not gone.isdisjoint(values):
        found.missing[:] |= [text in gone for text in values]
        values = ["0" if text in gone else text for text in values]
    joined = "".join(values)
    if not _is_plain(joined) or ("," if style.decimal == "." else ".") in joined:
        return None
    try:
        if column.type == "integer":
            return found._replace(values=np.array(list(map(int, values)), np.int64))
        if "," in joined:
            values = [text.replace(",", ".") for text in values]
        numbers = np.fromiter(map(float, values), np.float64, len(values))
    except (ValueError, OverflowError):
        return None
    return found._replace(values=numbers) if np.isfinite(numbers).all() else None


def _is_plain(text: str) -> bool:
    return text.isascii() and not text.encode().translate(None, _PLAIN)


_Reader = Callable[[Any, Mapping[str, int], Style], tuple[Any, str]]


def _read(value: Any, reader: _Reader, codes: Mapping[str, int], gone: frozenset[str], style: Style) -> tuple[Any, str]:
    """Return a value and no fault, or what is wrong: missing, wrong or beyond."""
    if isinstance(value, str):
        value = value.strip()
        if value in gone and value not in codes:
            return 0, "missing"
    elif _is_missing(value):
        return 0, "missing"
    return reader(value, codes, style)


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float | np.floating) and math.isnan(value)


def _number(value: Any, codes: Mapping[str, int], style: Style) -> tuple[Any, str]:
    if isinstance(value, str):
        if style.decimal == ",":
            value = value.replace(".", "?").replace(",", ".")
        if not _NUMBER.fullmatch(value):
            return 0, "wrong"
    elif not isinstance(value, int | float | Decimal | np.number | np.bool_) or isinstance(value, np.complexfloating):
        return 0, "wrong"
    elif not isinstance(value, int | np.integer | np.bool_) and math.isinf(value) and not _is_large(value):
        return 0, "wrong"
    try:
        number = float(value)
    except OverflowError:
        return 0, "beyond"
    return (number, "") if math.isfinite(number) else (0, "beyond")


def _is_large(value: object) -> bool:
    """Whether a number is finite, but beyond what float64 holds."""
    return isinstance(value, Decimal) and value.is_finite()


def _integer(value: Any, codes: Mapping[str, int], style: Style) -> tuple[Any, str]:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        whole = int(value)
    elif isinstance(value, int | np.integer | np.bool_):
        whole = int(value)
    elif isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _LONGEST_DECIMAL:
        whole = int(value)
        if whole != value:
            return 0, "wrong"
    else:
        number, fault = _number(value, codes, style)
        if fault:
            return 0, fault
        if number != int(number):
            return 0, "wrong"
        if abs(number) > _LARGEST_EXACT:
            return 0, "beyond"
        whole = int(number)
    return (whole, "") if -(2**63) <= whole < 2**63 else (0, "beyond")


def _boolean(value: Any, codes: Mapping[str, int], style: Style) -> tuple[Any, str]:
    if isinstance(value, bool | np.bool_):
        return bool(value), ""
    text = value.lower() if isinstance(value, str) else _as_text(value)
    if text in _TRUE or text in _FALSE:
        return text in _TRUE, ""
    return False, "wrong"


def _category(value: Any, codes: Mapping[str, int], style: Style) -> tuple[Any, str]:
    code = codes.get(_as_text(value))
    return (0, "wrong") if code is None else (code, "")


_READERS: dict[str, _Reader] = {"number": _number, "integer": _integer, "boolean": _boolean, "category": _category}


def _codes(column: ColumnLike) -> dict[str, int]:
    return {category: code for code, category in enumerate(column.categories)}


def _as_text(value: object) -> str:
    """Write a value as a category or a yes-no would be written: whole numbers without a fraction."""
    if isinstance(value, float | np.floating | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return value if isinstance(value, str) else str(value)
