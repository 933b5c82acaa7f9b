"""Tests of the network run on both event loops: asyncio's own and uvloop."""

import pytest

from parties.governance import consortium
from tests.parties.conftest import run

__all__ = ["run"]


@pytest.fixture(autouse=True)
def quick_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fingerprint is slow on purpose, a tenth of a second; here every node of every test makes some."""
    monkeypatch.setattr(consortium, "_STRETCH", 1)
