"""`sottovoce relay` as its operator runs it: files, signals, figures, and what is told when something is wrong."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from parties.commands import relay as command
from parties.identity import make_identity
from parties.relay.client import RelayAddress
from parties.relay.process import RelayConfig, RelayError
from parties.relay.server import Limits
from tests.ports import free_port
from tests.relay.world import World, come, joined, make_authority, settle

PROGRAM = """
import typer
from parties.commands import relay
app = typer.Typer(pretty_exceptions_enable=False)
app.callback()(lambda: None)
relay.register(app)
app()
"""


class Process:
    """A relay in a process of its own, with its log."""

    def __init__(self, log: Path, *arguments: str | Path) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", PROGRAM, "relay", *map(str, arguments)], stderr=file
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def says(self, pattern: str) -> None:
        await settle(lambda: re.search(pattern, self.log) or self.process.poll() is not None, 30)
        assert re.search(pattern, self.log), self.log

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextlib.contextmanager
def running(world: World, *arguments: str | Path) -> Iterator[tuple[Process, RelayAddress]]:
    port = free_port()
    file = world.directory / "consortium.toml"
    world.consortium.save(file)
    process = Process(
        world.directory / "log",
        *("--listen", f"127.0.0.1:{port}", "--consortium", file),
        *(arguments or ("--certificate", world.certificate, "--key", world.key)),
    )
    try:
        yield process, world.address(port)
    finally:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_a_relay_from_start_to_stop(world: World) -> None:
    async def test() -> None:
        monitor = free_port()
        north, city = world.nodes["north"], world.nodes["city"]
        options = ("--certificate", world.certificate, "--key", world.key, "--monitor", f"127.0.0.1:{monitor}")
        with running(world, *options) as (process, address):
            await process.says("listening on port .* as 127.0.0.1, localhost|as localhost, 127.0.0.1 for 3 members")
            async with joined(address, north, city) as (a, b):
                a.write(b"content that is nobody's business")
                await b.until(lambda: b.messages)
                status, text = await asyncio.to_thread(fetch, monitor, "/metrics")
                assert status == 200
                assert "sottovoce_relay_pairs 1.0" in text
                assert "sottovoce_relay_paired_total 1.0" in text
                status, text = await asyncio.to_thread(fetch, monitor, "/healthz")
                assert '"pairs": 1' in text
                assert (await asyncio.to_thread(fetch, monitor, "/relay"))[0] == 404

                # A member less, and another certificate for those who come from now on.
                stranger = make_identity("stranger")
                del world.nodes["city"]
                world.nodes["west"] = stranger
                world.consortium.save(world.directory / "consortium.toml")
                world.authority, *_ = make_authority(world.directory)
                process.process.send_signal(signal.SIGHUP)
                await a.until(lambda: a.lost)
                await process.says("serving 3 members")
                async with joined(world.address(int(address.url.rpartition(":")[2])), north, stranger):
                    pass

                # A key that does not belong to the certificate, or a file that is broken, changes nothing.
                good = world.key.read_bytes()
                (world.directory / "other").mkdir()
                world.key.write_bytes(make_authority(world.directory / "other")[2].read_bytes())
                process.process.send_signal(signal.SIGHUP)
                await process.says("not reloaded, serving as before: certificate .* cannot be used together")
                async with joined(world.address(int(address.url.rpartition(":")[2])), north, stranger):
                    pass
                world.key.write_bytes(good)
                (world.directory / "consortium.toml").write_text("format = 2")
                process.process.send_signal(signal.SIGHUP)
                await process.says("not reloaded, serving as before: consortium file")
                async with joined(world.address(int(address.url.rpartition(":")[2])), north, stranger):
                    pass
            assert process.stop() == 0
            for line in process.log.splitlines():
                assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (INFO|WARNING|ERROR) ", line), line
            assert "nobody's business" not in process.log

    asyncio.run(test())


def test_behind_a_proxy_that_does_tls(world: World) -> None:
    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        with running(world, "--behind-proxy", "--name", "127.0.0.1") as (process, address):
            await process.says("listening")
            plain = int(address.url.rpartition(":")[2])

            async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError):
                    while data := await source.read(65536):
                        sink.write(data)
                sink.close()

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", plain)
                await asyncio.gather(copy(reader, upstream), copy(upstream_reader, writer))

            proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=world.server_tls())
            async with joined(world.address(proxy.sockets[0].getsockname()[1]), north, city) as (a, b):
                a.write(bytes(100_000))
                await b.until(lambda: b.messages)
            proxy.close()
            await asyncio.sleep(0.1)
            assert process.stop(signal.SIGINT) == 0

    asyncio.run(test())


def test_memory_and_files_stay_flat(world: World) -> None:
    """Pairs come and go; what they needed goes with them."""

    async def test() -> None:
        north, city = world.nodes["north"], world.nodes["city"]
        with running(world) as (process, address):
            await process.says("listening")

            async def pair(number: int) -> None:
                async with joined(address, north, city, context=b"%d" % number) as (a, b):
                    a.write(bytes(200_000))
                    await b.until(lambda: b.messages)

            async def many() -> None:
                for start in range(0, 60, 20):
                    await asyncio.gather(*(pair(number) for number in range(start, start + 20)))

            await many()
            before, first = len(connections(process)), memory(process)
            await many()
            await many()
            assert memory(process) - first < 50 * 2**20  # 240 ends have gone since, with 150 MiB
            await settle(lambda: len(connections(process)) <= before)

    asyncio.run(test())


def test_those_who_wait_cost_little(world: World) -> None:
    """A relay is mostly waited at: TLS, a WebSocket and a task each."""

    async def test() -> None:
        with running(world) as (process, address):
            await process.says("listening")
            before = memory(process)
            north = world.nodes["north"]
            others = [make_identity("x") for _ in range(60)]
            waiting = [asyncio.create_task(come(address, north, other, initiator=True)) for other in others]
            await settle(lambda: len(connections(process)) >= 60)
            await asyncio.sleep(0.5)
            assert (memory(process) - before) / 60 < 200_000
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(test())


def connections(process: Process) -> list[Path]:
    return list(Path(f"/proc/{process.process.pid}/fd").iterdir())


def memory(process: Process) -> int:
    text = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


# What is wrong is told


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"consortia": ()}, "at least one consortium file"),
        ({"certificate": None}, "needs a certificate and its key"),
        ({"behind_proxy": True}, "leave out certificate and key"),
        ({"behind_proxy": True, "certificate": None, "key": None}, "cannot know its name"),
        (
            {"behind_proxy": True, "certificate": None, "key": None, "host": "0.0.0.0", "names": ("relay.example",)},
            "loopback address alone",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, object], says: str) -> None:
    options: dict[str, object] = {
        "host": "127.0.0.1",
        "port": 1,
        "consortia": (Path("c.toml"),),
        "certificate": Path("certificate.pem"),
        "key": Path("key.pem"),
    }
    with pytest.raises(RelayError, match=says):
        RelayConfig(**(options | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["key", "garbage", "encrypted", "consortium", "port"])
def test_files_that_cannot_be_used_are_named(world: World, wrong: str) -> None:
    from cryptography.hazmat.primitives import serialization

    from mpc.errors import SottovoceError
    from parties.relay.process import serve_relay

    consortium, key, port = world.directory / "consortium.toml", world.directory / "another.pem", 0
    world.consortium.save(consortium)
    key.write_bytes(world.key.read_bytes())
    if wrong == "key":
        (world.directory / "other").mkdir()
        key = make_authority(world.directory / "other")[2]
    elif wrong == "garbage":
        key.write_text("garbage")
    elif wrong == "encrypted":
        loaded = serialization.load_pem_private_key(world.key.read_bytes(), None)
        key.write_bytes(
            loaded.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"passphrase"),
            )
        )
    elif wrong == "consortium":
        consortium.write_text("format = 1")

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1] if wrong == "port" else port
            config = RelayConfig("127.0.0.1", number, (consortium,), world.certificate, key)
            says = {"port": "cannot listen on 127.0.0.1", "consortium": "consortium"}.get(
                wrong, "cannot be used together"
            )
            with pytest.raises(SottovoceError, match=says):
                await serve_relay(config)

    asyncio.run(test())


def test_fewer_connections_where_fewer_files_are_allowed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging
    import resource

    from parties.relay import process

    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: asked.append(limits))
    for allowed, wanted, files in (
        ((100, 500), 500 - 64, 500),
        ((100, 10_000), 4096, 4160),
        ((10_000, 10_000), 4096, None),
    ):
        asked.clear()
        monkeypatch.setattr(resource, "getrlimit", lambda which, allowed=allowed: allowed)
        assert process._within_files(Limits(), logging.getLogger("tests")).connections == wanted
        assert asked == ([] if files is None else [(files, allowed[1])])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--listen", "nowhere"], "an address is host:port"),
        (["--listen", "127.0.0.1:1", "--monitor", "x"], "an address is host:port"),
        (["--listen", "127.0.0.1:1"], "needs a certificate and its key"),
    ],
)
def test_the_command_tells_what_it_needs(world: World, arguments: list[str], says: str) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    command.register(app)
    file = world.directory / "consortium.toml"
    world.consortium.save(file)
    result = CliRunner().invoke(app, ["relay", *arguments, "--consortium", str(file)])
    assert result.exit_code != 0
    assert says in result.output + str(result.exception)


def test_names_come_from_the_certificate_or_match_with_a_star(world: World) -> None:
    from parties.relay.server import Relay

    async def test() -> None:
        import logging

        with socket.create_server(("127.0.0.1", 0)) as listener:
            names = ("relay.example", "*.hospital.example", "10.0.0.1")
            relay = Relay(listener, world.register, names, None, logging.getLogger("tests"))
            for host, ours in (
                ("relay.example", True),
                ("Relay.Example", True),
                ("a.hospital.example", True),
                ("a.b.hospital.example", False),
                ("hospital.example", False),
                ("10.0.0.1", True),
                ("evil.example", False),
                ("", False),
            ):
                assert relay._is_us(host) is ours, host

    asyncio.run(test())
