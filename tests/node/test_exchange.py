"""What node and worker send each other arrives whole, once and in order, with the sockets that go along."""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from parties.node.exchange import MESSAGE_BYTES, Exchange, ExchangeError
from tests.node.support import Run, open_descriptors


@contextlib.contextmanager
def pair(*, takes_sockets: bool = True) -> Iterator[tuple[Exchange, Exchange]]:
    ours, theirs = socket.socketpair()
    a, b = Exchange(ours), Exchange(theirs, takes_sockets=takes_sockets)
    try:
        yield a, b
    finally:
        a.close()
        b.close()


def test_messages_arrive_in_order(run: Run):
    async def main():
        with pair() as (a, b):
            for number in range(1000):
                a.post({"number": number})
            received = []
            for _ in range(1000):
                received.append(await b.receive())
            assert received == [{"number": number} for number in range(1000)]

    run(main())


def test_large_messages_pass_in_pieces_both_ways_at_once(run: Run):
    text = "x" * (MESSAGE_BYTES - 100)

    async def talk(exchange: Exchange) -> None:
        exchange.post({"text": text})
        message = await exchange.receive()
        assert message == {"text": text}
        await exchange.drain()

    async def main():
        with pair() as (a, b):
            async with asyncio.timeout(30):
                await asyncio.gather(talk(a), talk(b))

    run(main())


def test_sockets_go_along_with_their_messages(run: Run):
    async def main():
        with pair() as (a, b):
            kept = []
            for number in range(20):
                near, far = socket.socketpair()
                kept.append(near)
                a.post({"number": number, "text": "y" * 5000})
                a.post({"adopt": number}, far)
                assert far.fileno() == -1 or number > 0  # sent at once, or when there is room
            for number in range(20):
                assert (await b.receive() or {})["number"] == number
                assert b.take_socket() is None
                assert await b.receive() == {"adopt": number}
                along = b.take_socket()
                assert along is not None
                assert not os.get_inheritable(along.fileno())
                with along, kept[number] as near:
                    along.send(b"%d" % number)
                    assert near.recv(10) == b"%d" % number

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_who_takes_no_sockets_gets_none(run: Run):
    """A worker that runs somebody's program cannot fill the node's table of descriptors."""

    async def main():
        with pair(takes_sockets=False) as (a, b):
            before = open_descriptors()
            for number in range(50):
                near, far = socket.socketpair()
                near.close()
                a.post({"number": number})
                assert await b.receive() == {"number": number}
                a.post({"number": number}, far)
                with pytest.raises(ExchangeError, match="did not come along"):
                    await b.receive()
            assert open_descriptors() == before

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">I", MESSAGE_BYTES + 1),
        struct.pack(">I", 2**32 - 1) + b"x" * 100,
        struct.pack(">I", 3) + b"{{{",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 9) + b'{"a":NaN}',
        struct.pack(">I", 4) + b'"\xff"}',
        struct.pack(">I", 200_000) + b"[" * 200_000,
        struct.pack(">I", 10_006) + b'{"a":' + b"9" * 10_000 + b"}",
    ],
    ids=["long", "longer", "no json", "no object", "nan", "no utf-8", "deep", "long number"],
)
def test_what_is_no_message_is_refused(run: Run, sent: bytes):
    async def main():
        near, far = socket.socketpair()
        exchange = Exchange(far)
        with near:
            loop = asyncio.get_running_loop()
            near.setblocking(False)
            sending = asyncio.ensure_future(loop.sock_sendall(near, sent))
            with pytest.raises(ExchangeError):
                await exchange.receive()
            exchange.close()
            with contextlib.suppress(OSError):
                await sending

    run(main())


def test_end_of_the_other_side(run: Run):
    async def main():
        with pair() as (a, b):
            a.post({"last": True})
            a.close()
            assert await b.receive() == {"last": True}
            assert await b.receive() is None
            assert await b.receive() is None
            b.post({})  # the system takes it or not; a later one is refused

            def go_on() -> None:
                for _ in range(10):
                    b.post({})

            with pytest.raises(ExchangeError, match="gone"):
                go_on()

    run(main())


def test_half_a_message_is_none(run: Run):
    async def main():
        near, far = socket.socketpair()
        exchange = Exchange(far)
        with near:
            near.send(struct.pack(">I", 100) + b"{")
        assert await exchange.receive() is None
        exchange.close()

    run(main())


def test_who_does_not_read_is_noticed_and_costs_a_bounded_amount(run: Run):
    async def main():
        with pair() as (a, b):

            def go_on() -> None:
                for _ in range(10_000):
                    a.post({"text": "z" * 10_000})

            with pytest.raises(ExchangeError, match="does not take"):
                go_on()
            # What was taken on is still whole.
            received = 0
            while (message := await b.receive()) is not None:
                assert len(message["text"]) == 10_000
                received += 1
                if received == 50:
                    break

    run(main())


def test_sockets_that_are_not_taken_are_bounded_and_closed(run: Run):
    async def main():
        with pair() as (a, _b):
            a.post({"text": "z" * 4_000_000})  # the buffer of the system is full from here on
            handed: list[socket.socket] = []

            def go_on() -> None:
                for _ in range(1000):
                    near, far = socket.socketpair()
                    near.close()
                    handed.append(far)
                    a.post({}, far)

            with pytest.raises(ExchangeError, match="does not take"):
                go_on()
            assert 10 < len(handed) < 100
            assert handed[-1].fileno() == -1

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_too_long_a_message_is_not_sent_and_its_socket_closed(run: Run):
    async def main():
        with pair() as (a, b):
            near, far = socket.socketpair()
            with near, pytest.raises(ExchangeError, match="the most is"):
                a.post({"text": "z" * MESSAGE_BYTES}, far)
            assert far.fileno() == -1
            with pytest.raises(ValueError, match="JSON"):
                a.post({"number": float("nan")})
            a.post({"still": "works"})
            assert await b.receive() == {"still": "works"}

    run(main())


def test_receiving_may_be_cancelled_without_loss(run: Run):
    async def main():
        near, far = socket.socketpair()
        exchange = Exchange(far)
        content = json.dumps({"text": "abc"}).encode()
        data = struct.pack(">I", len(content)) + content
        with near:
            for byte in data:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.002):
                        await exchange.receive()
                near.send(bytes([byte]))
            assert await exchange.receive() == {"text": "abc"}
        exchange.close()

    run(main())


def test_closing_wakes_who_waits(run: Run):
    async def main():
        with pair() as (a, _b):
            waiting = asyncio.ensure_future(a.receive())
            await asyncio.sleep(0.01)
            a.close()
            assert await asyncio.wait_for(waiting, 15) is None
            a.close()

    run(main())


def test_the_end_of_a_process_ends_waiting_though_others_hold_its_socket(run: Run):
    async def main():
        with pair() as (a, b):
            b.post({"number": 1})
            waiting = asyncio.ensure_future(a.receive())
            assert await waiting == {"number": 1}
            b.post({"number": 2})
            waiting = asyncio.ensure_future(a.receive())
            a.end()
            assert await asyncio.wait_for(waiting, 15) == {"number": 2}
            assert await asyncio.wait_for(a.receive(), 15) is None

    run(main())
