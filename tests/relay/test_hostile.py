"""A relay that does as it likes: whatever it changes is noticed, and nothing that it makes up is believed."""

import asyncio
from collections.abc import Callable

import pytest

from parties.connect import NotConnectedError
from parties.identity import Identity
from parties.relay.sealed import SealError
from tests.relay.world import HostileRelay, Run, Side, World, come, settle

# The handshake, and the responder's first word: messages 0 and 1 of the initiator's side, and of the responder's.
SAID_BEFORE = 2
Tamper = Callable[[int, int, bytes], list[bytes]]


async def meets(relay: HostileRelay, one: Identity, other: Identity) -> tuple[Side, Side]:
    """Both ends come, the initiator first."""
    first = asyncio.create_task(come(relay.address, one, other, initiator=True))
    await settle(lambda: relay.guests or first.done())
    second = asyncio.create_task(come(relay.address, other, one, initiator=False))
    sides = await asyncio.gather(first, second)
    return sides[0], sides[1]


def flip(number: int) -> Tamper:
    return lambda side, at, message: [
        bytes([message[0]]) + message[1:-1] + bytes([message[-1] ^ 1]) if (side, at) == (0, number) else message
    ]


def change_kind(side: int, number: int, message: bytes) -> list[bytes]:
    return [b"\1" + message[1:] if (side, number) == (0, SAID_BEFORE) else message]


def repeat(side: int, number: int, message: bytes) -> list[bytes]:
    return [message, message] if (side, number) == (0, SAID_BEFORE) else [message]


def leave_out(side: int, number: int, message: bytes) -> list[bytes]:
    return [] if (side, number) == (0, SAID_BEFORE) else [message]


class Reorder:
    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def __call__(self, side: int, number: int, message: bytes) -> list[bytes]:
        if (side, number) == (0, SAID_BEFORE):
            self.kept.append(message)
            return []
        if (side, number) == (0, SAID_BEFORE + 1):
            return [message, *self.kept]
        return [message]


def make_up(side: int, number: int, message: bytes) -> list[bytes]:
    return [message, bytes(100)] if (side, number) == (0, SAID_BEFORE) else [message]


def cut_short(side: int, number: int, message: bytes) -> list[bytes]:
    return [message[:-1] if (side, number) == (0, SAID_BEFORE) else message]


TAMPERS: dict[str, Callable[[], Tamper]] = {
    "flips a bit": lambda: flip(SAID_BEFORE),
    "changes the kind": lambda: change_kind,
    "repeats": lambda: repeat,
    "leaves one out": lambda: leave_out,
    "reorders": Reorder,
    "makes one up": lambda: make_up,
    "cuts one short": lambda: cut_short,
}


def test_the_relay_of_these_tests_can_be_honest(run: Run, world: World) -> None:
    async def test() -> None:
        async with HostileRelay(world) as relay:
            a, b = await meets(relay, world.nodes["north"], world.nodes["city"])
            a.write(b"one")
            a.write(b"two")
            await b.until(lambda: len(b.messages) == 2)
            assert [len(each) for each in relay.seen] == [SAID_BEFORE + 2, SAID_BEFORE]
            for side in (a, b):
                side.open.drop()

    run(test())


@pytest.mark.parametrize("how", TAMPERS)
def test_tampering_is_noticed_and_ends_the_link(run: Run, world: World, how: str) -> None:
    async def test() -> None:
        async with HostileRelay(world, TAMPERS[how]()) as relay:
            a, b = await meets(relay, world.nodes["north"], world.nodes["city"])
            for number in range(3):
                a.write(b"message %d" % number)
            await b.until(lambda: b.lost)
            assert isinstance(b.lost[0], SealError)
            assert b.messages in ([], [b"message 0"])  # and nothing that was not sent
            await a.until(lambda: a.lost)
            for side in (a, b):
                side.open.drop()

    run(test())


