"""Every test of the relay's network runs on both event loops: asyncio's own and uvloop."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from parties.loops import loop_factory
from tests.relay.world import Run, World


@pytest.fixture(params=["asyncio", "uvloop"])
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
def world(tmp_path: Path) -> World:
    return World(tmp_path)
