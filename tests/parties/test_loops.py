"""Connections that fail do no harm to those that stand."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import sys
import threading

import aiohttp
import pytest

from parties.connect import AddressBook
from parties.identity import client_context, host_name, make_identity
from parties.loops import loop_factory

RESET = struct.pack("ii", 1, 0)
ATTEMPTS = 1500


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_connections_that_are_reset_take_no_others_with_them() -> None:
    """A listener that accepts and resets, as a firewall does, beside a connection that talks all the while."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    ours, theirs = make_identity("we"), make_identity("they")
    name = host_name(theirs.certificate)

    def reset_all() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def talk(port: int, stop: asyncio.Event) -> int:
        rounds = 0
        while not stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(10):
                writer.write(b"echo")
                assert await reader.readexactly(4) == b"echo"
                rounds += 1
            writer.close()
            await writer.wait_closed()
        return rounds

    async def main() -> int:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        stop = asyncio.Event()
        talking = asyncio.create_task(talk(server.sockets[0].getsockname()[1], stop))
        connector = aiohttp.TCPConnector(limit=0, resolver=AddressBook({name: "127.0.0.1"}), use_dns_cache=False)
        tls = client_context(ours, [theirs.certificate])
        async with aiohttp.ClientSession(connector=connector) as client:
            for _ in range(ATTEMPTS // 4):
                attempts = (client.ws_connect(f"wss://{name}:{listener.getsockname()[1]}/", ssl=tls) for _ in range(4))
                for outcome in await asyncio.gather(*attempts, return_exceptions=True):
                    assert isinstance(outcome, aiohttp.ClientError)
        stop.set()
        rounds = await talking
        server.close()
        await server.wait_closed()
        return rounds

    thread = threading.Thread(target=reset_all, daemon=True)
    thread.start()
    before = len(os.listdir("/proc/self/fd"))
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            assert runner.run(main()) > 10
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
