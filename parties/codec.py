"""Values as bytes: what a party's process gives back to the process that started it.

Not pickle, which runs whatever the bytes say. Here the bytes name a type out of a short list, and a
dataclass or an enumeration by module and name; a dataclass gets its fields and its ``__init__`` is not
run. What is not on the list is a ``ReturnTypeError`` on the side that encodes.

A value is one byte that says its type, followed by its content; sizes are unsigned LEB128.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import importlib
import math
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from parties.errors import CodecError, ReturnTypeError

_FLOAT = struct.Struct("<d")
_COMPLEX = struct.Struct("<dd")
_DEPTH = 100  # deeper than any result; a list that holds itself has no depth


def encode(value: object) -> bytes:
    """Write a value.

    Raises
    ------
    ReturnTypeError
        If the value, or something inside it, is of a type that cannot be written; names that type.
    """
    out = bytearray()
    _encode(value, out, 0)
    return bytes(out)


def decode(data: bytes | bytearray | memoryview) -> Any:
    """Read a value.

    Raises
    ------
    CodecError
        If the bytes are not what ``encode`` writes.
    """
    reader = _Reader(memoryview(data))
    try:
        value = _decode(reader, 0)
    except CodecError:
        raise
    # SyntaxError: numpy parses the names of its types as if they were Python.
    except (ValueError, TypeError, LookupError, ArithmeticError, ImportError, SyntaxError, struct.error) as error:
        raise CodecError(f"bytes that hold no value ({type(error).__name__})") from None
    if reader.position != len(reader.data):
        raise CodecError("bytes that go on after the value")
    return value


# ---- writing ------------------------------------------------------------------------------------


def _encode(value: Any, out: bytearray, depth: int) -> None:
    if depth > _DEPTH:
        raise ReturnTypeError("a value that is nested too deeply, or holds itself, cannot be given back")
    kind = type(value)
    writer = _WRITERS.get(kind)
    if writer is not None:
        writer(value, out, depth)
    elif isinstance(value, enum.Flag):  # may be a combination, which has no name of its own
        out += b"W"
        _put_class(kind, out)
        _put_int(value.value, out)
    elif isinstance(value, enum.Enum):
        out += b"E"
        _put_class(kind, out)
        _put_text(value.name, out)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        _put_dataclass(value, out, depth)
    elif isinstance(value, np.generic) and kind.__module__ == "numpy":
        out += b"G"
        _put_array(np.asarray(value), out, depth)
    elif kind.__module__.partition(".")[0] == "pandas" and (parts := _take_apart(value)) is not None:
        out += b"p"
        _encode(parts, out, depth + 1)
    else:
        _refuse(kind, "")


def _take_apart(value: Any) -> tuple[Any, ...] | None:
    from parties import tables  # imports pandas, which is loaded if there is a value of its types

    return tables.take_apart(value)


def _put_together(reader: _Reader, depth: int) -> Any:
    from parties import tables

    return tables.put_together(_decode(reader, depth + 1))


def _refuse(kind: type, why: str) -> NoReturn:
    raise ReturnTypeError(
        f"a value of type {kind.__module__}.{kind.__qualname__} cannot be given back from a party's process"
        f"{why}; give back numbers, text, lists, dicts, numpy arrays, pandas frames or dataclasses of them"
    )


def _put_size(size: int, out: bytearray) -> None:
    while size > 127:
        out.append(0x80 | size & 0x7F)
        size >>= 7
    out.append(size)


def _put_bytes(data: bytes | bytearray | memoryview, out: bytearray) -> None:
    _put_size(len(data), out)
    out += data


def _put_text(text: str, out: bytearray) -> None:
    _put_bytes(text.encode("utf-8", "surrogatepass"), out)


def _put_int(value: int, out: bytearray) -> None:
    _put_bytes(value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True), out)


def _put_items(tag: bytes) -> Callable[[Any, bytearray, int], None]:
    def put(value: Any, out: bytearray, depth: int) -> None:
        out += tag
        _put_size(len(value), out)
        for item in value:
            _encode(item, out, depth + 1)

    return put


def _put_dict(value: dict[Any, Any], out: bytearray, depth: int) -> None:
    out += b"d"
    _put_size(len(value), out)
    for key, item in value.items():
        _encode(key, out, depth + 1)
        _encode(item, out, depth + 1)


def _put_tagged_int(value: int, out: bytearray, depth: int) -> None:
    out += b"i"
    _put_int(value, out)


def _put_tagged_text(value: str, out: bytearray, depth: int) -> None:
    out += b"s"
    _put_text(value, out)


def _put_tagged_bytes(tag: bytes) -> Callable[[Any, bytearray, int], None]:
    def put(value: Any, out: bytearray, depth: int) -> None:
        out += tag
        _put_bytes(value, out)

    return put


def _put_iso(tag: bytes) -> Callable[[Any, bytearray, int], None]:
    def put(value: Any, out: bytearray, depth: int) -> None:
        zone = getattr(value, "tzinfo", None)
        if zone is not None and not isinstance(zone, datetime.timezone):
            _refuse(type(value), f" with a time zone of type {type(zone).__name__}")
        out += tag
        _put_text(value.isoformat(), out)

    return put


def _put_span(value: datetime.timedelta, out: bytearray, depth: int) -> None:
    out += b"P"
    _put_int(value // datetime.timedelta(microseconds=1), out)


def _put_tagged_array(value: np.ndarray[Any, Any], out: bytearray, depth: int) -> None:
    out += b"A"
    _put_array(value, out, depth)


def _put_array(value: np.ndarray[Any, Any], out: bytearray, depth: int) -> None:
    dtype = value.dtype
    _encode(_description(dtype), out, depth + 1)
    _put_size(value.ndim, out)
    for length in value.shape:
        _put_size(length, out)
    if dtype.hasobject:
        for item in value.reshape(-1).tolist():
            _encode(item, out, depth + 1)
    else:
        _put_bytes(value.tobytes(), out)


def _description(dtype: np.dtype[Any]) -> Any:
    """Describe a dtype by text, lists and tuples, as ``numpy.dtype`` takes it."""
    if dtype.names is None:
        if dtype.subdtype is not None or dtype.kind not in "?biufcmMSUOV":
            raise ReturnTypeError(f"an array of dtype {dtype} cannot be given back from a party's process")
        return dtype.str
    if dtype.hasobject or np.dtype(dtype.descr) != dtype:
        raise ReturnTypeError(f"a structured array of {dtype} cannot be given back from a party's process")
    return dtype.descr


def _put_class(kind: type, out: bytearray) -> None:
    module, name = kind.__module__, kind.__qualname__
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not kind:
        _refuse(kind, ", since it is not found under its name (was it defined inside a function?)")
    _put_text(module, out)
    _put_text(name, out)


def _put_dataclass(value: Any, out: bytearray, depth: int) -> None:
    out += b"C"
    _put_class(type(value), out)
    names = [field.name for field in dataclasses.fields(value)]
    _put_size(len(names), out)
    for name in names:
        _put_text(name, out)
        _encode(getattr(value, name), out, depth + 1)


_WRITERS: dict[type, Callable[[Any, bytearray, int], None]] = {
    type(None): lambda value, out, depth: out.extend(b"N"),
    bool: lambda value, out, depth: out.extend(b"T" if value else b"F"),
    int: _put_tagged_int,
    float: lambda value, out, depth: out.extend(b"f" + _FLOAT.pack(value)),
    complex: lambda value, out, depth: out.extend(b"c" + _COMPLEX.pack(value.real, value.imag)),
    str: _put_tagged_text,
    bytes: _put_tagged_bytes(b"b"),
    bytearray: _put_tagged_bytes(b"B"),
    list: _put_items(b"l"),
    tuple: _put_items(b"t"),
    set: _put_items(b"e"),
    frozenset: _put_items(b"z"),
    dict: _put_dict,
    datetime.datetime: _put_iso(b"D"),
    datetime.date: _put_iso(b"Y"),
    datetime.time: _put_iso(b"M"),
    datetime.timedelta: _put_span,
    np.ndarray: _put_tagged_array,
}


# ---- reading ------------------------------------------------------------------------------------


class _Reader:
    """A position in bytes; never reads beyond their end."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> memoryview:
        """Return the next bytes."""
        end = self.position + size
        if end > len(self.data):
            raise CodecError("bytes that end in the middle of a value")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def size(self) -> int:
        """Read a size."""
        size = shift = 0
        while True:
            part = self.take(1)[0]
            size |= (part & 0x7F) << shift
            if part < 128:
                return size
            shift += 7
            if shift > 63:
                raise CodecError("a size that is too large")

    def count(self) -> int:
        """Read how many items follow; each takes a byte at least."""
        count = self.size()
        if count > len(self.data) - self.position:
            raise CodecError("bytes that end in the middle of a value")
        return count

    def bytes(self) -> memoryview:
        """Read bytes after their size."""
        return self.take(self.size())

    def text(self) -> str:
        """Read text."""
        return bytes(self.bytes()).decode("utf-8", "surrogatepass")

    def int(self) -> int:
        """Read an integer of any size."""
        return int.from_bytes(self.bytes(), "little", signed=True)


