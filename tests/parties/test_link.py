"""A link over connections that come, stall, break and come late, without a network: nothing is lost or doubled.

Two ends as the mesh makes them, and between them queues of messages that a test delivers one by one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import PeerError
from parties.connect import Doorkeeper
from parties.faults import Abort, Fault
from parties.frames import FRAME_BYTES, Kind, acknowledging, pack_header, parse
from parties.line import Line
from parties.link import ACK_BYTES, ACK_FRAMES, ACK_SECONDS, Link, Verdict
from parties.links import Links, Phase
from parties.members import Member
from parties.watch import Patience

SESSION = b"a session of ours"[:16]
BUFFER = 64 * 1024


class Wire:
    """One side of a connection: what it writes waits until it is delivered."""

    def __init__(self) -> None:
        self.under_way: deque[bytes] = deque()
        self.dropped = False
        self.congested = False
        self.paused = False
        self.last_heard = 0.0
        self.bytes_sent = 0
        self.bytes_received = 0
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.close_seen: asyncio.Future[None] = loop.create_future()

    def write(self, head: bytes, payload: bytes | memoryview | bytearray = b"") -> None:
        if not self.dropped:
            self.under_way.append(head + bytes(payload))

    async def drain(self) -> None:
        raise AssertionError("this wire is never congested")

    def give_up(self) -> None:
        pass

    def ping(self) -> None:
        pass

    def say_close(self) -> None:
        self.dropped = True

    def close(self) -> None:
        self.dropped = True

    def drop(self) -> None:
        self.dropped = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class End:
    """One node: its side of the one link, without the network."""

    def __init__(self, rank: int, *, keeps: bool = True, buffer_bytes: int = BUFFER) -> None:
        self.rank = rank
        self.peer = 1 - rank
        self.faults: list[str] = []
        self.aborts: list[Abort] = []
        self.buffer_bytes = buffer_bytes
        self.keeps = keeps
        members = [Member(b"zero", "zero", 1), Member(b"one", "one", 1)]
        self.links = Links(
            None,  # type: ignore[arg-type]
            rank,
            members,
            parties=2,
            session=SESSION,
            patience=Patience(resume_seconds=60 if keeps else 0),
            passes=None,
            make_link=self.make_link,
            on_failed=lambda fault: self.faults.append(fault.text),
        )
        self.doorkeeper: Doorkeeper = self.links._doorkeeper
        self.sent = 0
        self.got = 0

    def make_link(self, peer: int, name: str) -> Link:
        return Link(
            self.rank,
            peer,
            name,
            SESSION,
            keeps=self.keeps,
            buffer_bytes=self.buffer_bytes,
            on_fault=lambda link, what, step: self.faults.append(what),
            on_abort=lambda link, abort: self.aborts.append(abort),
            on_parted=lambda: None,
        )

    @property
    def link(self) -> Link:
        return self.links.by_rank[self.peer]

    def line(self) -> Line:
        return Line(self.peer, self.doorkeeper._take_hello, self.links.lost)

    def message(self, number: int) -> bytes:
        """What we send as message of this number: sizes from nothing to three frames."""
        size = (0, 1, 100, 20_000, 3 * FRAME_BYTES)[number % 5] if number % 40 == 4 or number % 5 < 4 else 7
        return bytes([self.rank, number % 251]) * (size // 2)

    def post(self) -> Coroutine[None, None, None] | None:
        number = self.sent
        self.sent += 1
        return self.link.post(f"step {number}", self.message(number))

    def take(self, of: End) -> None:
        """Receive what has arrived, in order, and compare it."""
        while True:
            due = of.message(self.got)
            message = self.link.inbox.take(f"step {self.got}", len(due), True)
            if message is None:
                return
            assert bytes(message) == due
            self.got += 1


class Connection:
    """One connection, dialled by ``one``; each side's line and wire, and what was heard last."""

    def __init__(self, zero: End, one: End) -> None:
        self.ends = [zero, one]
        self.lines: list[Line | None] = [None, one.line()]
        self.wires = [Wire(), Wire()]
        self.lost = [False, False]
        dialler = self.lines[1]
        assert dialler is not None
        dialler.begin(self.wires[1], one.link)

    def deliver(self, to: int) -> bool:
        """Let one message arrive; false if none is under way, or nobody is there."""
        queue = self.wires[1 - to].under_way
        if not queue or self.lost[to]:
            return False
        message = queue.popleft()
        line = self.lines[to]
        if line is None:  # the first message, as the doorkeeper's server hands it on
            line = self.lines[to] = self.ends[to].line()
            line.begin(self.wires[to], None)
        line.on_message(message)
        return True

    def lose(self, side: int) -> None:
        """Let one side notice that the connection is gone; the other one may go on believing in it."""
        if not self.lost[side]:
            self.lost[side] = True
            line = self.lines[side]
            if line is not None:
                line.on_lost(None)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def two_ends(**options: Any) -> tuple[End, End, Connection]:
    zero, one = End(0, **options), End(1, **options)
    connection = await connect(zero, one)
    zero.links.phase = one.links.phase = Phase.AT_WORK
    return zero, one, connection


