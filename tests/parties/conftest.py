"""Every test of the network runs on both event loops: asyncio's own and uvloop."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from parties.loops import loop_factory
from tests.parties.consortium import Run

LOOPS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Like asyncio.run, on the loop of this turn."""

    def run_on_it(work: Awaitable[Any]) -> Any:
        factory = None
        if request.param == "uvloop":
            factory = loop_factory()

        async def main() -> Any:
            return await work

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    return run_on_it


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let SIGINT interrupt us, also where a shell that runs us in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
