"""The mesh as a Transport: over TLS sockets, with two to four parties and a dealer."""

import asyncio
import socket
import struct
import sys
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mpc.errors import PeerError
from parties.link import Link
from parties.mesh import Member, Mesh, Patience
from parties.watch import Watch
from parties.wire import Wire
from tests.parties.consortium import QUICK, Consortium, Run

SIZES = [0, 1, 15, 16, 8192, 8193, 256 * 1024 - 100, 256 * 1024, 1_000_000]


def others(mesh: Mesh, nodes: int) -> list[int]:
    return [rank for rank in range(nodes) if rank != mesh.rank]


async def meet(mesh: Mesh, nodes: int) -> None:
    """Wait until all are connected and at work."""
    for peer in others(mesh, nodes):
        await mesh.send(peer, "here", b"")
    for peer in others(mesh, nodes):
        await mesh.receive(peer, "here", 0)


@pytest.mark.parametrize(("parties", "dealer"), [(2, False), (2, True), (3, False), (4, True)])
def test_everybody_gets_what_everybody_sends(parties: int, dealer: bool, run: Run) -> None:
    nodes = parties + dealer

    async def program(mesh: Mesh) -> None:
        peers = others(mesh, nodes)
        for size in SIZES:
            for peer in peers:
                await mesh.send(peer, f"size {size}", bytes([mesh.rank, peer]) * size)
        for size in reversed(SIZES):
            for peer in peers:
                got = await mesh.receive(peer, f"size {size}", 2 * size)
                assert bytes(got) == bytes([peer, mesh.rank]) * size

    with Consortium.found(parties, dealer=dealer) as nodes_:
        assert run(nodes_.run(program)) == [None] * nodes


def test_ranks_and_sizes(run: Run) -> None:
    async def program(mesh: Mesh) -> tuple[int, int]:
        return mesh.rank, mesh.size

    with Consortium.found(2, dealer=True) as nodes:
        assert run(nodes.run(program)) == [(0, 2), (1, 2), (2, 2)]


def test_many_conversations_side_by_side(run: Run) -> None:
    async def talk(mesh: Mesh, peer: int, topic: int) -> int:
        total = 0
        for turn in range(20):
            await mesh.send(peer, f"{topic}#{turn}", bytes([mesh.rank, turn]) * topic)
            total += len(await mesh.receive(peer, f"{topic}#{turn}", 2 * topic))
        return total

    async def program(mesh: Mesh) -> int:
        talks = [talk(mesh, peer, topic) for peer in others(mesh, 3) for topic in range(20)]
        return sum(await asyncio.gather(*talks))

    with Consortium.found(3) as nodes:
        assert run(nodes.run(program)) == [2 * 2 * 20 * 190] * 3


def test_a_message_of_any_length_up_to_a_limit(run: Run) -> None:
    async def program(mesh: Mesh) -> Any:
        if mesh.rank == 0:
            await mesh.send(1, "few", b"12345")
            await mesh.send(1, "none", b"")
            return await mesh.receive_upto(1, "bye", 10)
        few, none = await mesh.receive_upto(0, "few", 5), await mesh.receive_upto(0, "none", 5)
        await mesh.send(0, "bye", b"x")
        return bytes(few), bytes(none)

    with Consortium.found(2) as nodes:
        zero, one = run(nodes.run(program))
    assert (bytes(zero), one) == (b"x", (b"12345", b""))


def test_what_was_sent_before_the_goodbye_can_be_received_after_it(run: Run) -> None:
    async def program(mesh: Mesh) -> str:
        if mesh.rank == 0:
            await mesh.send(1, "early", b"x" * 100_000)
            return "gone"
        await asyncio.sleep(0.2)
        assert len(await mesh.receive(0, "early", 100_000)) == 100_000
        await mesh.send(0, "too late", b"nobody reads this, and nobody minds")
        began = time.monotonic()
        with pytest.raises(PeerError, match="party 0 has finished and never sent what was due at step 'never'"):
            await mesh.receive(0, "never", 1)
        assert time.monotonic() - began < 4.5  # the patience is 5
        return "stayed"

    with Consortium.found(2) as nodes:
        assert run(nodes.run(program)) == ["gone", "stayed"]


