"""What a relay takes is bounded, whoever asks for it, and whatever some do it serves the others."""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from aiohttp import WSMsgType

from parties.connect import NotConnectedError
from parties.identity import make_identity
from parties.loops import loop_factory
from parties.relay import server
from parties.relay.admission import PAIRED, REFUSED
from parties.relay.figures import Figures, Journal
from parties.relay.forward import MESSAGE_BYTES
from parties.relay.passes import Register
from parties.relay.server import Limits
from tests.relay.world import LIMIT, Run, Running, World, come, joined, raw_guest, settle


async def still_serves(world: World, relay: Running) -> None:
    async with joined(relay.address, world.nodes["south"], world.nodes["city"]) as (a, b):
        a.write(b"still here")
        await b.until(lambda: b.messages)


async def gone(task: Awaitable[Any]) -> None:
    if isinstance(task, asyncio.Task):
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# Who waits


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(waiting=3), "3 ends wait here already, which is all"),
        (Limits(waiting_per_key=3), "3 ends of this key wait here already"),
        (Limits(waiting_per_member=3), "3 ends of north wait here already"),
    ],
)
def test_only_so_many_wait(run: Run, world: World, limits: Limits, says: str) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with world.relay(limits) as relay:
            waiting = [
                asyncio.create_task(come(relay.address, north, city, initiator=True, context=bytes([number])))
                for number in range(3)
            ]
            await settle(lambda: relay.relay.now["waiting"] == 3)
            with pytest.raises(NotConnectedError, match=says):
                await come(relay.address, north, city, initiator=True, context=b"one more")
            if limits.waiting_per_member == 3:  # a worker is one of its member's
                worker = make_identity("worker")
                with pytest.raises(NotConnectedError, match=says):
                    await come(relay.address, worker, city, initiator=True, passes=world.pass_of("north", worker))
            # Those for whom somebody waits already need no seat; and one that is free again can be taken.
            side = await come(relay.address, city, north, initiator=False, context=bytes([0]))
            other = await waiting[0]
            late = asyncio.create_task(come(relay.address, north, city, initiator=True, context=b"one more"))
            await settle(lambda: relay.relay.now["waiting"] == 3)
            for task in (*waiting[1:], late):
                await gone(task)
            for each in (side, other):
                each.open.drop()
            await settle(lambda: relay.relay.now == {"connections": 0, "waiting": 0, "pairs": 0})

    run(test())


def test_a_thousand_wait_and_others_are_served(world: World) -> None:

    async def test() -> None:
        limits = Limits(
            handshake_seconds=60, waiting_per_key=1024, waiting_per_member=1024, connections_per_address=2048
        )
        async with world.relay(limits) as relay:
            north, city = world.nodes["north"], world.nodes["city"]
            at_once = asyncio.Semaphore(50)
            waiting = []

            async def wait_there(number: int) -> None:
                async with raw_guest(world, relay, "north", "city", b"%d" % number) as websocket:
                    at_once.release()
                    await websocket.receive()

            for number in range(1000):
                await at_once.acquire()
                waiting.append(asyncio.create_task(wait_there(number)))
            await settle(lambda: relay.relay.now["waiting"] == 1000, 60)
            began = time.perf_counter()
            async with joined(relay.address, north, city) as (a, b):
                a.write(b"x")
                await b.until(lambda: b.messages)
            assert time.perf_counter() - began < 5.0
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await settle(lambda: relay.relay.now == {"connections": 0, "waiting": 0, "pairs": 0}, 60)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(test())


def test_who_speaks_while_it_should_wait_is_shown_out(run: Run, world: World) -> None:
    async def test() -> None:
        async with world.relay() as relay, raw_guest(world, relay, "north", "city") as websocket:
            await settle(lambda: relay.relay.now["waiting"] == 1)
            await websocket.send_bytes(b"are you there?")
            assert await websocket.receive_bytes() == REFUSED + b"a message out of turn"
            await settle(lambda: relay.relay.now["waiting"] == 0)

    run(test())


GARBAGE = [
    b"GET /garbage HTTP/9.9\r\n\r\n",
    b"GET /" + b"garbage" * 10_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"garbage: yes\r\n" * 10_000 + b"\r\n",
    b"GET /relay HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\ngarbage",  # no Host
]


