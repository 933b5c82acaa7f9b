"""The owner's socket: open to the owner alone, bounded, and clear about what it refuses."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from parties.node import local, metrics
from parties.node.client import DeniedError, NodeClient, NodeUnreachableError, find_node
from parties.node.local import LocalServer, MonitorError, serve_monitor
from parties.node.own_socket import reachable
from parties.node.owner import Owner
from parties.node.service import Node
from tests.node.world import NAMES, World, until
from tests.ports import free_ports


class Serving:
    """A node with its socket, in a thread of its own, as commands find it."""

    def __init__(self, world: World, *names: str) -> None:
        self.world = world
        self.names = names or NAMES
        self.nodes: list[Node] = []
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            async with contextlib.AsyncExitStack() as stack:
                self.nodes = await stack.enter_async_context(self.world.nodes(*self.names))
                for node in self.nodes:
                    server = LocalServer(
                        Owner(node),
                        node.config.state,
                        figures=partial(metrics.figures, node),
                        health=partial(metrics.health, node),
                    )
                    stack.push_async_callback(server.close)
                    await server.open()
                self._ready.set()
                await self._stop.wait()
        finally:
            self._ready.set()

    def __enter__(self) -> "Serving":
        self._thread.start()
        self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def client(self, name: str = "north") -> NodeClient:
        return find_node(self.world.directory / name)

    def call(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something in the nodes' thread."""
        assert self._loop is not None

        async def run() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(World(tmp_path)) as made:
        yield made


def test_a_study_through_the_socket(serving: Serving) -> None:
    study = serving.world.study()
    clients = [serving.client(name) for name in NAMES]
    view = clients[0].post("studies", {"study": study.plain(), "program": None})
    assert (view["phase"], view["namesakes"]) == ("proposed", [])
    serving.call(lambda: until(lambda: all(study.hash in node.library.entries for node in serving.nodes)))
    for client in clients:
        client.post("approve", {"study": "Age"})
    serving.call(lambda: until(lambda: all(Owner(node).show("Age")["phase"] == "approved" for node in serving.nodes)))
    clients[0].post("run", {"study": study.hash[:8], "dry": False})
    views = list(clients[0].lines("progress", study="Age"))
    assert views[-1]["phase"] == "finished"
    assert clients[0].get("result", study="Age")["result"]["summary"] == "mean 45.0625"
    assert [one["title"] for one in clients[0].get("studies")] == ["Age"]
    assert "mean of age" in clients[0].get("study", study="Age")["description"]
    assert [one["name"] for one in clients[0].get("status")["peers"]] == ["north", "south"]


def test_refusals_come_in_the_nodes_own_words(serving: Serving) -> None:
    client = serving.client()
    with pytest.raises(DeniedError, match="no study is called 'Nothing' here: sottovoce list"):
        client.post("approve", {"study": "Nothing"})
    with pytest.raises(DeniedError, match="no study is called"):
        list(client.lines("progress", study="Nothing"))
    with pytest.raises(DeniedError, match="study: "):
        client.post("studies", {"study": {"title": "x"}, "program": None})


def test_figures_and_health(serving: Serving) -> None:
    text = serving.client().text("metrics")
    assert 'sottovoce_peer_connected{peer="city"} 1.0' in text
    assert 'sottovoce_studies{phase="finished"} 0.0' in text
    assert "sottovoce_certificate_days" in text
    health = serving.client().get("healthz")
    assert health["ok"]
    assert health["peers"] == {"city": True, "south": True}