async def connect(zero: End, one: End) -> Connection:
    connection = Connection(zero, one)
    assert connection.deliver(0)
    assert connection.deliver(1)
    assert zero.link.wire is connection.wires[0]
    assert one.link.wire is connection.wires[1]
    return connection


async def deliver_all(connection: Connection) -> None:
    arrived = True
    while arrived:
        await asyncio.sleep(0)
        arrived = connection.deliver(0) or connection.deliver(1)


MOVES = ("post 0", "post 1", "deliver 0", "deliver 0", "deliver 1", "deliver 1", "dial", "lose 0", "lose 1", "take")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 3)), min_size=40, max_size=120))
def test_whatever_happens_to_connections_all_arrives_once_and_in_order(moves: list[tuple[str, int]]) -> None:
    async def test() -> None:
        zero, one, first = await two_ends(buffer_bytes=10**9)
        ends = [zero, one]
        connections = [first]
        pending: list[Coroutine[None, None, None]] = []
        for move, choice in moves:
            what, _, side = move.partition(" ")
            if what == "post":
                unfinished = ends[int(side)].post()
                if unfinished is not None:
                    pending.append(unfinished)
                    with pytest.raises(StopIteration):  # nothing here ever makes it wait
                        unfinished.send(None)
            elif what == "deliver":
                # Mostly over the latest connection, sometimes late over an older one.
                connections[-1 - choice % len(connections)].deliver(int(side))
            elif what == "lose":
                connections[-1 - choice % len(connections)].lose(int(side))
            elif what == "dial" and one.link.wire is None:
                # An attempt that was given up may still arrive later: its first line is left as it is.
                connections.append(Connection(zero, one))
            elif what == "take":
                zero.take(one)
                one.take(zero)
            else:
                await asyncio.sleep(0)
        # In the end there is a good connection.
        for connection in connections:
            connection.lose(1)
        if one.link.wire is not None:
            one.links.lost(one.link, None)
        last = Connection(zero, one)
        for connection in connections:
            while connection.deliver(0):  # what was under way comes even later
                pass
        await deliver_all(last)
        for end in ends:
            end.link._acknowledge()
        await deliver_all(last)
        zero.take(one)
        one.take(zero)
        assert (zero.faults, one.faults) == ([], [])
        assert (zero.got, one.got) == (one.sent, zero.sent)
        assert zero.link.outbox.held == one.link.outbox.held == 0
        for end in ends:
            end.link.detach()

    in_a_loop(test)


# ---- one thing at a time ------------------------------------------------------------------------


def test_a_late_frame_of_an_old_connection_is_ignored() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        one.post()
        one.post()
        first.lose(1)  # party 0 does not notice, and believes in it
        second = Connection(zero, one)
        await deliver_all(second)
        assert first.wires[0].dropped
        first.deliver(0)
        first.deliver(0)
        one.post()
        await deliver_all(second)
        zero.take(one)
        assert (zero.got, zero.faults) == (3, [])
        assert zero.link.wire is second.wires[0]

    in_a_loop(test)


def test_an_old_attempt_that_comes_late_does_not_replace_a_newer_connection() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        first.lose(1)
        given_up = Connection(zero, one)
        given_up.lose(1)
        good = await connect(zero, one)
        assert given_up.deliver(0)  # its hello
        assert zero.link.wire is good.wires[0]
        assert not good.wires[0].dropped
        assert not zero.faults

    in_a_loop(test)


def test_an_attempt_that_was_overtaken_is_void() -> None:
    """What its hello says has been heard is not true any more."""

    async def test() -> None:
        zero, one, first = await two_ends()
        first.lose(1)
        slow = Connection(zero, one)
        assert slow.deliver(0)  # party 0 has answered; the answer is under way
        quick = await connect(zero, one)
        zero.post()
        await deliver_all(quick)
        quick.lose(1)
        slow.deliver(1)
        assert one.links.absent == [0]
        await deliver_all(await connect(zero, one))
        one.take(zero)
        assert (one.got, one.faults, zero.faults) == (1, [], [])

    in_a_loop(test)


