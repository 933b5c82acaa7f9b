"""Faults: each ends at every honest party, soon, with an error that names party and step.

Parties 0 and 1 are honest. Party 2 has a good certificate, an ordinary WebSocket client, and no manners.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from mpc.errors import PeerError
from parties.frames import Kind, parse
from parties.identity import client_context, make_identity
from parties.mesh import Member, Mesh, Patience
from tests.parties.consortium import QUICK, Consortium, Rogue, Run

Misbehave = Callable[[Rogue], Awaitable[None]]
STEP = "train.3/multiply.1#12"


def sends(*frames: Callable[[Rogue], Awaitable[None]]) -> Misbehave:
    async def misbehave(rogue: Rogue) -> None:
        for frame in frames:
            await frame(rogue)

    return misbehave


def data(payload: bytes = b"x" * 16, step: str = STEP, **fields: Any) -> Misbehave:
    return lambda rogue: rogue.send(Kind.DATA, step, payload, **fields)


def kind(kind: Kind, payload: bytes = b"") -> Misbehave:
    return lambda rogue: rogue.send(kind, "", payload)


async def repeat_a_frame(rogue: Rogue) -> None:
    frame = rogue.frame(Kind.DATA, "other#1", b"x")
    await rogue.websocket.send_bytes(frame)
    await rogue.websocket.send_bytes(frame)


async def drop_the_connection(rogue: Rogue) -> None:
    connection = rogue.websocket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()


async def close_politely_without_goodbye(rogue: Rogue) -> None:
    await rogue.websocket.close()


def message(payload: bytes) -> Misbehave:
    return lambda rogue: rogue.websocket.send_bytes(payload)


async def text(rogue: Rogue) -> None:
    await rogue.websocket.send_str("hello")


async def wait(rogue: Rogue) -> None:
    await asyncio.sleep(0.1)


FAULTS: dict[str, tuple[Misbehave, str, bool]] = {
    # name: (what party 2 does, what party 0 says of it, whether the fault has a step of its own)
    "too short": (data(b"x" * 15), "15 bytes where 16 were due", True),
    "too long": (data(b"x" * 17), "17 bytes where 16 were due", True),
    "announced too long": (data(length=2**31), f"{2**31} bytes where 16 were due", True),
    "empty": (data(b""), "0 bytes where 16 were due", True),
    "repeated frame": (repeat_a_frame, "frame number 0 where 1 was due", True),
    "skipped number": (data(sequence=2), "frame number 2 where 0 was due", True),
    "old number": (sends(data(step="other#1"), data(sequence=0)), "frame number 0 where 1 was due", True),
    "second message": (sends(data(step="other#1"), data(step="other#1")), "a second message", True),
    "second message, long": (
        sends(data(step="other#1"), data(step="other#1", length=32)),
        "a second message",
        True,
    ),
    "another session": (data(session=b"another session."), "a frame of another session", True),
    "another sender": (data(sender=1), "a frame from 1 to 0", True),
    "another receiver": (data(receiver=1), "a frame from 2 to 1", True),
    "no beginning": (data(step="other#1", length=32, offset=16), "parts of a message out of order", True),
    "a gap": (
        sends(data(step="other#1", length=64), data(step="other#1", length=64, offset=32)),
        "parts of a message out of order",
        True,
    ),
    "endless parts": (
        sends(data(step="other#1", length=64), data(b"", step="other#1", length=64, offset=16)),
        "parts of a message out of order",
        True,
    ),
    "goodbye in a message": (
        sends(data(step="other#1", length=64), kind(Kind.GOODBYE)),
        "a goodbye in the middle of a message",
        True,
    ),
    "second hello": (kind(Kind.HELLO), "a frame of kind HELLO out of turn", False),
    "unreadable abort": (kind(Kind.ABORT, b"\xff"), "an abort that cannot be read", False),
    "garbage": (message(b"\x00" * 100), "a frame of layout 0", False),
    "short garbage": (message(b"hello"), "a frame of 5 bytes", False),
    "oversized frame": (message(bytes(256 * 1024 + 1)), "a WebSocket message of 262145 bytes", False),
    "text": (text, "a WebSocket frame of a kind that is not spoken here", False),
    "connection dropped": (drop_the_connection, "went away without a goodbye", False),
    "close without goodbye": (close_politely_without_goodbye, "went away without a goodbye", False),
    "goodbye too early": (kind(Kind.GOODBYE), f"has finished and never sent what was due at step '{STEP}'", True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_the_run_at_every_honest_party(name: str, run: Run) -> None:
    misbehave, says, has_step = FAULTS[name]

    async def main() -> None:
        with Consortium.found(3) as nodes:
            began = time.monotonic()
            errors = await with_a_rogue(nodes, misbehave)
            assert time.monotonic() - began < 2.5
        zero, one = errors
        assert isinstance(zero, PeerError)
        assert says in str(zero)
        assert "party 2" in str(zero)
        assert STEP in str(zero)
        assert zero.rank == 2
        assert isinstance(one, PeerError)
        assert "party 2" in str(one)
        assert one.rank == 2
        if has_step:
            assert zero.step == one.step
            assert zero.step in (STEP, "other#1")
        else:
            assert zero.step == STEP

    run(main())


async def with_a_rogue(nodes: Consortium, misbehave: Misbehave, patience: Patience = QUICK) -> list[Any]:
    """Let party 2 misbehave towards party 0; return what ended parties 0 and 1."""

    waiting = [asyncio.Event(), asyncio.Event()]

    async def honest(rank: int) -> None:
        async with nodes.mesh(rank, patience) as mesh:
            waiting[rank].set()
            # Party 1 waits for another step and another party: it hears of the fault from party 0.
            await (mesh.receive(2, STEP, 16) if rank == 0 else mesh.receive(0, "elsewhere", 16))

    both = asyncio.gather(honest(0), honest(1), return_exceptions=True)
    async with nodes.rogue(2, 0) as to_zero, nodes.rogue(2, 1):
        for event in waiting:
            await event.wait()
        with contextlib.suppress(ConnectionError):  # the honest may be quicker than the rogue
            await misbehave(to_zero)
        return list(await both)


def test_a_wrong_length_is_seen_when_the_message_came_first(run: Run) -> None:
    async def honest(nodes: Consortium) -> None:
        async with nodes.mesh(0) as mesh:
            await asyncio.sleep(0.2)
            await mesh.receive(1, STEP, 16)

    async def main() -> None:
        with Consortium.found(2) as nodes:
            waiting = asyncio.ensure_future(honest(nodes))
            async with nodes.rogue(1, 0) as rogue:
                await rogue.send(Kind.DATA, STEP, b"x" * 15)
                with pytest.raises(PeerError, match="party 1 sent 15 bytes where 16 were due") as caught:
                    await waiting
        assert (caught.value.rank, caught.value.step) == (1, STEP)

    run(main())


def test_whose_fault_it_is_hears_what_it_was(run: Run) -> None:
    """It may be a mere mistake, of a node that wants to know."""
    heard = []

    async def misbehave(rogue: Rogue) -> None:
        await rogue.send(Kind.DATA, STEP, b"x" * 15)
        heard.append(parse(await rogue.websocket.receive_bytes(timeout=15)))

    async def main() -> None:
        with Consortium.found(3) as nodes:
            await with_a_rogue(nodes, misbehave)

    run(main())
    assert heard[0].kind is Kind.ABORT
    assert b"party 2 sent 15 bytes where 16 were due" in bytes(heard[0].payload)


def test_silence_ends_with_the_patience_of_a_receive(run: Run) -> None:
    async def nothing(rogue: Rogue) -> None:
        while not rogue.websocket.closed:  # alive: pings are answered
            with contextlib.suppress(TimeoutError):
                await rogue.websocket.receive(timeout=0.2)

    async def main() -> None:
        patience = Patience(connect_seconds=5, receive_seconds=0.5, heartbeat_seconds=0.1, close_seconds=0.3)
        with Consortium.found(3) as nodes:
            zero, one = await with_a_rogue(nodes, nothing, patience)
        assert str(zero).startswith(f"party 2 sent nothing for step '{STEP}' within 0.5 s")
        assert (zero.rank, zero.step) == (2, STEP)
        assert one.rank in (0, 2)  # its own wait, for party 0, ends at the same time

    run(main())


def test_who_does_not_answer_pings_counts_as_gone(run: Run) -> None:
    async def main() -> None:
        patience = Patience(
            connect_seconds=5, receive_seconds=5, heartbeat_seconds=0.1, silence_seconds=0.3, close_seconds=0.3
        )
        with Consortium.found(3) as nodes:
            zero, one = await with_a_rogue(nodes, wait, patience)  # it never reads, and so sees no ping
        assert "party 2 gave no sign of life" in str(zero)
        assert (zero.rank, zero.step, one.rank) == (2, STEP, 2)

    run(main())


# ---- absent, or somebody else -------------------------------------------------------------------


async def failures_to_connect(*meshes: Mesh) -> list[PeerError]:
    async def one(mesh: Mesh) -> None:
        async with mesh:
            await mesh.receive(0 if mesh.rank else 1, "never", 1)

    errors = await asyncio.gather(*(one(mesh) for mesh in meshes), return_exceptions=True)
    assert all(isinstance(error, PeerError) for error in errors), errors
    return errors  # type: ignore[return-value]


HASTY = Patience(connect_seconds=0.7, receive_seconds=5, close_seconds=0.3)


def test_a_party_that_never_starts_is_named(run: Run) -> None:
    async def main() -> None:
        with Consortium.found(3) as nodes:
            nodes.listeners[2].close()
            errors = await failures_to_connect(nodes.mesh(0, HASTY), nodes.mesh(1, HASTY))
        for error in errors:
            # Each gives up by itself, or because the other one did a moment before.
            assert "not there within 0.7 s: party 2" in str(error)
            assert (error.rank, error.step) == (2, "connect")

    run(main())


def test_an_absent_party_that_should_answer_is_named_with_the_reason(run: Run) -> None:
    async def main() -> None:
        with Consortium.found(2) as nodes:
            nodes.listeners[0].close()
            (error,) = await failures_to_connect(nodes.mesh(1, HASTY))
        assert "party 0 (nothing answers at its address (ConnectionRefusedError))" in str(error)

    run(main())


def test_a_late_party_is_waited_for(run: Run) -> None:
    async def program(mesh: Mesh) -> int:
        return mesh.rank

    async def one(nodes: Consortium, rank: int, delay: float) -> None:
        await asyncio.sleep(delay)
        async with nodes.mesh(rank):
            pass

    async def main() -> None:
        with Consortium.found(3) as nodes:
            await asyncio.gather(one(nodes, 0, 0.3), one(nodes, 1, 0.0), one(nodes, 2, 0.15))

    run(main())


def test_a_wrong_certificate_never_gets_in(run: Run) -> None:
    """Party 1 has lost its key and made another; neither side takes the other for what it is not."""

    async def main() -> None:
        with Consortium.found(2) as nodes:
            new = make_identity("party 1, newly made")
            believes = [nodes.members[0], Member(new.certificate)]
            zero, one = await failures_to_connect(
                nodes.mesh(0, HASTY), nodes.mesh(1, HASTY, identity=new, members=believes)
            )
        assert (zero.rank, one.rank) == (1, 0)
        assert "party 1" in str(zero)
        assert "party 0 (" in str(one)

    run(main())


def test_another_member_in_its_place_is_not_taken_for_it(run: Run) -> None:
    """Addresses are swapped: where party 2 dials party 0, party 1 answers, whom it knows as well."""

    async def main() -> None:
        with Consortium.found(3) as nodes:
            zero, one, two = nodes.members
            swapped = [Member(zero.certificate, one.host, one.port), one, two]
            # Party 2 gives up first: before the others do, and are not there any more.
            errors = await failures_to_connect(nodes.mesh(0), nodes.mesh(1), nodes.mesh(2, HASTY, members=swapped))
        assert "party 0 (the TLS handshake failed" in str(errors[2])

    run(main())


def test_parties_of_different_sessions_do_not_meet(run: Run) -> None:
    async def main() -> None:
        with Consortium.found(2) as nodes:
            zero, one = await failures_to_connect(
                nodes.mesh(0, HASTY), nodes.mesh(1, HASTY, session=b"another session.")
            )
        assert "party 0 (it does not expect us, or not in this session)" in str(one)
        assert "party 1" in str(zero)

    run(main())


# ---- strangers, while a run goes on -------------------------------------------------------------


async def plain_http(nodes: Consortium) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes.members[0].port)
    writer.write(b"GET /mesh HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        await reader.read(100)
    writer.close()


async def garbage(nodes: Consortium) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", nodes.members[0].port)
    writer.write(bytes(range(256)) * 40)
    with contextlib.suppress(ConnectionError):
        await reader.read(100)
    writer.close()


async def slow_handshake(nodes: Consortium) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", nodes.members[0].port)
    writer.write(b"\x16\x03\x01")  # the beginning of a ClientHello, and then nothing for a while
    await asyncio.sleep(0.3)
    writer.close()


async def no_certificate(nodes: Consortium) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=nodes.members[0].certificate)
    await try_to_get_in(nodes, context)


async def unknown_certificate(nodes: Consortium) -> None:
    await try_to_get_in(nodes, client_context(make_identity("stranger"), [nodes.members[0].certificate]))


async def try_to_get_in(nodes: Consortium, context: ssl.SSLContext) -> None:
    async with nodes.client() as client:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await client.ws_connect(f"wss://{nodes.address(0)}/mesh", ssl=context)


async def a_member_twice(nodes: Consortium) -> None:
    async with nodes.rogue(1, 0, hello=False) as rogue:
        await rogue.say_hello()
        closed = await rogue.websocket.receive(timeout=15)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 4000)


async def a_member_from_another_session(nodes: Consortium) -> None:
    async with nodes.rogue(1, 0, hello=False, session=b"another session.") as rogue:
        await rogue.say_hello()
        closed = await rogue.websocket.receive(timeout=15)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 4000)


async def a_member_with_garbage(nodes: Consortium) -> None:
    for payload in (b"", b"hello", bytes(256 * 1024)):
        async with nodes.rogue(1, 0, hello=False) as rogue:
            await rogue.websocket.send_bytes(payload)
            closed = await rogue.websocket.receive(timeout=15)
            assert closed.type is aiohttp.WSMsgType.CLOSE
    async with nodes.rogue(1, 0, hello=False) as rogue:
        await rogue.websocket.send_str("hello")
        assert (await rogue.websocket.receive(timeout=15)).type is aiohttp.WSMsgType.CLOSE


async def a_member_asks_for_pages(nodes: Consortium) -> None:
    context = client_context(nodes.identities[1], [nodes.members[0].certificate])
    async with nodes.client() as client:
        for path, status in (("/", 404), ("/mesh", 400)):
            async with client.get(f"https://{nodes.address(0)}{path}", ssl=context) as answer:
                assert answer.status == status


STRANGERS = [
    plain_http,
    garbage,
    slow_handshake,
    no_certificate,
    unknown_certificate,
    a_member_twice,
    a_member_from_another_session,
    a_member_with_garbage,
    a_member_asks_for_pages,
]


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda stranger: stranger.__name__)
def test_strangers_do_not_disturb_a_run(stranger: Callable[[Consortium], Awaitable[None]], run: Run) -> None:
    async def main() -> None:
        over, turned = asyncio.Event(), asyncio.Event()
        turns = [0, 0]

        async def talk(mesh: Mesh) -> None:
            peer = 1 - mesh.rank
            while True:
                turn = turns[mesh.rank]
                ours = b"1" if over.is_set() else b"0"
                await mesh.send(peer, f"{turn}", ours)
                theirs = bytes(await mesh.receive(peer, f"{turn}", 1))
                turns[mesh.rank] += 1
                turned.set()
                if ours == theirs == b"1":
                    return

        async def until_more_than(count: int) -> None:
            async with asyncio.timeout(30):
                while turns[0] <= count:
                    turned.clear()
                    await turned.wait()

        with Consortium.found(2) as nodes:
            talking = asyncio.ensure_future(nodes.run(talk))
            try:
                await until_more_than(0)
                await stranger(nodes)
                await until_more_than(turns[0])
            finally:
                over.set()
            assert await talking == [None, None]

    run(main())


@pytest.mark.parametrize(
    "stranger", [plain_http, garbage, no_certificate, unknown_certificate, a_member_from_another_session]
)
def test_strangers_who_come_first_do_not_keep_the_others_out(
    stranger: Callable[[Consortium], Awaitable[None]], run: Run
) -> None:
    async def one(nodes: Consortium, rank: int) -> None:
        async with nodes.mesh(rank):
            pass

    async def main() -> None:
        with Consortium.found(2) as nodes:
            zero = asyncio.ensure_future(one(nodes, 0))
            await stranger(nodes)
            await one(nodes, 1)
            await zero

    run(main())
