"""Attacks of strangers, who have no certificate of the consortium: refused, noted, and the node goes on serving."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time

import pytest

from parties.governance.studies import Study
from parties.identity import make_identity
from tests.consortium.conftest import Attacked
from tests.consortium.leftovers import open_files
from tests.consortium.nodes import Node, eventually
from tests.consortium.proxy import Proxy
from tests.consortium.rogue import Member, knock, name_of, noted, say
from tests.consortium.studies import MEAN
from tests.consortium.trials import finish, propose


def test_a_member_is_let_in(north: Node, villain: Member) -> None:
    """What the other tests try would be seen if it worked."""
    assert knock(north, name_of(north), villain.key.identity).startswith(b"HTTP/1.1 101")


def test_unknown_certificate_is_refused(north: Node) -> None:
    assert knock(north, name_of(north), make_identity("somebody")) == b""
    noted(north, "peer refused", "TLS handshake failed")


def test_no_certificate_is_refused(north: Node) -> None:
    assert knock(north, name_of(north)) == b""


def test_certificate_that_only_looks_like_a_members_is_refused(north: Node) -> None:
    """The same name in it, and another key."""
    assert knock(north, name_of(north), make_identity("city")) == b""


@pytest.mark.parametrize("name", ["north.example.org", "a" * 52 + ".sottovoce.invalid", "localhost"])
def test_name_that_nobody_has_is_refused(name: str, north: Node, villain: Member) -> None:
    assert knock(north, name, villain.key.identity) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET /control HTTP/1.1\r\nHost: north\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000,  # a ClientHello beyond all measure
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00" + bytes(40_000),
        bytes(100_000),
    ],
    ids=["plain HTTP", "ClientHello too long", "ClientHello cut short", "zeros"],
)
def test_nonsense_is_refused(data: bytes, north: Node) -> None:
    with socket.create_connection((north.host, north.port), timeout=15) as stranger:
        with contextlib.suppress(OSError):
            stranger.sendall(data)
        with contextlib.suppress(ConnectionError):
            assert stranger.recv(100) == b""


def test_replayed_handshake_opens_nothing(north: Node, villain: Member) -> None:
    """Every byte that a member sent when it connected, sent once more."""

    async def connect(through: Node) -> None:
        async with villain.dial(through) as channel:
            await say(channel, {"kind": "alive"})

    with Proxy(north.port) as proxy:
        proxy.recording = True
        asyncio.run(connect(Node(north.name, north.directory, port=proxy.port)))
        eventually(lambda: proxy.recorded, "the connection was recorded")
        (recorded,) = proxy.recorded
    assert len(recorded) > 1000
    links = len([entry for entry in north.audit() if entry["event"] == "peer connected"])
    with socket.create_connection((north.host, north.port), timeout=15) as replay:
        replay.sendall(recorded)
        heard = b""
        with contextlib.suppress(ConnectionError):
            while part := replay.recv(65536):
                heard += part
    assert b"sottovoce" not in heard  # nothing but TLS's own beginning
    assert len([entry for entry in north.audit() if entry["event"] == "peer connected"]) == links


def test_slow_strangers_are_shown_out_while_the_node_serves(north: Node, approved: Study) -> None:
    """Slow loris: a byte a second, on as many connections as one address may have."""
    began = time.monotonic()
    slow = [socket.create_connection((north.host, north.port), timeout=5) for _ in range(80)]
    open_ones, hello = set(slow), iter(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60))
    try:
        while open_ones and time.monotonic() - began < 25:
            byte = bytes([next(hello)])
            for one in list(open_ones):
                one.setblocking(False)
                try:
                    one.send(byte)
                    if one.recv(1) == b"":
                        open_ones.discard(one)
                except BlockingIOError:
                    continue
                except OSError:
                    open_ones.discard(one)
            assert north.study(approved.hash)["phase"] in ("approved", "finished")
            time.sleep(0.5)
    finally:
        for one in slow:
            one.close()
    assert not open_ones
    assert time.monotonic() - began < 20


def test_ten_thousand_connections(north: Node, attacked: Attacked) -> None:
    """All at once, silent; a study is proposed, approved and computed meanwhile."""
    wanted = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted + 500:
        pytest.skip(f"only {hard} open files are allowed here")
    before = open_files(north.pid)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 500), hard))
    crowd: list[socket.socket] = []
    try:
        for number in range(wanted):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect((north.host, north.port))
            crowd.append(one)
            if number % 1000 == 999:
                assert attacked.others_there(north)
                assert open_files(north.pid) < before + 300
        study = propose(attacked.consortium, "in a crowd", "north", [MEAN])
        finish(attacked.consortium, study, "city")
    finally:
        for one in crowd:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    eventually(
        lambda: open_files(north.pid) <= before + 5, lambda: f"files are closed: {open_files(north.pid)}, {before}"
    )
