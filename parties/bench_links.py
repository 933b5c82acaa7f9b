"""What one link that outlives its connections costs: against plain TLS between the same two processes."""

from __future__ import annotations

import secrets
import socket
import time
from typing import TYPE_CHECKING

from parties.bench_limits import in_a_loop
from parties.codec import decode, encode
from parties.identity import make_identity
from parties.processes import run_forked

if TYPE_CHECKING:
    from collections.abc import Callable

    from parties.identity import Identity
    from parties.mesh import Mesh

PIECE_BYTES = 240 * 1024
ECHO_BYTES = 16


def measure_link(*, echoes: int, pieces: int, repetitions: int) -> tuple[list[float], list[float]]:
    """Measure one link between two processes, made as a node makes it.

    Parameters
    ----------
    echoes : int
        How often 16 bytes go there and back in one repetition.
    pieces : int
        How many messages of 240 KiB one process sends to the other in one repetition.
    repetitions : int

    Returns
    -------
    echo_seconds, stream_seconds : list of float
        Of each repetition: there and back once, and all pieces.
    """
    identities = [make_identity("zero"), make_identity("one")]
    session = secrets.token_bytes(16)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def seat(rank: int) -> Callable[[], bytes]:
            return lambda: encode(in_a_loop(_talk(identities, rank, listener, session, echoes, pieces, repetitions)))

        children = run_forked([seat(0), seat(1)], timeout_seconds=120, grace_seconds=2, is_failure=lambda report: False)
    report = children[1].report
    if report is None:
        raise RuntimeError("the link to be measured did not run")
    echo, stream = decode(report)
    return echo, stream


async def _talk(
    identities: list[Identity],
    rank: int,
    listener: socket.socket,
    session: bytes,
    echoes: int,
    pieces: int,
    repetitions: int,
) -> tuple[list[float], list[float]]:
    from parties.mesh import Member, Mesh, Patience

    host, port = listener.getsockname()
    members = [Member(identities[0].certificate, host, port), Member(identities[1].certificate)]
    echo_seconds, stream_seconds = [], []
    async with Mesh(
        identities[rank],
        rank,
        members,
        parties=2,
        session=session,
        listener=None if rank else listener,
        patience=Patience(resume_seconds=60),
    ) as mesh:
        for turn in range(repetitions):
            echo_seconds.append(await _echo(mesh, f"{turn}", echoes))
            stream_seconds.append(await _stream(mesh, f"{turn}", pieces))
    return echo_seconds, stream_seconds


async def _echo(mesh: Mesh, turn: str, echoes: int) -> float:
    payload = bytes(ECHO_BYTES)
    began = time.perf_counter()
    for number in range(echoes):
        step = f"echo {turn}.{number}"
        if mesh.rank:
            await mesh.send(0, step, payload)
            await mesh.receive(0, step, ECHO_BYTES)
        else:
            await mesh.receive(1, step, ECHO_BYTES)
            await mesh.send(1, step, payload)
    return (time.perf_counter() - began) / echoes


async def _stream(mesh: Mesh, turn: str, pieces: int) -> float:
    piece = bytes(PIECE_BYTES)
    began = time.perf_counter()
    for number in range(pieces):
        step = f"piece {turn}.{number}"
        if mesh.rank:
            await mesh.send(0, step, piece)
        else:
            await mesh.receive(1, step, PIECE_BYTES)
    if mesh.rank:
        await mesh.receive(0, f"all {turn}", 1)
    else:
        await mesh.send(1, f"all {turn}", b"x")
    return time.perf_counter() - began