def test_who_waits_when_the_goodbye_comes_hears_of_it(run: Run) -> None:
    async def program(mesh: Mesh) -> str:
        if mesh.rank == 0:
            await asyncio.sleep(0.1)
            return "gone"
        with pytest.raises(PeerError, match="party 0 has finished") as caught:
            await mesh.receive(0, "never", 1)
        assert (caught.value.rank, caught.value.step) == (0, "never")
        return "told"

    with Consortium.found(2) as nodes:
        assert run(nodes.run(program)) == ["gone", "told"]


def test_a_party_that_has_finished_does_not_end_the_others_work(run: Run) -> None:
    async def program(mesh: Mesh) -> str:
        if mesh.rank == 0:
            return "gone"
        peer = 3 - mesh.rank
        await asyncio.sleep(0.2)
        for turn in range(5):
            await mesh.send(peer, f"{turn}", b"x")
            await mesh.receive(peer, f"{turn}", 1)
        return "stayed"

    with Consortium.found(3) as nodes:
        assert run(nodes.run(program)) == ["gone", "stayed", "stayed"]


def test_an_abort_reaches_the_others_at_once(run: Run) -> None:
    heard: list[float] = []

    async def program(mesh: Mesh) -> None:
        await meet(mesh, 3)
        if mesh.rank == 0:
            await asyncio.sleep(0.05)
            heard.append(time.monotonic())
            await mesh.abort("ZeroDivisionError", "")
            with pytest.raises(PeerError, match="we stopped"):
                await mesh.send(1, "after", b"")
            return
        with pytest.raises(PeerError, match="party 0 stopped: ZeroDivisionError") as caught:
            await mesh.receive(3 - mesh.rank, "never", 1)
        heard.append(time.monotonic())
        assert (caught.value.rank, caught.value.step) == (0, "never")
        with pytest.raises(PeerError, match="party 0 stopped"):
            await mesh.send(3 - mesh.rank, "after", b"")

    with Consortium.found(3) as nodes:
        assert run(nodes.run(program)) == [None] * 3
    assert max(heard) - min(heard) < 0.5  # milliseconds, on a machine that is not busy


def test_an_abort_shows_no_escape_sequences(run: Run) -> None:
    async def program(mesh: Mesh) -> str:
        await meet(mesh, 2)
        if mesh.rank == 0:
            await mesh.abort("\x1b[2JError", "\x1b]0;owned\x07" + "x" * 5000)
            return ""
        with pytest.raises(PeerError) as caught:
            await mesh.receive(0, "never", 1)
        return str(caught.value)

    with Consortium.found(2) as nodes:
        text = run(nodes.run(program))[1]
    assert text.isprintable()
    assert len(text) < 2200


def test_an_exception_leaves_the_block_as_an_abort_without_its_text(run: Run) -> None:
    async def program(mesh: Mesh) -> None:
        await meet(mesh, 2)
        if mesh.rank == 0:
            raise LookupError("patient 4711")
        await mesh.receive(0, "never", 1)

    with Consortium.found(2) as nodes:
        zero, one = run(nodes.run(program))
    assert isinstance(zero, LookupError)
    assert "party 0 stopped: LookupError" in str(one)
    assert "4711" not in str(one)


def test_too_much_unread_makes_the_sender_wait(run: Run) -> None:
    """16 MB are sent to a party that does not read; it holds one, and the sender stands still."""
    limit, piece, count = 2**20, 200_000, 80

    async def program(mesh: Mesh) -> Any:
        if mesh.rank == 0:
            sent = [0]

            async def send() -> None:
                for number in range(count):
                    await mesh.send(1, f"{number}", bytes(piece))
                    sent[0] += 1

            sending = asyncio.ensure_future(send())
            await asyncio.sleep(0.5)
            stuck_at = sent[0]
            await mesh.send(2, "go", b"x")
            await sending
            return stuck_at
        if mesh.rank == 1:
            await mesh.receive(2, "go", 1)
            held = mesh.traffic[0].payload_received
            for number in range(count):
                await mesh.receive(0, f"{number}", piece)
            return held
        await mesh.receive(0, "go", 1)
        await mesh.send(1, "go", b"x")
        return None

    with Consortium.found(3) as nodes:
        stuck_at, held, nothing = run(nodes.run(program, buffer_bytes=limit))
    assert nothing is None
    assert stuck_at < count
    assert held < 2 * limit + 2**20