def _decode(reader: _Reader, depth: int) -> Any:
    if depth > _DEPTH:
        raise CodecError("a value that is nested too deeply")
    tag = bytes(reader.take(1))
    decoder = _READERS.get(tag)
    if decoder is None:
        raise CodecError("an unknown type")
    return decoder(reader, depth)


def _items(reader: _Reader, depth: int) -> list[Any]:
    return [_decode(reader, depth + 1) for _ in range(reader.count())]


def _get_dict(reader: _Reader, depth: int) -> dict[Any, Any]:
    return {_decode(reader, depth + 1): _decode(reader, depth + 1) for _ in range(reader.count())}


def _get_array(reader: _Reader, depth: int) -> np.ndarray[Any, Any]:
    description = _decode(reader, depth + 1)
    dtype = np.dtype(description)
    shape = tuple(reader.size() for _ in range(reader.count()))
    count = math.prod(shape)
    if dtype.hasobject:
        if count > len(reader.data) - reader.position:
            raise CodecError("bytes that end in the middle of a value")
        flat = np.empty(count, dtype=object)
        for place in range(count):
            flat[place] = _decode(reader, depth + 1)
        return flat.reshape(shape)
    data = reader.bytes()
    if len(data) != count * dtype.itemsize:
        raise CodecError("an array of the wrong size")
    array = np.empty(shape, dtype)
    if data:
        array.reshape(-1).view(np.uint8)[:] = data
    return array


