"""What the machine could do at best: a plain asyncio TLS stream between two processes.

Measured in the same run as our own figures, so that the ratio of both says something on any machine,
however busy.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import TYPE_CHECKING

from parties.codec import decode, encode
from parties.identity import client_context, host_name, make_identity, server_context
from parties.processes import run_forked

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from parties.identity import Identity

_PIECE = 240 * 1024
_STREAM_SECONDS = 1.0
_ECHOES = 2000


def measure_limits() -> dict[str, float]:
    """Measure a plain TLS stream.

    Returns
    -------
    dict
        ``stream_bytes_per_second``: one direction, 240 KiB writes, one process at each end;
        ``echo_seconds``: there and back of 16 bytes.
    """
    import socket

    identities = [make_identity("server"), make_identity("client")]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        children = run_forked(
            [
                lambda: encode(in_a_loop(_serve(identities, listener))),
                lambda: encode(in_a_loop(_drive(identities, port))),
            ],
            timeout_seconds=60,
            grace_seconds=2,
            is_failure=lambda report: False,
        )
    report = children[1].report
    if report is None:
        raise RuntimeError("the TLS stream to compare with did not run")
    stream, echo = decode(report)
    return {"stream_bytes_per_second": stream, "echo_seconds": echo}


def in_a_loop(work: Any) -> Any:
    """Run on the kind of event loop that simulations and nodes run on."""
    from parties.loops import loop_factory

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


async def _serve(identities: list[Identity], listener: Any) -> None:
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(_ECHOES):
            writer.write(await reader.readexactly(16))
        total = 0
        while True:
            data = await reader.read(1 << 20)
            total += len(data)
            if data.endswith(b"end of stream"):
                break
        writer.write(struct.pack("<q", total))
        await writer.drain()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        done.set()

    context = server_context(identities[0], [identities[1].certificate])
    server = await asyncio.start_server(answer, sock=listener, ssl=context, limit=1 << 20)
    async with server:
        await done.wait()


async def _drive(identities: list[Identity], port: int) -> tuple[float, float]:
    context = client_context(identities[1], [identities[0].certificate])
    name = host_name(identities[0].certificate)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    began = time.perf_counter()
    for _ in range(_ECHOES):
        writer.write(b"sixteen bytes...")
        await reader.readexactly(16)
    echo = (time.perf_counter() - began) / _ECHOES
    piece = bytes(_PIECE)
    began = time.perf_counter()
    while time.perf_counter() - began < _STREAM_SECONDS:
        writer.write(piece)
        await writer.drain()
    writer.write(b"end of stream")
    (total,) = struct.unpack("<q", await reader.readexactly(8))
    rate = total / (time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    return rate, echo


def median(values: list[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def fastest_of(repetitions: int, function: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Run several times and keep the best of each figure: what the machine can do at best."""
    runs = [function() for _ in range(repetitions)]
    return {name: (max if name.endswith("per_second") else min)(run[name] for run in runs) for name in runs[0]}
