"""The sealed wire alone, over one that only remembers."""

import asyncio
from typing import Any

import pytest

from parties.relay.sealed import DATA, PING, PONG, READY, SealError
from parties.relay.sealed_wire import SealedWire
from tests.relay.test_sealed import linked, message


class Remembers:
    """As much of a wire as is used here."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.faults: list[Exception] = []
        self.congested = False
        self.reading = True
        self.bytes_sent, self.bytes_received = 7, 8

    def write(self, head: bytes, payload: bytes = b"") -> None:
        self.written.append(head + payload)

    def fail(self, fault: Exception) -> None:
        self.faults.append(fault)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Ours:
    """Our end, and the peer's keys."""

    def __init__(self) -> None:
        keys, self.peer = linked()
        self.below = Remembers()
        self.heard: list[Any] = []
        self.wire = SealedWire(
            self.below,  # type: ignore[arg-type]
            keys,
            on_message=self.heard.append,
            on_lost=self.heard.append,
        )

    def take(self, kind: int, content: bytes = b"") -> None:
        self.wire.take(message(self.peer.seal, content, kind))


async def ours(*, start: bool = True) -> Ours:
    end = Ours()
    if start:
        end.wire.start()
    return end


def test_messages_are_sealed_in_one_piece_and_opened() -> None:
    async def test() -> None:
        end = await ours()
        end.wire.write(b"head", memoryview(b"payload"))
        end.wire.write(b"", bytearray(b"x"))
        assert [end.peer.unseal.open(each) for each in end.below.written] == [(DATA, b"headpayload"), (DATA, b"x")]
        end.take(DATA, b"and back")
        assert end.heard == [b"and back"]
        assert (end.wire.bytes_sent, end.wire.bytes_received) == (7, 8)

    asyncio.run(test())


@pytest.mark.parametrize(("kind", "content"), [(PING, b"x"), (PONG, b"x"), (READY, b""), (READY, b"x")])
def test_what_the_peer_seals_must_make_sense_too(kind: int, content: bytes) -> None:
    async def test() -> None:
        end = await ours()
        end.take(kind, content)
        assert [type(fault) for fault in end.below.faults] == [SealError]
        assert not end.below.written

    asyncio.run(test())


def test_pings_are_answered_unless_nobody_reads_the_answers() -> None:
    async def test() -> None:
        end = await ours()
        end.wire.ping()
        end.take(PING)
        end.take(PONG)
        end.below.congested = True
        end.take(PING)
        assert [end.peer.unseal.open(each) for each in end.below.written] == [(PING, b""), (PONG, b"")]
        assert not end.heard
        assert not end.below.faults

    asyncio.run(test())


def test_nothing_is_reported_before_the_start() -> None:
    async def test() -> list[bool]:
        end = await ours(start=False)
        reading = [end.below.reading]
        end.take(DATA, b"early")
        end.take(DATA, b"too")
        assert not end.heard
        end.wire.start()
        assert end.heard == [b"early", b"too"]
        return [*reading, end.below.reading]

    assert asyncio.run(test()) == [False, True]


def test_not_even_the_end_is_reported_before_the_start() -> None:
    async def test() -> None:
        end = await ours(start=False)
        end.take(DATA, b"early")
        end.wire.lost(None)
        assert not end.heard
        end.wire.start()
        assert end.heard == [b"early", None]

    asyncio.run(test())


def test_only_what_opens_is_a_sign_of_life() -> None:
    async def test() -> None:
        end = await ours()
        before = end.wire.last_heard
        await asyncio.sleep(0.01)
        end.wire.take(bytes(30))
        assert end.wire.last_heard == before
        assert end.below.faults
        end = await ours()
        before = end.wire.last_heard
        await asyncio.sleep(0.01)
        end.take(PONG)
        assert end.wire.last_heard > before

    asyncio.run(test())
