"""Two ends meet at a relay and talk; through a proxy, under a private authority, with passes."""

import asyncio
import datetime
import gc
from pathlib import Path

import aiohttp
import pytest

from parties.connect import NotConnectedError
from parties.identity import make_identity
from parties.relay import client, server
from parties.relay.admission import CHALLENGE, HELLO, PAIRED, REFUSED, WAIT
from parties.relay.client import RelayAddress, RelayAddressError
from parties.relay.forward import End
from parties.relay.sealed import DATA, PING, Responder
from parties.relay.server import Limits
from tests.relay.test_sealed import message
from tests.relay.test_sealed_wire import Remembers
from tests.relay.world import LIMIT, Proxy, Run, Side, World, come, joined, make_authority, settle

LARGE = LIMIT - 4


def test_two_ends_meet_and_talk(run: Run, world: World) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with world.relay() as relay:
            async with joined(relay.address, north, city) as (a, b):
                a.write(b"hello")
                b.write(b"hello to you")
                a.open.write(b"head", memoryview(bytes(LARGE)))
                b.open.write(b"", bytearray(LIMIT))
                await b.until(lambda: len(b.messages) == 2)
                await a.until(lambda: len(a.messages) == 2)
                assert a.messages == [b"hello to you", bytes(LIMIT)]
                assert b.messages == [b"hello", b"head" + bytes(LARGE)]
                assert relay.relay.now == {"connections": 2, "waiting": 0, "pairs": 1}
                assert a.open.bytes_sent > LIMIT
                assert b.open.bytes_received > LIMIT
            await settle(lambda: relay.relay.now == {"connections": 0, "waiting": 0, "pairs": 0})
            assert relay.relay.figures.paired == 1
            assert relay.relay.figures.bytes > 2 * LIMIT
        gc.collect()

    run(test())


