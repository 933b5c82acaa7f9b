"""TOML: reading it with bounds, and writing our own flat files.

``tomllib`` is handed what others wrote, so its input is bounded before (size, and dots in a line, since
the time for a dotted key grows with the square of its parts) and its output after (depth, counts,
lengths, integers). What comes out is JSON: no NaN, and a date and time with its offset becomes UTC text.
"""

from __future__ import annotations

import datetime
import math
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from parties.governance.checks import write_time
from parties.governance.errors import GovernanceError

_DOTS_IN_A_LINE = 128
_DEPTH = 8
_NODES = 40_000
_LONGEST_KEY = 64
_LONGEST_TEXT = 16_384
_LARGEST_INTEGER = 1 << 63


def read_toml(data: bytes, *, limit: int, what: str, error: type[GovernanceError]) -> dict[str, Any]:
    """Parse TOML into JSON's types.

    Parameters
    ----------
    data : bytes
    limit : int
        The most bytes.
    what : str
        What this is, for messages: a kind of file and its name.
    error : type
        The class of error to raise.
    """
    if len(data) > limit:
        raise error(f"{what} is larger than {limit} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise error(f"{what} is not UTF-8 text") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _DOTS_IN_A_LINE:
            raise error(f"{what}: line {number} has more than {_DOTS_IN_A_LINE} dots; break the text into lines")
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        place = str(failure).rpartition("(at ")[2].rstrip(")")
        raise error(f"{what} is not TOML" + (f": see {place}" if place.startswith(("line", "end")) else "")) from None
    except RecursionError:
        raise error(f"{what} is nested too deeply") from None
    except ValueError:  # integers of thousands of digits, dates that do not exist
        raise error(f"{what} holds a number or date that does not exist") from None
    return _Walk(what, error).table(parsed)


def write_toml(head: Mapping[str, object], tables: Mapping[str, Sequence[Mapping[str, object]]] | None = None) -> str:
    """Write keys with texts, integers, booleans or lists of texts, and arrays of tables of them; None is left out."""
    lines = _pairs(head)
    for name, rows in (tables or {}).items():
        for row in rows:
            lines += ["", f"[[{name}]]", *_pairs(row)]
    return "\n".join(lines) + "\n"


class _Walk:
    """One pass over what ``tomllib`` made of a file."""

    def __init__(self, what: str, error: type[GovernanceError]) -> None:
        self.what = what
        self.error = error
        self.nodes = 0

    def table(self, table: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        """Check a table and everything in it."""
        plain = {}
        for key, value in table.items():
            if len(key) > _LONGEST_KEY or not key.isprintable():
                raise self.error(f"{self.what}: a key is longer than {_LONGEST_KEY} characters, or not printable")
            plain[key] = self.value(value, key, depth + 1)
        return plain

    def value(self, value: Any, key: str, depth: int) -> Any:
        """Check one value."""
        self.nodes += 1
        if self.nodes > _NODES:
            raise self.error(f"{self.what} holds more than {_NODES} values")
        if depth > _DEPTH:
            raise self.error(f"{self.what} is nested more than {_DEPTH} deep (at {key})")
        match value:
            case dict():
                return self.table(value, depth)
            case list():
                return [self.value(item, key, depth + 1) for item in value]
            case str() if len(value) > _LONGEST_TEXT:
                raise self.error(f"{self.what}: {key} is longer than {_LONGEST_TEXT} characters")
            case bool() | str():
                return value
            case int() if not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
                raise self.error(f"{self.what}: {key} is an integer of more than 64 bits")
            case float() if not math.isfinite(value):
                raise self.error(f"{self.what}: {key} is NaN or infinite")
            case float():
                return value + 0.0  # a negative zero would look the same and have another hash
            case int():
                return value
            case datetime.datetime() if value.tzinfo is not None:
                return self.time(value, key)
            case _:
                raise self.error(
                    f"{self.what}: {key} takes a date, a time and an offset, such as 2030-12-31T18:00:00+01:00"
                )

    def time(self, value: datetime.datetime, key: str) -> str:
        """Write a time in UTC."""
        try:
            return write_time(value)
        except ValueError as failure:
            raise self.error(f"{self.what}: {key} {failure}") from None


def _pairs(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _text(value)
        case list() | tuple():
            return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"a value of type {type(value).__name__} is not written as TOML")


def _text(text: str) -> str:
    if "\n" in text:  # a certificate: kept in lines, which people compare
        return '"""\n' + "".join(char if char == "\n" else _escaped(char) for char in text) + '"""'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() else f"\\U{ord(char):08x}"
