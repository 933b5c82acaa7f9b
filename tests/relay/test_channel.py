"""Control messages through a relay: whole, in order, bounded, and an end that is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from parties.node.control import MESSAGE_BYTES, ChannelClosedError
from parties.relay import channel as module
from parties.relay.channel import Channel, meet_channel
from tests.relay.world import Run, World

LARGEST = MESSAGE_BYTES


@contextlib.asynccontextmanager
async def channels(world: World) -> AsyncIterator[tuple[Channel, Channel]]:
    async with world.relay() as relay:
        north, city = world.nodes["north"], world.nodes["city"]

        async def one(us: Any, peer: Any, initiator: bool) -> Channel:
            return await meet_channel(
                relay.address,
                identity=us,
                peer_certificate=peer.certificate,
                context=b"control",
                initiator=initiator,
            )

        async with asyncio.timeout(30):
            a, b = await asyncio.gather(one(north, city, True), one(city, north, False))
        try:
            yield a, b
        finally:
            await asyncio.gather(a.close(), b.close())


def test_messages_arrive_whole_and_in_order(run: Run, world: World) -> None:
    async def test() -> None:
        messages = [b"", b"x", bytes(128 * 1024), bytes(128 * 1024 + 1), b"\1" * 300_000, bytes(LARGEST), b"last"]
        async with channels(world) as (a, b):
            async with asyncio.TaskGroup() as group:
                for each in (a, b):
                    group.create_task(send_all(each, messages))
                received = [await b.receive() for _ in messages]
                assert received == messages
                assert [await a.receive() for _ in messages] == messages

    run(test())


async def send_all(channel: Channel, messages: list[bytes]) -> None:
    for message in messages:
        await channel.send(message)


def test_messages_of_two_tasks_do_not_mix(run: Run, world: World) -> None:
    async def test() -> None:
        async with channels(world) as (a, b):
            messages = [bytes([number]) * LARGEST for number in range(40)]  # more than fits in between
            async with asyncio.TaskGroup() as group:
                for message in messages:
                    group.create_task(a.send(message))
                await asyncio.sleep(0.2)
                received = [await b.receive() for _ in messages]
            assert sorted(received) == messages

    run(test())


def test_who_does_not_receive_makes_the_other_wait(run: Run, world: World) -> None:
    async def test() -> None:
        async with channels(world) as (a, b):
            sent = 0
            sending = asyncio.create_task(a.send(bytes(LARGEST)))
            while (await asyncio.wait([sending], timeout=0.5))[0]:
                sent += 1
                sending = asyncio.create_task(a.send(bytes(LARGEST)))
            assert sent * LARGEST < 64 * 2**20
            assert b._held <= module._WAITING_BYTES + LARGEST + 1024
            await b.receive()
            async with asyncio.timeout(30):
                for _ in range(sent):
                    assert len(await b.receive()) == LARGEST
            await sending

    run(test())


def test_what_came_before_the_end_is_received_and_then_the_end(run: Run, world: World) -> None:
    async def test() -> None:
        async with channels(world) as (a, b):
            await a.send(b"goodbye")
            await a.close()
            assert await b.receive() == b"goodbye"
            with pytest.raises(ChannelClosedError, match=r"closed the connection|broke"):
                await b.receive()
            with pytest.raises(ChannelClosedError, match=r"closed the connection|broke"):
                await b.send(b"are you there?")
            with pytest.raises(ChannelClosedError, match="we closed it"):
                await a.send(b"x")
            with pytest.raises(ChannelClosedError, match="we closed it"):
                await a.receive()

    run(test())


def test_who_waits_is_told_of_the_end(run: Run, world: World) -> None:
    async def test() -> None:
        async with channels(world) as (a, b):
            waiting = asyncio.create_task(a.receive())
            await asyncio.sleep(0)
            await b.close()
            with pytest.raises(ChannelClosedError):
                await waiting

    run(test())


@pytest.mark.parametrize(
    "parts",
    [[b""], [b"\2x"], [b"\1"], [b"\1" + bytes(128 * 1024)] * 9],
    ids=["nothing", "unknown flag", "endless nothing", "too long"],
)
def test_a_message_that_is_none_ends_the_channel(run: Run, world: World, parts: list[bytes]) -> None:
    async def test() -> None:
        async with channels(world) as (a, b):
            assert a._wire is not None
            for part in parts:
                a._wire.write(part)
            with pytest.raises(ChannelClosedError, match="too long or not well formed"):
                await b.receive()
            with pytest.raises(ChannelClosedError):
                await a.receive()

    run(test())


def test_a_message_that_is_too_long_is_not_sent(run: Run, world: World) -> None:
    async def test() -> None:
        async with channels(world) as (a, b):
            with pytest.raises(ValueError, match="at most"):
                await a.send(bytes(LARGEST + 1))
            await a.send(b"but this")
            assert await b.receive() == b"but this"

    run(test())