def test_a_message_longer_than_the_buffer_passes_when_it_is_waited_for(run: Run) -> None:
    limit, size = 2**20, 6_000_000

    async def program(mesh: Mesh) -> None:
        peer = 1 - mesh.rank
        for turn, pause in enumerate([0.0, 0.2]):
            sending = asyncio.ensure_future(mesh.send(peer, f"long {turn}", bytes(size)))
            await asyncio.sleep(pause * mesh.rank)
            assert len(await mesh.receive(peer, f"long {turn}", size)) == size
            await sending

    with Consortium.found(2) as nodes:
        assert run(nodes.run(program, buffer_bytes=limit)) == [None, None]


def test_a_receive_that_was_given_up_loses_no_message(run: Run) -> None:
    given_up = [asyncio.Event(), asyncio.Event()]

    async def program(mesh: Mesh) -> None:
        peer = 1 - mesh.rank
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await mesh.receive(peer, "late", 3)
        given_up[mesh.rank].set()
        await given_up[peer].wait()
        await asyncio.sleep(0.1 * mesh.rank)
        await mesh.send(peer, "late", b"abc")
        assert bytes(await mesh.receive(peer, "late", 3)) == b"abc"

    with Consortium.found(2) as nodes:
        assert run(nodes.run(program)) == [None, None]


def test_two_receives_of_one_step_are_our_own_mistake(run: Run) -> None:
    async def program(mesh: Mesh) -> None:
        peer = 1 - mesh.rank
        await mesh.send(peer, "once", b"")
        await mesh.receive(peer, "once", 0)
        with pytest.raises(RuntimeError, match="second receive"):
            await mesh.receive(peer, "once", 0)
        await mesh.send(peer, "done", b"")
        await mesh.receive(peer, "done", 0)

    with Consortium.found(2) as nodes:
        assert run(nodes.run(program)) == [None, None]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts a connection's bytes on Linux")
def test_bytes_on_the_wire_are_the_kernels(run: Run) -> None:
    """Ours leave out what comes before the first frame, the handshakes, and count the rest within 1 %."""

    def counted_by_kernel(mesh: Mesh) -> tuple[int, int]:
        wire = mesh._links[1 - mesh.rank].wire
        assert isinstance(wire, Wire)
        connection = wire._transport.get_extra_info("socket")
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        return struct.unpack_from("<QQ", info, 120)  # tcpi_bytes_acked, tcpi_bytes_received

    async def program(mesh: Mesh) -> list[tuple[int, int]]:
        peer = 1 - mesh.rank
        marks = []
        for turn, size in enumerate([0, 300_000, 5000, 30_000]):
            await mesh.send(peer, f"{turn}", bytes(size))
            await mesh.receive(peer, f"{turn}", size)
            await asyncio.sleep(0.2)
            traffic = mesh.traffic[peer]
            marks.append((*counted_by_kernel(mesh), traffic.wire_sent, traffic.wire_received))
            await asyncio.sleep(0.05)  # until the other one has looked, too
        first, last = marks[0], marks[-1]
        kernel_sent, kernel_received, sent, received = (b - a for a, b in zip(first, last, strict=True))
        return [(kernel_sent, sent), (kernel_received, received)]

    with Consortium.found(2) as nodes:
        for pairs in run(nodes.run(program)):
            for kernel, ours in pairs:
                assert ours == pytest.approx(kernel, rel=0.01)


def test_a_quiet_link_is_kept_alive_by_pings(run: Run) -> None:
    patience = Patience(connect_seconds=5, receive_seconds=5, heartbeat_seconds=0.05, silence_seconds=0.2)

    async def program(mesh: Mesh) -> None:
        peer = 1 - mesh.rank
        await asyncio.sleep(0.7)
        await mesh.send(peer, "still there", b"x")
        await mesh.receive(peer, "still there", 1)

    with Consortium.found(2) as nodes:
        assert run(nodes.run(program, patience)) == [None, None]


