"""One frame: what a binary WebSocket message between two nodes holds.

==========  =====  ============================================================
bytes       type   meaning
==========  =====  ============================================================
0           u8     version of this layout, 2
1           u8     kind
2           u16    sender's rank
4           u16    receiver's rank
6           u8     length of the step label, at most 200
7           u8     zero
8           16 B   session
24          u64    sequence number: 0, 1, 2, ... for each link and direction
32          u64    length of the whole message
40          u64    offset of this frame's payload in the message
48          u64    acknowledged: the number of the frame that the sender is to hear next
56          u64    zero
64          ...    step label (printable ASCII), padded with zeros to a multiple of 16
...         ...    payload
==========  =====  ============================================================

All integers are little-endian. A frame has at most 256 KiB. Label and header together are a multiple
of 16 bytes long, so that the payload of a received frame is aligned for the kernels as it lies.

TLS protects the bytes and tells who sent them. The fields bind each message to its place on top of
that: what was meant for another session, receiver, step or moment is refused.

Data, abort and goodbye are numbered, and may be sent again over a later connection of the same link.
The others speak of one connection and have no place in the order: an acknowledgement and a leave
have the number 0, a hello the number of the attempt to connect, which makes an old one known as old.

The payload of a hello:

==========  =====  ============================================================
0           16 B   incarnation of the sender's end: random, drawn when the link was made
16          16 B   incarnation of the receiver's end, as far as known; else zero
32          u8     1 if the sender keeps what it sent until acknowledged, else 0
33          7 B    zero
==========  =====  ============================================================
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

FRAME_BYTES = 256 * 1024
STEP_BYTES = 200
SESSION_BYTES = 16
VERSION = 2
INCARNATION_BYTES = 16
# One message may be split over frames; a longer one is refused when its first frame arrives.
MESSAGE_BYTES = 2**32

_PADDING = bytes(16)
_HEADER = struct.Struct("<BBHHBB16sQQQQQ")
HEADER_BYTES = _HEADER.size
_HELLO = struct.Struct("<16s16sB7s")
_ACKNOWLEDGED = slice(48, 56)


class Kind(enum.IntEnum):
    """What a frame is for."""

    HELLO = 1
    DATA = 2
    ABORT = 3
    GOODBYE = 4
    ACK = 5
    LEAVE = 6


_KINDS = {int(kind): kind for kind in Kind}


class FrameError(ValueError):
    """Bytes that are no frame; the text names the check that failed and holds no data."""


class Frame(NamedTuple):
    """A frame whose fields are each within their bounds.

    A tuple and not a frozen dataclass, which takes a microsecond longer to make: one is made for every
    message that arrives.

    Attributes
    ----------
    kind : Kind
    sender, receiver : int
        As claimed; the link compares them with the ranks that the certificates prove.
    session : bytes
        16 bytes.
    sequence : int
    step : str
    length : int
        Bytes of the whole message.
    offset : int
        Where the payload lies in the message; ``offset + len(payload) <= length``.
    acknowledged : int
        All frames of ours with lower numbers have arrived.
    payload : memoryview
        A view of the bytes that were parsed.
    """

    kind: Kind
    sender: int
    receiver: int
    session: bytes
    sequence: int
    step: str
    length: int
    offset: int
    acknowledged: int
    payload: memoryview


class Hello(NamedTuple):
    """The beginning of a connection.

    Attributes
    ----------
    number : int
        Of the attempt to connect; a link's attempts have increasing numbers.
    acknowledged : int
        The number of the frame that the sender is to hear next.
    incarnation : bytes
        The sender's end of the link. Another one means that the sender forgot all that was before.
    knows : bytes
        The incarnation of our end that the sender knows; zeros if none.
    keeps : bool
        Whether the sender keeps what it sent until it is acknowledged, and can resume.
    """

    number: int
    acknowledged: int
    incarnation: bytes
    knows: bytes
    keeps: bool


def pack_header(
    kind: int,
    sender: int,
    receiver: int,
    session: bytes,
    sequence: int,
    step: bytes,
    length: int,
    offset: int,
    acknowledged: int,
) -> bytes:
    """Return header and padded label of a frame; its payload follows."""
    label = len(step)
    return _HEADER.pack(
        VERSION, kind, sender, receiver, label, 0, session, sequence, length, offset, acknowledged, 0
    ) + step.ljust((label + 15) & ~15, b"\0")


def acknowledging(header: bytes, acknowledged: int) -> bytes:
    """Return a header with another acknowledgement, for a frame that is sent again."""
    place = _ACKNOWLEDGED
    return b"".join((header[: place.start], acknowledged.to_bytes(8, "little"), header[place.stop :]))


def pack_hello(hello: Hello) -> bytes:
    """Return the payload of a hello; number and acknowledgement stand in the header."""
    return _HELLO.pack(hello.incarnation, hello.knows, hello.keeps, bytes(7))


def parse_hello(frame: Frame) -> Hello:
    """Read the payload of a hello.

    Raises
    ------
    FrameError
        If it is none.
    """
    if frame.kind is not Kind.HELLO or len(frame.payload) != _HELLO.size or frame.length != _HELLO.size:
        raise FrameError("a frame that is no hello")
    incarnation, knows, keeps, zeros = _HELLO.unpack(frame.payload)
    if keeps > 1 or zeros != bytes(7):
        raise FrameError("a hello whose reserved bytes are not zero")
    return Hello(frame.sequence, frame.acknowledged, incarnation, knows, bool(keeps))


def header_size(step: bytes) -> int:
    """Return how many bytes of a frame of this step are not payload."""
    return HEADER_BYTES + ((len(step) + 15) & ~15)


def parse(data: bytes | bytearray) -> Frame:
    """Read a frame, checking every field.

    Raises
    ------
    FrameError
        Naming the first field that is out of bounds.
    """
    size = len(data)
    if not HEADER_BYTES <= size <= FRAME_BYTES:
        raise FrameError(f"a frame of {size} bytes")
    fields = _HEADER.unpack_from(data)
    version, kind, sender, receiver, label, zero, session, sequence, length, offset, acknowledged, zeros = fields
    if version != VERSION:
        raise FrameError(f"a frame of layout {version}, not {VERSION}")
    known = _KINDS.get(kind)
    if known is None:
        raise FrameError(f"a frame of unknown kind {kind}")
    if zero or zeros:
        raise FrameError("a frame whose reserved bytes are not zero")
    start = HEADER_BYTES + ((label + 15) & ~15)
    if label > STEP_BYTES or start > size:
        raise FrameError("a frame whose step label is too long")
    end = HEADER_BYTES + label
    # latin-1 maps every byte, so that the check, not the codec, decides.
    step = data[HEADER_BYTES:end].decode("latin-1")
    if not (step.isascii() and step.isprintable()):
        raise FrameError("a frame whose step label is not printable ASCII")
    if data[end:start] != _PADDING[: start - end]:
        raise FrameError("a frame whose padding is not zero")
    if length > MESSAGE_BYTES:
        raise FrameError("a frame of a message that is too long")
    payload = memoryview(data)[start:]
    if offset + len(payload) > length:
        raise FrameError("a frame that reaches beyond its message")
    return Frame(known, sender, receiver, session, sequence, step, length, offset, acknowledged, payload)