def test_an_attempt_is_void_once_another_has_begun() -> None:
    """Or the other one would say of us what is not true any more."""

    async def test() -> None:
        zero, one, first = await two_ends()
        first.lose(1)
        slow = Connection(zero, one)
        assert slow.deliver(0)
        zero.post()
        quick = Connection(zero, one)
        await deliver_all(slow)  # the answer, and a message
        slow.lose(1)
        await deliver_all(quick)
        one.take(zero)
        assert (one.got, one.faults) == (1, [])

    in_a_loop(test)


def test_a_connection_that_breaks_while_all_is_sent_again_leaves_nothing_behind() -> None:
    async def test() -> None:
        zero, one, first = await two_ends(buffer_bytes=10**9)
        first.lose(0)
        first.lose(1)
        for _ in range(40):
            zero.link.post(f"step {zero.sent}", zero.message(0))
            zero.sent += 1
        for _ in range(3):
            broken = await connect(zero, one)
            await asyncio.sleep(0)  # a part of it is sent
            assert 0 < len(broken.wires[0].under_way) < 40
            broken.lose(0)
            broken.lose(1)
        last = await connect(zero, one)
        for turn in range(15):
            if turn == 9:  # while the last of it is under way, there is more
                zero.link.post(f"step {zero.sent}", zero.message(0))
                zero.sent += 1
            await asyncio.sleep(0)
        await deliver_all(last)
        assert one.faults == []
        assert [bytes(one.link.inbox.take(f"step {number}", 0, True) or b"") for number in range(41)] == [b""] * 41

    in_a_loop(test)


def test_who_acknowledges_what_is_about_to_be_sent_again_does_itself_harm_alone() -> None:
    async def test() -> None:
        zero, one, first = await two_ends(buffer_bytes=10**9)
        first.lose(0)
        first.lose(1)
        for number in range(40):
            zero.link.post(f"{number}", b"x")
        second = await connect(zero, one)
        await asyncio.sleep(0)
        one.post()
        queue = second.wires[1].under_way
        queue.append(acknowledging(queue.pop(), 30))
        assert second.deliver(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert [parse(message).sequence for message in second.wires[0].under_way][-10:] == list(range(30, 40))
        assert zero.faults == []

    in_a_loop(test)


def test_a_replayed_hello_is_nothing_new() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        first.lose(1)
        second = Connection(zero, one)
        words = second.wires[1].under_way[0]
        await deliver_all(second)
        again = zero.line()
        again.begin(Wire(), None)
        again.on_message(words)
        assert again.refused
        assert zero.link.wire is second.wires[0]

    in_a_loop(test)


def hello_of(end: End, *, keeps: int = 1, **fields: Any) -> bytes:
    """The next hello of an end, with other fields."""
    end.link.detach()
    frame = parse(end.link.hello())
    payload = bytes(frame.payload)
    frame = frame._replace(payload=memoryview(payload[:32] + bytes([keeps]) + payload[33:]))._replace(**fields)
    return (
        pack_header(
            frame.kind,
            frame.sender,
            frame.receiver,
            frame.session,
            frame.sequence,
            frame.step.encode(),
            frame.length,
            frame.offset,
            frame.acknowledged,
        )
        + frame.payload
    )


def knock(at: End, message: bytes) -> tuple[Line, Wire]:
    line, wire = at.line(), Wire()
    line.begin(wire, None)
    line.on_message(message)
    return line, wire


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"session": b"another session."}, None),
        ({"sender": 7}, None),
        ({"receiver": 7}, None),
        ({"acknowledged": 3}, "wrong count of frames"),
        ({"acknowledged": 0}, "wrong count of frames"),
        ({"keeps": 0}, "wrong count of frames"),
        ({"payload": memoryview(b"other incarnatio" + bytes(16) + b"\1" + bytes(7))}, "was started anew"),
    ],
)
def test_a_hello_that_does_not_go_with_what_was_is_refused(fields: dict[str, Any], fault: str | None) -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        zero.post()
        zero.post()
        await deliver_all(first)
        one.link._acknowledge()
        await deliver_all(first)
        assert zero.link.outbox.first == 2
        # While the connection is good, whoever else knocks is turned away, and that is all.
        line, wire = knock(zero, hello_of(one, **fields))
        assert line.refused
        assert not wire.under_way
        assert zero.link.wire is first.wires[0]
        assert not zero.faults
        # When it is gone, a member that cannot go on where it was ends the run.
        first.lose(0)
        line, wire = knock(zero, hello_of(one, **fields))
        assert line.refused
        assert zero.links.absent == [1]
        assert (fault in zero.faults[0]) if fault else not zero.faults

    in_a_loop(test)