def _get_class(reader: _Reader) -> type:
    module, name = reader.text(), reader.text()
    # The child is a fork of us, and so its classes are ours; only a module that it imported since is not
    # here yet.
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise CodecError("a class that does not exist here")
    return found


def _get_enum(reader: _Reader, depth: int) -> enum.Enum:
    kind = _get_class(reader)
    if not issubclass(kind, enum.Enum):
        raise CodecError("a class that is no enumeration")
    return kind[reader.text()]


def _get_flag(reader: _Reader, depth: int) -> enum.Flag:
    kind = _get_class(reader)
    if not issubclass(kind, enum.Flag):
        raise CodecError("a class that is no set of flags")
    value = reader.int()
    flags = kind(value)
    if flags.value != value:  # early versions of Python 3.11 drop bits that have no name
        raise CodecError("flags that do not exist")
    return flags


def _get_dataclass(reader: _Reader, depth: int) -> Any:
    kind = _get_class(reader)
    if not dataclasses.is_dataclass(kind):
        raise CodecError("a class that is no dataclass")
    fields = {}
    for _ in range(reader.count()):
        name = reader.text()
        fields[name] = _decode(reader, depth + 1)
    if fields.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise CodecError("a dataclass with other fields than its own")
    value = object.__new__(kind)
    for name, content in fields.items():
        object.__setattr__(value, name, content)
    return value


_READERS: dict[bytes, Callable[[_Reader, int], Any]] = {
    b"N": lambda reader, depth: None,
    b"T": lambda reader, depth: True,
    b"F": lambda reader, depth: False,
    b"i": lambda reader, depth: reader.int(),
    b"f": lambda reader, depth: _FLOAT.unpack(reader.take(8))[0],
    b"c": lambda reader, depth: complex(*_COMPLEX.unpack(reader.take(16))),
    b"s": lambda reader, depth: reader.text(),
    b"b": lambda reader, depth: bytes(reader.bytes()),
    b"B": lambda reader, depth: bytearray(reader.bytes()),
    b"l": _items,
    b"t": lambda reader, depth: tuple(_items(reader, depth)),
    b"e": lambda reader, depth: set(_items(reader, depth)),
    b"z": lambda reader, depth: frozenset(_items(reader, depth)),
    b"d": _get_dict,
    b"D": lambda reader, depth: datetime.datetime.fromisoformat(reader.text()),
    b"Y": lambda reader, depth: datetime.date.fromisoformat(reader.text()),
    b"M": lambda reader, depth: datetime.time.fromisoformat(reader.text()),
    b"P": lambda reader, depth: datetime.timedelta(microseconds=reader.int()),
    b"A": _get_array,
    b"G": lambda reader, depth: _get_array(reader, depth)[()],
    b"E": _get_enum,
    b"W": _get_flag,
    b"p": _put_together,
    b"C": _get_dataclass,
}
