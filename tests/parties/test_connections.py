"""How nodes come to be connected: who dials whom, who is let in, and connections accepted by somebody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Literal

import pytest
from aiohttp import web

from mpc.errors import PeerError
from parties import gate
from parties.connect import NotConnectedError
from parties.gate import MOST_STRANGERS
from parties.identity import client_context, host_name, make_identity, server_context
from parties.members import Member, Route, name_of, route_between
from parties.mesh import Mesh, Patience
from parties.relay.client import RelayAddress
from tests.parties.consortium import QUICK, Consortium, Run

LASTING = replace(QUICK, resume_seconds=5.0)
HERE = {"host": "here", "port": 1}
FIRST, SECOND = RelayAddress("https://first.example"), RelayAddress("https://second.example")


@pytest.mark.parametrize(
    ("zero", "one", "zeros_way", "ones_way"),
    [
        (HERE, HERE, Route(False), Route(True)),
        (HERE, {}, Route(False), Route(True)),
        ({}, HERE, Route(True), Route(False)),
        (HERE | {"relay": FIRST}, {"relay": FIRST}, Route(False), Route(True)),
        ({"relay": FIRST}, {"relay": SECOND}, Route(False, FIRST), Route(True, FIRST)),
        ({}, {"relay": SECOND}, Route(False, SECOND), Route(True, SECOND)),
        ({}, {}, None, None),
    ],
)
def test_both_ends_agree_on_the_way(
    zero: dict[str, Any], one: dict[str, Any], zeros_way: Route | None, ones_way: Route | None
) -> None:
    members = [Member(b"zero", **zero), Member(b"one", **one)]
    assert route_between(0, 1, members) == zeros_way
    assert route_between(1, 0, members) == ones_way


def test_two_that_cannot_be_connected_are_named_at_once() -> None:
    async def make() -> None:
        with Consortium.found(2) as nodes:
            nowhere = [
                replace(member, host="", name=name)
                for member, name in zip(nodes.members, ["north", "city"], strict=True)
            ]
            with pytest.raises(
                ValueError, match="north and city cannot be connected: neither has an address or a relay"
            ):
                nodes.mesh(0, members=nowhere)

    asyncio.run(make())


def test_names() -> None:
    members = [Member(b"", name="north"), Member(b"")]
    assert [name_of(rank, 2, members) for rank in range(3)] == ["north", "party 1", "the dealer"]


def test_errors_call_a_member_by_its_name(run: Run) -> None:
    async def program(mesh: Mesh) -> None:
        if mesh.rank == 0:
            raise LookupError
        await mesh.receive(0, "never", 1)

    with Consortium.found(2) as nodes:
        nodes.members = [replace(nodes.members[0], name="north"), replace(nodes.members[1], name="city")]
        _, one = run(nodes.run(program))
    assert str(one).startswith("north stopped: LookupError")


async def exchange(mesh: Mesh) -> str:
    peers = [rank for rank in range(3) if rank != mesh.rank]
    for peer in peers:
        await mesh.send(peer, "hello", bytes([mesh.rank]))
    for peer in peers:
        assert bytes(await mesh.receive(peer, "hello", 1)) == bytes([peer])
    return "met"


@pytest.mark.parametrize("reachable", [0, 1, 2])
@pytest.mark.parametrize("patience", [QUICK, LASTING])
def test_one_that_can_be_dialled_and_two_behind_it(reachable: int, patience: Patience, run: Run) -> None:
    """Only those two pairs are tried that have a way; a higher rank with an address is dialled by lower ones."""

    async def main() -> None:
        with Consortium.found(2) as nodes:
            nodes.members = [
                member if rank == reachable % 2 else replace(member, host="", port=0)
                for rank, member in enumerate(nodes.members)
            ]

            async def program(mesh: Mesh) -> None:
                await mesh.send(1 - mesh.rank, "x", b"x")
                await mesh.receive(1 - mesh.rank, "x", 1)

            assert await nodes.run(program, patience) == [None, None]

    run(main())


# ---- accepted by somebody else ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def front_door(listener: socket.socket, mesh: Mesh) -> AsyncIterator[None]:
    """Accept for a mesh, as its node does, and hand over what comes."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    loop.add_reader(listener, lambda: mesh.adopt(listener.accept()[0]))
    try:
        yield
    finally:
        loop.remove_reader(listener)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("patience", [QUICK, LASTING])
def test_connections_that_somebody_else_accepted(early: bool, patience: Patience, run: Run) -> None:
    async def main() -> None:
        with Consortium.found(3) as nodes:

            async def one(rank: int) -> str:
                mesh = Mesh(
                    nodes.identities[rank], rank, nodes.members, parties=3, session=bytes(16), patience=patience
                )
                async with front_door(nodes.listeners[rank], mesh):
                    if early:
                        await asyncio.sleep(0.1 * (2 - rank))  # the others dial before it is open
                    async with mesh:
                        return await exchange(mesh)

            assert await asyncio.gather(*(one(rank) for rank in range(3))) == ["met"] * 3

    run(main())


def test_what_is_adopted_too_early_too_often_or_too_late_is_closed(run: Run) -> None:
    def pair() -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        ours.settimeout(1)
        return ours, theirs

    async def main() -> None:
        with Consortium.found(2) as nodes:
            mesh = Mesh(nodes.identities[0], 0, nodes.members, parties=2, session=bytes(16), patience=QUICK)
            pairs = [pair() for _ in range(19)]
            for _, theirs in pairs[:18]:
                mesh.adopt(theirs)
            assert [theirs.fileno() >= 0 for _, theirs in pairs[:18]] == [False] * 2 + [True] * 16
            await mesh.close()
            mesh.adopt(pairs[18][1])
            await asyncio.sleep(0)
            assert [theirs.fileno() >= 0 for _, theirs in pairs] == [False] * 19
            for ours, _ in pairs:
                ours.close()

    run(main())


