"""The event loop of processes that compute: uvloop's, with one fault of it mended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes event loops: uvloop's, where there is one; None for asyncio's own.

    Notes
    -----
    When uvloop's ``create_connection(sock=...)`` fails, it closes the descriptor and leaves the socket object, which
    is aiohttp's, attached to its number. Whoever gets that number next loses his connection when the object is
    collected, or libuv ends the whole process ("uv__io_poll: Assertion `errno == EEXIST' failed"). A firewall that
    accepts and resets is enough. So the socket is detached here (MagicStack/uvloop#653).
    """
    if sys.platform == "win32":
        return None
    import uvloop

    class Loop(uvloop.Loop):
        async def create_connection(self, *args: Any, sock: Any = None, **options: Any) -> Any:
            try:
                return await super().create_connection(*args, sock=sock, **options)
            except BaseException:
                if sock is not None:
                    sock.detach()
                raise

    return Loop
