"""Sealed files: what a node keeps on a disk that others may see, copy, cut off or exchange.

AES-256-GCM in chunks of one MiB. The key of a file follows from the node's key and a fresh salt (HKDF, RFC 5869), so
that the nonces are counters: none comes up twice under one key. The last chunk is marked in its nonce, so that a file
that was cut off is noticed (the STREAM construction: Hoang, Reyhanitabar, Rogaway, Vizar, CRYPTO 2015, section 7). The
header, which says what the file is and what it is called, goes into every chunk's tag.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc.errors import SottovoceError

KEY_BYTES = 32
SALT_BYTES = 32
CHUNK = 1 << 20
_TAG = 16
_MAGIC = b"sottovoce sealed 1\n"
_LENGTH = struct.Struct(">I")
_NONCE = struct.Struct(">QI")
_LAST = 1
_MOST_HEADER = 64 * 1024

Write = Callable[[bytes], Any]
Read = Callable[[int], bytes]


class SealError(SottovoceError, ValueError):
    """A sealed file is damaged, was altered, or is another one."""


def head_of(header: dict[str, Any]) -> bytes:
    """Return the first bytes of a file: what it is, readable for everybody who has the file."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    if len(text) > _MOST_HEADER:
        raise ValueError("too long a header")
    return _MAGIC + _LENGTH.pack(len(text)) + text


def read_head(read: Read) -> dict[str, Any]:
    """Read the first bytes of a file; what they say is not checked before the first chunk is opened.

    Raises
    ------
    SealError
        It is no sealed file.
    """
    if _whole(read, len(_MAGIC)) != _MAGIC:
        raise SealError("this is no sealed file")
    (length,) = _LENGTH.unpack(_whole(read, _LENGTH.size))
    if length > _MOST_HEADER:
        raise SealError("this is no sealed file")
    try:
        header = json.loads(_whole(read, length))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise SealError("this is no sealed file")
    return header


class Sealer:
    """Writes one sealed file.

    Parameters
    ----------
    write : callable
    key : bytes
        For this file alone.
    header : dict
        Written in the clear, and bound to the content.

    Attributes
    ----------
    written : int
        Bytes, the header's included.
    """

    def __init__(self, write: Write, key: bytes, header: dict[str, Any]) -> None:
        self._write = write
        self._seal = AESGCM(key)
        self._head = head_of(header)
        self._waiting = bytearray()
        self._chunks = 0
        self.written = len(self._head)
        write(self._head)

    def add(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), CHUNK):
            self._waiting += view[start : start + CHUNK]
            # What fills a chunk exactly waits for what follows: it may be the last.
            if len(self._waiting) > CHUNK:
                self._chunk(bytes(self._waiting[:CHUNK]), last=False)
                del self._waiting[:CHUNK]

    def finish(self) -> None:
        """Write the last chunk."""
        self._chunk(bytes(self._waiting), last=True)
        self._waiting.clear()

    def _chunk(self, content: bytes, *, last: bool) -> None:
        sealed = self._seal.encrypt(_nonce(self._chunks, last), content, self._head)
        self._write(sealed)
        self._chunks += 1
        self.written += len(sealed)


class Opener:
    """Reads one sealed file from front to back; nothing is given out before its chunk was checked.

    Parameters
    ----------
    read : callable
        Returns at most so many bytes, none at the end.
    key : bytes
    header : dict
        What the file must say that it is; its head is read here.

    Raises
    ------
    SealError
        It says something else.
    """

    def __init__(self, read: Read, key: bytes, header: dict[str, Any]) -> None:
        self._read = read
        self._seal = AESGCM(key)
        self._head = head_of(header)
        if head_of(read_head(read)) != self._head:
            raise SealError("this sealed file is another one than its name says")
        self._ahead = _upto(read, CHUNK + _TAG)
        self._content = memoryview(b"")
        self._chunks = 0
        self._ended = False

    def read(self, count: int) -> bytes:
        """Return exactly so many bytes.

        Raises
        ------
        SealError
            They are not there, or were altered.
        """
        if count <= len(self._content):
            part, self._content = self._content[:count], self._content[count:]
            return bytes(part)
        parts = []
        while count:
            if not self._content:
                self._next()
            part, self._content = self._content[:count], self._content[count:]
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Check that the end was reached.

        Raises
        ------
        SealError
            There is more, or the file was cut off.
        """
        if not self._ended and not self._content:
            self._next(may_be_empty=True)
        if self._content or not self._ended:
            raise SealError("a sealed file holds more than it should")

    def _next(self, *, may_be_empty: bool = False) -> None:
        if self._ended:
            raise SealError("a sealed file ends too early")
        sealed, self._ahead = self._ahead, _upto(self._read, CHUNK + _TAG)
        last = not self._ahead
        try:
            content = self._seal.decrypt(_nonce(self._chunks, last), sealed, self._head)
        except InvalidTag:
            raise SealError("a sealed file was altered, cut off, or sealed with another key") from None
        self._chunks += 1
        self._ended = last
        self._content = memoryview(content)
        if not content and not may_be_empty:
            raise SealError("a sealed file ends too early")


def _nonce(number: int, last: bool) -> bytes:
    return _NONCE.pack(number, _LAST if last else 0)


def _whole(read: Read, count: int) -> bytes:
    data = _upto(read, count)
    if len(data) != count:
        raise SealError("this is no sealed file, or it was cut off")
    return data


def _upto(read: Read, count: int) -> bytes:
    parts: list[bytes] = []
    while count and (part := read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