@pytest.mark.parametrize(("side", "number"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("how", ["flips", "repeats", "replaces"])
def test_tampering_with_the_handshake_is_noticed(run: Run, world: World, side: int, number: int, how: str) -> None:
    async def test() -> None:
        before: list[bytes] = [b"\1" + bytes(32)]

        def tamper(where: int, at: int, message: bytes) -> list[bytes]:
            if (where, at) != (side, number):
                before.append(message)
                return [message]
            if how == "repeats":
                return [message, message]
            return [message[:-1] + bytes([message[-1] ^ 1])] if how == "flips" else [before[-1]]

        async with HostileRelay(world, tamper) as relay:
            results = await asyncio.gather(
                come(relay.address, world.nodes["north"], world.nodes["city"], initiator=True),
                come(relay.address, world.nodes["city"], world.nodes["north"], initiator=False),
                return_exceptions=True,
            )
            sides = [each for each in results if isinstance(each, Side)]
            # Repeating the last one of a side is noticed after the handshake, with the link.
            for each in sides:
                await each.until(lambda each=each: each.lost)  # type: ignore[misc]
            assert any(isinstance(each, NotConnectedError) for each in results) or any(
                isinstance(each.lost[0], SealError) for each in sides
            )

    # Who comes first is chance here; both orders are the same to the relay's plan.
    run(test())


def test_a_recorded_handshake_opens_nothing(run: Run, world: World) -> None:
    """The relay plays north's side of an old session to city."""

    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with HostileRelay(world) as relay:
            a, b = await meets(relay, north, city)
            a.write(b"pay")
            await b.until(lambda: b.messages)
            recorded = relay.seen[0]
            for side in (a, b):
                side.open.drop()
        async with HostileRelay(world) as relay:
            stage = asyncio.create_task(come(relay.address, city, north, initiator=False))
            await settle(lambda: relay.guests)
            relay.guests.append(relay.guests[0])
            relay.both.set()
            await asyncio.sleep(0.05)
            for message in recorded:
                await relay.guests[0].send_bytes(message)
            with pytest.raises(NotConnectedError, match="not made for this link"):
                await stage

    run(test())


def test_a_link_cannot_be_redirected_to_another_member(run: Run, world: World) -> None:
    """North asks for city, and the relay gives it south: a member too, and in on it."""

    async def test() -> None:
        north, city, south = world.nodes.values()
        async with HostileRelay(world) as relay:
            results = await asyncio.gather(
                come(relay.address, north, city, initiator=True),
                come(relay.address, south, north, initiator=False),
                return_exceptions=True,
            )
            assert all(isinstance(each, NotConnectedError) for each in results)
            assert "for other keys or another purpose" in "".join(map(str, results))

    run(test())


def test_two_sessions_of_the_same_nodes_cannot_be_mixed(run: Run, world: World) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with HostileRelay(world) as relay:
            results = await asyncio.gather(
                come(relay.address, north, city, initiator=True, context=b"attempt 1"),
                come(relay.address, city, north, initiator=False, context=b"attempt 2"),
                return_exceptions=True,
            )
            assert all(isinstance(each, NotConnectedError) for each in results)

    run(test())


def test_messages_of_one_link_mean_nothing_on_another(run: Run, world: World) -> None:
    """Two links through one relay, which gives city what north sealed for south."""

    async def test() -> None:
        north, city, south = world.nodes.values()
        async with HostileRelay(world) as one, HostileRelay(world) as two:
            a, b = await meets(one, north, city)
            c, d = await meets(two, north, south)
            c.write(b"for south")  # the first message there, as it would be the first here
            await d.until(lambda: d.messages)
            await one.guests[1].send_bytes(two.seen[0][-1])
            await b.until(lambda: b.lost)
            assert isinstance(b.lost[0], SealError)
            assert not b.messages
            for side in (a, b, c, d):
                side.open.drop()

    run(test())


def test_what_was_sent_is_not_believed_when_it_comes_back(run: Run, world: World) -> None:
    async def test() -> None:
        async with HostileRelay(world) as relay:
            a, b = await meets(relay, world.nodes["north"], world.nodes["city"])
            a.write(b"mine")
            await b.until(lambda: b.messages)
            await relay.guests[0].send_bytes(relay.seen[0][-1])
            await a.until(lambda: a.lost)
            assert isinstance(a.lost[0], SealError)
            assert not a.messages
            for side in (a, b):
                side.open.drop()

    run(test())


def test_two_who_both_begin_or_both_wait_do_not_meet(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from parties.relay import client

    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.3)

    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        for initiator in (True, False):
            async with world.relay() as relay:
                results = await asyncio.gather(
                    come(relay.address, north, city, initiator=initiator),
                    come(relay.address, city, north, initiator=initiator),
                    return_exceptions=True,
                )
                assert all(isinstance(each, NotConnectedError) for each in results), results

    run(test())