def test_who_was_started_anew_hears_that_it_is_too_late_for_it() -> None:
    """It is the other one that remembers, dials, and finds a stranger."""

    async def test() -> None:
        _, one, first = await two_ends()
        one.post()
        first.lose(1)
        anew = End(0)  # party 0, with nothing of what was before
        second = Connection(anew, one)
        assert second.deliver(0)
        assert anew.link.wire is None
        assert second.deliver(1)
        assert "was started anew" in one.faults[0]

    in_a_loop(test)


def test_before_the_run_begins_a_peer_may_be_started_anew() -> None:
    async def test() -> None:
        zero, one = End(0), End(1)
        first = await connect(zero, one)
        one.post()
        await deliver_all(first)
        first.lose(0)
        anew = End(1)
        second = await connect(zero, anew)
        anew.post()
        await deliver_all(second)
        zero.take(anew)
        assert (zero.got, zero.faults, anew.faults) == (1, [], [])

    in_a_loop(test)


def test_one_end_that_keeps_nothing_makes_a_link_that_is_not_resumed() -> None:
    async def test() -> None:
        zero, one = End(0), End(1, keeps=False)
        connection = await connect(zero, one)
        zero.links.phase = one.links.phase = Phase.AT_WORK
        zero.post()
        one.post()
        await deliver_all(connection)
        assert (zero.link.outbox.held, one.link.outbox.held) == (0, 0)
        connection.lose(0)
        connection.lose(1)
        assert "went away without a goodbye" in zero.faults[0]
        assert "went away without a goodbye" in one.faults[0]

    in_a_loop(test)


@pytest.mark.parametrize("acknowledged", [2, 2**64 - 1])
def test_what_was_never_sent_cannot_be_acknowledged(acknowledged: int) -> None:
    async def test() -> None:
        zero, one, connection = await two_ends()
        zero.post()
        one.post()
        queue = connection.wires[1].under_way
        queue.append(acknowledging(queue.pop(), acknowledged))
        await deliver_all(connection)
        assert zero.faults == [f"party 1 sent an acknowledgement of frame {acknowledged} of 1"]

    in_a_loop(test)


def test_an_acknowledgement_never_goes_back() -> None:
    async def test() -> None:
        zero, one, connection = await two_ends()
        zero.post()
        await deliver_all(connection)
        one.post()
        await deliver_all(connection)
        one.post()
        queue = connection.wires[1].under_way
        queue.append(acknowledging(queue.pop(), 0))
        await deliver_all(connection)
        assert zero.faults == ["party 1 sent an acknowledgement of frame 0 of 1"]

    in_a_loop(test)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": Kind.HELLO}, "a frame of kind HELLO out of turn"),
        ({"kind": Kind.ACK, "sequence": 1}, "a frame of kind ACK out of turn"),
        ({"kind": Kind.ACK, "length": 1}, "a frame of kind ACK out of turn"),
        ({"kind": Kind.LEAVE}, "a leave without a goodbye"),
    ],
)
def test_frames_aside_have_their_rules(fields: dict[str, Any], says: str) -> None:
    async def test() -> None:
        zero, _, connection = await two_ends()
        usual: dict[str, Any] = {
            "sender": 1,
            "receiver": 0,
            "session": SESSION,
            "sequence": 0,
            "step": b"",
            "length": 0,
            "offset": 0,
        }
        connection.wires[1].under_way.append(pack_header(**(usual | {"acknowledged": 0} | fields)))
        await deliver_all(connection)
        assert says in zero.faults[0]

    in_a_loop(test)


# ---- acknowledgements ---------------------------------------------------------------------------


def acknowledgements(wire: Wire) -> list[int]:
    frames = [parse(message) for message in wire.under_way]
    return [frame.acknowledged for frame in frames if frame.kind is Kind.ACK]


def test_acknowledgements_ride_on_data() -> None:
    async def test() -> None:
        zero, one, connection = await two_ends()
        for _ in range(3):
            zero.post()
        for _ in range(3):
            connection.deliver(1)
        assert not connection.wires[1].under_way
        one.post()
        assert parse(connection.wires[1].under_way[-1]).acknowledged == 3
        await deliver_all(connection)
        assert zero.link.outbox.held == 0

    in_a_loop(test)


