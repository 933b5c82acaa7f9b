"""Control links over real sockets: who is let in, what both sides are told, and how links come back."""

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from parties.governance.cards import make_card
from parties.governance.consortium import Consortium, join
from parties.governance.keys import NodeKey, generate
from parties.identity import client_context, host_name
from parties.node import peers as peers_module
from parties.node.control import MESSAGE_BYTES, ChannelClosedError, SocketChannel, tls_reason
from parties.node.doors import Doors, listen
from parties.node.hello import ProtocolError, Timing, way
from parties.node.peers import Peers
from tests.node.world import QUICK, until
from tests.ports import free_ports


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Side:
    """One node's links, and what became of them."""

    def __init__(self, name: str, key: NodeKey, consortium: Consortium, **more: Any) -> None:
        self.name = name
        self.ups: list[str] = []
        self.downs: list[tuple[str, str]] = []
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.refused: list[tuple[str, str]] = []
        options: dict[str, Any] = {"version": "1", "clock": now, "timing": QUICK, **more}
        self.peers = Peers(
            name,
            key,
            consortium,
            on_up=self.ups.append,
            on_down=lambda name, why: self.downs.append((name, why)),
            on_message=self._hear,
            on_refused=lambda who, why: self.refused.append((who, why)),
            **options,
        )
        self.doors: Doors | None = None
        address = consortium.member(name).address
        if address is not None:
            host, _, port = address.rpartition(":")
            self.doors = Doors(listen(host, int(port)))
            self.doors.route(host_name(key.certificate), self.peers.server.take)
            self.doors.open()
        self.peers.start()

    async def _hear(self, name: str, message: dict[str, Any]) -> None:
        if message["kind"] == "bad":
            raise ProtocolError("a bad message")
        self.heard.append((name, message))

    async def close(self, why: str = "stopped") -> None:
        await self.peers.close(why)
        if self.doors is not None:
            self.doors.close()


class Pair:
    """Keys and a consortium of two: south, the later one, dials north."""

    def __init__(self, **addresses: str | None) -> None:
        self.keys = {name: generate(name) for name in ("north", "south")}
        ports = free_ports(2)
        self.addresses = {
            name: addresses.get(name, f"127.0.0.1:{port}") for name, port in zip(self.keys, ports, strict=True)
        }
        self.consortium = self.join()

    def join(self, **keys: NodeKey) -> Consortium:
        cards = [
            make_card(key, name=name, organisation=name, role="party", address=self.addresses[name])
            for name, key in {**self.keys, **keys}.items()
        ]
        return join(cards, "two")

    @contextlib.asynccontextmanager
    async def sides(
        self, north: dict[str, Any] | None = None, south: dict[str, Any] | None = None
    ) -> AsyncIterator[tuple[Side, Side]]:
        made = []
        for name, more in (("north", north), ("south", south)):
            options = {"key": self.keys[name], "consortium": self.consortium, **(more or {})}
            made.append(Side(name, **options))
        try:
            yield made[0], made[1]
        finally:
            for side in made:
                await side.close()


def run(work: Callable[[], Any]) -> None:
    async def main() -> None:
        await work()
        await asyncio.sleep(0)
        assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

    asyncio.run(main())


def test_links_come_up_carry_messages_and_end_with_a_word() -> None:
    async def work() -> None:
        async with Pair().sides() as (north, south):
            await until(lambda: north.ups == ["south"] and south.ups == ["north"])
            south.peers.push("north", {"kind": "x", "n": 1})
            north.peers.push("south", {"kind": "y"})
            await until(lambda: north.heard and south.heard)
            assert north.heard == [("south", {"kind": "x", "n": 1})]
            assert north.peers.status["south"].version == "1"
            await south.close("south goes home")
            await until(lambda: north.downs)
            assert north.downs == [("south", "it says: south goes home")]
            assert "south goes home" in north.peers.trouble("south")

    run(work)


def test_a_link_comes_back_when_the_other_side_does() -> None:
    async def work() -> None:
        pair = Pair()
        async with pair.sides() as (north, south):
            await until(lambda: south.ups)
            await north.close()
            await until(lambda: south.downs)
            await until(lambda: "nothing answers" in south.peers.trouble("north"))
            again = Side("north", pair.keys["north"], pair.consortium)
            await until(lambda: len(south.ups) == 2 and again.ups == ["south"])
            await again.close()

    run(work)


