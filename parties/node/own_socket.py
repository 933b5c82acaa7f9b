"""The socket on which a node serves its owner: how it is called, for both sides of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SOCKET_NAME = "node.sock"
# A path of a Unix socket is bounded by the system, at about 108 bytes.
_LONGEST_PATH = 100


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Lend a name for a socket that is short enough, however deep its directory lies."""
    if len(os.fsencode(path)) <= _LONGEST_PATH or not Path("/proc/self/fd").exists():
        yield str(path)
        return
    handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)
