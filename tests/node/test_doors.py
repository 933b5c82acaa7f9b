"""The one port: callers reach whom they ask for, and those who ask for nobody cost little."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import ssl
from collections.abc import Iterator

import pytest

from parties.identity import Identity, client_context, host_name, make_identity, server_context
from parties.node import doors as module
from parties.node.doors import MOST_OF_ADDRESS, MOST_UNDECIDED, Doors, DoorsError, Refusals, listen
from parties.node.exchange import Exchange
from tests.node.support import Run, on_uvloop, open_descriptors
from tests.node.test_doors_hello import NAME, message, named, records

ONE = make_identity("one")
OTHER = make_identity("other")
NOBODY = make_identity("nobody")
CLIENT = make_identity("client")
HELLO = records(message(named(NAME.encode())))


@contextlib.contextmanager
def opened(**options) -> Iterator[Doors]:
    doors = Doors(listen("127.0.0.1", 0), **options)
    doors.open()
    try:
        yield doors
    finally:
        doors.close()


@contextlib.contextmanager
def caller(doors: Doors) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", doors.ports[0])) as sock:
        sock.setblocking(False)
        yield sock


async def is_closed(sock: socket.socket) -> bool:
    """Whether the other side closes; waits for that a little."""
    try:
        async with asyncio.timeout(2):
            return await asyncio.get_running_loop().sock_recv(sock, 1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def until(condition, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


class Greeter:
    """Takes connections, does TLS with a key of its own, and says who it is."""

    def __init__(self, identity: Identity, name: str) -> None:
        self.name = name
        self.context = server_context(identity, [CLIENT.certificate])
        self.tasks: list[asyncio.Task[None]] = []

    def take(self, sock: socket.socket) -> None:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        self.tasks.append(asyncio.get_running_loop().create_task(self._greet(sock)))

    async def _greet(self, sock: socket.socket) -> None:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: asyncio.StreamReaderProtocol(reader), sock, ssl=self.context
        )
        transport.write(self.name.encode())
        transport.close()


async def ask(doors: Doors, identity: Identity) -> str:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        doors.ports[0],
        ssl=client_context(CLIENT, [identity.certificate]),
        server_hostname=host_name(identity.certificate),
    )
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def test_callers_reach_the_key_that_they_ask_for(run: Run):
    async def main():
        with opened() as doors:
            greeters = [Greeter(ONE, "one"), Greeter(OTHER, "other")]
            for identity, greeter in zip((ONE, OTHER), greeters, strict=True):
                doors.route(host_name(identity.certificate), greeter.take)
            said = await asyncio.gather(*(ask(doors, identity) for identity in (ONE, OTHER) * 10))
            assert said == ["one", "other"] * 10
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await ask(doors, NOBODY)
            doors.unroute(host_name(ONE.certificate))
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await ask(doors, ONE)
            assert await ask(doors, OTHER) == "other"
            assert doors.counts == {"accepted": 23, "led on": 21, "unknown name": 2}
            await asyncio.gather(*greeters[0].tasks, *greeters[1].tasks)

    run(main())


@pytest.mark.parametrize("pieces", [1, 7, 50])
def test_a_hello_may_come_in_pieces_and_is_left_on_the_connection(run: Run, pieces: int):
    async def main():
        with opened() as doors, caller(doors) as sock:
            taken: list[socket.socket] = []
            doors.route(NAME, taken.append)
            loop = asyncio.get_running_loop()
            size = -(-len(HELLO) // pieces)
            for at in range(0, len(HELLO), size):
                await loop.sock_sendall(sock, HELLO[at : at + size])
                await asyncio.sleep(0.002)
            await until(lambda: taken)
            with taken[0] as mine:
                assert not mine.getblocking()
                assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
                mine.setblocking(True)
                mine.settimeout(2)
                assert mine.recv(len(HELLO), socket.MSG_WAITALL) == HELLO

    run(main())


def test_slow_bytes_do_not_keep_us_busy(run: Run, monkeypatch: pytest.MonkeyPatch):
    """Between two bytes that matter we are not woken, though what came before lies there unread."""
    looks: list[int] = []
    look = Doors._look

    def counted(self, caller) -> None:
        looks.append(1)
        look(self, caller)

    monkeypatch.setattr(Doors, "_look", counted)
    monkeypatch.setattr(Doors, "_stuck", lambda self, caller: pytest.fail("woken for nothing"))

    async def main():
        with opened() as doors, caller(doors) as sock:
            taken: list[socket.socket] = []
            doors.route(NAME, taken.append)
            for byte in HELLO:
                sock.send(bytes([byte]))
                await asyncio.sleep(0.001)
            await until(lambda: taken)
            taken[0].close()

    run(main())
    assert len(looks) <= 5


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "not TLS"),
        (b"\0", "not TLS"),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", "too long"),
        (records(message(b"")), "no name"),
        (records(message(named(b"a"), kind=1)) + b"x" * 20_000, "unknown name"),
    ],
)
def test_who_says_nothing_sensible_is_closed(run: Run, sent: bytes, reason: str):
    async def main():
        with opened() as doors, caller(doors) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, sent)
            assert await is_closed(sock)
            assert doors.counts == {"accepted": 1, reason: 1}
            assert doors.undecided == 0

    run(main())


def test_who_hangs_up_is_forgotten(run: Run):
    async def main():
        with opened() as doors:
            for sent in (b"", HELLO[:1], HELLO[:50]):
                with caller(doors) as sock:
                    sock.send(sent)
                    await until(lambda: doors.undecided == 1)
                    await asyncio.sleep(0.01)
                await until(lambda: doors.undecided == 0)
            with caller(doors) as sock:  # says that it will say no more
                sock.send(HELLO[:50])
                await until(lambda: doors.undecided == 1)
                sock.shutdown(socket.SHUT_WR)
                await until(lambda: doors.undecided == 0)
            assert doors.counts == {"accepted": 4, "went away": 4}

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_who_is_slow_is_closed(run: Run):
    async def main():
        with opened(hello_seconds=0.2) as doors, caller(doors) as silent, caller(doors) as slow:
            loop = asyncio.get_running_loop()
            began = loop.time()
            sending = True

            async def drip() -> None:
                for byte in HELLO:
                    if not sending:
                        return
                    with contextlib.suppress(OSError):
                        slow.send(bytes([byte]))
                    await asyncio.sleep(0.05)

            dripping = asyncio.ensure_future(drip())
            assert await is_closed(silent)
            assert await is_closed(slow)
            sending = False
            await dripping
            assert 0.15 < loop.time() - began < 1.5
            assert doors.counts["too slow"] == 2

    run(main())


def test_ten_thousand_callers_do_not_keep_out_one_who_speaks():
    """They come as fast as they can and say nothing; meanwhile a real client is served."""

    async def main():
        loop = asyncio.get_running_loop()
        reports: list[Refusals] = []
        with opened(report=reports.append, report_seconds=0.2) as doors:
            greeter = Greeter(ONE, "one")
            doors.route(host_name(ONE.certificate), greeter.take)
            address = ("127.0.0.1", doors.ports[0])

            async def crowd() -> None:
                callers: list[socket.socket] = []
                try:
                    for number in range(10_000):
                        sock = socket.socket()
                        sock.setblocking(False)
                        callers.append(sock)
                        await loop.sock_connect(sock, address)
                        if number % 2:
                            sock.send(HELLO[:20])
                        if len(callers) > 400:  # our own descriptors are bounded too
                            callers.pop(0).close()
                        assert doors.undecided <= MOST_OF_ADDRESS
                finally:
                    for sock in callers:
                        sock.close()

            crowding = asyncio.ensure_future(crowd())
            served = 0
            while not crowding.done():
                if await ask(doors, ONE) == "one":
                    served += 1
                await asyncio.sleep(0.02)
            await crowding
            assert served > 10
            await until(lambda: doors.undecided == 0)
            assert doors.counts["accepted"] == 10_000 + served
            assert doors.counts["led on"] == served
            await asyncio.gather(*greeter.tasks)
        refused = sum(sum(report.reasons.values()) for report in reports)
        assert refused == 10_000
        assert len(reports) < 100
        assert all(report.addresses.keys() == {"127.0.0.1"} for report in reports)

    before = open_descriptors()
    on_uvloop(main())
    assert open_descriptors() == before


def test_callers_of_many_addresses_are_bounded_in_all(run: Run, monkeypatch: pytest.MonkeyPatch):
    """The newest takes the place of the oldest from where most come, so that a lone caller keeps its own."""
    numbers = iter(range(10**6))

    def address(_: str) -> str:
        number = next(numbers)
        return "lone" if number == 0 else f"{number % 5}"

    monkeypatch.setattr(module, "group_of", address)

    async def main():
        with opened() as doors, contextlib.ExitStack() as stack:
            taken: list[socket.socket] = []
            doors.route(NAME, taken.append)
            lone = stack.enter_context(caller(doors))
            await until(lambda: doors.undecided == 1)
            for _ in range(5 * (MOST_OF_ADDRESS - 4)):
                stack.enter_context(caller(doors))
            await until(lambda: doors.counts["accepted"] == 1 + 5 * (MOST_OF_ADDRESS - 4))
            assert doors.undecided == MOST_UNDECIDED
            assert doors.counts["no room"] == 1 + 5 * (MOST_OF_ADDRESS - 4) - MOST_UNDECIDED
            lone.send(HELLO)
            await until(lambda: taken)
            taken[0].close()

    run(main())


def test_addresses_of_one_network_count_as_one():
    assert module.group_of("10.1.2.3") == "10.1.2.3"
    assert module.group_of("::ffff:10.1.2.3") == "10.1.2.3"
    assert module.group_of("2001:db8::1") == module.group_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert module.group_of("2001:db8:0:1::1") != module.group_of("2001:db8::1")
    assert module.group_of("fe80::1%eth0") == "fe80::/64"
    assert module.group_of("odd") == "odd"


def test_running_out_of_descriptors_passes(run: Run):
    """Then it waits a little, makes room, and goes on."""

    async def main():
        with opened() as doors:
            taken: list[socket.socket] = []
            doors.route(NAME, taken.append)
            with caller(doors), contextlib.ExitStack() as stack:
                await until(lambda: doors.undecided == 1)
                late = socket.socket()
                stack.enter_context(late)
                late.setblocking(False)
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                highest = max(int(name) for name in os.listdir("/proc/self/fd"))
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
                try:
                    fill: list[socket.socket] = []
                    with contextlib.suppress(OSError):
                        while True:
                            fill.append(socket.socket())
                            stack.enter_context(fill[-1])
                    await asyncio.get_running_loop().sock_connect(late, ("127.0.0.1", doors.ports[0]))
                    late.send(HELLO)
                    await until(lambda: doors.counts["out of descriptors"] >= 1)
                    assert doors.counts["out of descriptors"] <= 3  # and does not spin
                    await until(lambda: taken)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                taken[0].close()
            assert doors.counts["no room"] == 1

    run(main())


def test_whom_one_asks_for_may_vanish_meanwhile(run: Run):
    """A worker that ends while a connection is passed to it: the caller is closed, the doors stay open."""

    async def main():
        near, far = socket.socketpair()
        exchange = Exchange(near)
        with opened() as doors:

            def adopt(sock: socket.socket) -> None:
                exchange.post({"kind": "adopt"}, sock)

            doors.route(NAME, adopt)
            with caller(doors) as sock:  # taken, and nobody there to use it
                sock.send(HELLO)
                await until(lambda: doors.counts["led on"] == 1)
                far.close()
                assert await is_closed(sock)
            with caller(doors) as sock:
                sock.send(HELLO)
                assert await is_closed(sock)
            with caller(doors) as sock:
                sock.send(HELLO)
                assert await is_closed(sock)
            assert doors.counts["whom it asked for is gone"] >= 1

            def unroute_others(sock: socket.socket) -> None:
                doors.unroute(NAME)
                raise OSError(errno.EBADF, "gone")

            doors.route(NAME, unroute_others)
            with caller(doors) as sock:
                sock.send(HELLO)
                assert await is_closed(sock)
            with caller(doors) as sock:
                sock.send(HELLO)
                assert await is_closed(sock)
            assert doors.counts["unknown name"] == 1
        exchange.close()

    before = open_descriptors()
    run(main())
    assert open_descriptors() == before


def test_closing_closes_who_waits_and_tells_what_was_untold(run: Run):
    async def main():
        reports: list[Refusals] = []
        with opened(report=reports.append) as doors, caller(doors) as waits, caller(doors) as fails:
            fails.send(b"x")
            assert await is_closed(fails)
            await until(lambda: doors.undecided == 1)
            assert reports == []
            doors.close()
            assert await is_closed(waits)
            assert reports == [Refusals({"not TLS": 1}, {"127.0.0.1": 1})]

    run(main())


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DoorsError, match=rf"port {port}: .*in use"):
            listen("127.0.0.1", port)
    with pytest.raises(DoorsError, match=r"cannot listen on 192\.0\.2\.1, port 0: Cannot assign"):
        listen("192.0.2.1", 0)
    with pytest.raises(DoorsError, match=r"cannot listen on no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0)
