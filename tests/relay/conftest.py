"""Every test of the relay's network runs on both event loops: asyncio's own and uvloop."""

from pathlib import Path

import pytest

from tests.parties.conftest import run
from tests.relay.world import World

__all__ = ["run"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
