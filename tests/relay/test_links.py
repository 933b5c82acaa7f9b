"""Links of a mesh through a relay: as good as direct ones, also when the relay cuts them, or lies."""

import asyncio
import hashlib

import pytest

from mpc.errors import PeerError
from parties.identity import make_identity
from parties.mesh import Member, Mesh, Patience
from parties.relay.forward import End
from tests.relay.world import Run, Running, World

SESSION = b"a session of ours"[:16]
QUICK = Patience(connect_seconds=10, receive_seconds=10, heartbeat_seconds=1.0, close_seconds=2.0)
RESUMING = Patience(connect_seconds=10, receive_seconds=20, heartbeat_seconds=0.5, close_seconds=2.0, resume_seconds=10)
NAMES = ("north", "city", "south")
ROUNDS = 30


async def talk(mesh: Mesh) -> str:
    """Everybody sends everybody something in each round, of any size; returns a hash of what came."""
    heard = hashlib.sha256()
    others = [rank for rank in range(mesh.size) if rank != mesh.rank]
    for number in range(ROUNDS):
        size = (1, 100, 300_000)[number % 3] + number
        for rank in others:
            await mesh.send(rank, f"round {number}", bytes([mesh.rank]) * size)
        for rank in others:
            message = bytes(await mesh.receive(rank, f"round {number}", size))
            assert message == bytes([rank]) * size
            heard.update(message)
        await asyncio.sleep(0.01)
    return heard.hexdigest()


async def run_all(world: World, relay: Running, patience: Patience) -> list[str | BaseException]:
    """Three workers, each with a fresh key and a pass, none of whom can be dialled."""
    workers = [make_identity(f"worker of {name}") for name in NAMES]
    members = [
        Member(worker.certificate, name=name, relay=relay.address) for worker, name in zip(workers, NAMES, strict=True)
    ]

    async def one(rank: int) -> str:
        passes = world.pass_of(NAMES[rank], workers[rank])
        async with Mesh(
            workers[rank], rank, members, parties=3, session=SESSION, patience=patience, passes=passes
        ) as mesh:
            return await talk(mesh)

    return await asyncio.gather(*(one(rank) for rank in range(3)), return_exceptions=True)


def test_three_workers_that_can_only_dial_out(run: Run, world: World) -> None:
    async def test() -> None:
        async with world.relay() as relay:
            results = await run_all(world, relay, QUICK)
            assert [type(each) for each in results] == [str] * 3, results
            assert relay.relay.figures.paired == 3

    run(test())


def test_links_outlive_the_relays_cuts(run: Run, world: World) -> None:
    async def test() -> None:
        async with world.relay() as relay:
            undisturbed = await run_all(world, relay, RESUMING)

            async def cut() -> None:
                for _ in range(4):
                    await asyncio.sleep(0.12)
                    for pair in set(relay.relay._pairs.values()):
                        for end in pair.ends:
                            end.drop()

            cutting = asyncio.create_task(cut())
            results = await run_all(world, relay, RESUMING)
            await cutting
            assert results == undisturbed
            assert relay.relay.figures.paired > 6

    run(test())


@pytest.mark.parametrize("patience", [RESUMING, QUICK], ids=["resuming", "not resuming"])
def test_a_lie_of_the_relay_ends_a_connection_and_never_enters_a_result(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, patience: Patience
) -> None:
    lies = 0
    pass_on = End._forward

    def lie_now_and_then(end: End, message: bytes | bytearray) -> None:
        nonlocal lies
        if end.messages == 25 and lies < 3:
            lies += 1
            message = message[:-1] + bytes([message[-1] ^ 1])
        pass_on(end, message)

    monkeypatch.setattr(End, "_forward", lie_now_and_then)

    async def test() -> None:
        async with world.relay() as relay:
            results = await run_all(world, relay, patience)
            assert lies
            if patience is RESUMING:
                assert [type(each) for each in results] == [str] * 3, results
            else:
                assert [type(each) for each in results] == [PeerError] * 3, results

    run(test())