def test_another_consortium_file_is_told_to_both() -> None:
    async def work() -> None:
        pair = Pair()
        pair.addresses["south"] = "127.0.0.2:9"
        other = pair.join()
        async with pair.sides(north={"consortium": other}) as (north, south):
            await until(lambda: north.refused and south.refused)
            for side, ours, theirs in (
                (north, other.fingerprint, pair.consortium.fingerprint),
                (south, pair.consortium.fingerprint, other.fingerprint),
            ):
                trouble = side.peers.trouble("south" if side is north else "north")
                assert f"fingerprint {theirs} there, {ours} here" in trouble
                assert "sottovoce consortium compare" in trouble
                assert not side.peers.connected

    run(work)


@pytest.mark.parametrize("ahead", [300.0, -300.0])
def test_clocks_that_differ_are_told_to_both(ahead: float) -> None:
    async def work() -> None:
        pair = Pair()
        wrong = {"clock": lambda: now() + datetime.timedelta(seconds=ahead)}
        async with pair.sides(north=wrong) as (north, south):
            await until(lambda: north.refused and south.refused)
            assert f"s {'ahead of' if ahead > 0 else 'behind'} ours: set both by NTP" in south.peers.trouble("north")
            assert f"s {'behind' if ahead > 0 else 'ahead of'} ours" in north.peers.trouble("south")

    run(work)


def test_another_version_is_noted_and_no_obstacle() -> None:
    async def work() -> None:
        async with Pair().sides(north={"version": "2"}) as (north, south):
            await until(lambda: north.ups and south.ups)
            assert (south.peers.status["north"].version, north.peers.status["south"].version) == ("2", "1")

    run(work)


def test_an_expired_certificate_is_told() -> None:
    async def work() -> None:
        pair = Pair()
        pair.keys["north"] = generate("north", datetime.timedelta(seconds=-60))
        pair.consortium = pair.join()
        async with pair.sides() as (_, south):
            await until(lambda: "expired on" in south.peers.trouble("north"))
            assert "keygen --renew" in south.peers.trouble("north")

    run(work)


def test_a_certificate_that_has_expired_for_the_other_side_is_told_to_both() -> None:
    async def work() -> None:
        pair = Pair()
        pair.keys["south"] = generate("south", datetime.timedelta(seconds=-60))
        pair.consortium = pair.join()
        yesterday = {"clock": lambda: now() - datetime.timedelta(seconds=100)}
        async with pair.sides(south=yesterday) as (north, south):
            await until(lambda: north.refused and "may not accept" in south.peers.trouble("north"))
            assert "its certificate has expired by our clock" in north.refused[0][1]

    run(work)


def test_our_own_expired_certificate_is_told_to_ourselves() -> None:
    async def work() -> None:
        pair = Pair()
        pair.keys["south"] = generate("south", datetime.timedelta(seconds=-60))
        pair.consortium = pair.join()
        async with pair.sides() as (_, south):
            await until(lambda: "our own certificate expired on" in south.peers.trouble("north"))

    run(work)


def test_an_unknown_or_revoked_key_is_told_to_both() -> None:
    async def work() -> None:
        pair = Pair()
        stranger = generate("south")
        async with pair.sides(south={"key": stranger, "consortium": pair.join(south=stranger)}) as (north, south):
            await until(lambda: north.refused and "may not accept our certificate" in south.peers.trouble("north"))
            assert "not in our consortium file" in north.refused[0][1]
            assert "or revoked" in north.refused[0][1]

    run(work)


def test_an_impostor_at_the_address_is_noticed() -> None:
    async def work() -> None:
        pair = Pair()
        impostor = generate("north")
        async with pair.sides(north={"key": impostor, "consortium": pair.join(north=impostor)}) as (_, south):
            # Our side asks for the name of the true key, which leads nowhere there.
            await until(lambda: "does not hold its key" in south.peers.trouble("north"))
            assert not south.peers.connected

    run(work)


def test_a_peer_that_says_nonsense_is_cut_off_and_may_come_again() -> None:
    async def work() -> None:
        async with Pair().sides() as (north, south):
            await until(lambda: north.ups)
            south.peers.push("north", {"kind": "bad"})
            await until(lambda: ("south", "a bad message") in north.refused)
            await until(lambda: len(north.ups) == 2)
            south.peers.push("north", {"kind": "good"})
            await until(lambda: north.heard)

    run(work)