def test_only_the_owner_gets_in(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    path = serving.world.directory / "north" / "state" / "node.sock"
    facts = path.stat()
    assert stat.S_ISSOCK(facts.st_mode)
    assert stat.S_IMODE(facts.st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    monkeypatch.setattr(local, "_is_owner", lambda peer: False)
    with pytest.raises(NodeUnreachableError, match="run this as that user"):
        serving.client().get("status")


def test_the_system_is_asked_who_connects() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert local._is_owner(ours)

        class Other:
            def getsockopt(self, *_: int) -> bytes:
                return local._CREDENTIALS.pack(1, 4321, 4321)

        assert not local._is_owner(Other())


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        ("POST", "/approve", b"{", 400),
        ("POST", "/approve", b"[]", 400),
        ("POST", "/approve", b"{}", 400),
        ("POST", "/studies", b'{"study":3}', 400),
        ("POST", "/studies", b'{"x":"' + b"a" * (1 << 20) + b'"}', 413),
        ("GET", "/nothing", b"", 404),
        ("GET", "/../../etc/passwd", b"", 404),
        ("DELETE", "/studies", b"", 405),
    ],
)
def test_what_is_no_request_is_refused(serving: Serving, method: str, target: str, body: bytes, status: int) -> None:
    import http.client

    from parties.node.client import _UnixConnection

    connection = _UnixConnection(serving.world.directory / "north" / "state" / "node.sock", 5.0)
    with contextlib.closing(connection), contextlib.suppress(BrokenPipeError):
        connection.request(method, target, body)
        answer: http.client.HTTPResponse = connection.getresponse()
        assert answer.status == status
    assert serving.client().get("status")["name"] == "north"


def test_whoever_stops_reading_progress_holds_nothing_up(serving: Serving) -> None:
    study = serving.world.study()
    client = serving.client()
    client.post("studies", {"study": study.plain(), "program": None})
    lines = client.lines("progress", study="Age")
    assert next(lines)["phase"] == "proposed"
    lines.close()  # type: ignore[attr-defined]
    assert client.get("status")["studies"] == 1


def test_without_a_node_the_remedy_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    client = find_node(world.directory / "north")
    with pytest.raises(NodeUnreachableError, match="start it with sottovoce node --config"):
        client.get("status")
    (world.directory / "north" / "state").mkdir(mode=0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(world.directory / "north" / "state" / "node.sock"))  # as a node that was killed leaves it
    dead.close()
    with pytest.raises(NodeUnreachableError, match="no node runs in"):
        client.get("status")
    with Serving(world, "north"):
        assert client.get("status")["name"] == "north"


def test_the_variable_names_the_node(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOTTOVOCE_NODE", str(serving.world.directory / "south"))
    assert find_node(None).get("status")["name"] == "south"
    monkeypatch.delenv("SOTTOVOCE_NODE")
    monkeypatch.chdir(serving.world.directory / "city")
    assert find_node(None).get("status")["name"] == "city"


def test_directories_may_lie_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    path = deep / "node.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with reachable(path) as name:
            assert len(os.fsencode(name)) < 100
            listener.bind(name)
        listener.listen()
        assert path.is_socket()
        with reachable(path) as name:
            client.connect(name)


def test_monitoring_serves_figures_and_nothing_else() -> None:
    async def work() -> None:
        (port,) = free_ports(1)
        well = [True]
        runner = await serve_monitor(
            ("127.0.0.1", port), figures=lambda: b"x 1\n", health=lambda: (well[0], {"ok": well[0]})
        )
        with pytest.raises(MonitorError, match=r"change monitor in node\.toml"):
            await serve_monitor(("127.0.0.1", port), figures=lambda: b"", health=lambda: (True, {}))
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{port}/metrics")
            assert await answer.text() == "x 1\n"
            well[0] = False
            answer = await session.get(f"http://127.0.0.1:{port}/healthz")
            assert (answer.status, json.loads(await answer.text())) == (503, {"ok": False})
            for target in ("/status", "/studies", "/result"):
                assert (await session.get(f"http://127.0.0.1:{port}{target}")).status == 404
        await runner.cleanup()

    asyncio.run(work())


def test_health_names_what_is_wrong(tmp_path: Path) -> None:
    async def work() -> None:
        world = World(tmp_path)
        async with world.node("north") as node:
            well, how = metrics.health(node)
            assert (well, how["problems"]) == (False, ["no other member can be reached"])
            node.store.free_bytes = lambda: 1000  # type: ignore[method-assign]
            node.scheduler.trouble = "records.jsonl cannot be written"
            assert metrics.health(node)[1]["problems"] == [
                "the disk is nearly full",
                "records.jsonl cannot be written",
                "no other member can be reached",
            ]

    asyncio.run(work())