def test_being_busy_ourselves_is_nobodys_fault(run: Run) -> None:
    patience = Patience(connect_seconds=5, receive_seconds=0.3, heartbeat_seconds=0.1, silence_seconds=0.2)

    async def program(mesh: Mesh) -> None:
        if mesh.rank == 0:
            await mesh.send(1, "before", b"x")
            await mesh.receive(1, "after", 1)
            return
        await asyncio.sleep(0.05)
        waiting = asyncio.ensure_future(mesh.receive(0, "before", 1))
        await asyncio.sleep(0)
        time.sleep(1.0)  # noqa: ASYNC251 - as a long computation does, it keeps the loop from running
        await waiting
        await mesh.send(0, "after", b"x")

    with Consortium.found(2) as nodes:
        busy = run(nodes.run(program, patience))
    assert busy[1] is None


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"short"},
        {"members": []},
        {"rank": 3},
        {"members": "twice"},
        {"rank": 1},
    ],
)
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    async def make() -> None:
        with Consortium.found(2) as nodes:
            arguments: dict[str, Any] = {"members": nodes.members, "session": bytes(16), "rank": 0} | change
            if arguments["members"] == "twice":
                arguments["members"] = [nodes.members[0]] * 2
            with pytest.raises(ValueError, match=r"member|session|certificate"):
                Mesh(nodes.identities[0], arguments.pop("rank"), arguments.pop("members"), parties=2, **arguments)

    asyncio.run(make())


def test_addresses_may_be_names(run: Run) -> None:
    async def program(mesh: Mesh) -> int:
        await mesh.send(1 - mesh.rank, "hello", b"x")
        return len(await mesh.receive(1 - mesh.rank, "hello", 1))

    with Consortium.found(2) as nodes:
        nodes.members = [Member(m.certificate, "localhost", m.port) for m in nodes.members]
        assert run(nodes.run(program)) == [1, 1]


def test_after_we_left_nothing_waits_for_ever(run: Run) -> None:
    async def program(mesh: Mesh) -> None:
        forgotten = asyncio.ensure_future(mesh.receive(1 - mesh.rank, "never", 1))
        await asyncio.sleep(0.05)
        await mesh.close()
        with pytest.raises(PeerError, match=r"we have left|has finished"):
            await forgotten
        with pytest.raises(PeerError, match="we have left"):
            await mesh.send(1 - mesh.rank, "after", b"")

    with Consortium.found(2) as nodes:
        assert run(nodes.run(program)) == [None, None]


def test_a_sender_that_is_held_up_hears_of_an_abort(run: Run) -> None:
    async def flood(mesh: Mesh) -> None:
        for number in range(1000):  # party 1 never reads
            await mesh.send(1, f"{number}", bytes(200_000))

    async def program(mesh: Mesh) -> None:
        await meet(mesh, 3)
        if mesh.rank == 0:
            began = time.monotonic()
            with pytest.raises(PeerError, match="party 2 stopped: KeyError"):
                await flood(mesh)
            assert time.monotonic() - began < 1.2
        elif mesh.rank == 1:
            await asyncio.sleep(1.5)
        else:
            await asyncio.sleep(0.2)
            await mesh.abort("KeyError", "")

    with Consortium.found(3) as nodes:
        assert run(nodes.run(program, buffer_bytes=2**20)) == [None] * 3


def test_the_quick_patience_is_quick() -> None:
    assert max(QUICK.connect_seconds, QUICK.receive_seconds) <= 5


def test_a_time_that_is_over_before_it_begins(run: Run) -> None:
    """uvloop makes no timer of what is due at once."""

    async def main() -> tuple[list[str], list[Any]]:
        told: list[str] = []
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        gone = asyncio.Event()
        link = cast(Link, SimpleNamespace(peer=1, finished=False, name="party 1", inbox=SimpleNamespace(oldest=None)))
        watch = Watch(
            Patience(receive_seconds=5.0, until=asyncio.get_running_loop().time() - 0.1, resume_seconds=0.0),
            {1: link},
            on_late=lambda fault: told.append(str(fault)),
            on_silent=lambda link: None,
            on_gone=lambda link: gone.set(),
        )
        watch.deadline()
        watch.has_gone_away(link)
        async with asyncio.timeout(20):
            await gone.wait()
        watch.stop_waiting()
        return told, errors

    assert run(main()) == ([], [])
