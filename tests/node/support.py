"""What tests of nodes share."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Run = Callable[[Awaitable[Any]], Any]


def on_uvloop(work: Awaitable[Any]) -> Any:
    """Like asyncio.run, on the loop that nodes use."""
    from parties.loops import loop_factory

    async def main() -> Any:
        return await work

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


def open_descriptors() -> int:
    """How many descriptors this process has open, beside the two that libuv keeps from its first loop on."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """Our children, zombies too, and theirs: whose parent or session leader is one of ours."""
    found = {os.getpid()}
    while True:
        more = {
            int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit() and _parent(place) in found
        }
        if more <= found:
            return found - {os.getpid()}
        found |= more


def _parent(place: Path) -> int:
    try:
        return int((place / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
