"""WebSocket framing: whole messages come out however the bytes come in, and garbage ends the connection."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.wire import BINARY, CLOSE, PING, PONG, Wire

LIMIT = 256 * 1024
LENGTHS = st.sampled_from([0, 1, 111, 112, 125, 126, 127, 8191, 8192, 8193, 65535, 65536, LIMIT])


class Before(asyncio.Protocol):
    """Whatever protocol the connection had: aiohttp's."""


class Pipe:
    """As much of a transport as a wire uses; keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False
        self.before = Before()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.before

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.written += b"".join(parts)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close


class End:
    """A wire and what it reported."""

    def __init__(self, dialled: bool) -> None:
        self.pipe = Pipe()
        self.messages: list[bytes] = []
        self.lost: list[Exception | None] = []
        self.wire = Wire(
            self.pipe,  # type: ignore[arg-type]
            dialled=dialled,
            limit=LIMIT,
            on_message=lambda message: self.messages.append(bytes(message)),
            on_lost=self.lost.append,
        )

    def feed(self, data: bytes, sizes: list[int] | None = None) -> None:
        """Let the bytes arrive, in pieces of the sizes given, round and round."""
        place = turn = 0
        while place < len(data):
            room = self.wire.get_buffer(-1)
            want = sizes[turn % len(sizes)] if sizes else len(data)
            got = min(want, len(room), len(data) - place)
            room[:got] = data[place : place + got]
            self.wire.buffer_updated(got)
            place, turn = place + got, turn + 1


def in_a_loop(test: Callable[[], None]) -> None:
    async def run() -> None:
        test()

    asyncio.run(run())


def masked(opcode: int, payload: bytes, key: bytes = b"\x01\x02\x03\x04", first: int = 0x80) -> bytes:
    """A client's frame, by the book."""
    size = len(payload)
    if size < 126:
        start = bytes([first | opcode, 0x80 | size])
    elif size < 65536:
        start = bytes([first | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        start = bytes([first | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    return start + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


@given(
    st.lists(LENGTHS, min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 5, 13, 14, 100, 8192, 100_000, 10**6]), min_size=1, max_size=3),
    st.booleans(),
)
def test_messages_come_out_whole(lengths: list[int], pieces: list[int], dialled: bool) -> None:
    if max(pieces) < 100 < max(lengths):
        pieces = [*pieces, 4096]  # a quarter of a megabyte byte by byte shows nothing more

    def test() -> None:
        sender, receiver = End(dialled), End(not dialled)
        messages = [bytes([i]) * length for i, length in enumerate(lengths)]
        for message in messages:
            sender.wire.write(message[: len(message) // 3], memoryview(message)[len(message) // 3 :])
        receiver.feed(bytes(sender.pipe.written), pieces)
        assert receiver.messages == messages
        assert sender.wire.bytes_sent == receiver.wire.bytes_received > len(sender.pipe.written)
        assert not receiver.lost

    in_a_loop(test)


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), min_size=1, max_size=5), st.booleans())
def test_garbage_ends_the_connection_or_waits_for_more(data: bytes, pieces: list[int], dialled: bool) -> None:
    def test() -> None:
        end = End(dialled)
        end.feed(data, pieces)
        assert len(end.lost) <= 1
        assert end.pipe.closing == bool(end.lost)

    in_a_loop(test)


@given(st.integers(0, 300), st.binary(min_size=4, max_size=4))
def test_a_mask_is_taken_off(size: int, key: bytes) -> None:
    def test() -> None:
        end = End(dialled=False)
        end.feed(masked(BINARY, bytes(range(256))[:size], key))
        assert end.messages == [bytes(range(256))[:size]]

    in_a_loop(test)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (masked(0x1, b"text"), "kind that is not spoken"),
        (masked(0x0, b"rest"), "kind that is not spoken"),
        (masked(0x3, b"what"), "kind that is not spoken"),
        (masked(BINARY, b"", first=0xC0), "kind that is not spoken"),
        (masked(BINARY, b"part", first=0), "in pieces"),
        (b"\x82\x04data", "masking"),
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"), "message of 262145 bytes"),
        (b"\x82\xff" + b"\xff" * 8, "message of 18446744073709551615 bytes"),
        (masked(PING, b"x" * 126), "message of 126 bytes"),
    ],
)
def test_each_check_speaks(data: bytes, says: str) -> None:
    def test() -> None:
        end = End(dialled=False)
        end.feed(data)
        assert not end.messages
        assert end.pipe.closing
        assert says in str(end.lost[0])
        end.feed(masked(BINARY, b"after"))
        assert not end.messages

    in_a_loop(test)


def test_a_ping_is_answered_and_a_close_too() -> None:
    def test() -> None:
        end = End(dialled=False)
        end.feed(masked(PING, b"are you there"))
        assert end.pipe.written == bytes([0x80 | PONG, 13]) + b"are you there"
        del end.pipe.written[:]
        end.feed(masked(CLOSE, b"\x03\xe8"))
        assert end.pipe.written[:2] == bytes([0x80 | CLOSE, 2])
        assert end.wire.close_seen.done()
        end.feed(masked(BINARY, b"after"))
        assert not end.messages

    in_a_loop(test)


def test_a_lost_connection_is_reported_once_and_wakes_the_writer() -> None:
    async def run() -> None:
        end = End(dialled=True)
        end.wire.pause_writing()
        assert end.wire.congested
        waiting = [asyncio.ensure_future(end.wire.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()  # one who gives up takes nobody with him
        await asyncio.sleep(0)
        end.wire.connection_lost(None)
        await waiting[1]
        end.wire.fail(RuntimeError())
        assert end.lost == [None]

    asyncio.run(run())
