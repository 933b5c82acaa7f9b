"""Whom a TLS client asks for: read from its first message, before anything is answered.

RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3. Only what is needed to find the name is looked at:
whatever else is wrong with the message, TLS itself will say.
"""

from __future__ import annotations

from dataclasses import dataclass

# A ClientHello of a browser has 2 KiB with post-quantum keys.
MOST_BYTES = 16 * 1024
# It may be cut into records as small as one byte; clients that do so are not ours.
_MOST_RECORDS = 16
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0
_LONGEST_NAME = 255


class HelloError(ValueError):
    """This is no ClientHello with a name; the text says what it is instead."""


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The message is not all there yet.

    Attributes
    ----------
    needed : int
        How many bytes, from the beginning, must be there before it pays to look again.
    """

    needed: int


def server_name(data: bytes) -> str | Incomplete:
    """Return the name that a client asks for, in lower case.

    Parameters
    ----------
    data : bytes
        All that it has sent so far.

    Raises
    ------
    HelloError
        If this is no ClientHello, is too long, or asks for no name.
    """
    message = bytearray()
    at = 0
    for _ in range(_MOST_RECORDS):
        header = data[at : at + _RECORD_HEADER]
        if header[:1] and header[0] != _HANDSHAKE:
            raise HelloError("not TLS")
        if len(header) >= 2 and header[1] != 3:
            raise HelloError("not TLS")
        if len(header) < _RECORD_HEADER:
            return _incomplete(at + _RECORD_HEADER)
        size = int.from_bytes(header[3:5], "big")
        if size == 0:
            raise HelloError("not TLS")
        message += data[at + _RECORD_HEADER : at + _RECORD_HEADER + size]
        if message and message[0] != _CLIENT_HELLO:
            raise HelloError("not TLS")
        end = at + _RECORD_HEADER + size
        if len(message) >= _MESSAGE_HEADER:
            length = _MESSAGE_HEADER + int.from_bytes(message[1:4], "big")
            if length > MOST_BYTES:
                raise HelloError("too long")
            if len(message) >= length:
                return _name_in(bytes(message[_MESSAGE_HEADER:length]))
            if len(data) < end:
                # The rest of the message may be in this record, or in further ones.
                return _incomplete(min(end, len(data) + length - len(message)))
        elif len(data) < end:
            return _incomplete(min(end, len(data) + _MESSAGE_HEADER - len(message)))
        at = end
    raise HelloError("cut into too many pieces")


def _incomplete(needed: int) -> Incomplete:
    if needed > MOST_BYTES:
        raise HelloError("too long")
    return Incomplete(needed)


def _name_in(hello: bytes) -> str:
    body = _Reader(hello)
    body.skip(2 + 32)  # version, random
    body.vector(1)  # session
    body.vector(2)  # cipher suites
    body.vector(1)  # compression
    if not body.left:
        raise HelloError("no name")
    extensions = _Reader(body.vector(2))
    found: bytes | None = None
    while extensions.left:
        kind = extensions.number(2)
        content = extensions.vector(2)
        if kind != _SERVER_NAME:
            continue
        if found is not None:
            raise HelloError("two names")
        names = _Reader(_Reader(content).vector(2))
        if names.number(1) != _HOST_NAME:
            raise HelloError("no name")
        found = names.vector(2)
        if names.left:
            raise HelloError("two names")
    if not found:
        raise HelloError("no name")
    if len(found) > _LONGEST_NAME or not all(0x21 <= byte <= 0x7E for byte in found):
        raise HelloError("no name")
    return found.decode("ascii").lower()


class _Reader:
    """Reads from front to back; refuses to read on past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise HelloError("malformed")
        part = self._data[self._at : self._at + count]
        self._at += count
        return part

    def skip(self, count: int) -> None:
        self.take(count)

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))
