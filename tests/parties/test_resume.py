"""Links over real sockets whose connections are cut, frozen and slow: runs go on as if nothing had been."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mpc.errors import PeerError
from parties.mesh import Mesh, Patience
from tests.parties.consortium import QUICK, Consortium, Run
from tests.parties.strait import Strait, Straits

LASTING = Patience(
    connect_seconds=5.0, receive_seconds=10.0, heartbeat_seconds=1.0, close_seconds=1.0, resume_seconds=8.0
)
SIZES = [0, 1, 1000, 20_000, 300_000]


def payload(sender: int, turn: int) -> bytes:
    return bytes([sender, turn % 256]) * (SIZES[turn % len(SIZES)] // 2)


async def talk(mesh: Mesh, peers: Sequence[int], turns: int) -> None:
    """Exchange messages that run ahead of each other, and check each."""

    async def send(peer: int) -> None:
        for turn in range(turns):
            await mesh.send(peer, f"{turn}", payload(mesh.rank, turn))

    async def receive(peer: int) -> None:
        for turn in range(turns):
            due = payload(peer, turn)
            assert bytes(await mesh.receive(peer, f"{turn}", len(due))) == due

    async with asyncio.TaskGroup() as group:
        for peer in peers:
            group.create_task(send(peer))
            group.create_task(receive(peer))


async def meet_over(
    nodes: Consortium,
    straits: Straits,
    program: Callable[[Mesh], Awaitable[Any]],
    patience: Patience = LASTING,
    **options: Any,
) -> list[Any]:
    """Run a program at every node, over the straits; returns the results, exceptions among them."""

    async def one(rank: int) -> Any:
        async with nodes.mesh(rank, patience, members=straits.members(rank), **options) as mesh:
            return await program(mesh)

    return await asyncio.gather(*(one(rank) for rank in range(len(nodes.members))), return_exceptions=True)


def others(mesh: Mesh, nodes: int) -> list[int]:
    return [rank for rank in range(nodes) if rank != mesh.rank]


@pytest.mark.parametrize(
    "places",
    [
        # How many bytes pass between one cut and the next: in the middle, in the handshake, in the first frames.
        [5000, 500_000, 2000, 1_500_000, 10_000, 500_000],
        [1, 1_000_000, 4500, 1_000_000, 1_000_000, 100],
    ],
)
def test_cuts_at_any_byte_change_nothing(places: list[int], run: Run) -> None:
    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:
                strait = straits[1, 0]
                left = iter(places)

                def cut_later() -> None:
                    place = next(left, None)
                    if place is not None:
                        strait.after(place, cut)

                def cut() -> None:
                    strait.cut()
                    cut_later()

                async def program(mesh: Mesh) -> int:
                    if mesh.rank == 0:
                        cut_later()
                    await talk(mesh, [1 - mesh.rank], 100)
                    return mesh.reconnects

                reconnects = await meet_over(nodes, straits, program, replace(LASTING, receive_seconds=30.0))
                # A cut in the middle of a handshake is one of the same reconnection; each of the four cuts in the
                # middle of the talk is one of its own.
                assert all(isinstance(count, int) and count >= 3 for count in reconnects), reconnects
                assert next(left, None) is None, "not all cuts were made"

    run(main())


def test_three_nodes_and_a_dealer_go_on_over_cuts(run: Run) -> None:
    async def main() -> None:
        with Consortium.found(3, dealer=True) as nodes:
            async with Straits(nodes) as straits:

                async def storm() -> None:
                    for turn in range(12):
                        await asyncio.sleep(0.03)
                        straits.all[turn % len(straits.all)].cut()

                async def program(mesh: Mesh) -> None:
                    if mesh.rank == 0:
                        mesh.storm = asyncio.ensure_future(storm())  # type: ignore[attr-defined]
                    for part in range(3):
                        await asyncio.sleep(0.1)
                        await talk_of(mesh, part)

                async def talk_of(mesh: Mesh, part: int) -> None:
                    for turn in range(20):
                        for peer in others(mesh, 4):
                            await mesh.send(peer, f"{part}.{turn}", payload(mesh.rank, turn))
                        for peer in others(mesh, 4):
                            due = payload(peer, turn)
                            assert bytes(await mesh.receive(peer, f"{part}.{turn}", len(due))) == due

                assert await meet_over(nodes, straits, program) == [None] * 4

    run(main())


def test_a_connection_that_falls_silent_is_replaced(run: Run) -> None:
    """Nothing says that it is dead: a firewall forgot it. Later all that it swallowed comes after all."""
    patience = replace(LASTING, heartbeat_seconds=0.1)

    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:
                strait = straits[1, 0]

                frozen = asyncio.Event()

                async def program(mesh: Mesh) -> int:
                    await talk(mesh, [1 - mesh.rank], 5)
                    if mesh.rank == 0:
                        for crossing in strait.crossings:
                            crossing.frozen = True
                        frozen.set()
                    await frozen.wait()
                    await mesh.send(1 - mesh.rank, "into the void", b"x" * 1000)
                    assert len(await mesh.receive(1 - mesh.rank, "into the void", 1000)) == 1000
                    assert len(strait.crossings) == 2
                    strait.thaw()
                    await asyncio.sleep(0.1)
                    await mesh.send(1 - mesh.rank, "after", b"x")
                    await mesh.receive(1 - mesh.rank, "after", 1)
                    return mesh.reconnects

                began = time.monotonic()
                assert await meet_over(nodes, straits, program, patience) == [1, 1]
                assert time.monotonic() - began < 6

    run(main())


def test_who_still_believes_in_the_old_connection_takes_the_new_one(run: Run) -> None:
    patience = replace(LASTING, heartbeat_seconds=8.0)

    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:
                strait = straits[1, 0]

                cut = asyncio.Event()

                async def program(mesh: Mesh) -> int:
                    await talk(mesh, [1 - mesh.rank], 5)
                    if mesh.rank == 0:
                        strait.crossings[0].reset(0)  # the end of party 1, who dialled
                        cut.set()
                    await cut.wait()
                    await mesh.send(1 - mesh.rank, "next", b"x" * 1000)
                    await mesh.receive(1 - mesh.rank, "next", 1000)
                    assert not mesh.away
                    return mesh.reconnects

                began = time.monotonic()
                assert await meet_over(nodes, straits, program, patience) == [1, 1]
                assert time.monotonic() - began < 6

    run(main())


def test_a_network_that_is_away_for_a_while_is_waited_for(run: Run) -> None:
    patience = replace(LASTING, heartbeat_seconds=0.2)
    away: list[dict[int, float]] = []

    async def main() -> None:
        with Consortium.found(3) as nodes:
            async with Straits(nodes) as straits:

                async def weather(mesh: Mesh) -> None:
                    await asyncio.sleep(0.2)
                    for strait in (straits[2, 0], straits[2, 1]):
                        strait.closed = True
                        strait.cut()
                    await asyncio.sleep(0.6)
                    away.append(mesh.away)
                    for strait in (straits[2, 0], straits[2, 1]):
                        strait.closed = False

                async def program(mesh: Mesh) -> int:
                    changing = asyncio.ensure_future(weather(mesh)) if mesh.rank == 0 else None
                    for turn in range(20):
                        await asyncio.sleep(0.03)
                        for peer in others(mesh, 3):
                            await mesh.send(peer, f"{turn}", payload(mesh.rank, turn))
                        for peer in others(mesh, 3):
                            await mesh.receive(peer, f"{turn}", len(payload(peer, turn)))
                    if changing is not None:
                        await changing
                    return mesh.reconnects

                assert await meet_over(nodes, straits, program, patience) == [1, 1, 2]
        assert set(away[0]) == {2}
        assert 0.3 < away[0][2] < 1.5

    run(main())


def test_who_stays_away_is_named_to_all_others(run: Run) -> None:
    patience = replace(LASTING, resume_seconds=0.6, close_seconds=0.2)

    async def main() -> None:
        with Consortium.found(3) as nodes:
            nodes.members = [
                replace(member, name=name)
                for member, name in zip(nodes.members, ["north", "south", "city"], strict=True)
            ]
            async with Straits(nodes) as straits:
                strait = straits[2, 0]

                async def program(mesh: Mesh) -> PeerError:
                    began = time.monotonic()
                    if mesh.rank == 0:
                        await asyncio.sleep(0.1)
                        strait.closed = True
                        strait.cut()
                    with pytest.raises(PeerError) as caught:
                        await mesh.receive((mesh.rank + 1) % 3, "never", 1)
                    assert time.monotonic() - began < 7
                    return caught.value

                north, south, city = await meet_over(nodes, straits, program, patience)
        # Either end of the connection that is gone may be the first to have waited for long enough.
        assert "city was away for 0.6 s" in str(north) or "north was away for 0.6 s" in str(north)
        told = (north.rank, south.rank, city.rank) == (1, 0, 0)  # north, by south, that it was away itself
        assert told or north.rank == south.rank or {north.rank, city.rank} == {0, 2}
        assert "was away for 0.6 s" in str(south)
        assert "was away for 0.6 s" in str(city)
        assert "nothing answers" in str(city) or "it closed the connection" in str(city) or "city" in str(city)

    run(main())


def test_waiting_for_a_message_ends_while_its_sender_is_away(run: Run) -> None:
    patience = replace(LASTING, receive_seconds=0.8, resume_seconds=5.0)

    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:

                async def program(mesh: Mesh) -> None:
                    await talk(mesh, [1 - mesh.rank], 3)
                    straits[1, 0].closed = True
                    straits[1, 0].cut()
                    await mesh.receive(1 - mesh.rank, "never", 1)

                began = time.monotonic()
                errors = await meet_over(nodes, straits, program, patience)
                assert time.monotonic() - began < 4.5
        for error in errors:
            assert "sent nothing for step 'never' within 0.8 s; it has been away for 1 s" in str(error)

    run(main())


def test_a_goodbye_waits_until_all_was_heard(run: Run) -> None:
    """Party 0 sends its last and leaves, while the connection is down."""
    tail = 3_000_000

    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:
                strait = straits[1, 0]

                async def program(mesh: Mesh) -> str:
                    await talk(mesh, [1 - mesh.rank], 3)
                    if mesh.rank == 0:
                        strait.closed = True
                        strait.cut()
                        await asyncio.sleep(0.05)
                        for part in range(3):
                            await mesh.send(1, f"tail {part}", bytes([part]) * (tail // 3))
                        asyncio.get_running_loop().call_later(0.6, setattr, strait, "closed", False)
                        return "left"
                    for part in range(3):
                        assert bytes(await mesh.receive(0, f"tail {part}", tail // 3)) == bytes([part]) * (tail // 3)
                    return "has all"

                assert await meet_over(nodes, straits, program) == ["left", "has all"]

    run(main())


@pytest.mark.parametrize("more_bytes", [1, 150, 250, 400])
def test_both_leave_in_a_cut(more_bytes: int, run: Run) -> None:
    """Wherever in the goodbyes the connection breaks, both come to an end, soon."""

    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:

                async def program(mesh: Mesh) -> None:
                    await talk(mesh, [1 - mesh.rank], 3)
                    await asyncio.sleep(0.15)
                    if mesh.rank == 0:
                        straits[1, 0].after(more_bytes, straits[1, 0].cut)
                    await asyncio.sleep(0.05)

                began = time.monotonic()
                assert await meet_over(nodes, straits, program) == [None, None]
                assert time.monotonic() - began < 6

    run(main())


def test_who_has_finished_is_not_missed(run: Run) -> None:
    """Party 0 leaves early; that its connections are gone harms nobody, for however long."""
    patience = replace(LASTING, resume_seconds=0.5, heartbeat_seconds=0.1)

    async def main() -> None:
        with Consortium.found(3) as nodes:
            async with Straits(nodes) as straits:

                async def program(mesh: Mesh) -> str:
                    if mesh.rank == 0:
                        await mesh.send(1, "last", b"x")
                        return "gone"
                    peer = 3 - mesh.rank
                    for turn in range(10):
                        await asyncio.sleep(0.1)
                        await mesh.send(peer, f"{turn}", b"x")
                        await mesh.receive(peer, f"{turn}", 1)
                    if mesh.rank == 1:
                        await mesh.receive(0, "last", 1)
                    assert not mesh.away
                    return "stayed"

                began = time.monotonic()
                assert await meet_over(nodes, straits, program, patience) == ["gone", "stayed", "stayed"]
                assert time.monotonic() - began < 6

    run(main())


@pytest.mark.parametrize("patience", [QUICK, LASTING])
def test_who_has_finished_before_others_have_met_was_there(patience: Patience, run: Run) -> None:
    async def main() -> None:
        with Consortium.found(3) as nodes:
            async with Straits(nodes) as straits:
                straits[2, 1].freeze()

                async def program(mesh: Mesh) -> str:
                    if mesh.rank == 0:
                        for peer in (1, 2):
                            await mesh.send(peer, "only", b"x")
                        asyncio.get_running_loop().call_later(0.3, straits[2, 1].thaw)
                        return "gone"
                    await mesh.receive(0, "only", 1)
                    await mesh.send(3 - mesh.rank, "met", b"x")
                    await mesh.receive(3 - mesh.rank, "met", 1)
                    return "met"

                assert await meet_over(nodes, straits, program, patience) == ["gone", "met", "met"]

    run(main())


def test_an_abort_reaches_a_peer_that_comes_back_in_time(run: Run) -> None:
    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:
                strait = straits[1, 0]

                async def program(mesh: Mesh) -> None:
                    await talk(mesh, [1 - mesh.rank], 3)
                    if mesh.rank == 0:
                        strait.closed = True
                        strait.cut()
                        asyncio.get_running_loop().call_later(0.3, setattr, strait, "closed", False)
                        await asyncio.sleep(0.05)
                        raise LookupError
                    await mesh.receive(0, "never", 1)

                began = time.monotonic()
                zero, one = await meet_over(nodes, straits, program)
                assert time.monotonic() - began < 6
        assert isinstance(zero, LookupError)
        assert "party 0 stopped: LookupError" in str(one)

    run(main())


def test_an_abort_passes_a_full_link(run: Run) -> None:
    """Party 1 sends and sends, party 0 receives nothing, and yet hears that party 1 stops."""

    async def main() -> None:
        with Consortium.found(2) as nodes:

            async def program(mesh: Mesh) -> Any:
                if mesh.rank == 0:
                    await mesh.receive(1, "never", 1)
                number = 0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        while True:
                            await mesh.send(0, f"{number}", bytes(100_000))
                            number += 1
                assert 10 < number < 30
                raise LookupError

            began = time.monotonic()
            zero, one = await nodes.run(program, LASTING, buffer_bytes=2**20)
            assert time.monotonic() - began < 6
        assert "party 1 stopped: LookupError" in str(zero)
        assert isinstance(one, LookupError)

    run(main())


def test_a_peer_that_was_started_anew_ends_the_run(run: Run) -> None:
    """Same certificate, same session, but nothing of what it knew: it may not take part again."""

    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:
                begun = asyncio.Event()

                async def stays() -> None:
                    async with nodes.mesh(0, LASTING) as mesh:
                        await talk(mesh, [1], 3)
                        begun.set()
                        await mesh.receive(1, "never", 1)

                staying = asyncio.ensure_future(stays())
                first = nodes.mesh(1, LASTING, members=straits.members(1))
                await first.connect()
                await talk(first, [0], 3)
                await begun.wait()
                first._links[0].detach()
                await first._meeting.close()  # it dies without a word
                nodes.listeners[1] = socket.create_server(("127.0.0.1", 0))
                began = time.monotonic()
                second = nodes.mesh(1, replace(LASTING, connect_seconds=1.0), members=straits.members(1))
                with pytest.raises(PeerError):
                    async with second:
                        pass
                with pytest.raises(PeerError, match="party 1 was started anew and cannot go on where it was"):
                    await staying
                assert time.monotonic() - began < 6

    run(main())


def test_strangers_with_a_good_certificate_do_not_disturb_a_link_that_lasts(run: Run) -> None:
    """Another process of the same member: another session, another incarnation, or a hello of before."""

    async def main() -> None:
        with Consortium.found(2) as nodes:

            async def program(mesh: Mesh) -> int:
                await talk(mesh, [1 - mesh.rank], 3)
                if mesh.rank == 0:
                    for session in (b"another session.", None):
                        options = {} if session is None else {"session": session}
                        async with nodes.rogue(1, 0, hello=False, **options) as rogue:
                            await rogue.say_hello(keeps=True)
                            closed = await rogue.websocket.receive(timeout=15)
                            assert closed.data == 4000
                await talk_again(mesh)
                return mesh.reconnects

            async def talk_again(mesh: Mesh) -> None:
                await mesh.send(1 - mesh.rank, "again", b"x")
                await mesh.receive(1 - mesh.rank, "again", 1)

            assert await nodes.run(program, LASTING) == [0, 0]

    run(main())


def test_a_slow_network_is_not_a_dead_one(run: Run) -> None:
    patience = replace(LASTING, heartbeat_seconds=0.4)

    async def main() -> None:
        with Consortium.found(2) as nodes:
            async with Straits(nodes) as straits:
                straits[1, 0].delay_seconds = 0.05

                async def program(mesh: Mesh) -> int:
                    for turn in range(5):
                        await mesh.send(1 - mesh.rank, f"{turn}", bytes(100_000))
                        await mesh.receive(1 - mesh.rank, f"{turn}", 100_000)
                    await asyncio.sleep(0.3)
                    return mesh.reconnects

                assert await meet_over(nodes, straits, program, patience) == [0, 0]

    run(main())


def test_both_sides_count_from_the_first_byte_that_was_lost() -> None:
    """A strait is what it says: what was under way at a cut is gone."""

    async def main() -> None:
        callers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: callers.append(writer), "127.0.0.1", 0)
        async with server, Strait(server.sockets[0].getsockname()) as strait:
            _, writer = await asyncio.open_connection("127.0.0.1", strait.port)
            writer.write(b"x")
            for _ in range(2000):
                if strait.bytes_carried == 1:
                    break
                await asyncio.sleep(0.01)
            assert strait.bytes_carried == 1
            strait.freeze()
            writer.write(b"y")
            await asyncio.sleep(0.05)
            assert strait.bytes_carried == 1
            strait.cut()
            for end in (writer, *callers):
                end.close()

    asyncio.run(main())