# ---- strangers at the gate ----------------------------------------------------------------------


def test_any_number_of_silent_strangers_does_not_keep_a_member_out(run: Run) -> None:
    async def main() -> None:
        with Consortium.found(2) as nodes:
            address = nodes.listeners[0].getsockname()

            async def zero() -> list[int]:
                async with nodes.mesh(0, replace(QUICK, connect_seconds=10.0)) as mesh:
                    got = len(await mesh.receive(1, "x", 1))
                    gate = mesh._meeting._doorkeeper._gate
                    assert gate is not None
                    return [got, len(gate._strangers)]

            waiting = asyncio.ensure_future(zero())
            await asyncio.sleep(0.1)
            with contextlib.ExitStack() as stack:
                strangers = []
                for number in range(2 * MOST_STRANGERS):
                    strangers.append(stack.enter_context(socket.create_connection(address)))
                    if number % 8 == 7:
                        await asyncio.sleep(0.01)  # they are accepted meanwhile, of whom no more can queue
                async with nodes.mesh(1) as mesh:
                    await mesh.send(0, "x", b"x")
                    got, at_the_gate = await waiting
                assert got == 1
                assert MOST_STRANGERS - 1 <= at_the_gate <= MOST_STRANGERS  # the member was there, too
                # Those that came first had to go.
                for stranger in strangers[:MOST_STRANGERS]:
                    assert is_closed(stranger)

    run(main())


def is_closed(end: socket.socket) -> bool:
    end.settimeout(2)
    try:
        return end.recv(1) == b""
    except ConnectionError:
        return True


def test_a_member_that_says_nothing_is_a_stranger_like_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "MOST_STRANGERS", 1)

    async def main() -> None:
        with Consortium.found(2) as nodes:
            waiting = asyncio.ensure_future(nodes.mesh(0, replace(QUICK, connect_seconds=0.7)).connect())
            await asyncio.sleep(0.05)
            context = client_context(nodes.identities[1], [nodes.members[0].certificate])
            reader, writer = await asyncio.open_connection(
                *nodes.listeners[0].getsockname(),
                ssl=context,
                server_hostname=host_name(nodes.members[0].certificate),
            )
            with socket.create_connection(nodes.listeners[0].getsockname()):
                with contextlib.suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(1), 15) == b""
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            with pytest.raises(PeerError, match="not there"):
                await waiting

    run(main())


def test_who_was_let_in_a_moment_before_the_end_is_turned_away(run: Run) -> None:
    async def main() -> None:
        identity = make_identity("zero")
        ours, theirs = socket.socketpair()
        entrance = gate.Gate(web.Server(None), server_context(identity, []))  # type: ignore[arg-type]
        entrance.admit(theirs)
        await entrance.close()
        assert theirs.fileno() < 0
        ours.close()

    run(main())


@pytest.mark.parametrize(
    ("heartbeat_seconds", "resume_seconds", "beat_seconds", "attempt_seconds"),
    [(20, 0, 20, 20), (20, 60, 10, 10), (5, 60, 5, 10), (20, 3600, 20, 20), (20, 3, 0.5, 1)],
)
def test_who_is_away_is_noticed_early_enough(
    heartbeat_seconds: float, resume_seconds: float, beat_seconds: float, attempt_seconds: float
) -> None:
    patience = Patience(heartbeat_seconds=heartbeat_seconds, resume_seconds=resume_seconds)
    assert (patience.beat_seconds, patience.attempt_seconds) == (beat_seconds, attempt_seconds)


def test_attempts_come_at_growing_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with Consortium.found(2) as nodes:
            mesh = nodes.mesh(1, LASTING)
            link, doorkeeper = mesh._links[0], mesh._meeting._doorkeeper
            link._theirs = b"somebody was there"
            pauses: list[float] = []
            # How long the connection of each attempt lives; 0: there is none.
            lives = iter([0.0] * 8 + [0.01, 0.5, 0.0, -1.0])
            now = 0.0

            async def sleep(seconds: float) -> None:
                pauses.append(seconds)

            async def attempt(peer: int) -> None:
                life = next(lives)
                if life < 0:
                    raise ZeroDivisionError
                if not life:
                    raise NotConnectedError("nobody is there")
                asyncio.get_running_loop().call_soon(pass_time, life)

            def pass_time(seconds: float) -> None:
                nonlocal now
                now += seconds
                vacant.set()

            class Vacant(asyncio.Event):
                async def wait(self) -> Literal[True]:
                    await real_sleep(0)
                    return True

            real_sleep = asyncio.sleep
            monkeypatch.setattr(asyncio, "sleep", sleep)
            monkeypatch.setattr(doorkeeper, "_attempt", attempt)
            monkeypatch.setattr(doorkeeper._loop, "time", lambda: now)
            vacant = Vacant()
            with pytest.raises(ZeroDivisionError):
                await doorkeeper.keep(0, vacant, lambda reason: None)
            assert pauses == [0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 0.25, 0, 0.05]

    asyncio.run(main())


def test_strangers_are_gone_when_the_mesh_is(run: Run) -> None:
    async def main() -> None:
        with Consortium.found(2) as nodes:
            began = time.monotonic()
            mesh = nodes.mesh(0, replace(QUICK, connect_seconds=0.5))
            opening = asyncio.ensure_future(mesh.connect())
            await asyncio.sleep(0.05)
            with socket.create_connection(nodes.listeners[0].getsockname()) as stranger:
                stranger.sendall(b"\x16\x03\x01")
                with pytest.raises(PeerError):
                    await opening
                await mesh.close()
                assert is_closed(stranger)
            assert time.monotonic() - began < 3

    run(main())