def test_acknowledgements_go_alone_after_so_many_frames_bytes_or_seconds() -> None:
    async def run() -> None:
        zero, _, connection = await two_ends(buffer_bytes=10**8)
        theirs = connection.wires[1]
        for number in range(ACK_FRAMES):
            assert not acknowledgements(theirs)
            zero.link.post(f"small {number}", b"x")
            connection.deliver(1)
        assert acknowledgements(theirs) == [ACK_FRAMES]
        for number in range(ACK_BYTES // 200_000 + 1):
            assert len(acknowledgements(theirs)) == 1
            zero.link.post(f"large {number}", bytes(200_000))
            connection.deliver(1)
        assert len(acknowledgements(theirs)) == 2
        zero.link.post("one more", b"x")
        connection.deliver(1)
        assert len(acknowledgements(theirs)) == 2
        await asyncio.sleep(2 * ACK_SECONDS)
        assert len(acknowledgements(theirs)) == 3
        await deliver_all(connection)
        assert zero.link.outbox.held == 0
        await asyncio.sleep(2 * ACK_SECONDS)
        assert not theirs.under_way  # nothing new, nothing said

    asyncio.run(run())


def test_what_is_kept_is_bounded_and_the_sender_waits() -> None:
    async def run() -> None:
        zero, one, connection = await two_ends()
        connection.lose(0)
        sending = [asyncio.ensure_future(send_many(zero, 100))]
        await asyncio.sleep(0)
        assert not sending[0].done()
        assert BUFFER // 4 < zero.link.outbox.held < BUFFER // 4 + 2000
        connection.lose(1)
        second = await connect(zero, one)
        while not sending[0].done():
            await deliver_all(second)
            one.link._acknowledge()
            await deliver_all(second)
            assert zero.link.outbox.held < BUFFER // 4 + 2000
            for number in range(one.got, 100):
                if one.link.inbox.take(f"{number}", 1000, True) is not None:
                    one.got += 1
            await asyncio.sleep(0)
        await deliver_all(second)
        one.link._acknowledge()
        await deliver_all(second)
        assert zero.link.outbox.held == 0
        zero.link.detach()
        one.link.detach()

    asyncio.run(run())


async def send_many(end: End, count: int) -> None:
    for number in range(count):
        sending = end.link.post(f"{number}", bytes(1000))
        if sending is not None:
            await sending


def test_too_much_unread_holds_back_the_acknowledgement_and_not_the_connection() -> None:
    """So an abort, or our own acknowledgements, still pass."""

    async def run() -> None:
        zero, one, connection = await two_ends()
        sending = asyncio.ensure_future(send_many(zero, 200))
        for _ in range(200):
            await deliver_all(connection)
            one.link._acknowledge()
            await deliver_all(connection)
            await asyncio.sleep(0)
        assert not sending.done()
        assert BUFFER < one.link.inbox.held < BUFFER + BUFFER // 4 + 5 * 1512
        assert not connection.wires[1].paused
        taken = 0
        while one.link.inbox.full:
            assert one.link.inbox.take(f"{taken}", 1000, True) is not None
            taken += 1
        assert BUFFER // 2 - 1512 <= one.link.inbox.held <= BUFFER // 2
        assert acknowledgements(connection.wires[1])  # at once, since somebody waits for it
        await deliver_all(connection)
        assert zero.link.outbox.held < BUFFER // 4
        one.link.abort(Abort("KeyError", "", 1, None))
        await deliver_all(connection)
        assert [abort.type_name for abort in zero.aborts] == ["KeyError"]
        sending.cancel()

    asyncio.run(run())


def test_who_sends_on_without_being_acknowledged_is_not_read_any_more() -> None:
    async def test() -> None:
        zero, one, connection = await two_ends()
        for number in range(3 * BUFFER // 1000):
            coroutine = zero.link.post(f"{number}", bytes(1000))
            if coroutine is not None:
                coroutine.close()  # it does not wait as it should
            if not connection.wires[1].paused:
                connection.deliver(1)
        assert connection.wires[1].paused
        assert one.link.inbox.held < 2 * BUFFER + 2000
        connection.lose(0)
        connection.lose(1)
        second = await connect(zero, one)
        assert second.wires[1].paused  # a new connection does not help it

    in_a_loop(test)


# ---- the end ------------------------------------------------------------------------------------


def test_a_goodbye_is_heard_over_a_later_connection() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        zero.post()
        zero.link.goodbye()
        assert zero.link.owing
        first.lose(0)
        first.lose(1)
        second = await connect(zero, one)
        assert zero.link.owing
        await deliver_all(second)
        assert one.link.finished
        assert zero.link.parted
        one.take(zero)
        assert one.got == 1
        # Party 1 has finished nothing, and knows that party 0 is gone; and party 0 knows that it knows.
        assert zero.link.departed
        assert one.link.departed
        assert one.links.link_to(0) is None  # nobody is looked for there

    in_a_loop(test)


def test_a_peer_that_has_finished_and_waits_for_our_word_is_let_in_again() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        one.link.goodbye()
        first.deliver(0)
        assert zero.link.finished
        first.lose(0)  # our acknowledgement is lost with it
        first.lose(1)
        assert one.link.owing
        second = await connect(zero, one)
        await deliver_all(second)
        assert one.link.departed
        assert zero.link.departed

    in_a_loop(test)


def test_who_left_while_its_last_word_was_lost_is_let_go_over_a_later_connection() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        one.link.goodbye()
        first.deliver(0)  # the goodbye
        first.deliver(1)  # heard
        assert one.link.leaving
        first.lose(0)  # and that it knows so is lost
        first.lose(1)
        second = await connect(zero, one)
        await deliver_all(second)
        assert one.link.departed
        assert zero.link.departed

    in_a_loop(test)


def test_a_peer_that_finished_and_never_came_back_is_not_missed() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        one.post()
        one.link.goodbye()
        first.deliver(0)
        first.deliver(0)
        first.lose(0)
        assert zero.links.link_to(1) is zero.link  # it may not know that we heard it
        assert zero.links.watch.away == {}
        zero.links._time_is_over(zero.link)
        assert zero.links.link_to(1) is None
        zero.take(one)
        assert (zero.got, zero.faults) == (1, [])

    in_a_loop(test)


def test_an_abort_is_heard_over_a_later_connection() -> None:
    async def test() -> None:
        zero, one, first = await two_ends()
        first.lose(0)
        zero.link.abort(Abort("KeyError", "", 0, None))
        zero.links.phase = Phase.ENDING
        first.lose(1)
        second = await connect(zero, one)
        await deliver_all(second)
        assert [abort.type_name for abort in one.aborts] == ["KeyError"]
        assert zero.link.parted

    in_a_loop(test)


def test_after_a_fault_only_acknowledgements_count() -> None:
    async def test() -> None:
        zero, one, connection = await two_ends()
        zero.link.abort(Abort("KeyError", "", 0, None))
        zero.link.fail_waiters(Fault("we stopped", 0))
        one.post()
        connection.wires[1].under_way.append(b"no frame")
        await deliver_all(connection)
        assert (zero.faults, zero.link.inbox.held) == ([], 0)
        assert zero.link.parted
        assert one.link.broken

    in_a_loop(test)


def test_two_that_stop_at_once_do_not_wait_for_each_other() -> None:
    async def test() -> None:
        zero, one, connection = await two_ends()
        for end in (zero, one):
            end.link.abort(Abort("KeyError", "", end.rank, None))
            end.link.fail_waiters(Fault("we stopped", end.rank))
        await deliver_all(connection)
        assert zero.link.parted
        assert one.link.parted

    in_a_loop(test)


def test_a_sender_that_waits_for_room_ends_with_the_run() -> None:
    async def run() -> None:
        zero, _, connection = await two_ends()
        connection.lose(0)
        sending = zero.link.post("long", bytes(BUFFER))
        assert sending is not None
        waiting = asyncio.ensure_future(sending)
        await asyncio.sleep(0)
        assert not waiting.done()
        zero.link.fail_waiters(Fault("gone", 1))
        await asyncio.wait_for(waiting, 15)
        zero.link.inbox.finish()
        with pytest.raises(PeerError, match="party 1 has finished"):
            await zero.link.inbox.wait("never", 1, True, 0.0)

    asyncio.run(run())


def test_judging_changes_nothing() -> None:
    async def test() -> None:
        zero, one, connection = await two_ends()
        connection.lose(1)
        again = Connection(zero, one)
        from parties.frames import parse_hello

        hello = parse_hello(parse(again.wires[1].under_way[0]))
        assert zero.link.judge(hello) is zero.link.judge(hello) is Verdict.WELCOME
        assert zero.link.wire is connection.wires[0]

    in_a_loop(test)