def test_garbage_is_counted_and_not_quoted(run: Run, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def test() -> None:
        async with world.relay() as relay:
            for garbage in GARBAGE:
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, ssl=world.trust)
                writer.write(garbage)
                with contextlib.suppress(ConnectionError):
                    assert (await reader.read(12)) == b"HTTP/1.0 400"
                writer.close()
            await settle(lambda: relay.relay.figures.refused.total() >= len(GARBAGE))
            await still_serves(world, relay)

    run(test())
    told = [record.getMessage() for record in caplog.records]
    assert sum("a request that failed" in line for line in told) == len(GARBAGE)
    assert not any("garbage" in line.lower() or len(line) > 400 for line in told)
    assert all(record.exc_info is None for record in caplog.records)


# Who does not say who it is


async def knock(relay: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", relay.port)


async def slow_callers(world: World, relay: Running) -> AsyncIterator[asyncio.StreamWriter]:
    """One of each kind: says nothing; stops in TLS; in HTTP; after HTTP; and one that never ends a header."""
    yield (await knock(relay))[1]
    _, writer = await knock(relay)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
    yield writer
    request = b"GET /relay HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    upgrade = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    for said in (b"", request, request + upgrade, request + upgrade + b"\x82\xff", b"POST / HTTP/1.1\r\nContent-Le"):
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port, ssl=world.trust)
        writer.write(said)
        yield writer


def test_slow_callers_are_shown_out_in_time(run: Run, world: World) -> None:
    async def test() -> None:
        async with world.relay(Limits(handshake_seconds=0.4)) as relay:
            callers = [writer async for writer in slow_callers(world, relay)]
            _, trickle = await asyncio.open_connection("127.0.0.1", relay.port, ssl=world.trust)
            trickle.write(b"GET /relay HTTP/1.1\r\n")
            await settle(lambda: relay.relay.now["connections"] == len(callers) + 1)
            await still_serves(world, relay)
            until = time.monotonic() + 3
            while relay.relay.now["connections"] and time.monotonic() < until:
                trickle.write(b"X")
                await asyncio.sleep(0.02)
            assert relay.relay.now["connections"] == 0
            assert relay.relay.figures.refused.total() >= len(callers)
            for writer in (*callers, trickle):
                writer.close()
            await still_serves(world, relay)

    run(test())


@pytest.mark.parametrize("tls", [False, True])
def test_a_crowd_at_the_door_keeps_out_itself(run: Run, world: World, tls: bool) -> None:
    async def test() -> None:
        trust = world.trust if tls else None
        async with world.relay(Limits(unknown=20)) as relay:
            # Somebody from elsewhere, who came first and is slow.
            lone, lone_writer = await asyncio.open_connection(
                "127.0.0.1", relay.port, ssl=trust, local_addr=("127.0.0.2", 0)
            )
            callers = [await asyncio.open_connection("127.0.0.1", relay.port, ssl=trust) for _ in range(60)]
            await settle(lambda: relay.relay.figures.refused.total() >= 41)
            await settle(lambda: relay.relay.now["connections"] <= 20)
            await still_serves(world, relay)
            first, last = callers[0][0], callers[-1][0]
            assert await asyncio.wait_for(first.read(), 15) == b""
            assert not last.at_eof()
            assert not lone.at_eof()
            assert set(relay.relay.figures.refused) == {"too many who do not say who they are"}
            for writer in (lone_writer, *(writer for _, writer in callers)):
                writer.close()

    run(test())