@contextlib.asynccontextmanager
async def raw(pair: Pair, name: str = "south") -> AsyncIterator[SocketChannel]:
    """Dial north as somebody who holds a key of the consortium, and then does as he likes."""
    key = pair.keys[name]
    context = client_context(key.identity, [pair.keys["north"].certificate])
    host, _, port = str(pair.addresses["north"]).rpartition(":")
    connector = aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector) as session:
        websocket = await session.ws_connect(
            f"wss://{host}:{port}/control",
            ssl=context,
            server_hostname=host_name(pair.keys["north"].certificate),
            max_msg_size=0,
        )
        yield SocketChannel(websocket)
        await websocket.close()


def hello(pair: Pair, **changes: Any) -> bytes:
    import json

    message = {
        "kind": "hello",
        "format": 1,
        "name": "south",
        "consortium": pair.consortium.fingerprint,
        "version": "1",
        "time": now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return json.dumps({**message, **changes}).encode()


@pytest.mark.parametrize(
    ("first", "complaint"),
    [
        (lambda pair: b"{", "a message that is not valid"),
        (lambda pair: b"[1]", "does not say what it is"),
        (lambda pair: hello(pair, name="north"), "it calls itself north, and its certificate is south's"),
        (lambda pair: hello(pair, format=2), "another version of the control protocol"),
        (lambda pair: hello(pair, time="soon"), "does not say what time"),
        (lambda pair: hello(pair, consortium="\x1b[31mX"), r"fingerprint \x1b[31mX there"),
        (lambda pair: b'{"kind":"have","ids":[]}', "another version of the control protocol"),
    ],
)
def test_whoever_does_not_say_a_proper_hello_is_not_heard(first: Callable[[Pair], bytes], complaint: str) -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium)
        async with raw(pair) as channel:
            await channel.send(first(pair))
            await until(lambda: north.refused)
            assert complaint in north.refused[0][1]
            assert not north.peers.connected
        await north.close()

    run(work)


def test_who_says_no_hello_is_not_waited_for() -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium, timing=Timing(hello=0.2))
        async with raw(pair) as channel:
            await channel.receive()
            with pytest.raises(ChannelClosedError):
                await channel.receive()
            assert north.peers.trouble("south") == "it connects, but says no hello"
        await north.close()

    run(work)


def test_messages_are_bounded() -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium)
        async with raw(pair) as channel:
            await channel.send(hello(pair))
            await until(lambda: north.peers.connected)
            await channel.send(b'{"kind":"x","y":"' + b"a" * MESSAGE_BYTES + b'"}')
            await until(lambda: north.downs)
            assert "too long" in north.downs[0][1]
        await north.close()

    run(work)


def test_who_falls_silent_counts_as_gone() -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium, timing=Timing(silent=0.3))
        async with raw(pair) as channel:
            await channel.send(hello(pair))
            await until(lambda: north.downs)
            assert north.downs[0][1] == "it was silent for 0.3 s"
        await north.close()

    run(work)


def test_a_second_link_of_a_peer_takes_the_place_of_the_first() -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium)
        async with raw(pair) as first, raw(pair) as second:
            await first.send(hello(pair))
            await until(lambda: north.ups == ["south"])
            await second.send(hello(pair))
            await until(lambda: len(north.ups) == 2)
            assert north.peers.connected == {"south"}
            await second.send(b'{"kind":"x"}')
            await until(lambda: north.heard)
            await first.receive()  # hello
            assert b"it dialled again" in await first.receive()
        await north.close()

    run(work)


def test_messages_that_come_too_fast_have_to_wait() -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium, timing=Timing(rate=50.0, burst=10.0))
        async with raw(pair) as channel:
            await channel.send(hello(pair))
            began = asyncio.get_running_loop().time()
            for k in range(40):
                await channel.send(b'{"kind":"x","n":%d}' % k)
            await until(lambda: len(north.heard) == 40)
            assert asyncio.get_running_loop().time() - began > 0.5
        await north.close()

    run(work)


def test_a_peer_that_does_not_read_is_let_go() -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium)
        async with raw(pair) as channel:
            await channel.send(hello(pair))
            await until(lambda: north.peers.connected)
            for _ in range(21_000):
                north.peers.push("south", {"kind": "x", "y": "a" * 1000})
            await until(lambda: north.downs)
            assert north.downs[0][1] == "it does not take its messages"
        await north.close()

    run(work)