def test_a_relay_sees_nothing_of_what_is_said(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    pass_on = End._forward

    def look(end: End, message: bytes | bytearray) -> None:
        seen.append(bytes(message))
        pass_on(end, message)

    monkeypatch.setattr(End, "_forward", look)

    async def test() -> None:
        async with world.relay() as relay, joined(relay.address, world.nodes["north"], world.nodes["city"]) as (a, b):
            a.write(b"a secret, a secret")
            await b.until(lambda: b.messages)

    run(test())
    assert len(seen) == 5  # three of the handshake, the responder's first word, the message
    assert not any(b"secret" in message for message in seen)


def test_who_comes_first_waits(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is told again and again that it still waits, or it would think that the relay is gone."""
    monkeypatch.setattr(server, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(client, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(client, "_WAIT_SECONDS", 0.2)

    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with world.relay() as relay:
            waiting = asyncio.create_task(come(relay.address, north, city, initiator=True))
            await asyncio.sleep(0.8)
            assert relay.relay.now["waiting"] == 1
            b = await come(relay.address, city, north, initiator=False)
            a = await waiting
            a.write(b"at last")
            await b.until(lambda: b.messages)
            a.open.drop()
            await b.until(lambda: b.lost)
            assert b.lost == [None]
            monkeypatch.setattr(server, "WAIT_SECONDS", 60)
            with pytest.raises(NotConnectedError, match="fell silent"):
                await come(relay.address, north, city, initiator=True)

    run(test())


def test_who_leaves_waits_no_more(run: Run, world: World) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with world.relay() as relay:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await come(relay.address, north, city, initiator=True)
            await settle(lambda: relay.relay.now == {"connections": 0, "waiting": 0, "pairs": 0})

    run(test())


def test_only_ends_that_ask_for_each_other_for_one_purpose_are_joined(run: Run, world: World) -> None:
    async def test() -> None:
        north, city, south = world.nodes.values()
        async with world.relay() as relay:
            waiting = [
                asyncio.create_task(come(relay.address, *who, initiator=True, context=context))
                for who, context in (
                    ((north, city), b"one"),
                    ((city, north), b"two"),
                    ((city, south), b"one"),
                    ((south, north), b"one"),
                )
            ]
            await settle(lambda: relay.relay.now["waiting"] == 4)
            assert relay.relay.now["pairs"] == 0
            side = await come(relay.address, north, city, initiator=False, context=b"two")
            other = await waiting[1]
            assert relay.relay.now["waiting"] == 3
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for each in (side, other):
                each.open.drop()

    run(test())


def test_a_worker_comes_with_a_pass_of_its_member(run: Run, world: World) -> None:
    async def test() -> None:
        one, other = make_identity("worker of north"), make_identity("worker of city")
        async with world.relay() as relay:
            async with asyncio.timeout(30):
                a, b = await asyncio.gather(
                    come(relay.address, one, other, initiator=True, passes=world.pass_of("north", one)),
                    come(relay.address, other, one, initiator=False, passes=world.pass_of("city", other)),
                )
            a.write(b"x")
            await b.until(lambda: b.messages)
            for side in (a, b):
                side.open.drop()
            for passes, says in (
                (None, "no member's"),
                (world.pass_of("north", other), "for another key"),
                (world.pass_of("north", one, seconds=-1), "has expired"),
                (world.pass_of("north", one, consortium="another"), "nobody who is a member"),
            ):
                with pytest.raises(NotConnectedError, match=says):
                    await come(relay.address, one, other, initiator=True, passes=passes)

    run(test())


def test_when_a_pass_ends_so_does_the_connection(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.05)

    async def test() -> None:
        worker, city = make_identity("worker"), world.nodes["city"]
        passes = world.pass_of("north", worker, seconds=1.5)
        async with world.relay() as relay:
            a, b = await asyncio.gather(
                come(relay.address, worker, city, initiator=True, passes=passes),
                come(relay.address, city, worker, initiator=False),
            )
            await a.until(lambda: a.lost)
            await b.until(lambda: b.lost)

    run(test())


def test_the_wire_is_the_callers_before_it_speaks(run: Run, world: World) -> None:
    """The peer may write at once; nothing is reported before `meet` has returned."""

    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        early = []

        async def at_once(initiator: bool) -> Side:
            side = Side(lambda message: early.append(side.wire is not None))
            us, peer = (north, city) if initiator else (city, north)
            await come(relay.address, us, peer, initiator=initiator, side=side)
            for _ in range(20):
                side.write(bytes(2000))
            return side

        async with world.relay() as relay:
            sides = await asyncio.gather(at_once(True), at_once(False))
            await settle(lambda: len(early) == 40)
            assert all(early)
            for side in sides:
                side.open.drop()

    run(test())


def test_a_ping_is_answered_by_the_peer(run: Run, world: World) -> None:
    async def test() -> None:
        async with world.relay() as relay, joined(relay.address, world.nodes["north"], world.nodes["city"]) as (a, b):
            heard = a.open.last_heard
            await asyncio.sleep(0.05)
            assert a.open.last_heard == heard
            a.open.ping()
            await settle(lambda: a.open.last_heard > heard)
            assert not a.messages
            assert not b.messages
            b.open.pause_reading()
            heard = a.open.last_heard
            a.open.ping()
            await asyncio.sleep(0.2)
            assert a.open.last_heard == heard  # the relay cannot answer for it
            b.open.resume_reading()
            await settle(lambda: a.open.last_heard > heard)

    run(test())


def test_when_one_end_goes_the_other_hears_it(run: Run, world: World) -> None:
    async def test() -> None:
        for go in ("drop", "say_close", "close"):
            async with (
                world.relay() as relay,
                joined(relay.address, world.nodes["north"], world.nodes["city"]) as (a, b),
            ):
                a.write(b"the last word")
                await b.until(lambda: b.messages)
                getattr(a.open, go)()
                await b.until(lambda: b.lost)
                await a.until(lambda: a.lost)
                assert b.lost == [None]
                assert a.open.closed.done()
                assert a.open.close_seen.done()

    run(test())


def test_what_was_written_before_a_close_arrives(run: Run, world: World) -> None:
    async def test() -> None:
        async with world.relay() as relay, joined(relay.address, world.nodes["north"], world.nodes["city"]) as (a, b):
            for _ in range(40):
                a.write(bytes(100_000))
            a.open.say_close()
            await b.until(lambda: b.lost)
            assert sum(map(len, b.messages)) == 40 * 100_000

    run(test())


def test_who_comes_again_takes_the_place_of_what_it_had(run: Run, world: World) -> None:
    """A node whose connection died unseen need not wait until the relay notices."""

    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with world.relay() as relay:
            first = asyncio.create_task(come(relay.address, north, city, initiator=True))
            await settle(lambda: relay.relay.now["waiting"] == 1)
            second = asyncio.create_task(come(relay.address, north, city, initiator=True))
            with pytest.raises(NotConnectedError, match="came again"):
                await first
            b = await come(relay.address, city, north, initiator=False)
            a = await second
            # Now a pair of which one end comes again: the other one is told at once.
            third = asyncio.create_task(come(relay.address, north, city, initiator=True))
            await b.until(lambda: b.lost)
            await a.until(lambda: a.lost)
            again = await come(relay.address, city, north, initiator=False)
            last = await third
            last.write(b"here we are")
            await again.until(lambda: again.messages)
            assert relay.relay.now["pairs"] == 1
            for side in (again, last):
                side.open.drop()

    run(test())


@pytest.mark.parametrize("kind", [DATA, PING])
def test_the_responder_has_to_show_first_that_it_is_ready(world: World, kind: int) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        wire, ignore = Remembers(), lambda _: None
        meeting = client._Meeting(
            RelayAddress("https://relay.example"), north, city.certificate, b"", None, True, ignore, ignore
        )
        over = asyncio.create_task(meeting.over(wire))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        meeting.on_message(CHALLENGE + bytes(32))
        meeting.on_message(PAIRED)
        responder = Responder(city, north.certificate, b"")
        meeting.on_message(responder.step(wire.written[-1]) or b"")
        responder.step(wire.written[-1])
        meeting.on_message(message(responder.keys.seal, b"", kind))
        with pytest.raises(NotConnectedError, match="out of turn"):
            await over

    asyncio.run(test())


# Getting there


@pytest.mark.parametrize("user", [None, "hospital"])
def test_through_a_proxy(run: Run, world: World, user: str | None) -> None:
    async def test() -> None:
        password = "pass:w@rd"
        async with world.relay() as relay, Proxy(user, password) as proxy:
            there = f"http://{'' if user is None else 'hospital:pass%3Aw%40rd@'}127.0.0.1:{proxy.port}"
            address = world.address(relay.port, proxy=there)
            async with joined(address, world.nodes["north"], world.nodes["city"]) as (a, b):
                a.write(bytes(LIMIT))
                await b.until(lambda: b.messages)
                assert b.messages == [bytes(LIMIT)]
            assert proxy.asked == [f"127.0.0.1:{relay.port}"] * 2

    run(test())


def test_a_proxy_that_does_not_let_us_through_is_named(run: Run, world: World) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        async with Proxy("hospital", "password") as proxy:
            wrong = f"http://hospital:wr0ng@127.0.0.1:{proxy.port}"
            for url, status, says in (
                (f"http://127.0.0.1:{proxy.port}", 200, "asks for a user and a password"),
                (wrong, 200, "asks for a user and a password"),
                (wrong, 403, r"does not let us through to the relay .* \(HTTP 403\)"),
            ):
                proxy.status = status
                with pytest.raises(NotConnectedError, match=says) as caught:
                    await come(world.address(1, proxy=url), north, city, initiator=True)
                assert "wr0ng" not in str(caught.value)
        with pytest.raises(NotConnectedError, match="nothing answers at the proxy"):
            await come(world.address(1, proxy=wrong), north, city, initiator=True)

    run(test())


def test_what_is_wrong_with_a_relay_is_named(run: Run, world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_authority(tmp_path / "other")
    named_otherwise = make_authority(tmp_path / "other", ("relay.example",))

    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]

        async def fails(address: RelayAddress, says: str) -> None:
            with pytest.raises(NotConnectedError, match=says):
                await come(address, north, city, initiator=True)

        async with world.relay() as relay:
            await fails(RelayAddress(relay.address.url, str(other[0])), "is not trusted here")
            await fails(RelayAddress(relay.address.url), "is not trusted here")
            await fails(RelayAddress(relay.address.url, str(tmp_path / "absent.pem")), "cannot be read")
            await fails(RelayAddress(relay.address.url, str(world.key)), "cannot be read")
        await fails(relay.address, "nothing answers at the relay")
        world.certificate, world.key, world.authority = named_otherwise[1], named_otherwise[2], named_otherwise[0]
        async with world.relay() as relay:
            await fails(relay.address, "is not trusted here .*mismatch")

    run(test())


def test_a_server_that_is_no_relay_is_named(run: Run, world: World) -> None:
    north, city = world.nodes["north"], world.nodes["city"]

    async def answers(*said: bytes, says: str) -> None:
        async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
            if not said:
                return aiohttp.web.Response(text="welcome")
            websocket = aiohttp.web.WebSocketResponse(timeout=0.1)
            await websocket.prepare(request)
            for each in said:
                assert await websocket.receive_bytes()
                await websocket.send_bytes(each)
            await websocket.close()
            return websocket

        server_ = aiohttp.web.Server(answer, access_log=None)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(server_, "127.0.0.1", 0, ssl=world.server_tls())
        address = world.address(listening.sockets[0].getsockname()[1])
        with pytest.raises(NotConnectedError, match=says):
            await come(address, north, city, initiator=True)
        listening.close()
        await server_.shutdown(0.1)

    async def test() -> None:
        await answers(says=r"HTTP 200")
        await answers(b"", says="another protocol")
        await answers(b"what", says="another protocol")
        await answers(bytes(2000), says="2000 bytes out of turn")
        await answers(CHALLENGE + bytes(31), says="another protocol")
        await answers(CHALLENGE + bytes(32), WAIT + WAIT, says="another protocol")
        await answers(REFUSED + b"\x1b[31mgo \xff away", says=r"refused us:  \[31mgo . away")

    run(test())


def test_certificates_that_are_not_valid_now_are_refused(run: Run, world: World) -> None:
    async def test() -> None:
        old = make_identity("old", datetime.timedelta(seconds=-5))
        async with world.relay() as relay:
            with pytest.raises(NotConnectedError, match="our certificate expired"):
                await come(relay.address, old, world.nodes["city"], initiator=True)
            with pytest.raises(NotConnectedError, match="its certificate expired"):
                await come(relay.address, world.nodes["city"], old, initiator=True)

    run(test())


@pytest.mark.parametrize(
    "url",
    [
        "http://relay.example",
        "relay.example",
        "https://",
        "https://relay.example/path",
        "https://user@relay.example",
        "https://relay.example?query",
        "https://relay.example:port",
        "https://relay.example:99999",
        "https://relay example",
        "https://relay.example\n",
        "https://rel\N{LATIN SMALL LETTER A WITH DIAERESIS}y.example",
    ],
)
def test_what_is_no_address_of_a_relay_is_refused(url: str) -> None:
    with pytest.raises(RelayAddressError, match="https://host"):
        RelayAddress(url)


@pytest.mark.parametrize(
    "proxy", ["https://proxy.example", "proxy.example:3128", "http://proxy.example/path", "http://"]
)
def test_what_is_no_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(RelayAddressError, match="http://host:port"):
        RelayAddress("https://relay.example", proxy=proxy)


def test_a_password_does_not_show() -> None:
    address = RelayAddress("https://Relay.example:8443", proxy="http://hospital:wr0ng@proxy.example:3128")
    assert "wr0ng" not in repr(address)
    assert address.host == "relay.example"


def test_a_request_is_good_at_one_relay_only(run: Run, world: World) -> None:
    """Whoever is dialled in place of the relay cannot pass our request on to it."""

    async def test() -> None:
        async with world.relay() as relay:
            elsewhere = RelayAddress(f"https://localhost:{relay.port}", str(world.authority))
            relay.relay._names = frozenset({"127.0.0.1"})
            with pytest.raises(NotConnectedError, match="for a relay of another name"):
                await come(elsewhere, world.nodes["north"], world.nodes["city"], initiator=True)

    run(test())


def test_healthz_and_nothing_else(run: Run, world: World) -> None:
    async def test() -> None:
        async with world.relay(Limits()) as relay, aiohttp.ClientSession() as session:
            for path, status in (
                ("/healthz", 200),
                ("/metrics", 404),
                ("/", 404),
                ("/relay", 404),
                ("/../../etc", 404),
            ):
                async with session.get(f"{relay.address.url}{path}", ssl=world.trust) as response:
                    assert response.status == status
            async with session.ws_connect(f"{relay.address.url}/relay", ssl=world.trust) as websocket:
                await websocket.send_bytes(HELLO)
                assert (await websocket.receive_bytes())[:1] == CHALLENGE
                await websocket.send_bytes(b"what")
                assert (await websocket.receive_bytes()).startswith(REFUSED + b"the request cannot be read")
            assert relay.relay.figures.refused == {"request": 1}

    run(test())