@pytest.mark.parametrize(
    ("limits", "says", "many"),
    [
        (Limits(connections=30), "too many connections", 10_000),
        (Limits(connections_per_address=30), "of one address", 500),
    ],
)
def test_ten_thousand_connections(world: World, limits: Limits, says: str, many: int) -> None:
    """Those beyond the bound are closed at once; the ends that are joined do not notice."""

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed != resource.RLIM_INFINITY:
        many = min(many, allowed // 2)

    async def test() -> None:
        async with (
            world.relay(limits) as relay,
            joined(relay.address, world.nodes["north"], world.nodes["city"]) as (a, b),
        ):
            refused = relay.relay.figures.refused
            with contextlib.ExitStack() as callers:
                for number in range(many):
                    caller = callers.enter_context(socket.socket())
                    caller.setblocking(False)
                    assert caller.connect_ex(("127.0.0.1", relay.port)) in (0, errno.EINPROGRESS)
                    if number % 100 == 0:
                        a.write(b"x")
                        # Not faster than they are accepted, or the system makes them wait.
                        await settle(lambda number=number: refused.total() >= number - 500)  # type: ignore[misc]
                await settle(lambda: refused.total() >= many - 30, 60)
                assert relay.relay.now["connections"] <= 30
                assert any(says in kind for kind in refused)
                await b.until(lambda: len(b.messages) == many // 100)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(test())


def test_no_more_files_is_not_the_end(run: Run, world: World) -> None:
    class Listener:
        """A listening socket of a process that is short of files, twice."""

        def __init__(self, listener: socket.socket) -> None:
            self._listener = listener
            self._failures = [errno.EMFILE, errno.ECONNABORTED, errno.ENFILE]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._listener, name)

        def accept(self) -> Any:
            if self._failures:
                number = self._failures.pop()
                raise OSError(number, os.strerror(number))
            return self._listener.accept()

    async def test() -> None:
        async with world.relay() as relay:
            relay.relay._door._listener = Listener(relay.relay._door._listener)  # type: ignore[arg-type, assignment]
            await still_serves(world, relay)
            assert relay.relay.figures.refused["no more files or memory"] == 2

    run(test())


def test_somebody_tidies_up_now_and_then(run: Run, world: World) -> None:
    async def test() -> None:
        calls = []
        async with world.relay(tidy=lambda: calls.append(relay.relay.now["connections"])) as relay:
            for _ in range(130):
                _, writer = await knock(relay)
                writer.close()
            await settle(lambda: len(calls) == 2)

    run(test())


# What is forwarded


def test_who_does_not_read_makes_the_other_wait(run: Run, world: World) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with world.relay() as relay, joined(relay.address, north, city) as (a, b):
            b.open.pause_reading()
            sent = 0
            quiet = time.monotonic() + 0.5
            while time.monotonic() < quiet:
                if a.open.congested:
                    await asyncio.sleep(0.02)
                else:
                    quiet = time.monotonic() + 0.5
                    a.write(bytes(LIMIT))
                    sent += 1
                    await asyncio.sleep(0)
            held = {
                end: end._transport.get_write_buffer_size() for pair in relay.relay._pairs.values() for end in pair.ends
            }
            # What the relay itself holds, and what the system's buffers of four sockets may add.
            assert 0 < max(held.values()) < 4 * LIMIT
            assert sent * LIMIT < 64 * 2**20
            a.open.ping()
            b.open.ping()
            heard = a.open.last_heard
            await settle(lambda: b.open.congested or a.open.last_heard >= heard)
            b.open.resume_reading()
            await b.until(lambda: len(b.messages) == sent)
            assert not a.open.congested
            a.write(b"last")
            await b.until(lambda: b.messages[-1] == b"last")

    run(test())


def test_a_flood_of_pings_is_not_answered_without_end(run: Run, world: World) -> None:
    async def test() -> None:
        async with (
            world.relay() as relay,
            raw_guest(world, relay, "north", "city") as one,
            raw_guest(world, relay, "city", "north") as other,
        ):
            assert await one.receive_bytes() == PAIRED
            assert await other.receive_bytes() == PAIRED
            # One reads nothing any more, and asks for answers all the time.
            transport: Any = one._conn.transport  # type: ignore[union-attr]
            transport.pause_reading()
            (pair,) = set(relay.relay._pairs.values())
            end = next(each for each in pair.ends if each.guest.member == "north")
            pings = (b"\x89\xfd" + bytes(4 + 125)) * 1000
            for _ in range(100):  # 13 MB, of which the system's buffers take a few
                transport.write(pings)
                heard = end.bytes_received
                await settle(lambda heard=heard: end.bytes_received > heard)  # type: ignore[misc]
                assert end._transport.get_write_buffer_size() < 2**20
            assert end.congested
            transport.abort()

    run(test())


@pytest.mark.parametrize("kind", ["too long", "text", "pieces", "reserved bits"])
def test_who_breaks_a_rule_is_parted_from_the_other(run: Run, world: World, kind: str) -> None:
    async def test() -> None:
        async with (
            world.relay() as relay,
            raw_guest(world, relay, "north", "city") as one,
            raw_guest(world, relay, "city", "north") as other,
        ):
            assert await one.receive_bytes() == PAIRED
            assert await other.receive_bytes() == PAIRED
            await one.send_bytes(bytes(MESSAGE_BYTES))
            assert len(await other.receive_bytes()) == MESSAGE_BYTES
            if kind == "too long":
                await one.send_bytes(bytes(MESSAGE_BYTES + 1))
            elif kind == "text":
                await one.send_str("text")
            else:
                transport: Any = one._conn.transport  # type: ignore[union-attr]
                transport.write({"pieces": b"\x02", "reserved bits": b"\xc2"}[kind] + b"\x81" + bytes(5))
            assert (await other.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
            assert (await one.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
            await settle(lambda: relay.relay.now["pairs"] == 0)

    run(test())


def test_a_silent_pair_is_parted_and_a_ping_is_no_silence(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.05)

    async def test() -> None:
        async with (
            world.relay(Limits(idle_seconds=0.4)) as relay,
            joined(relay.address, world.nodes["north"], world.nodes["city"]) as (a, b),
        ):
            for _ in range(10):
                b.open.ping()
                await asyncio.sleep(0.08)
            assert not a.lost
            await a.until(lambda: a.lost)
            await b.until(lambda: b.lost)

    run(test())


def test_whoever_is_no_longer_served_is_shown_out(run: Run, world: World) -> None:
    async def test() -> None:
        north, city, _ = world.nodes.values()
        worker = make_identity("worker of city")
        passes = world.pass_of("city", worker)
        async with world.relay() as relay, joined(relay.address, north, city) as (a, b):
            waiting = asyncio.create_task(come(relay.address, worker, north, initiator=True, passes=passes))
            await settle(lambda: relay.relay.now["waiting"] == 1)
            del world.nodes["city"]
            relay.relay.serve(Register([world.consortium]), ("127.0.0.1",), world.server_tls())
            await a.until(lambda: a.lost)
            await b.until(lambda: b.lost)
            with pytest.raises(NotConnectedError, match="no longer served"):
                await waiting
            with pytest.raises(NotConnectedError, match="nobody who is a member"):
                await come(relay.address, worker, north, initiator=True, passes=passes)

    run(test())


def test_a_relay_that_stops_says_so(run: Run, world: World) -> None:
    async def test() -> None:
        north, city, south = world.nodes.values()
        async with world.relay() as relay:
            a, b = await asyncio.gather(
                come(relay.address, north, city, initiator=True), come(relay.address, city, north, initiator=False)
            )
            waiting = asyncio.create_task(come(relay.address, south, city, initiator=True))
            await settle(lambda: relay.relay.now["waiting"] == 1)
        with pytest.raises(NotConnectedError, match="the relay stops"):
            await waiting
        for side in (a, b):
            await side.until(lambda side=side: side.lost)  # type: ignore[misc]

    run(test())


# The log


def test_a_flood_of_refusals_does_not_fill_the_log(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        figures = Figures()
        journal = Journal(logging.getLogger("tests.flood"), figures)
        for number in range(1000):
            journal.refused("kind", f"number {number}\nof a flood \x1b[31m")
        assert figures.refused == {"kind": 1000}
        loop_time = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: loop_time + 11, raising=False)
        journal.settle()
        journal.refused("kind", "x" * 5000)

    with asyncio.Runner() as runner:
        runner.run(test())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 22
    assert lines[0] == "refused: number 0 of a flood  [31m"
    assert lines[20].startswith("refused: kind, 980 more times")
    assert len(lines[21]) < 400


def test_the_log_tells_names_sizes_and_times(run: Run, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tests.relay")

    async def test() -> None:
        async with world.relay() as relay:
            async with joined(relay.address, world.nodes["north"], world.nodes["city"]) as (a, b):
                a.write(b"not for the log")
                await b.until(lambda: b.messages)
            await settle(lambda: not relay.relay.now["pairs"])

    run(test())
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "joined" in text
    assert "north (" in text
    assert "parted" in text
    assert "bytes: closed by" in text
    assert "not for the log" not in text
