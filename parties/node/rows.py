"""How our rows get from the process that loads them to the one that computes: one table, over a Unix socket.

The process that computes asks once, when the dry run has gone well. What comes back is a table that was
checked against the study's schema, or what is wrong with it, without values.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import DataError, SottovoceError
from parties.codec import decode, encode
from parties.data.errors import SourceError
from parties.errors import CodecError
from parties.node.program import place_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parties.data.columns import Table

_ASKED = b"?"
_SIZE = struct.Struct("<Q")
_TEXT = 4000


class LoadError(DataError):
    """Our rows could not be loaded; the text is for their owner, and peers learn the type alone."""


# ---- the process that loads ---------------------------------------------------------------------


def wait_until_asked(sock: socket.socket) -> bool:
    """Wait for the process that computes; False if it ends instead."""
    return sock.recv(1) == _ASKED


def digest_of(table: Table, key: bytes) -> str:
    """Return a hash of a table, which tells nothing to who has not got the key.

    The order of the rows does not count: a database gives them as it likes.
    """
    hashing = hashlib.blake2b(key=key, digest_size=32, person=b"sottovoce.rows")
    bits = [_bits(values) for values in table.columns.values()]
    order = np.lexsort(bits) if bits else slice(None)
    for name, values in table.columns.items():
        hashing.update(f"{name}\n{values.dtype.str} {values.shape}\n".encode())
        hashing.update(np.ascontiguousarray(values[order]).tobytes())
    return hashing.hexdigest()


def _bits(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return what sorts values by their content alone, so that equal tables are sorted alike."""
    return np.ascontiguousarray(values).view(np.uint64) if values.dtype.itemsize == 8 else values.astype(np.uint64)


def give_table(sock: socket.socket, table: Table, digest: str | None = None) -> None:
    """Hand over a table and its hash."""
    content = {"columns": dict(table.columns), "rows": table.rows, "dropped": table.dropped, "digest": digest}
    _give(sock, encode({"table": content}))


def give_error(sock: socket.socket, error: BaseException) -> None:
    """Say why there is none: the text if that is ours, which is free of values, or else type and place."""
    text = str(error) if isinstance(error, SottovoceError) else f"{type(error).__name__} at {place_of(error)}"
    of_data = isinstance(error, DataError)
    _give(sock, encode({"error": type(error).__name__, "text": text[:_TEXT], "of_data": of_data}))


def _give(sock: socket.socket, content: bytes) -> None:
    sock.sendall(_SIZE.pack(len(content)))
    sock.sendall(content)


# ---- the process that computes ------------------------------------------------------------------


async def take_table(sock: socket.socket, *, limit: int) -> tuple[Table, str | None]:
    """Ask for our rows and receive them, with their hash.

    Parameters
    ----------
    sock : socket.socket
        To the process that loads them; closed at the end.
    limit : int
        Bytes that a table may have.

    Raises
    ------
    DataError
        The rows are not as the study's schema says.
    LoadError
        They cannot be loaded.
    """
    loop = asyncio.get_running_loop()
    with sock:
        sock.setblocking(False)
        try:
            await loop.sock_sendall(sock, _ASKED)
            (size,) = _SIZE.unpack(await _receive(sock, _SIZE.size))
            if size > limit:
                raise LoadError(f"our rows take {size} bytes, and the limit for a worker's memory leaves {limit}")
            content = await _receive(sock, size)
        except OSError:
            raise LoadError("the process that loads our rows ended without a word; see worker.stderr") from None
    try:
        taken = _table_in(decode(content))
    except (CodecError, KeyError, TypeError, ValueError):
        raise LoadError("the process that loads our rows gave something else") from None
    if isinstance(taken, DataError):
        raise taken
    return taken


async def _receive(sock: socket.socket, size: int) -> bytearray:
    loop = asyncio.get_running_loop()
    content = bytearray(size)
    view = memoryview(content)
    while view:
        count = await loop.sock_recv_into(sock, view)
        if count == 0:
            raise ConnectionResetError
        view = view[count:]
    return content


def _table_in(message: dict[str, Any]) -> tuple[Table, str | None] | DataError:
    if "error" in message:
        kind, text = str(message["error"]), str(message["text"])[:_TEXT]
        if message["of_data"]:
            return SourceError(text) if kind == SourceError.__name__ else DataError(text)
        return LoadError(f"our rows cannot be loaded: {text}")
    from parties.data.columns import Table

    given = message["table"]
    columns = {str(name): np.asarray(values) for name, values in given["columns"].items()}
    table = Table(columns=columns, rows=int(given["rows"]), dropped=int(given["dropped"]))
    return table, None if given["digest"] is None else str(given["digest"])