def test_what_waits_for_a_peer_that_does_not_read_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "_QUEUE_BYTES", 1 << 20)

    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium)
        async with raw(pair) as channel:
            await channel.send(hello(pair))
            await until(lambda: north.peers.connected)
            for _ in range(4):
                north.peers.push("south", {"kind": "x", "y": "a" * 250_000})
            assert not north.downs
            north.peers.push("south", {"kind": "x", "y": "a" * 250_000})
            await until(lambda: north.downs)
            assert north.downs[0][1] == "it does not take its messages"
        await north.close()

    run(work)


def test_handshakes_that_do_not_end_are_bounded() -> None:
    """Whoever knows the name of our key, which is no secret, may open connections and say no more."""

    async def work() -> None:
        pair = Pair()
        async with pair.sides() as (north, south):
            await until(lambda: north.ups)
            host, _, port = str(pair.addresses["north"]).rpartition(":")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = ssl.create_default_context().wrap_bio(
                incoming, outgoing, server_hostname=host_name(pair.keys["north"].certificate)
            )
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            first_flight = outgoing.read()
            sockets = []
            for _ in range(40):
                one = socket.create_connection((host, int(port)))
                one.sendall(first_flight)
                sockets.append(one)
                await asyncio.sleep(0)
            await until(lambda: any(why == "too many TLS handshakes at once" for _, why in north.refused))
            south.peers.push("north", {"kind": "x"})
            await until(lambda: north.heard)
            for one in sockets:
                one.close()

    run(work)


def test_connections_of_a_member_are_bounded_whatever_it_does_with_them() -> None:
    """With a member's certificate, and without a word of HTTP: they would be open for ever."""

    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium)
        key, us = pair.keys["south"], pair.consortium.member("north")
        tls = client_context(key.identity, us.certificates)
        host, _, port = str(us.address).rpartition(":")
        writers = []
        for _ in range(12):
            _, writer = await asyncio.open_connection(
                host, int(port), ssl=tls, server_hostname=host_name(us.certificate)
            )
            writers.append(writer)
        await until(lambda: sum(not writer.transport.is_closing() for writer in writers) == 4)
        assert [writer.transport.is_closing() for writer in writers] == [True] * 8 + [False] * 4
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await north.close()

    run(work)


def test_paths_beside_the_right_one_are_closed() -> None:
    async def work() -> None:
        pair = Pair()
        north = Side("north", pair.keys["north"], pair.consortium)
        context = client_context(pair.keys["south"].identity, [pair.keys["north"].certificate])
        async with aiohttp.ClientSession() as session:
            for path in ("/", "/control/../control2", "/mesh"):
                answer = await session.get(
                    f"https://{pair.addresses['north']}{path}",
                    ssl=context,
                    server_hostname=host_name(pair.keys["north"].certificate),
                )
                assert answer.status == 404
        await north.close()

    run(work)


def test_a_new_consortium_file_renews_the_links() -> None:
    async def work() -> None:
        pair = Pair()
        async with pair.sides() as (north, south):
            await until(lambda: north.ups and south.ups)
            renewed = pair.keys["south"].renew()
            changed = pair.consortium.renew(
                make_card(renewed, name="south", organisation="new", role="party", address=pair.addresses["south"])
            )
            north.peers.trust(pair.keys["north"], changed)
            south.peers.trust(renewed, changed)
            await until(lambda: len(north.ups) == 2 and len(south.ups) == 2, 10.0)

    run(work)


def test_who_dials_follows_from_the_file() -> None:
    def ways(north: str | None, south: str | None) -> tuple[str, str]:
        pair = Pair(north=north, south=south)
        return way(pair.consortium, "north", "south"), way(pair.consortium, "south", "north")

    assert ways("h:1", "h:2") == ("it dials", "we dial")
    assert ways("h:1", None) == ("it dials", "we dial")
    assert ways(None, "h:2") == ("we dial", "it dials")
    assert ways(None, None) == ("relay", "relay")


def test_two_without_address_and_relay_are_told_so() -> None:
    async def work() -> None:
        pair = Pair(north=None, south=None)
        async with pair.sides() as (north, _):
            await until(lambda: "no relay is set up" in north.peers.trouble("south"))

    run(work)


def test_reasons_of_tls_are_told_in_words() -> None:
    error = ssl.SSLError(1, "x")
    error.reason = "TLSV1_ALERT_UNKNOWN_CA"
    assert "may not accept our certificate" in tls_reason(error)
    error.reason = "SOMETHING_ELSE"
    assert tls_reason(error) == "something else"
